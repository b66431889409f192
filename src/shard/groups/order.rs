//! Appends of one partition in the order in which they began, though they end in any: what is refused
//! ends at once, before what is still on its way to the disk.

use std::collections::BTreeSet;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Appends {
    begun: u64,
    /// This one has ended, and all before it.
    ended: u64,
    /// Ended before one that began earlier.
    early: BTreeSet<u64>,
}

impl Appends {
    /// Begins one; its number.
    pub(super) fn begin(&mut self) -> u64 {
        self.begun += 1;
        self.begun
    }

    /// Ends one.
    pub(super) fn end(&mut self, number: u64) {
        self.early.insert(number);
        while self.early.remove(&(self.ended + 1)) {
            self.ended += 1;
        }
    }

    /// The number of the newest.
    pub(super) fn begun(&self) -> u64 {
        self.begun
    }

    /// Whether this one and all before it have ended.
    pub(super) fn have_ended(&self, number: u64) -> bool {
        self.ended >= number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_at_once_does_not_stand_for_what_is_under_way() {
        let mut appends = Appends::default();
        assert!(appends.have_ended(appends.begun()));
        let first = appends.begin();
        let refused = appends.begin();
        appends.end(refused);
        assert!(!appends.have_ended(first) && !appends.have_ended(refused));
        let third = appends.begin();
        appends.end(first);
        assert!(appends.have_ended(first) && appends.have_ended(refused));
        assert!(!appends.have_ended(third));
        appends.end(third);
        assert!(appends.have_ended(appends.begun()));
    }
}
