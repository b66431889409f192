//! One producer's records for one partition, from sent to answered, one entry a batch.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
};

use millstream_client::{Delivered, Delivery, ProduceError};

/// Records of one batch: they share an outcome, so the first one's is awaited for all.
#[derive(Debug)]
struct Group {
    delivery: Delivery,
    count: u64,
    bytes: u64,
    /// (intended time, how many records), in order.
    intended: Vec<(i64, u64)>,
}

/// What became of one batch.
#[derive(Debug)]
pub struct Answer<'a> {
    /// How many records it had.
    pub count: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// When they were intended to be sent: (time, how many).
    pub intended: &'a [(i64, u64)],
    /// Where its first record is, or why it is nowhere.
    pub outcome: Result<Delivered, ProduceError>,
}

/// Batches in the order they were sent.
#[derive(Debug, Default)]
pub struct Lane {
    groups: VecDeque<Group>,
    spare: Vec<Vec<(i64, u64)>>,
    /// Sequence of the next record.
    pub next_sequence: u64,
}

impl Lane {
    /// A record of so many bytes was taken by the client.
    pub fn sent(&mut self, delivery: Delivery, intended_us: i64, bytes: u64) {
        self.next_sequence += 1;
        if let Some(group) = self.groups.back_mut()
            && group.delivery.shares_batch_with(&delivery)
        {
            group.count += 1;
            group.bytes += bytes;
            match group.intended.last_mut() {
                Some(last) if last.0 == intended_us => last.1 += 1,
                _ => group.intended.push((intended_us, 1)),
            }
            return;
        }
        let mut intended = self.spare.pop().unwrap_or_default();
        intended.push((intended_us, 1));
        self.groups.push_back(Group {
            delivery,
            count: 1,
            bytes,
            intended,
        });
    }

    /// Hands answered batches to `settle`, oldest first; true if there were any. A later batch waits
    /// for an earlier one, as the broker keeps their order.
    pub fn poll_settle(
        &mut self,
        context: &mut Context<'_>,
        mut settle: impl FnMut(Answer<'_>),
    ) -> bool {
        let mut any = false;
        while let Some(group) = self.groups.front_mut() {
            let Poll::Ready(outcome) = Pin::new(&mut group.delivery).poll(context) else {
                break;
            };
            settle(Answer {
                count: group.count,
                bytes: group.bytes,
                intended: &group.intended,
                outcome,
            });
            any = true;
            if let Some(mut group) = self.groups.pop_front() {
                group.intended.clear();
                self.spare.push(group.intended);
            }
        }
        any
    }
}
