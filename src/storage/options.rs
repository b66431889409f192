//! What a log is told when it opens, and what it tells about itself.

use std::{fmt, path::PathBuf};

use millstream_protocol::{LeaderEpoch, Offset};

use super::format::segment::CompactionMark;

/// What a shard's storage is told at its start.
#[derive(Clone, Debug)]
pub struct StorageConfig {
    /// The broker's data directory; partitions lie in `topics/` below it.
    pub data_dir: PathBuf,
    /// Number of the first life of every log: not to be guessed by whoever writes records.
    pub first_life: u64,
    /// Memory for recently written and read chunks, in bytes.
    pub cache_size: usize,
    /// Appended bytes that may wait for their flush before [`super::ShardStorage::room`] waits.
    pub unflushed_limit: usize,
    /// Segment files that may be open at once, beyond those being written.
    pub open_files: usize,
    /// Size of each file of the journal, in bytes.
    pub journal_file_size: u64,
    /// Size up to which the journal may grow, in bytes; no less than two files.
    pub journal_size_max: u64,
    /// Space that is filled with zeros in quiet moments, for logs that are written fast, in bytes.
    pub prepared_size: u64,
    /// Size of each file of it, in bytes: a whole segment.
    pub prepared_file_size: u64,
}

/// What a recovery believes only after a check. Off only in tests that show what each check is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoveryChecks {
    /// A chunk belongs to the present life of the log.
    pub incarnations: bool,
    /// What follows a bad place does not say that the place was durable.
    pub flushed_marks: bool,
}

impl Default for RecoveryChecks {
    fn default() -> Self {
        Self {
            incarnations: true,
            flushed_marks: true,
        }
    }
}

/// When an append counts as persisted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// After a flush covers it.
    #[default]
    Flushed,
    /// Once it is in memory; flushed every 100 ms.
    Buffered,
}

/// A log's settings; all may change while it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// Size at which a segment is rolled, in bytes.
    pub segment_size: u64,
    /// Age of a segment's first append at which it is rolled, in milliseconds.
    pub segment_roll_ms: i64,
    /// When an append counts as persisted.
    pub durability: Durability,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_size: 256 << 20,
            segment_roll_ms: 24 * 60 * 60 * 1000,
            durability: Durability::Flushed,
        }
    }
}

/// What opening a log found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// First offset that may be read.
    pub log_start: Offset,
    /// Next offset to append; everything below is durable.
    pub log_end: Offset,
    /// Each leader epoch with the offset of its first record, ascending.
    pub epochs: Vec<(LeaderEpoch, Offset)>,
    /// Set if acknowledged data is damaged: the log is read-only, what is below may be read.
    pub damage: Option<Damage>,
    /// One line for the operator, if something needed doing.
    pub report: Option<String>,
}

/// Acknowledged data that cannot be believed any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Everything below is good.
    pub below: Offset,
    /// Everything below was acknowledged, as far as what is left tells: above `below`.
    pub acknowledged: Offset,
    /// The file that holds the first bad place.
    pub path: PathBuf,
    /// The first bad place, in bytes from the start of the file.
    pub position: u64,
    /// What is wrong there, and how it is known to have been good.
    pub reason: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (below, path, position) = (self.below, self.path.display(), self.position);
        write!(
            f,
            "acknowledged data from offset {below} on is damaged: {path} at position {position}: \
             {}; the partition is read-only, what is below can be read",
            self.reason
        )
    }
}

/// One segment, oldest first in [`LogStats`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentStats {
    /// Its first offset.
    pub base_offset: Offset,
    /// The offset after its last record.
    pub next_offset: Offset,
    /// Bytes from its start to its last chunk's end.
    pub size: u64,
    /// Largest record timestamp in it, or `i64::MIN`.
    pub max_timestamp_ms: i64,
    /// Wall clock of its first append, or 0 before that.
    pub first_append_ms: i64,
    /// Wall clock of its last append, or of its creation.
    pub last_append_ms: i64,
    /// What compaction made of it, as far as is known: see [`super::Log::know_compaction`].
    pub compaction: Option<CompactionMark>,
}

/// What a log takes up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Bytes from the log's start to its end, chunk headers and padding included.
    pub logical_bytes: u64,
    /// Bytes its files take on disk, space allocated ahead included.
    pub physical_bytes: u64,
    /// When the oldest record was appended that is in no segment yet.
    pub unplaced_since_ms: Option<i64>,
    /// Its segments, oldest first; the last one is appended to.
    pub segments: Vec<SegmentStats>,
    /// Appended bytes that no flush covers yet.
    pub unflushed_bytes: usize,
    /// Everything below is durable.
    pub durable_end: Offset,
}

/// What a shard's storage has done since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StorageCounters {
    /// Batches bytes appended.
    pub appended_bytes: u64,
    /// Chunks written.
    pub chunks_written: u64,
    /// Bytes written to segments, headers and padding included.
    pub written_bytes: u64,
    /// Flushes done, of segments and of the journal.
    pub flushes: u64,
    /// Frames written to the journal.
    pub frames_written: u64,
    /// Bytes written to the journal, headers and padding included.
    pub journal_bytes: u64,
    /// Set once the journal failed: 1.
    pub journal_failures: u64,
    /// Reads answered without the disk.
    pub cache_hits: u64,
    /// Reads that went to the disk.
    pub cache_misses: u64,
    /// Bytes read from disk for readers.
    pub read_bytes: u64,
    /// Bytes the cache holds now.
    pub cached_bytes: u64,
    /// Appended bytes that no flush covers yet.
    pub unflushed_bytes: u64,
    /// Segment files open now.
    pub open_files: u64,
    /// Bytes of prepared space that wait for a log.
    pub prepared_bytes: u64,
}
