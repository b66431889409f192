//! The index beside a rolled segment: every so many bytes, where a chunk begins. See
//! `docs/format/index.md`. It only saves time: one that is missing or bad is built again.

use rkyv::{Archive, Deserialize, Serialize, rancor};

use super::envelope::{self, NotAnEnvelope};

/// First bytes of every index.
pub const INDEX_MAGIC: [u8; 4] = *b"MSIX";
/// Version of the archived value.
pub const INDEX_VERSION: u16 = 1;

/// The index of one segment.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct IndexV1 {
    /// Topic id.
    pub topic: [u8; 16],
    /// Partition within it.
    pub partition: u32,
    /// The segment's first offset.
    pub base: i64,
    /// Where its last chunk ends: another end means another life of the segment.
    pub end: u64,
    /// Its entries, ascending in both offset and position.
    pub entries: Vec<IndexEntryV1>,
}

/// A chunk's place.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndexEntryV1 {
    /// The chunk's base offset.
    pub offset: i64,
    /// Where it begins, in bytes from the start of the file.
    pub position: u64,
    /// Largest record timestamp before it in this segment, or `i64::MIN`.
    pub max_timestamp_before_ms: i64,
}

impl IndexV1 {
    /// The bytes of the file, whole blocks.
    ///
    /// # Panics
    /// Never: archiving into memory cannot fail.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let payload = rkyv::to_bytes::<rancor::Error>(self).expect("archived into memory");
        envelope::wrap(INDEX_MAGIC, INDEX_VERSION, 0, &payload)
    }

    /// Reads and verifies a file.
    ///
    /// # Errors
    /// [`NotAnEnvelope`].
    pub fn decode(bytes: &[u8]) -> Result<Self, NotAnEnvelope> {
        let (_, payload) = envelope::unwrap(INDEX_MAGIC, INDEX_VERSION, bytes)?;
        rkyv::from_bytes::<Self, rancor::Error>(payload).map_err(|_| NotAnEnvelope::Damaged)
    }
}
