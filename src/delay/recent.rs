//! Records that wait, by due time, in memory.

use millstream_protocol::{DecodeError, Offset, Reader, Wire};
use siphasher::sip128::{Hasher128 as _, SipHasher13};
use std::hash::Hasher as _;

/// An id that a producer gave, as 128 bits under a secret key: nobody can make two ids meet, and by chance
/// none do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct IdHash(pub u64, pub u64);

impl IdHash {
    /// No id.
    pub const NONE: Self = Self(0, 0);

    /// Of an id, with a delay log's own key.
    #[must_use]
    pub fn of(key: (u64, u64), id: &str) -> Self {
        let mut hasher = SipHasher13::new_with_keys(key.0, key.1);
        hasher.write(id.as_bytes());
        let hash = hasher.finish128();
        // Zero is no id.
        Self(hash.h1, hash.h2.max(1))
    }
}

impl Wire for IdHash {
    const MIN_SIZE: usize = 16;

    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
        self.1.encode(out);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self(u64::decode(reader)?, u64::decode(reader)?))
    }
}

/// A record that waits. Ordered by due time, then by acceptance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// When it is due, in milliseconds since 1970.
    pub due_ms: i64,
    /// Its delay id: its offset in the delay log.
    pub offset: Offset,
    /// The id its producer gave.
    pub id: IdHash,
}

impl Wire for Entry {
    const MIN_SIZE: usize = 32;

    fn encode(&self, out: &mut Vec<u8>) {
        self.due_ms.encode(out);
        self.offset.encode(out);
        self.id.encode(out);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            due_ms: Wire::decode(reader)?,
            offset: Wire::decode(reader)?,
            id: Wire::decode(reader)?,
        })
    }
}
