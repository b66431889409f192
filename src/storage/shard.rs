//! What the logs of one shard share: memory limits, the cache, open files, counters.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use super::{
    RecoveryChecks, StorageConfig, StorageCounters,
    cache::{Cache, LogKey},
    files::OpenFiles,
};
use crate::io::{Disk, Io, Signal};

/// The storage of one shard.
pub struct ShardStorage<I: Io> {
    pub(super) io: I,
    pub(super) config: StorageConfig,
    pub(super) checks: RecoveryChecks,
    pub(super) cache: RefCell<Cache<<I as Disk>::Buffer>>,
    pub(super) files: RefCell<OpenFiles<<I as Disk>::File>>,
    counters: RefCell<StorageCounters>,
    unflushed: Cell<usize>,
    freed: Signal,
    next_key: Cell<LogKey>,
}

impl<I: Io> ShardStorage<I> {
    /// Storage in `config.data_dir`.
    #[must_use]
    pub fn new(io: I, config: StorageConfig) -> Rc<Self> {
        Self::with_checks(io, config, RecoveryChecks::default())
    }

    /// The same with some checks left out: see [`RecoveryChecks`].
    #[must_use]
    pub fn with_checks(io: I, config: StorageConfig, checks: RecoveryChecks) -> Rc<Self> {
        Rc::new(Self {
            io,
            checks,
            cache: RefCell::new(Cache::new(config.cache_size)),
            files: RefCell::new(OpenFiles::new(config.open_files)),
            config,
            counters: RefCell::new(StorageCounters::default()),
            unflushed: Cell::new(0),
            freed: Signal::default(),
            next_key: Cell::new(0),
        })
    }

    /// Waits until appended bytes that wait for their flush are below the limit. Call it before
    /// accepting a produce; appends themselves never wait.
    pub async fn room(&self) {
        let limit = self.config.unflushed_limit;
        let below = || self.unflushed.get() < limit;
        self.freed.wait_until(below).await;
    }

    /// What was done so far.
    #[must_use]
    pub fn counters(&self) -> StorageCounters {
        StorageCounters {
            cached_bytes: self.cache.borrow().size() as u64,
            unflushed_bytes: self.unflushed.get() as u64,
            open_files: self.files.borrow().count() as u64,
            ..*self.counters.borrow()
        }
    }

    pub(super) fn count(&self, count: impl FnOnce(&mut StorageCounters)) {
        count(&mut self.counters.borrow_mut());
    }

    pub(super) fn take_room(&self, size: usize) {
        self.unflushed.set(self.unflushed.get() + size);
    }

    pub(super) fn free_room(&self, size: usize) {
        self.unflushed.set(self.unflushed.get() - size);
        if size > 0 {
            self.freed.raise();
        }
    }

    pub(super) fn new_key(&self) -> LogKey {
        self.next_key.set(self.next_key.get() + 1);
        self.next_key.get()
    }
}
