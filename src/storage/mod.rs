//! Partition logs on disk: what was appended, and proof of how much of it is durable.
//!
//! A [`Log`] belongs to one partition and lives on one shard, whose [`ShardStorage`] it shares with
//! the other logs there: cache, descriptors, memory limits. Formats are described in
//! `docs/format/`. The life of an append:
//!
//! ```text
//! Log::append -> open chunk (memory)
//!   little: -> frame of the journal, with other logs' -> sync_data -> LogListener::persisted
//!                                     ... -> sealed -> write to the segment -> flush, when needed
//!   much:   -> sealed -> write to the segment -> sync_data -> LogListener::persisted
//! ```
//!
//! Everything here runs on one thread. No borrow of a log's state crosses an await, and every
//! operation on a file runs in a task of its own, so that a caller that goes away drops nothing
//! half-way.

pub mod inspect;
pub mod limits;

mod appender;
mod cache;
mod checkpoints;
mod compaction;
mod error;
mod files;
mod format;
mod incarnations;
mod index_files;
mod journal;
mod listener;
mod log;
mod options;
mod preparation;
mod prepared;
mod reader;
mod reading;
mod recovery;
pub mod repair;
pub mod reserve;
mod run;
mod segments;
mod shard;
mod slice;
mod slots;
mod spare;
#[cfg(test)]
mod test_buffer;
mod truncation;
mod wait;
mod whole_file;
mod writer;

pub use compaction::{CompactionOptions, CompactionReport, Pace};
pub use error::{LogError, ReadError};
pub use format::{
    names::{DELAY_DIR, delay_log_of, is_delay_log, log_of_dir, partition_of_log},
    segment::CompactionMark,
};
pub use journal::{Replay, TornFrame};
pub use listener::{LogListener, RecoveryObserver, SnapshotRejected};
pub use log::Log;
pub use options::{
    Damage, Durability, LogOptions, LogStats, Recovered, RecoveryChecks, SegmentStats,
    StorageConfig, StorageCounters,
};
pub use prepared::remove_prepared;
pub use shard::{HeldRoom, ShardStorage};
pub use slice::{Slice, copy_loose, idle_size};
