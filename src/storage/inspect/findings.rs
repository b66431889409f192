//! What is found of a log, and what to think of it.

use std::path::{Path, PathBuf};

use millstream_protocol::{Offset, TopicPartition};

use super::{CheckpointV1, ChunkHeader, SegmentHeader};

/// Something in a partition's directory, in the order of the log.
#[derive(Debug)]
pub enum Finding<'a> {
    /// A checkpoint slot: its sequence and what it says, or why it cannot be read.
    Checkpoint {
        /// The file.
        path: &'a Path,
        /// What it holds.
        state: Result<(u64, &'a CheckpointV1), String>,
    },
    /// A segment begins.
    Segment {
        /// The file.
        path: &'a Path,
        /// Its size in bytes.
        size: u64,
        /// Its first block, or why that is none.
        header: Result<SegmentHeader, String>,
    },
    /// A chunk of the log.
    Chunk {
        /// The file.
        path: &'a Path,
        /// Where it begins there.
        position: u64,
        /// What it says about itself.
        header: &'a ChunkHeader,
        /// Its batches, back to back; those from `until` on were cut.
        payload: &'a [u8],
        /// Records from here on are no part of the log any more.
        until: Offset,
    },
    /// Batches that follow the log's segments and are in a journal alone. The next start takes them over.
    Journaled {
        /// What the journal says about them.
        header: &'a ChunkHeader,
        /// The batches, back to back.
        payload: &'a [u8],
        /// Offset after the last one.
        until: Offset,
    },
    /// The log goes no further here, or what follows is no part of it.
    Stop {
        /// The file.
        path: &'a Path,
        /// Where.
        position: u64,
        /// Why.
        reason: String,
    },
}

/// What to think of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All is well.
    Good,
    /// The last write was torn; the next start cuts it away, and nothing acknowledged is in it.
    TornTail {
        /// Where the log ends.
        end: Offset,
    },
    /// Data that was durable is damaged; the next start makes the partition read-only.
    Damaged {
        /// Everything below is good.
        below: Offset,
        /// The first bad file.
        path: PathBuf,
        /// The first bad place in it.
        position: u64,
        /// What is wrong, and how it is known to have been good.
        reason: String,
    },
    /// A newer broker wrote something of it; this one does not open the log, and nothing is known of it.
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Version of its format.
        version: u16,
    },
}

/// A log at a glance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Whose log it is, as far as any file says.
    pub id: Option<TopicPartition>,
    /// First offset that may be read.
    pub log_start: Offset,
    /// Offset after the last good record.
    pub log_end: Offset,
    /// Segment files.
    pub segment_count: u64,
    /// Good chunks.
    pub chunk_count: u64,
    /// Batches that are part of the log.
    pub batch_count: u64,
    /// Bytes of those.
    pub batch_bytes: u64,
    /// Batches among them that a journal alone holds.
    pub journal_batch_count: u64,
    /// What to think of it.
    pub verdict: Verdict,
}
