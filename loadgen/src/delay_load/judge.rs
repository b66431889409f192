//! Judges what was delivered: each record once, none early, those of a partition in order of their due
//! times, and how late. Pure.

use std::collections::BTreeMap;

use millstream_client::PartitionIndex;

use crate::meter::Sample;

/// A delivered record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub partition: PartitionIndex,
    /// What its value says.
    pub number: u64,
    pub due_ms: i64,
    /// When the broker says that it delivered it.
    pub delivered_ms: i64,
    /// When it was read.
    pub at_us: i64,
    /// It was accepted well before it was due: its lateness is the broker's own.
    pub counts: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Judge {
    /// A bit for each number that was seen.
    seen: Vec<u64>,
    pub count: u64,
    pub distinct: u64,
    pub early: u64,
    pub repeated: u64,
    pub foreign: u64,
    pub disordered: u64,
    /// Accepted too late for their lateness to count.
    pub rushed: u64,
    last_due_ms: BTreeMap<PartitionIndex, i64>,
    /// By the broker's clock, in microseconds.
    pub late: Sample,
    /// Until a consumer had it.
    pub seen_late: Sample,
    pub last_at_us: i64,
}

impl Judge {
    /// Of so many records, numbered from 0.
    pub fn of(records: u64) -> Self {
        let words = usize::try_from(records.div_ceil(64)).expect("bits for all fit memory");
        Self {
            seen: vec![0; words],
            count: records,
            distinct: 0,
            early: 0,
            repeated: 0,
            foreign: 0,
            disordered: 0,
            rushed: 0,
            last_due_ms: BTreeMap::new(),
            late: Sample::default(),
            seen_late: Sample::default(),
            last_at_us: 0,
        }
    }

    pub fn hear(&mut self, it: Seen) {
        if it.number >= self.count {
            self.foreign += 1;
            return;
        }
        let word = usize::try_from(it.number / 64).expect("within the bits");
        let bit = 1 << (it.number % 64);
        if self.seen[word] & bit != 0 {
            self.repeated += 1;
            return;
        }
        self.seen[word] |= bit;
        self.distinct += 1;
        self.last_at_us = self.last_at_us.max(it.at_us);
        self.early += u64::from(it.delivered_ms < it.due_ms);
        if !it.counts {
            self.rushed += 1;
            return;
        }
        let last = self.last_due_ms.entry(it.partition).or_insert(i64::MIN);
        self.disordered += u64::from(it.due_ms < *last);
        *last = it.due_ms.max(*last);
        let due_us = it.due_ms.saturating_mul(1_000);
        self.late
            .latency(due_us, it.delivered_ms.saturating_mul(1_000), 1);
        self.seen_late.latency(due_us, it.at_us, 1);
    }

    pub fn missing(&self) -> u64 {
        self.count - self.distinct
    }

    pub fn is_sound(&self) -> bool {
        self.missing() + self.early + self.repeated + self.foreign + self.disordered == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(number: u64, due_ms: i64, delivered_ms: i64) -> Seen {
        Seen {
            partition: PartitionIndex(0),
            number,
            due_ms,
            delivered_ms,
            at_us: delivered_ms * 1_000 + 500,
            counts: true,
        }
    }

    #[test]
    fn each_fault_is_told_apart() {
        let mut judge = Judge::of(4);
        judge.hear(seen(0, 100, 103));
        judge.hear(seen(1, 110, 112));
        assert!(!judge.is_sound());
        assert_eq!(judge.missing(), 2);
        judge.hear(seen(1, 110, 112));
        judge.hear(seen(2, 105, 112));
        judge.hear(seen(3, 120, 119));
        judge.hear(seen(4, 120, 121));
        let faults = (judge.repeated, judge.disordered, judge.early, judge.foreign);
        assert_eq!(faults, (1, 1, 1, 1));
        assert_eq!(judge.missing(), 0);
        assert!(!judge.is_sound());
    }

    #[test]
    fn lateness_is_told_by_both_clocks() {
        let mut judge = Judge::of(2);
        judge.hear(seen(0, 100, 103));
        judge.hear(Seen {
            counts: false,
            ..seen(1, 1, 900_000)
        });
        assert!(judge.is_sound());
        assert_eq!(judge.rushed, 1);
        assert_eq!(judge.late.latency_us.len(), 1);
        assert_eq!(judge.late.latency_us.max(), 3_001);
        assert_eq!(judge.seen_late.latency_us.max() / 10, 350);
    }
}
