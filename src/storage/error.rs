//! What can go wrong with a log, by whose fault it is.

use std::{io, path::PathBuf, sync::Arc};

use millstream_protocol::Offset;

/// Why an operation on a log was not done.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    /// No space could be allocated. Heals when there is space again.
    #[error("no space left on the disk for {path}: free some, or trim topics")]
    DiskFull {
        /// The file that should have grown.
        path: PathBuf,
    },
    /// A write or a flush failed; the log takes nothing more until the broker starts again.
    #[error("{operation} of {path} failed: {error}; the partition is offline until a restart")]
    Failed {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        error: Arc<io::Error>,
    },
    /// An operation that changes nothing failed, such as opening or listing.
    #[error("{operation} of {path} failed: {error}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        error: Arc<io::Error>,
    },
    /// Acknowledged data is damaged; the log is read-only.
    #[error("acknowledged data from offset {below} is damaged: the partition is read-only")]
    Damaged {
        /// Everything below is good.
        below: Offset,
    },
    /// A file was written by a newer version.
    #[error("{path} has format version {version}, which this version does not know: upgrade")]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u16,
    },
    /// An offset outside the log.
    #[error("offset {offset} is outside the log, which goes from {log_start} to {log_end}")]
    OutOfRange {
        /// The offset asked for.
        offset: Offset,
        /// First offset of the log.
        log_start: Offset,
        /// Next offset of the log.
        log_end: Offset,
    },
    /// The log was closed or removed.
    #[error("the log is closed")]
    Closed,
}

/// Why nothing could be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// The offset is not in the log.
    #[error("offset {offset} is outside the log, which goes from {log_start} to {log_end}")]
    OutOfRange {
        /// The offset asked for.
        offset: Offset,
        /// First offset of the log.
        log_start: Offset,
        /// Next offset of the log.
        log_end: Offset,
    },
    /// What is on disk is not what was written.
    #[error("{path} is damaged at position {position}: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The bad place, in bytes from the start of the file.
        position: u64,
        /// Offset of the first record that cannot be read.
        below: Offset,
        /// What is wrong.
        reason: String,
    },
    /// The disk failed.
    #[error("reading {path} failed: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: Arc<io::Error>,
    },
    /// The log was closed or removed.
    #[error("the log is closed")]
    Closed,
}
