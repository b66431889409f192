//! One group with all that is known of it, and what that takes of the shard's memory.

use std::{cell::Cell, rc::Rc};

use super::coordinator::Token;
use crate::{
    group::{Group, GroupRecord, offsets::Offsets},
    io::Monotonic,
};

/// About what a group takes besides its name, members and offsets, in bytes.
pub(super) const GROUP_SIZE: usize = 1 << 10;

/// Bytes that are taken of the memory for groups; dropped, they are given back.
#[derive(Debug)]
pub(super) struct Charge {
    used: Rc<Cell<usize>>,
    bytes: usize,
}

impl Charge {
    fn new(used: &Rc<Cell<usize>>) -> Self {
        Self {
            used: Rc::clone(used),
            bytes: 0,
        }
    }

    fn set(&mut self, bytes: usize) {
        self.used.set(self.used.get() - self.bytes + bytes);
        self.bytes = bytes;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// One group.
pub(super) struct Entry {
    pub(super) group: Group<Token>,
    pub(super) offsets: Offsets,
    /// When something is due although nothing happens, as the coordinator's queue has it.
    pub(super) due: Option<Monotonic>,
    /// Another group that comes under the same name has another.
    pub(super) life: u64,
    charge: Charge,
}

impl Entry {
    pub(super) fn new(
        group: Group<Token>,
        offsets: Offsets,
        life: u64,
        used: &Rc<Cell<usize>>,
    ) -> Self {
        let mut entry = Self {
            group,
            offsets,
            due: None,
            life,
            charge: Charge::new(used),
        };
        entry.recharge();
        entry
    }

    /// Charges what it takes now.
    pub(super) fn recharge(&mut self) {
        let size = GROUP_SIZE + self.group.id().len() + self.group.size() + self.offsets.size();
        self.charge.set(size);
    }

    /// Nothing is kept of it, and nobody is a member.
    pub(super) fn is_void(&self) -> bool {
        self.group.member_count() == 0
            && self.offsets.is_empty()
            && *self.group.record() == GroupRecord::default()
    }
}

#[cfg(test)]
mod tests {
    use millstream_protocol::{LeaderEpoch, Offset, TopicPartition};

    use super::*;
    use crate::group::{Epoch, offsets::Committed};

    #[test]
    fn all_that_was_charged_is_given_back() {
        let used = Rc::new(Cell::new(7));
        let group = Group::new("g".into(), Epoch(0), Rc::default(), GroupRecord::default());
        let mut entry = Entry::new(group, Offsets::default(), 1, &used);
        assert!(used.get() >= 7 + GROUP_SIZE && entry.is_void());
        let committed = Committed {
            offset: Offset(1),
            leader_epoch: LeaderEpoch(1),
            metadata: "x".repeat(100),
            commit_ms: 0,
        };
        let before = used.get();
        let at = TopicPartition::default();
        entry.offsets.begin(at, Some(&committed));
        entry.recharge();
        assert!(used.get() > before + 100 && !entry.is_void());
        let under_way = used.get();
        entry.offsets.end(at, Some(committed), true);
        entry.recharge();
        assert_eq!(used.get(), under_way);
        drop(entry);
        assert_eq!(used.get(), 7);
    }
}
