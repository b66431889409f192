//! One partition of a topic that is produced to: its batches in order, and when the next may go.

use std::{collections::VecDeque, time::Duration};

use super::{
    MAX_IDEMPOTENT_IN_FLIGHT,
    batch::{Batch, BatchId, BatchState, Identity},
};
use crate::metadata::{Leader, Node};

/// How long a broker is sure to remember a producer that is silent; it does for a day.
pub(super) const REMEMBERED_FOR: Duration = Duration::from_secs(3600);

/// Batches in the order of their records. Those in flight come first, unless one of them came back
/// to be tried again: then nothing goes until the ones behind it are back too. So a retry never
/// overtakes, and is never overtaken.
#[derive(Debug)]
pub(super) struct Partition<H> {
    pub leader: Option<Leader>,
    pub batches: VecDeque<Batch<H>>,
    pub in_flight: usize,
    /// Where the batches in flight are. Another leader gets nothing before they are back.
    pub in_flight_node: Option<Node>,
    /// Identity that the sequences here belong to.
    pub identity: Option<Identity>,
    pub next_sequence: i32,
    /// Until when the broker can be trusted to know that identity here. One that it does not know may
    /// begin with any sequence: then a batch must not be taken while the one before it is refused.
    pub known_until: Duration,
    /// Batches that got a stamp so far.
    pub stamp_count: u64,
    /// A batch failed for good after it got its sequence: the broker may miss it.
    pub gap_possible: bool,
    /// The broker refused a sequence that should be right: begin a new identity once nothing is in
    /// flight.
    pub reset_wanted: bool,
    pub failures: u32,
    pub backoff_until: Option<Duration>,
    /// Size of the last full batch: how much room the next one gets at once.
    pub capacity_hint: usize,
}

/// Why a partition sends nothing now, or that it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    /// Its next batch may go to this shard.
    Ready(Node),
    /// Nothing to do, or something in flight has to come back first.
    Blocked,
    /// At this time it may be ready.
    Until(Duration),
    /// Nobody is known to lead it.
    NoLeader,
    /// It needs an identity first.
    NoIdentity,
}

/// What readiness depends on beside the partition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conditions {
    pub now: Duration,
    pub linger: Duration,
    /// Batches before this one don't linger.
    pub flush_before: BatchId,
    /// Someone waits for room: nothing lingers.
    pub hurry: bool,
    pub idempotent: bool,
    pub has_identity: bool,
}

impl<H> Partition<H> {
    pub(super) fn new(leader: Option<Leader>) -> Self {
        Self {
            leader,
            batches: VecDeque::new(),
            in_flight: 0,
            in_flight_node: None,
            identity: None,
            next_sequence: 0,
            known_until: Duration::ZERO,
            stamp_count: 0,
            gap_possible: false,
            reset_wanted: false,
            failures: 0,
            backoff_until: None,
            capacity_hint: 0,
        }
    }

    pub(super) fn readiness(&self, on: &Conditions) -> Readiness {
        let Some(next) = self.batches.get(self.in_flight) else {
            return Readiness::Blocked;
        };
        // With one of the first `in_flight` batches waiting, one behind them is still out.
        let in_order = self.batches.iter().take(self.in_flight);
        if !in_order.into_iter().all(Batch::is_in_flight) {
            return Readiness::Blocked;
        }
        // Only sequences keep several batches in order across a retry, once the broker has the first.
        let is_known = on.now < self.known_until;
        let alone = !on.idempotent || self.reset_wanted || !is_known;
        if self.in_flight > 0 && alone {
            return Readiness::Blocked;
        }
        if next.stamp.is_none() && self.would_push_oldest_out() {
            return Readiness::Blocked;
        }
        if let Some(until) = self.backoff_until.filter(|until| *until > on.now) {
            return Readiness::Until(until);
        }
        if next.is_open() && !on.hurry && next.id >= on.flush_before {
            let due = next.created_at + on.linger;
            if due > on.now {
                return Readiness::Until(due);
            }
        }
        let Some(leader) = self.leader else {
            return Readiness::NoLeader;
        };
        if self.in_flight_node.is_some_and(|node| node != leader.node) {
            return Readiness::Blocked;
        }
        if on.idempotent && self.identity.is_none() && !on.has_identity {
            return Readiness::NoIdentity;
        }
        Readiness::Ready(leader.node)
    }

    /// Whether another stamped batch might make the broker forget the oldest one that is not settled,
    /// so that a repetition of it could not be told from something new. Batches behind the oldest
    /// settle, too: it is not enough that few are in flight.
    fn would_push_oldest_out(&self) -> bool {
        let oldest = self.batches.front().filter(|batch| batch.stamp.is_some());
        oldest.is_some_and(|batch| {
            self.stamp_count - batch.stamp_number >= MAX_IDEMPOTENT_IN_FLIGHT as u64
        })
    }

    /// Forgets sequences given out under the old identity. Nothing is in flight.
    pub(super) fn reset(&mut self) {
        assert_eq!(self.in_flight, 0, "no reset with batches in flight");
        self.reset_wanted = false;
        self.gap_possible = false;
        self.identity = None;
        self.next_sequence = 0;
        self.known_until = Duration::ZERO;
        for batch in &mut self.batches {
            batch.stamp = None;
        }
    }

    /// A batch came back, for whatever reason.
    pub(super) fn landed(&mut self, index: usize) {
        let batch = &mut self.batches[index];
        assert!(batch.is_in_flight(), "only a batch in flight lands");
        batch.state = BatchState::Waiting;
        self.in_flight -= 1;
        if self.in_flight == 0 {
            self.in_flight_node = None;
        }
    }

    pub(super) fn index_of(&self, id: BatchId) -> Option<usize> {
        // What is asked for is most often in flight, so among the first of perhaps very many.
        let first = self.batches.iter().take(self.in_flight);
        if let Some(index) = first.into_iter().position(|batch| batch.id == id) {
            return Some(index);
        }
        self.batches
            .binary_search_by_key(&id, |batch| batch.id)
            .ok()
    }

    /// Takes a newer leader. False if nothing is new.
    pub(super) fn set_leader(&mut self, leader: Leader) -> bool {
        let newer = self.leader.is_none_or(|known| {
            leader.epoch > known.epoch || (leader.epoch == known.epoch && leader != known)
        });
        if newer {
            self.leader = Some(leader);
        }
        newer
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        let in_flight = self.batches.iter().filter(|batch| batch.is_in_flight());
        assert_eq!(in_flight.count(), self.in_flight);
        assert_eq!(self.in_flight == 0, self.in_flight_node.is_none());
        assert!(self.batches.iter().is_sorted_by_key(|batch| batch.id));
        for (index, batch) in self.batches.iter().enumerate() {
            let last = index + 1 == self.batches.len();
            assert!(last || !batch.is_open(), "only the last batch is open");
            assert!(batch.record_count > 0, "a batch has a record");
            let encoding = matches!(batch.payload, super::batch::Payload::Encoding);
            assert!(
                batch.is_in_flight() || !encoding,
                "what waits has its records"
            );
            let stamped = batch.stamp.is_some();
            assert!(!(batch.is_open() && stamped), "an open batch has no stamp");
        }
    }
}
