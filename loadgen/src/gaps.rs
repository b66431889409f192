//! Sequences that were skipped and may yet come: a set of ranges, bounded.

use std::collections::BTreeMap;

/// Ranges kept at most. A log torn into more pieces than this gives its gaps up in order.
const MAX_RANGES: usize = 1 << 20;

/// Disjoint half-open ranges.
#[derive(Clone, Debug, Default)]
pub struct Gaps {
    ranges: BTreeMap<u64, u64>,
    forgotten: u64,
}

impl Gaps {
    /// `from..until` was skipped; it lies above everything skipped before.
    pub fn skip(&mut self, from: u64, until: u64) {
        if from < until {
            self.ranges.insert(from, until);
        }
        if self.ranges.len() > MAX_RANGES
            && let Some((from, until)) = self.ranges.pop_first()
        {
            self.forgotten += until - from;
        }
    }

    /// `sequence` came after all: false if it was not missing.
    pub fn fill(&mut self, sequence: u64) -> bool {
        let Some((&from, &until)) = self.ranges.range(..=sequence).next_back() else {
            return false;
        };
        if until <= sequence {
            return false;
        }
        self.ranges.remove(&from);
        if from < sequence {
            self.ranges.insert(from, sequence);
        }
        if sequence + 1 < until {
            self.ranges.insert(sequence + 1, until);
        }
        true
    }

    /// What is still missing, in order.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, u64)> {
        self.ranges.iter().map(|(&from, &until)| (from, until))
    }

    /// How many sequences were missing in ranges that had to be given up.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filling_splits_and_empties() {
        let mut gaps = Gaps::default();
        gaps.skip(10, 15);
        gaps.skip(20, 20);
        assert!(gaps.fill(12));
        assert!(!gaps.fill(12), "filled twice");
        assert!(!gaps.fill(9));
        assert!(!gaps.fill(15));
        assert_eq!(gaps.ranges().collect::<Vec<_>>(), [(10, 12), (13, 15)]);
        for sequence in [10, 11, 14, 13] {
            assert!(gaps.fill(sequence));
        }
        assert_eq!(gaps.ranges().count(), 0);
    }
}
