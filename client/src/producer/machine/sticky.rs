//! Where the records without a place of their own go: to one partition until a batch of it is done,
//! then to the one that has had the least.
//!
//! Least is meant in bytes, so that all get the same however often their batches leave half full
//! (KIP-794). What a slow partition takes counts more: bytes are weighed by the batches that queue
//! there when a visit ends. A partition that was away, or is new, begins where the others are,
//! and does not catch up.

use std::collections::BTreeSet;

use super::batch::BatchId;

#[derive(Debug)]
pub(super) struct Sticky {
    /// Decides among those that have had the same, so that not every producer begins with the same
    /// partition: many write one record and end.
    seed: u64,
    count: usize,
    /// All but the one that is visited.
    waiting: BTreeSet<Turn>,
    visited: Option<Visit>,
}

/// Ordered by what the partition has had, weighed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    had: u64,
    lot: u64,
    index: usize,
}

#[derive(Debug)]
struct Visit {
    turn: Turn,
    /// The batch that the last record went into.
    batch: Option<BatchId>,
    bytes: u64,
}

impl Sticky {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            count: 0,
            waiting: BTreeSet::new(),
            visited: None,
        }
    }

    /// Takes in new partitions.
    pub(super) fn grow(&mut self, count: usize) {
        let had = self.visited.as_ref().map_or(0, |visit| visit.turn.had);
        for index in self.count..count {
            let lot = lot(self.seed, index);
            self.waiting.insert(Turn { had, lot, index });
        }
        self.count = self.count.max(count);
    }

    /// The partition visited, and the batch that the last record went into.
    pub(super) fn visited(&self) -> Option<(usize, Option<BatchId>)> {
        let visit = self.visited.as_ref()?;
        Some((visit.turn.index, visit.batch))
    }

    /// Ends the visit and begins the next. There is at least one partition.
    pub(super) fn move_on(
        &mut self,
        is_available: impl Fn(usize) -> bool,
        queued_batches: impl Fn(usize) -> usize,
    ) -> usize {
        let mut floor = 0;
        if let Some(visit) = self.visited.take() {
            floor = visit.turn.had;
            let weight = 1 + queued_batches(visit.turn.index) as u64;
            let had = floor.saturating_add(visit.bytes.saturating_mul(weight));
            self.waiting.insert(Turn { had, ..visit.turn });
        }
        let mut in_turn = self.waiting.iter();
        let available = in_turn.find(|turn| is_available(turn.index));
        let next = available.or(self.waiting.first()).copied();
        let mut turn = next.expect("a topic has a partition");
        self.waiting.remove(&turn);
        turn.had = turn.had.max(floor);
        self.visited = Some(Visit {
            turn,
            batch: None,
            bytes: 0,
        });
        turn.index
    }

    /// A record went to the partition visited.
    pub(super) fn took(&mut self, batch: BatchId, bytes: usize) {
        let visit = self.visited.as_mut().expect("a record sticks by a visit");
        visit.batch = Some(batch);
        visit.bytes += bytes as u64;
    }
}

/// A number that nothing is known of but that it is the same for the same seed and index
/// (splitmix64, Steele et al. 2014).
fn lot(seed: u64, index: usize) -> u64 {
    let step = (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut mixed = seed.wrapping_add(step);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Visits, each of so many bytes; how many bytes each partition got.
    fn visits(
        sticky: &mut Sticky,
        count: usize,
        bytes: impl Fn(usize) -> usize,
        queued: impl Fn(usize) -> usize,
        is_away: impl Fn(usize) -> bool,
    ) -> Vec<usize> {
        let mut got = vec![0; sticky.count];
        for number in 0..count {
            let index = sticky.move_on(|index| !is_away(index), &queued);
            let bytes = bytes(index);
            sticky.took(BatchId(number as u64), bytes);
            got[index] += bytes;
        }
        got
    }

    fn sticky(seed: u64, count: usize) -> Sticky {
        let mut sticky = Sticky::new(seed);
        sticky.grow(count);
        sticky
    }

    #[test]
    fn all_get_the_same_even_if_the_batches_of_some_are_larger() {
        let size = |index| 100 * (1 + index);
        let got = visits(&mut sticky(7, 4), 2000, size, |_| 0, |_| false);
        let least = got.iter().min().expect("four");
        let most = got.iter().max().expect("four");
        assert!(most - least <= 400, "{got:?}");
    }

    #[test]
    fn a_slow_partition_gets_less() {
        let queued = |index| if index == 2 { 9 } else { 1 };
        let got = visits(&mut sticky(7, 4), 1600, |_| 100, queued, |_| false);
        // It counts 10, the others 2: a fifth of what they get.
        assert_eq!(got[2] / 100, 100, "{got:?}");
        assert_eq!(got[0] / 100, 500, "{got:?}");
    }

    #[test]
    fn one_that_was_away_or_is_new_does_not_catch_up() {
        let mut sticky = sticky(7, 3);
        let away = |index| index == 1;
        let got = visits(&mut sticky, 1000, |_| 100, |_| 0, away);
        assert_eq!(got, [50_000, 0, 50_000]);
        sticky.grow(4);
        let got = visits(&mut sticky, 400, |_| 100, |_| 0, |_| false);
        // One visit more or less.
        let same = |bytes: &usize| (9_900..=10_100).contains(bytes);
        assert!(got.iter().all(same), "{got:?}");
    }

    #[test]
    fn where_all_are_away_records_go_on_in_turn() {
        let got = visits(&mut sticky(7, 3), 300, |_| 100, |_| 0, |_| true);
        assert_eq!(got, [10_000; 3]);
    }

    #[test]
    fn producers_begin_with_different_partitions() {
        let first = |seed| sticky(seed, 8).move_on(|_| true, |_| 0);
        let firsts: BTreeSet<usize> = (1..200).map(first).collect();
        assert_eq!(firsts.len(), 8);
    }
}
