//! What the logs of one shard share: memory limits, the cache, open files, counters.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use millstream_protocol::TopicPartition;

use super::{
    RecoveryChecks, Replay, StorageConfig, StorageCounters,
    cache::{Cache, LogKey},
    files::OpenFiles,
    format::names,
    journal::{Journal, JournalConfig},
    limits::{
        MAX_DELIVERING_SIZE, MAX_READ_SIZE, MAX_SEGMENTS_MADE_AT_ONCE, READING_PART,
        WRITTEN_LATELY_MS,
    },
    preparation::Filling,
    prepared::Prepared,
};
use crate::io::{Budget, Disk, Io, Monotonic, Signal};

/// The storage of one shard.
pub struct ShardStorage<I: Io> {
    pub(super) io: I,
    pub(super) config: StorageConfig,
    pub(super) checks: RecoveryChecks,
    pub(super) cache: RefCell<Cache<<I as Disk>::Buffer>>,
    /// Memory of reads, from before they begin until the reader has taken what it wants of them.
    pub(super) reading: Rc<Budget>,
    /// Bytes of delayed records on their way into their partitions.
    delivering: Rc<Budget>,
    pub(super) files: RefCell<OpenFiles<<I as Disk>::File>>,
    pub(super) journal: Rc<Journal<I>>,
    /// What the journals of the last process hold, until every log is open.
    pub(super) replay: RefCell<Arc<Replay>>,
    /// Logs that could not take what the journals hold of them.
    untaken: RefCell<BTreeSet<TopicPartition>>,
    counters: Rc<RefCell<StorageCounters>>,
    unflushed: Cell<usize>,
    /// When something was last appended.
    appended_at: Cell<Option<Monotonic>>,
    pub(super) filling: Filling,
    pub(super) prepared: Prepared,
    /// Of segments that are being made.
    pub(super) making: Rc<Budget>,
    /// What those who wait for a flush take besides their batches.
    held: Rc<Cell<usize>>,
    freed: Rc<Signal>,
    next_key: Cell<LogKey>,
}

impl<I: Io> ShardStorage<I> {
    /// Storage in `config.data_dir`; `replay` is what the journals there hold.
    #[must_use]
    pub fn new(io: I, config: StorageConfig, replay: Arc<Replay>) -> Rc<Self> {
        Self::with_checks(io, config, replay, RecoveryChecks::default())
    }

    /// The same with some checks left out: see [`RecoveryChecks`].
    #[must_use]
    pub fn with_checks(
        io: I,
        config: StorageConfig,
        replay: Arc<Replay>,
        checks: RecoveryChecks,
    ) -> Rc<Self> {
        let counters = Rc::new(RefCell::new(StorageCounters::default()));
        let files = config.journal_size_max / config.journal_file_size;
        let journal = JournalConfig {
            data_dir: config.data_dir.clone(),
            file_size: config.journal_file_size,
            file_count_max: usize::try_from(files).unwrap_or(usize::MAX).max(2),
        };
        Rc::new(Self {
            journal: Journal::new(io.clone(), journal, &replay, Rc::clone(&counters)),
            replay: RefCell::new(replay),
            untaken: RefCell::default(),
            io,
            checks,
            cache: RefCell::new(Cache::new(
                config.cache_size - config.cache_size / READING_PART,
            )),
            reading: Budget::new((config.cache_size / READING_PART).max(MAX_READ_SIZE)),
            delivering: Budget::new(MAX_DELIVERING_SIZE),
            files: RefCell::new(OpenFiles::new(config.open_files)),
            config,
            counters,
            unflushed: Cell::new(0),
            appended_at: Cell::new(None),
            filling: Filling::default(),
            prepared: Prepared::default(),
            making: Budget::new(MAX_SEGMENTS_MADE_AT_ONCE),
            held: Rc::default(),
            freed: Rc::default(),
            next_key: Cell::new(0),
        })
    }

    /// Starts the journal. If there is much to replay it is waited for, since the logs that open will
    /// want it.
    pub async fn start(&self) {
        self.journal.start();
        if !self.replay.borrow().is_empty() {
            self.journal_started().await;
        }
    }

    /// Waits until the journal takes appends, or its first file could not be made.
    pub async fn journal_started(&self) {
        self.journal.started().await;
    }

    /// Every log is open: what was to be replayed is in their hands, but for the logs that could not take
    /// their part. Journals that hold something of those must stay.
    pub fn replayed(&self) -> BTreeSet<TopicPartition> {
        *self.replay.borrow_mut() = Arc::default();
        self.untaken.take()
    }

    /// The same, for storage that is alone in its directory: the journals that were replayed go.
    ///
    /// # Errors
    /// The disk's.
    pub async fn finish_replay(&self) -> std::io::Result<()> {
        let replay = Arc::clone(&self.replay.borrow());
        let untaken = self.replayed();
        replay
            .remove(&self.io, &self.config.data_dir, &untaken)
            .await
    }

    /// Where the files of a log are.
    #[must_use]
    pub fn dir_of(&self, id: TopicPartition) -> std::path::PathBuf {
        names::partition_dir(&self.config.data_dir, id)
    }

    /// Something of a log is there, on disk or in the journals of the last process; before
    /// [`ShardStorage::replayed`].
    ///
    /// # Errors
    /// The disk's.
    pub async fn has_log(&self, id: TopicPartition) -> std::io::Result<bool> {
        if self.replay.borrow().holds(id) {
            return Ok(true);
        }
        let dir = names::partition_dir(&self.config.data_dir, id);
        match self.io.read_dir(&dir).await {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            files => Ok(files?.iter().any(|path| names::file_kind(path).is_some())),
        }
    }

    /// A log has not taken what the journals hold of it: they stay, to be read again at the next start.
    pub fn keep_replay(&self, log: TopicPartition) {
        self.untaken.borrow_mut().insert(log);
    }

    /// Every log is closed: nothing needs the journal any more. After a failure its files stay.
    ///
    /// # Errors
    /// The disk's; what is left is read at the next start.
    pub async fn close(&self, all_closed: bool) -> std::io::Result<()> {
        // What could not be removed goes with the next start.
        self.release_prepared().await;
        if all_closed {
            self.journal.remove().await
        } else {
            self.journal.stop();
            Ok(())
        }
    }

    /// Waits until appended bytes that wait for their flush, and what is held for them, are below the limit.
    /// Call it before accepting a produce; appends themselves never wait.
    pub async fn room(&self) {
        let limit = self.config.unflushed_limit;
        let below = || self.unflushed.get() + self.held.get() < limit;
        self.freed.wait_until(below).await;
    }

    /// Memory for records that are read to be appended again.
    #[must_use]
    pub fn delivering(&self) -> &Rc<Budget> {
        &self.delivering
    }

    /// Counts memory of someone who waits for a flush, until what is given is dropped.
    #[must_use]
    pub fn hold_room(&self, size: usize) -> HeldRoom {
        self.held.set(self.held.get() + size);
        HeldRoom {
            held: Rc::clone(&self.held),
            freed: Rc::clone(&self.freed),
            size,
        }
    }

    /// What was done so far.
    #[must_use]
    pub fn counters(&self) -> StorageCounters {
        StorageCounters {
            cached_bytes: self.cache.borrow().size() as u64,
            unflushed_bytes: self.unflushed.get() as u64,
            open_files: self.files.borrow().count() as u64,
            prepared_bytes: self.prepared_bytes(),
            ..*self.counters.borrow()
        }
    }

    pub(super) fn count(&self, count: impl FnOnce(&mut StorageCounters)) {
        count(&mut self.counters.borrow_mut());
    }

    /// Appends wait for the disk, or did a moment ago: those who catch up read little at a time, or each
    /// flush would wait for what they have under way.
    pub(super) fn is_written(&self) -> bool {
        let lately =
            |at: Monotonic| self.io.now().since(at) < Duration::from_millis(WRITTEN_LATELY_MS);
        self.appended_at.get().is_some_and(lately)
    }

    pub(super) fn take_room(&self, size: usize, now: Monotonic) {
        self.unflushed.set(self.unflushed.get() + size);
        self.appended_at.set(Some(now));
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

/// Memory counted by [`ShardStorage::hold_room`].
pub struct HeldRoom {
    held: Rc<Cell<usize>>,
    freed: Rc<Signal>,
    size: usize,
}

impl Drop for HeldRoom {
    fn drop(&mut self) {
        self.held.set(self.held.get() - self.size);
        self.freed.raise();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::io::sim::Sim;

    #[test]
    fn what_is_held_for_those_who_wait_takes_room() {
        Sim::new(1).run(|io| async move {
            let config = StorageConfig {
                data_dir: "/data".into(),
                first_life: 1,
                cache_size: 0,
                unflushed_limit: 10_000,
                open_files: 1,
                journal_file_size: 1 << 20,
                journal_size_max: 2 << 20,
                prepared_size: 0,
                prepared_file_size: 128 << 10,
            };
            let storage = ShardStorage::new(io, config, Arc::default());
            let mut held: Vec<HeldRoom> = (0..9).map(|_| storage.hold_room(1_000)).collect();
            assert!(storage.room().now_or_never().is_some());
            held.push(storage.hold_room(1_000));
            let mut room = Box::pin(storage.room());
            assert!(room.as_mut().now_or_never().is_none());
            held.pop();
            assert!(room.now_or_never().is_some());
        });
    }
}
