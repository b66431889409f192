//! The newest offset of each key, in bounded memory: what compaction knows of the part of a log that it
//! has not been through yet.
//!
//! Keys are kept as keyed 128-bit hashes. The seed is drawn anew for each pass, so nobody can prepare
//! two keys that hash alike; by chance that takes more keys than a disk holds.

use std::hash::Hasher as _;

use millstream_protocol::Offset;
use siphasher::sip128::{Hasher128 as _, SipHasher13};

/// Slots of an empty map.
const FIRST_SLOTS: usize = 1 << 10;
/// Of eight slots so many are used at most.
const USED_OF_EIGHT: usize = 6;

#[derive(Clone, Copy)]
struct Slot {
    hash: [u64; 2],
    /// -1 in a slot that is free.
    offset: i64,
}

const FREE: Slot = Slot {
    hash: [0; 2],
    offset: -1,
};

/// The newest offset of each key.
pub(super) struct KeyMap {
    seed: (u64, u64),
    /// A power of two of them, probed one after the other.
    slots: Vec<Slot>,
    used: usize,
    most_slots: usize,
}

impl KeyMap {
    /// An empty map that never takes more than `memory` bytes, but for the least that works.
    pub fn new(memory: usize, seed: (u64, u64)) -> Self {
        // While it grows there are two tables, of which the old one is half the size.
        let most = memory * 2 / 3 / size_of::<Slot>();
        let most_slots = match most {
            0..8 => 8,
            _ => 1 << most.ilog2(),
        };
        Self {
            seed,
            slots: vec![FREE; FIRST_SLOTS.min(most_slots)],
            used: 0,
            most_slots,
        }
    }

    /// No key is in it.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Notes that `key` occurs at `offset`, the largest so far; false if it is new and there is no
    /// room for it.
    #[must_use]
    pub fn insert(&mut self, key: &[u8], offset: Offset) -> bool {
        let hash = self.hash(key);
        let mut at = self.place_of(hash);
        if self.slots[at].offset < 0 {
            if (self.used + 1) * 8 > self.slots.len() * USED_OF_EIGHT {
                if self.slots.len() == self.most_slots {
                    return false;
                }
                self.grow();
                at = self.place_of(hash);
            }
            self.used += 1;
        }
        self.slots[at] = Slot {
            hash,
            offset: offset.0,
        };
        true
    }

    /// The newest offset of `key`, if it is in the map.
    pub fn newest(&self, key: &[u8]) -> Option<Offset> {
        if self.is_empty() {
            return None;
        }
        let slot = self.slots[self.place_of(self.hash(key))];
        (slot.offset >= 0).then_some(Offset(slot.offset))
    }

    fn grow(&mut self) {
        let larger = vec![FREE; self.slots.len() * 2];
        for slot in std::mem::replace(&mut self.slots, larger) {
            if slot.offset >= 0 {
                let at = self.place_of(slot.hash);
                self.slots[at] = slot;
            }
        }
    }

    /// Where the hash is, or would be; there is always a free slot.
    fn place_of(&self, hash: [u64; 2]) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = usize::try_from(hash[0] & mask as u64).expect("an index");
        while self.slots[at].offset >= 0 && self.slots[at].hash != hash {
            at = (at + 1) & mask;
        }
        at
    }

    fn hash(&self, key: &[u8]) -> [u64; 2] {
        let mut hasher = SipHasher13::new_with_keys(self.seed.0, self.seed.1);
        hasher.write(key);
        let hash = hasher.finish128();
        [hash.h1, hash.h2]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_and_knows_the_newest_offset_of_each_key() {
        let mut map = KeyMap::new(16 << 20, (1, 2));
        assert_eq!(map.newest(b"1"), None);
        for round in 0..3 {
            for key in 0..10_000_i64 {
                let offset = Offset(round * 10_000 + key);
                assert!(map.insert(&key.to_le_bytes(), offset));
            }
        }
        for key in 0..10_000_i64 {
            let newest = map.newest(&key.to_le_bytes());
            assert_eq!(newest, Some(Offset(20_000 + key)));
        }
        assert_eq!(map.newest(b""), None);
        assert!(map.insert(b"", Offset(7)));
        assert_eq!(map.newest(b""), Some(Offset(7)));
    }

    #[test]
    fn a_full_map_takes_no_new_key_and_still_moves_old_ones() {
        let memory = 64 << 10;
        let mut map = KeyMap::new(memory, (3, 4));
        let mut count = 0_i64;
        while map.insert(&count.to_le_bytes(), Offset(count)) {
            count += 1;
        }
        assert!(count > 500, "{count}");
        assert!(map.slots.capacity() * size_of::<Slot>() * 3 / 2 <= memory);
        assert!(map.insert(&0_i64.to_le_bytes(), Offset(count)));
        assert_eq!(map.newest(&0_i64.to_le_bytes()), Some(Offset(count)));
        assert_eq!(map.newest(&count.to_le_bytes()), None);
    }

    #[test]
    fn the_least_memory_still_holds_a_key() {
        let mut map = KeyMap::new(0, (0, 0));
        assert!(map.insert(b"a", Offset(0)));
        assert_eq!(map.newest(b"a"), Some(Offset(0)));
    }
}
