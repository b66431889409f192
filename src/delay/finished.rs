//! What became lately of records that someone may ask for again: those with an id, and those cancelled.

use std::collections::{BTreeMap, VecDeque};

use millstream_protocol::{DecodeError, Offset, Reader, Wire};

use super::recent::IdHash;

/// Most that are remembered; the oldest go first.
const REMEMBERED: usize = 16_384;

/// A record that waits no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub offset: Offset,
    pub id: IdHash,
    /// Delivered, or else cancelled or replaced.
    pub delivered: bool,
}

/// The last ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Finished {
    order: VecDeque<End>,
    by_offset: BTreeMap<Offset, bool>,
    /// The newest of each id.
    by_id: BTreeMap<IdHash, Offset>,
}

impl Finished {
    pub fn add(&mut self, end: End) {
        if self.by_offset.contains_key(&end.offset) {
            // What became of it first is what became of it.
            return;
        }
        self.by_offset.insert(end.offset, end.delivered);
        if end.id != IdHash::NONE {
            // At a start they do not come in order.
            let newest = self.by_id.entry(end.id).or_insert(end.offset);
            *newest = end.offset.max(*newest);
        }
        self.order.push_back(end);
        if self.order.len() > REMEMBERED {
            let oldest = self.order.pop_front().expect("there are many");
            self.by_offset.remove(&oldest.offset);
            if self.by_id.get(&oldest.id) == Some(&oldest.offset) {
                self.by_id.remove(&oldest.id);
            }
        }
    }

    /// Whether the record was delivered, if it is remembered.
    pub fn of_offset(&self, offset: Offset) -> Option<bool> {
        self.by_offset.get(&offset).copied()
    }

    /// The newest record of an id.
    pub fn of_id(&self, id: IdHash) -> Option<(Offset, bool)> {
        let offset = *self.by_id.get(&id)?;
        Some((offset, self.of_offset(offset)?))
    }
}

impl Wire for Finished {
    const MIN_SIZE: usize = 4;

    fn encode(&self, out: &mut Vec<u8>) {
        u32::try_from(self.order.len()).expect("few").encode(out);
        for end in &self.order {
            end.offset.encode(out);
            end.id.encode(out);
            end.delivered.encode(out);
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut finished = Self::default();
        for _ in 0..u32::decode(reader)? {
            finished.add(End {
                offset: Wire::decode(reader)?,
                id: Wire::decode(reader)?,
                delivered: Wire::decode(reader)?,
            });
        }
        Ok(finished)
    }
}
