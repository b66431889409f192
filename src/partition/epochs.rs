//! Which leader epoch wrote which offsets: how a reader learns that what it read was cut away
//! (KIP-101, KIP-320).

use millstream_protocol::{LeaderEpoch, Offset};

/// Epochs of a log in ascending order, each with the offset of its first record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Epochs {
    starts: Vec<(LeaderEpoch, Offset)>,
}

impl Epochs {
    /// From what a log holds.
    ///
    /// # Panics
    /// If epochs or offsets do not ascend: the log that gave them is broken.
    #[must_use]
    pub fn new(starts: Vec<(LeaderEpoch, Offset)>) -> Self {
        let epochs = Self { starts };
        epochs.check();
        epochs
    }

    /// Notes that `epoch` appends at `offset`.
    pub fn appended(&mut self, epoch: LeaderEpoch, offset: Offset) {
        match self.starts.last() {
            Some((newest, _)) if *newest >= epoch => {}
            _ => self.starts.push((epoch, offset)),
        }
    }

    /// Forgets what begins at or after `end`.
    pub fn cut(&mut self, end: Offset) {
        self.starts.retain(|(_, start)| *start < end);
    }

    /// The largest epoch not above `epoch`, and the offset where it ends in a log that ends at
    /// `log_end`. If every epoch is above, `epoch` itself ends where the first of them begins: what
    /// it wrote was deleted, or cut away as a whole.
    #[must_use]
    pub fn end_of(&self, epoch: LeaderEpoch, log_end: Offset) -> (LeaderEpoch, Offset) {
        let after = self.starts.partition_point(|(known, _)| *known <= epoch);
        let found = after.checked_sub(1).map_or(epoch, |at| self.starts[at].0);
        let end = self.starts.get(after).map_or(log_end, |(_, start)| *start);
        (found, end)
    }

    /// Asserts that epochs and offsets ascend.
    ///
    /// # Panics
    /// If they do not.
    pub fn check(&self) {
        for pair in self.starts.windows(2) {
            assert!(pair[0].0 < pair[1].0, "epochs ascend: {pair:?}");
            assert!(pair[0].1 <= pair[1].1, "epoch starts ascend: {pair:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_an_epoch_is_the_start_of_the_next() {
        let mut epochs = Epochs::default();
        epochs.appended(LeaderEpoch(1), Offset(0));
        epochs.appended(LeaderEpoch(1), Offset(7));
        epochs.appended(LeaderEpoch(4), Offset(10));
        let end = Offset(25);
        assert_eq!(
            epochs.end_of(LeaderEpoch(0), end),
            (LeaderEpoch(0), Offset(0))
        );
        assert_eq!(
            epochs.end_of(LeaderEpoch(1), end),
            (LeaderEpoch(1), Offset(10))
        );
        assert_eq!(
            epochs.end_of(LeaderEpoch(3), end),
            (LeaderEpoch(1), Offset(10))
        );
        assert_eq!(epochs.end_of(LeaderEpoch(4), end), (LeaderEpoch(4), end));
        epochs.cut(Offset(10));
        assert_eq!(
            epochs.end_of(LeaderEpoch(4), Offset(10)),
            (LeaderEpoch(1), Offset(10))
        );
    }
}
