//! The checkpoint: where a recovery starts, and what it must know there. See
//! `docs/format/checkpoint.md`.
//!
//! Two slots are written in turn, so that a torn one leaves the other. An archived type never
//! changes: a new version is added beside it.

use rkyv::{Archive, Deserialize, Serialize, rancor};

use super::{
    envelope::{self, NotAnEnvelope},
    index::IndexEntryV1,
};

/// First bytes of every checkpoint.
pub const CHECKPOINT_MAGIC: [u8; 4] = *b"MSCP";
/// Version of the archived value.
pub const CHECKPOINT_VERSION: u16 = 1;

/// A log's state at a chunk boundary that is durable.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckpointV1 {
    /// Topic id.
    pub topic: [u8; 16],
    /// Partition within it.
    pub partition: u32,
    /// Written by a clean stop, which leaves nothing after the position.
    pub clean: bool,
    /// First offset that may be read.
    pub log_start: i64,
    /// Everything below was durable when this was written; at least the position's offset.
    pub flushed: i64,
    /// Where a recovery starts to read.
    pub position: PositionV1,
    /// Each life of the log: its first offset and its number, both ascending.
    pub incarnations: Vec<(i64, u64)>,
    /// Each leader epoch and its first offset, ascending, below the position.
    pub epochs: Vec<(i32, i64)>,
    /// The segments before the position's, oldest first.
    pub rolled: Vec<SegmentV1>,
    /// The position's segment, as far as the position.
    pub active: SegmentV1,
    /// Its index.
    pub index: Vec<IndexEntryV1>,
    /// Producer state of everything below the position; opaque here. `None` if there is none.
    pub snapshot: Option<Vec<u8>>,
}

/// A chunk boundary.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PositionV1 {
    /// Base offset of the segment.
    pub segment: i64,
    /// Bytes from the start of its file.
    pub position: u64,
    /// Offset of the record that comes there.
    pub next: i64,
}

/// What is known of a segment without reading it.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentV1 {
    /// Its first offset.
    pub base: i64,
    /// The offset after its last record.
    pub next: i64,
    /// Where its last chunk ends, in bytes from the start of the file.
    pub end: u64,
    /// Largest record timestamp in it, or `i64::MIN`.
    pub max_timestamp_ms: i64,
    /// Wall clock of its first append, or 0 without one.
    pub first_append_ms: i64,
    /// Wall clock of its last append, or 0 without one.
    pub last_append_ms: i64,
}

impl CheckpointV1 {
    /// The bytes of a slot, whole blocks.
    ///
    /// # Panics
    /// Never: archiving into memory cannot fail.
    #[must_use]
    pub fn encode(&self, sequence: u64) -> Vec<u8> {
        let payload = rkyv::to_bytes::<rancor::Error>(self).expect("archived into memory");
        envelope::wrap(CHECKPOINT_MAGIC, CHECKPOINT_VERSION, sequence, &payload)
    }

    /// Reads and verifies a slot; gives its sequence too.
    ///
    /// # Errors
    /// [`NotAnEnvelope`].
    pub fn decode(bytes: &[u8]) -> Result<(u64, Self), NotAnEnvelope> {
        let (sequence, payload) = envelope::unwrap(CHECKPOINT_MAGIC, CHECKPOINT_VERSION, bytes)?;
        let checkpoint =
            rkyv::from_bytes::<Self, rancor::Error>(payload).map_err(|_| NotAnEnvelope::Damaged)?;
        Ok((sequence, checkpoint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_decodes() {
        let checkpoint = CheckpointV1 {
            log_start: 3,
            incarnations: vec![(0, 1), (9, 2)],
            epochs: vec![(4, 0)],
            snapshot: Some(vec![1, 2, 3]),
            index: vec![IndexEntryV1::default()],
            ..CheckpointV1::default()
        };
        let bytes = checkpoint.encode(5);
        assert_eq!(CheckpointV1::decode(&bytes), Ok((5, checkpoint)));
    }

    #[test]
    fn a_valid_envelope_around_nonsense_is_refused() {
        let bytes = envelope::wrap(CHECKPOINT_MAGIC, CHECKPOINT_VERSION, 1, &[0xff; 100]);
        assert_eq!(CheckpointV1::decode(&bytes), Err(NotAnEnvelope::Damaged));
    }
}
