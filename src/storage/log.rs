//! The log of one partition: the public face of this module. What takes longer than a look at
//! memory lives beside it: `writer`, `preparation`, `reader`, `checkpoints`, `truncation`, `recovery`.

use std::{
    cell::{Cell, RefCell},
    path::PathBuf,
    rc::{Rc, Weak},
};

use millstream_protocol::{LeaderEpoch, Offset, TopicPartition};

use super::{
    Damage, Durability, LogError, LogListener, LogOptions, LogStats, ReadError, Recovered,
    RecoveryObserver, ShardStorage, Slice,
    appender::{Append, Appender},
    cache::LogKey,
    format::{checkpoint::PositionV1, names},
    incarnations::Incarnations,
    journal::ReplayedEntry,
    limits::MAX_PAYLOAD_SIZE,
    reading::Reading,
    segments::Segments,
    spare::Spare,
    wait::{Lock, until},
};
use crate::io::{Disk, Io, Monotonic, Signal, TaskClass};

/// A partition's log.
pub struct Log<I: Io> {
    pub(super) this: Weak<Self>,
    pub(super) storage: Rc<ShardStorage<I>>,
    pub(super) id: TopicPartition,
    /// This log within its shard, for cache and files.
    pub(super) key: LogKey,
    pub(super) dir: PathBuf,
    pub(super) listener: Rc<dyn LogListener>,
    pub(super) state: RefCell<State<<I as Disk>::Buffer>>,
    /// Raised whenever something moved that someone may wait for.
    pub(super) changed: Signal,
    /// A pump of the writer is on its way.
    pub(super) scheduled: Cell<bool>,
    /// Tasks of the writer that are under way.
    pub(super) running: Cell<usize>,
    /// Held by whoever writes checkpoint slots.
    pub(super) slots: Rc<Lock>,
    /// Compaction is at work.
    pub(super) compacting: Cell<bool>,
    /// The segment that compaction is putting another in the place of, and its file.
    pub(super) replacing: RefCell<Option<(Offset, <I as Disk>::File)>>,
    /// The next segment, made ahead.
    pub(super) spare: RefCell<Spare<<I as Disk>::File>>,
}

/// What a log remembers. Never borrowed across an await.
pub(super) struct State<B> {
    pub options: LogOptions,
    pub log_start: Offset,
    pub appender: Appender<B>,
    pub segments: Segments,
    /// Rolled segments that may still hold what was allocated ahead, and have no index file.
    pub rolled: Vec<Offset>,
    pub incarnations: Incarnations,
    pub epochs: Vec<(LeaderEpoch, Offset)>,
    pub failed: Option<LogError>,
    pub damage: Option<Damage>,
    pub closing: bool,
    /// A truncation is under way: nothing may be appended or sealed.
    pub cutting: bool,
    /// A file that should have grown and could not: appends are refused until it can.
    pub disk_full: Option<PathBuf>,
    /// The partition's directory exists, durably.
    pub dir_ready: bool,
    /// Told to the listener.
    pub persisted: Offset,
    /// A buffered log's flush is due, or someone waits for one up to this offset.
    pub flush_due: bool,
    pub flush_through: Offset,
    pub flush_timer: bool,
    /// On the journal's list.
    pub in_journal_queue: bool,
    pub seal_timer: bool,
    pub last_append: Monotonic,
    pub appended_since_checkpoint: u64,
    pub checkpoint_wanted: bool,
    /// Where a recovery would start: nothing from that segment on may be removed.
    pub checkpoint_position: PositionV1,
    pub checkpoint_sequence: u64,
    /// The newest checkpoint says that nothing follows it, and nothing was appended since.
    pub clean: bool,
    pub next_ticket: u64,
    pub reading: Reading,
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
        options: LogOptions,
        listener: Rc<dyn LogListener>,
        observer: &mut dyn RecoveryObserver,
    ) -> Result<(Rc<Self>, Recovered), LogError> {
        let dir = names::partition_dir(&storage.config.data_dir, id);
        let found = super::recovery::recover(storage, id, &dir, observer).await;
        let whole = found
            .as_ref()
            .is_ok_and(|found| found.recovered.damage.is_none() && found.lost.is_none());
        if !whole && storage.replay.borrow().holds(id) {
            // What the journals hold of it is nowhere else.
            storage.keep_replay(id);
        }
        let mut found = found?;
        let replayed = std::mem::take(&mut found.replayed);
        let mut recovered = found.recovered.clone();
        // The log itself works, for what is replayed; who has it lets nobody append.
        recovered.damage = recovered.damage.or(found.lost.take());
        let log = Rc::new_cyclic(|this| Self {
            this: this.clone(),
            storage: Rc::clone(storage),
            id,
            key: storage.new_key(),
            dir,
            listener,
            state: RefCell::new(found.into_state(&storage.io, id, options)),
            changed: Signal::default(),
            scheduled: Cell::new(false),
            running: Cell::new(0),
            slots: Rc::default(),
            compacting: Cell::new(false),
            replacing: RefCell::default(),
            spare: RefCell::default(),
        });
        // A recovered end gets its mark, and rolled segments what was left undone.
        log.schedule();
        if !replayed.is_empty() {
            log.take_replayed(replayed).await?;
        }
        Ok((log, recovered))
    }

    /// Appends batches to memory and has them written; [`LogListener::persisted`] tells when they
    /// are safe. `batches` are valid, back to back, with offsets and epoch in place.
    ///
    /// # Errors
    /// The disk is full, or the log failed, is damaged or closed: nothing was appended.
    ///
    /// # Panics
    /// If `first` is not the log's end, or the batches are larger than any frame.
    pub fn append(
        &self,
        batches: &[u8],
        first: Offset,
        next: Offset,
        epoch: LeaderEpoch,
        max_timestamp_ms: i64,
        batch_count: u32,
    ) -> Result<(), LogError> {
        assert!(batches.len() <= MAX_PAYLOAD_SIZE);
        let io = &self.storage.io;
        let now = io.now();
        let append = Append {
            batches,
            first,
            next,
            epoch,
            max_timestamp_ms,
            batch_count,
            now_ms: io.wall_ms(),
            incarnation: None,
        };
        {
            let state = &mut *self.state.borrow_mut();
            state.writable()?;
            assert!(
                !state.cutting,
                "nothing is appended to a log that is being cut"
            );
            state.appender.append(&append);
            state.last_append = now;
            state.clean = false;
            state.appended_since_checkpoint += batches.len() as u64;
            if state.epochs.last().is_none_or(|(last, _)| *last < epoch) {
                state.epochs.push((epoch, first));
            }
        }
        self.storage.take_room(batches.len(), now);
        self.storage
            .count(|count| count.appended_bytes += batches.len() as u64);
        self.schedule();
        Ok(())
    }

    /// Reads whole batches: the first one holds `from`, none holds `up_to` or anything beyond.
    /// At least one batch comes back even if it is larger than `max_bytes`; nothing if `from` is
    /// `up_to` or the batch that holds it reaches beyond `up_to`.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn read(
        &self,
        from: Offset,
        up_to: Offset,
        max_bytes: usize,
    ) -> Result<Vec<Slice<<I as Disk>::Buffer>>, ReadError> {
        let (slices, _) = self.read_batches(from, up_to, max_bytes).await?;
        Ok(slices)
    }

    /// The same, with the offset after what was read: below `up_to` if there was more than is given at
    /// once.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn read_some(
        &self,
        from: Offset,
        up_to: Offset,
        max_bytes: usize,
    ) -> Result<(Vec<Slice<<I as Disk>::Buffer>>, Offset), ReadError> {
        self.read_batches(from, up_to, max_bytes).await
    }

    /// Base offset and largest timestamp of the first batch whose largest timestamp is at least
    /// `timestamp_ms`.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn find_time(&self, timestamp_ms: i64) -> Result<Option<(Offset, i64)>, ReadError> {
        self.find_batch_by_time(timestamp_ms).await
    }

    /// Makes recovery short: stores `producer_snapshot`, which covers everything appended so far,
    /// with the log's end. Waits for a flush. False if there was nothing to store it for, or something
    /// came between: the checkpoint before it stays.
    ///
    /// # Errors
    /// [`LogError`]; the checkpoint before it stays.
    pub async fn checkpoint(&self, producer_snapshot: Vec<u8>) -> Result<bool, LogError> {
        // The boundary is marked before the first await: what is appended later is not covered.
        let boundary = self.mark_boundary()?;
        let this = self.this();
        self.in_task(TaskClass::Background, async move {
            this.store_checkpoint(boundary, producer_snapshot).await
        })
        .await
    }

    /// Moves the log's start up, durably, then removes the segments that lie wholly below and that
    /// no recovery needs any more.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn set_log_start(&self, offset: Offset) -> Result<(), LogError> {
        let this = self.this();
        self.in_task(TaskClass::Background, async move {
            this.move_log_start(offset).await
        })
        .await
    }

    /// Cuts the log: everything from `end` on is forgotten, durably. An `end` inside a batch cuts
    /// the whole batch. Returns the new end. Nothing may be appended meanwhile.
    ///
    /// Producer state older than the cut is gone when `end` lies below the last checkpoint: the
    /// next recovery then goes through the whole log.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn truncate(&self, end: Offset) -> Result<Offset, LogError> {
        let this = self.this();
        self.in_task(TaskClass::Foreground, async move { this.cut(end).await })
            .await
    }

    /// Writes and flushes everything, stores a checkpoint, and closes the files.
    ///
    /// # Errors
    /// [`LogError`]; what was persisted stays so.
    pub async fn close(&self, producer_snapshot: Vec<u8>) -> Result<(), LogError> {
        if std::mem::replace(&mut self.state.borrow_mut().closing, true) {
            return Err(LogError::Closed);
        }
        let this = self.this();
        self.in_task(TaskClass::Foreground, async move {
            this.shut(producer_snapshot).await
        })
        .await
    }

    /// Removes the log from disk.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn remove(&self) -> Result<(), LogError> {
        self.state.borrow_mut().closing = true;
        let this = self.this();
        self.in_task(TaskClass::Background, async move { this.erase().await })
            .await
    }

    /// Changes the settings of an open log.
    pub fn set_options(&self, options: LogOptions) {
        self.state.borrow_mut().options = options;
        self.schedule();
    }

    /// Whose log this is.
    #[must_use]
    pub fn id(&self) -> TopicPartition {
        self.id
    }

    /// First offset that may be read.
    #[must_use]
    pub fn log_start(&self) -> Offset {
        self.state.borrow().log_start
    }

    /// Next offset to append.
    #[must_use]
    pub fn log_end(&self) -> Offset {
        self.state.borrow().appender.log_end()
    }

    /// Everything below is on stable storage, in segments or in the journal.
    #[must_use]
    pub fn durable_end(&self) -> Offset {
        self.state.borrow().appender.acknowledged()
    }

    /// What the log takes up.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        let state = self.state.borrow();
        let segments = state.segments.0.values();
        let (unplaced, unplaced_since_ms) = state.appender.unplaced();
        let unplaced = unplaced as u64;
        let placed: u64 = segments.clone().map(|segment| segment.end).sum();
        let allocated: u64 = segments.clone().map(|segment| segment.file_size).sum();
        LogStats {
            logical_bytes: placed + unplaced,
            physical_bytes: allocated + unplaced + self.spare_size(),
            unplaced_since_ms,
            segments: segments.map(super::segments::Segment::stats).collect(),
            // What failed is not waiting any more.
            unflushed_bytes: match state.failed {
                Some(_) => 0,
                None => state.appender.unflushed(),
            },
            durable_end: state.appender.acknowledged(),
        }
    }

    /// Takes in what only the journals of the last process hold, and makes it durable here.
    async fn take_replayed(&self, entries: Vec<ReplayedEntry>) -> Result<(), LogError> {
        let mut size = 0;
        let flushed = {
            let state = &mut *self.state.borrow_mut();
            for entry in &entries {
                let header = &entry.header;
                state.appender.append(&Append {
                    batches: &entry.batches,
                    first: entry.first,
                    next: entry.next,
                    epoch: header.epoch,
                    max_timestamp_ms: header.max_timestamp_ms,
                    batch_count: entry.batch_count,
                    now_ms: header.append_time_ms,
                    incarnation: Some(header.incarnation),
                });
                size += entry.batches.len();
            }
            state.clean = false;
            state.appended_since_checkpoint += size as u64;
            state.options.durability == Durability::Flushed
        };
        self.storage.take_room(size, self.storage.io.now());
        self.schedule();
        let end = self.log_end();
        let durable = if flushed {
            until(&self.changed, || {
                let state = self.state.borrow();
                let durable = state.appender.acknowledged() >= end;
                durable.then_some(Ok(())).or_else(|| state.stuck().map(Err))
            })
            .await
        } else {
            self.flush_through(end).await
        };
        if durable.is_err() {
            self.storage.keep_replay(self.id);
            // Nobody gets this log, so nothing of it may be written later either.
            self.state.borrow_mut().closing = true;
        }
        durable
    }

    pub(super) fn this(&self) -> Rc<Self> {
        self.this.upgrade().expect("a log lives in an Rc")
    }

    /// Runs something to its end even if the caller goes away.
    pub(super) async fn in_task<T: 'static>(
        &self,
        class: TaskClass,
        task: impl Future<Output = T> + 'static,
    ) -> T {
        let result = Rc::new(Cell::new(None));
        let done = Rc::new(Signal::default());
        let (slot, finished) = (Rc::clone(&result), Rc::clone(&done));
        self.storage.io.spawn(class, async move {
            slot.set(Some(task.await));
            finished.raise();
        });
        until(&done, || result.take()).await
    }
}

impl<B: crate::io::Buffer> State<B> {
    /// Nothing stands against an append.
    pub fn writable(&self) -> Result<(), LogError> {
        self.changeable()?;
        self.stuck().map_or(Ok(()), Err)
    }

    /// Nothing stands against a change that needs no more space.
    pub fn changeable(&self) -> Result<(), LogError> {
        if let Some(damage) = &self.damage {
            let below = damage.below;
            return Err(LogError::Damaged { below });
        }
        if self.closing {
            return Err(LogError::Closed);
        }
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// The offset lies in the log, or is its end.
    pub fn check_range(&self, offset: Offset) -> Result<(), LogError> {
        let (log_start, log_end) = (self.log_start, self.appender.log_end());
        if log_start <= offset && offset <= log_end {
            return Ok(());
        }
        Err(LogError::OutOfRange {
            offset,
            log_start,
            log_end,
        })
    }

    /// Nothing more becomes durable, for now or for ever.
    pub fn stuck(&self) -> Option<LogError> {
        let full = |path: &PathBuf| LogError::DiskFull { path: path.clone() };
        let full = || self.disk_full.as_ref().map(full);
        self.failed.clone().or_else(full)
    }
}
