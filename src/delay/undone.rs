//! Records that something not yet durable took out: they are over when it is durable, and wait again if the
//! log refuses it. Until then the delay log is needed from them on.

use std::collections::{BTreeMap, BTreeSet};

use millstream_protocol::Offset;

use super::recent::{Entry, IdHash};

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Undone {
    /// What took it out: a note, or the record that replaces it.
    pub by: Offset,
    pub offset: Offset,
    pub id: IdHash,
    /// Its place, if it came to the head of the line meanwhile.
    pub entry: Option<Entry>,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub(super) struct AllUndone {
    by_offset: BTreeMap<Offset, Undone>,
    /// In the order of what took them out, which is that in which it becomes durable.
    by_cause: BTreeSet<(Offset, Offset)>,
    by_id: BTreeSet<(IdHash, Offset)>,
}

impl AllUndone {
    /// Adds one that is not there.
    pub fn add(&mut self, undone: Undone) {
        self.by_cause.insert((undone.by, undone.offset));
        self.by_id.insert((undone.id, undone.offset));
        let before = self.by_offset.insert(undone.offset, undone);
        assert!(before.is_none(), "taken out once");
    }

    fn remove(&mut self, offset: Offset) -> Undone {
        let undone = self.by_offset.remove(&offset).expect("it is there");
        self.by_cause.remove(&(undone.by, offset));
        self.by_id.remove(&(undone.id, offset));
        undone
    }

    pub fn contains(&self, offset: Offset) -> bool {
        self.by_offset.contains_key(&offset)
    }

    /// Whether a record of this id is among them.
    pub fn has_id(&self, id: IdHash) -> bool {
        let all = (id, Offset(i64::MIN))..=(id, Offset(i64::MAX));
        self.by_id.range(all).next().is_some()
    }

    /// It has come to the head of the line, or its place has been found again.
    pub fn place(&mut self, entry: Entry) {
        if let Some(undone) = self.by_offset.get_mut(&entry.offset) {
            undone.entry = Some(entry);
        }
    }

    /// Takes out the next one whose cause lies below `end`.
    pub fn pop_below(&mut self, end: Offset) -> Option<Undone> {
        let (by, offset) = *self.by_cause.first()?;
        (by < end).then(|| self.remove(offset))
    }

    /// Takes out one whose cause lies at `end` or above.
    pub fn pop_from(&mut self, end: Offset) -> Option<Undone> {
        let (by, offset) = *self.by_cause.last()?;
        (by >= end).then(|| self.remove(offset))
    }

    /// The least delay id of them.
    pub fn first(&self) -> Option<Offset> {
        self.by_offset.first_key_value().map(|(offset, _)| *offset)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Undone> {
        self.by_offset.values()
    }
}
