//! The log of one partition: the public face of this module.

use std::rc::Rc;

use millstream_protocol::{LeaderEpoch, Offset, TopicPartition};

use super::{
    LogError, LogListener, LogOptions, LogStats, ReadError, Recovered, RecoveryObserver,
    ShardStorage, Slice,
};
use crate::io::{Disk, Io};

/// A partition's log.
pub struct Log<I: Io> {
    storage: Rc<ShardStorage<I>>,
    id: TopicPartition,
}

impl<I: Io> Log<I> {
    /// Opens a log, whatever state the last process left it in; nothing on disk is an empty log,
    /// which costs nothing before its first append.
    ///
    /// # Errors
    /// The disk's. Damage to acknowledged data is no error: see [`Recovered::damage`].
    pub async fn open(
        storage: &Rc<ShardStorage<I>>,
        id: TopicPartition,
        _options: LogOptions,
        _listener: Rc<dyn LogListener>,
        _observer: &mut dyn RecoveryObserver,
    ) -> Result<(Rc<Self>, Recovered), LogError> {
        let _ = Rc::new(Self {
            storage: Rc::clone(storage),
            id,
        });
        Err(LogError::Closed)
    }

    /// Appends batches to memory and has them written; [`LogListener::persisted`] tells when they
    /// are safe. `batches` are valid, back to back, with offsets and epoch in place.
    ///
    /// # Errors
    /// The log is full, failed, damaged or closed; nothing was appended.
    ///
    /// # Panics
    /// If `first` is not the log's end.
    pub fn append(
        &self,
        _batches: &[u8],
        _first: Offset,
        _next: Offset,
        _epoch: LeaderEpoch,
        _max_timestamp_ms: i64,
        _batch_count: u32,
    ) -> Result<(), LogError> {
        Err(LogError::Closed)
    }

    /// Reads whole batches: the first one holds `from`, none holds `up_to` or anything beyond.
    /// At least one batch comes back even if it is larger than `max_bytes`; nothing if `from` is
    /// `up_to`.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn read(
        &self,
        _from: Offset,
        _up_to: Offset,
        _max_bytes: usize,
    ) -> Result<Vec<Slice<<I as Disk>::Buffer>>, ReadError> {
        Err(ReadError::Closed)
    }

    /// Base offset and largest timestamp of the first batch whose largest timestamp is at least
    /// `timestamp_ms`.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn find_time(&self, _timestamp_ms: i64) -> Result<Option<(Offset, i64)>, ReadError> {
        Err(ReadError::Closed)
    }

    /// Makes recovery short: stores `producer_snapshot`, which covers everything appended so far,
    /// with the log's end.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn checkpoint(&self, _producer_snapshot: Vec<u8>) -> Result<(), LogError> {
        Err(LogError::Closed)
    }

    /// Moves the log's start up, durably, then removes the segments that lie wholly below.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn set_log_start(&self, _offset: Offset) -> Result<(), LogError> {
        Err(LogError::Closed)
    }

    /// Cuts the log: everything from `end` on is forgotten, durably. An `end` inside a batch cuts
    /// the whole batch. Returns the new end.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn truncate(&self, _end: Offset) -> Result<Offset, LogError> {
        Err(LogError::Closed)
    }

    /// Writes and flushes everything, stores a checkpoint, and closes the files.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn close(&self, _producer_snapshot: Vec<u8>) -> Result<(), LogError> {
        Err(LogError::Closed)
    }

    /// Removes the log from disk.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn remove(&self) -> Result<(), LogError> {
        Err(LogError::Closed)
    }

    /// Changes the settings of an open log.
    pub fn set_options(&self, _options: LogOptions) {}

    /// Whose log this is.
    #[must_use]
    pub fn id(&self) -> TopicPartition {
        self.id
    }

    /// First offset that may be read.
    #[must_use]
    pub fn log_start(&self) -> Offset {
        Offset::ZERO
    }

    /// Next offset to append.
    #[must_use]
    pub fn log_end(&self) -> Offset {
        Offset::ZERO
    }

    /// Everything below is on stable storage.
    #[must_use]
    pub fn durable_end(&self) -> Offset {
        Offset::ZERO
    }

    /// What the log takes up.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        let _ = &self.storage.io;
        LogStats::default()
    }
}
