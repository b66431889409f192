//! The end of a recovery: what the partition says it has is over.
//!
//! Where a repair left a hole, or nothing is left that says what was delivered, a record that was due by then
//! may have been delivered or not. It counts as delivered: none is delivered twice.

use millstream_protocol::Offset;

use super::{Deliveries, recent::Entry, schedule::Schedule};

/// What a schedule starts from.
#[derive(Clone, Copy, Debug)]
pub struct Recovered {
    /// The delay log's start: nothing below can be delivered.
    pub start: Offset,
    /// Its end; all below is durable.
    pub end: Offset,
    /// The partition's end.
    pub partition_end: Offset,
}

/// Nobody knows of some records whether they were delivered; those in the index are yet to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Uncertain {
    /// Those that were due by then.
    pub until_ms: i64,
    /// What checkpoints may say meanwhile.
    pub delivered_below: Offset,
    /// How many of them there were so far.
    pub count: u64,
}

impl Schedule {
    /// Deliveries of the partition from here on are wanted of it. A partition that ends before that is not the
    /// one that was known.
    #[must_use]
    pub fn deliveries_wanted(&self, partition_end: Offset) -> Offset {
        self.delivered_below.min(partition_end)
    }

    /// A part of the partition was read once more, up to this offset of it: it has these.
    pub fn delivered_before(&mut self, part: &Deliveries, up_to: Offset) {
        self.take_in(part);
        self.doubt(part.unknown_until_ms(Offset::ZERO));
        self.delivered_below = self.delivered_below.max(up_to);
    }

    /// Recovery has given everything: what the partition says it has is over. False if the partition does
    /// not know as much as it must.
    #[must_use]
    pub fn settle(&mut self, recovered: Recovered, deliveries: &Deliveries) -> bool {
        self.delivered_below = self.deliveries_wanted(recovered.partition_end);
        let known = deliveries.covered_from() <= self.delivered_below;
        self.take_in(deliveries);
        self.doubt(deliveries.unknown_until_ms(self.delivered_below));
        self.pending.cut_below(recovered.start);
        self.recovering = false;
        self.end = self.end.max(recovered.end);
        self.persisted(self.end);
        if self.uncertain.is_some() {
            let waiting = self.waiting.iter();
            let waiting: Vec<Entry> = waiting
                .map(|((due_ms, offset), id)| Entry {
                    due_ms: *due_ms,
                    offset: *offset,
                    id: *id,
                })
                .collect();
            for entry in waiting {
                self.is_doubtful(entry);
            }
        }
        known
    }

    fn take_in(&mut self, deliveries: &Deliveries) {
        for (due_ms, offset) in deliveries.since(self.delivered_below) {
            if let Some(id) = self.waiting.remove(&(*due_ms, *offset)) {
                self.over(Entry {
                    due_ms: *due_ms,
                    offset: *offset,
                    id,
                });
            }
            self.pending.remove(*offset);
        }
    }

    fn doubt(&mut self, until_ms: Option<i64>) {
        let Some(until_ms) = until_ms else { return };
        let delivered_below = self.delivered_below();
        let uncertain = self.uncertain.get_or_insert(Uncertain {
            until_ms,
            delivered_below,
            count: 0,
        });
        uncertain.until_ms = uncertain.until_ms.max(until_ms);
    }

    /// Whether nobody knows if it was delivered: then it counts as that.
    pub(super) fn is_doubtful(&mut self, entry: Entry) -> bool {
        let Some(uncertain) = &mut self.uncertain else {
            return false;
        };
        if entry.due_ms > uncertain.until_ms {
            return false;
        }
        if self.pending.contains(entry.offset) {
            uncertain.count += 1;
            self.over(entry);
        }
        true
    }

    /// Every record was looked at. How many count as delivered since nobody knows.
    pub fn all_certain(&mut self) -> u64 {
        self.uncertain.take().map_or(0, |uncertain| uncertain.count)
    }
}

#[cfg(test)]
mod tests {
    use millstream_protocol::{
        LeaderEpoch,
        batch::{BatchHeader, gap},
    };

    use super::*;
    use crate::delay::IdHash;

    fn entry(at: i64, due_ms: i64) -> Entry {
        Entry {
            due_ms,
            offset: Offset(at),
            id: IdHash(1, at.unsigned_abs() + 1),
        }
    }

    /// Ten records wait, due at 100, 200 and so on; the later half is in a run on disk.
    fn ten() -> Schedule {
        let mut schedule = Schedule::new((1, 2));
        for at in 0..10 {
            schedule.wait(entry(at, at * 100 + 100));
            schedule.pending.insert(Offset(at));
        }
        schedule.end = Offset(10);
        schedule.persisted(schedule.end);
        schedule.spill_at = 1;
        let (number, _) = schedule.spill().expect("much is in memory");
        schedule.run_written(number);
        schedule.delivered(Offset(50));
        Schedule::restore(&schedule.snapshot(), (3, 4)).expect("its own")
    }

    fn recovered(start: i64, partition_end: i64) -> Recovered {
        Recovered {
            start: Offset(start),
            end: Offset(10),
            partition_end: Offset(partition_end),
        }
    }

    fn with_hole(first: i64, next: i64, until_ms: i64) -> Deliveries {
        let mut deliveries = Deliveries::without_checkpoint();
        let hole = gap(Offset(first), Offset(next), LeaderEpoch(0));
        let header = BatchHeader::decode(&hole).expect("a batch");
        deliveries.batch(&header, &hole, 0);
        deliveries.all_read(until_ms);
        deliveries
    }

    #[test]
    fn what_may_have_been_delivered_in_a_hole_is_not_delivered_again() {
        let mut schedule = ten();
        assert!(schedule.settle(recovered(0, 90), &with_hole(0, 80, 600)));
        let below = schedule.delivered_below();
        assert_eq!(below, Offset(50));
        schedule.delivered(Offset(90));
        assert_eq!(
            schedule.delivered_below(),
            below,
            "not before all were looked at"
        );
        let run: Vec<Entry> = (0..10).map(|at| entry(at, at * 100 + 100)).collect();
        schedule.know_ids(&run);
        schedule.runs_known();
        assert_eq!(schedule.all_certain(), 6);
        assert_eq!(schedule.pending(), 4);
        assert_eq!(schedule.needed_from(), Some(Offset(6)));
        assert_eq!(schedule.delivered_below(), Offset(90));
    }

    #[test]
    fn a_hole_that_was_known_of_doubts_nobody() {
        let mut schedule = ten();
        assert!(schedule.settle(recovered(0, 90), &with_hole(0, 50, 600)));
        assert_eq!((schedule.all_certain(), schedule.pending()), (0, 10));
    }

    #[test]
    fn what_lies_below_the_start_and_a_partition_that_begins_anew_hold_up_nobody() {
        let mut schedule = ten();
        assert!(schedule.settle(recovered(3, 0), &Deliveries::default()));
        assert_eq!(schedule.pending(), 7);
        assert_eq!(schedule.delivered_below(), Offset::ZERO);
    }
}
