//! The index of a segment, for `benches/`: nobody else needs it from outside. Not an API: it may change with
//! any commit.

use millstream_protocol::Offset;

use super::super::segments::Index;

pub use super::super::format::index::{IndexEntryV1, IndexV1};

/// As readers use it.
pub struct SegmentIndex(Index);

impl SegmentIndex {
    /// Entries ascend in offset, position and time.
    #[must_use]
    pub fn new(entries: Vec<IndexEntryV1>) -> Self {
        Self(Index(entries))
    }

    /// A chunk that begins at or before `offset`.
    #[must_use]
    pub fn find(&self, offset: Offset) -> Option<IndexEntryV1> {
        self.0.find(offset)
    }

    /// A chunk before which all timestamps are smaller.
    #[must_use]
    pub fn find_time(&self, timestamp_ms: i64) -> Option<IndexEntryV1> {
        self.0.find_time(timestamp_ms)
    }
}
