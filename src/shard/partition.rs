//! The shell of one partition: performs what its machine decides, on its log.

mod role;

#[cfg(test)]
mod tests;

use std::{
    cell::{Cell, OnceCell, RefCell},
    rc::{Rc, Weak},
};

pub(super) use role::{Extra, Role};

use millstream_protocol::{
    ErrorCode, LeaderEpoch, Offset, TopicPartition,
    batch::{BatchError, BatchHeader, Batches, DecodedBatch, place_all, set_append_time},
    limits::MAX_BATCH_SIZE,
};

use crate::{
    delay::Deliveries,
    io::{Io, Signal, TaskClass},
    partition::{Action, Event, Partition, Producers, Recovered, Refusal},
    shard::{delay::Delay, produce::Produced},
    storage::{
        self, Damage, Log, LogError, LogListener, LogOptions, RecoveryObserver, ShardStorage,
        SnapshotRejected, delay_log_of,
    },
    types::{Durability, TimestampType, TopicConfig},
};

/// A partition that this shard owns.
pub struct PartitionShell<I: Io> {
    io: I,
    machine: RefCell<Partition<Produced>>,
    log: Rc<Log<I>>,
    /// Fetches that wait for more; each is raised once.
    waiting: RefCell<Vec<Weak<Signal>>>,
    max_batch_size: Cell<u32>,
    timestamp_type: Cell<TimestampType>,
    /// The topic is compacted, or is to be.
    keys_required: Cell<bool>,
    /// Readers get nothing that is older.
    ttl_ms: Cell<Option<u64>>,
    checkpointing: Cell<bool>,
    closed: Cell<bool>,
    /// What is wrong with acknowledged data, once it is known.
    damage: OnceCell<Damage>,
    /// Whether it is a partition, with its delayed records, or such a one's delay log.
    role: OnceCell<Role<I>>,
    /// Reused by every event.
    actions: RefCell<Vec<Action<Produced>>>,
}

/// Hands the log's events to the shell, which does not exist yet when the log opens.
struct Listener<I: Io> {
    shell: OnceCell<Weak<PartitionShell<I>>>,
}

impl<I: Io> Listener<I> {
    fn with(&self, act: impl FnOnce(&Rc<PartitionShell<I>>)) {
        if let Some(shell) = self.shell.get().and_then(Weak::upgrade) {
            act(&shell);
        }
    }
}

impl<I: Io> LogListener for Listener<I> {
    fn persisted(&self, up_to: Offset) {
        self.with(|shell| {
            shell.apply(Event::Persisted { up_to });
            shell.now_durable();
        });
    }

    fn refused(&self, end: Offset, error: &LogError) {
        self.with(|shell| shell.refused(end, error));
    }

    fn failed(&self, error: &LogError) {
        self.with(|shell| shell.log_failed(error));
    }

    fn checkpoint_wanted(&self) {
        self.with(PartitionShell::checkpoint_soon);
    }
}

/// Rebuilds the state that goes with a log as it opens.
struct Rebuild {
    producers: Producers,
    extra: Extra,
}

impl RecoveryObserver for Rebuild {
    fn snapshot(&mut self, bytes: &[u8]) -> Result<(), SnapshotRejected> {
        if bytes.is_empty() {
            // No checkpoint: its own would name producers at least.
            self.producers = Producers::default();
            self.extra.begin_anew();
            return Ok(());
        }
        let (producers, extra) = role::split_snapshot(bytes).ok_or(SnapshotRejected)?;
        self.producers = if producers.is_empty() {
            Producers::default()
        } else {
            Producers::restore(producers).map_err(|_| SnapshotRejected)?
        };
        self.extra.restore(extra)
    }

    fn batch(&mut self, header: &BatchHeader, bytes: &[u8], append_time_ms: i64) {
        // What recovery finds is durable.
        self.producers
            .appended(header, append_time_ms, header.next_offset());
        self.extra.batch(header, bytes, append_time_ms);
    }
}

/// The log's part of a topic's settings.
#[must_use]
pub fn log_options(config: &TopicConfig) -> LogOptions {
    LogOptions {
        segment_size: config.roll_size(),
        segment_roll_ms: i64::try_from(config.roll_ms()).unwrap_or(i64::MAX),
        durability: match config.durability {
            Durability::Flushed => storage::Durability::Flushed,
            Durability::Buffered => storage::Durability::Buffered,
        },
    }
}

impl<I: Io> PartitionShell<I> {
    /// Opens the partition's log, and its delay log if it has one, and recovers what they hold. The second
    /// value is a line for the operator, if recovery had something to do.
    ///
    /// # Errors
    /// The disk's, or a format this build does not know.
    pub async fn open(
        io: I,
        storage: &Rc<ShardStorage<I>>,
        id: TopicPartition,
        epoch: LeaderEpoch,
        config: &TopicConfig,
    ) -> Result<(Rc<Self>, Option<String>), LogError> {
        let opened = Self::open_with_delay(io, storage, id, epoch, config).await;
        if opened.is_err() {
            // Its delay log may not have come to its turn.
            storage.keep_replay(delay_log_of(id));
        }
        opened
    }

    async fn open_with_delay(
        io: I,
        storage: &Rc<ShardStorage<I>>,
        id: TopicPartition,
        epoch: LeaderEpoch,
        config: &TopicConfig,
    ) -> Result<(Rc<Self>, Option<String>), LogError> {
        let extra = Extra::Deliveries(Deliveries::default());
        let opened = Self::open_log(io, storage, id, epoch, config, extra).await?;
        let (shell, mut report, extra) = opened;
        let delay = Delay::new(&shell, storage, extra.into_deliveries(), config);
        let set = shell.role.set(Role::Partition(Rc::clone(&delay)));
        assert!(set.is_ok(), "a log has one role");
        if let Some(line) = delay.recover().await? {
            let line = format!("delayed records: {line}");
            report =
                Some(report.map_or_else(|| line.clone(), |before| format!("{before}; {line}")));
        }
        Ok((shell, report))
    }

    /// Opens one log; gives what else was rebuilt from it.
    pub(super) async fn open_log(
        io: I,
        storage: &Rc<ShardStorage<I>>,
        id: TopicPartition,
        epoch: LeaderEpoch,
        config: &TopicConfig,
        extra: Extra,
    ) -> Result<(Rc<Self>, Option<String>, Extra), LogError> {
        let listener = Rc::new(Listener {
            shell: OnceCell::new(),
        });
        let mut rebuild = Rebuild {
            producers: Producers::default(),
            extra,
        };
        let options = log_options(config);
        let events = Rc::clone(&listener) as Rc<dyn LogListener>;
        let (log, found) = Log::open(storage, id, options, events, &mut rebuild).await?;
        let recovered = Recovered {
            log_start: found.log_start,
            log_end: found.log_end,
            epochs: crate::partition::Epochs::new(found.epochs),
            producers: rebuild.producers,
            damaged_below: found.damage.as_ref().map(|damage| damage.below),
        };
        let shell = Rc::new(Self {
            io,
            machine: RefCell::new(Partition::new(id, epoch, recovered)),
            log,
            waiting: RefCell::default(),
            max_batch_size: Cell::new(config.max_batch_bytes),
            timestamp_type: Cell::new(config.timestamp_type),
            keys_required: Cell::new(config.cleanup_policy.compacts()),
            ttl_ms: Cell::new(config.ttl_ms),
            checkpointing: Cell::new(false),
            closed: Cell::new(false),
            damage: found.damage.map_or_else(OnceCell::new, OnceCell::from),
            role: OnceCell::new(),
            actions: RefCell::default(),
        });
        let set = listener.shell.set(Rc::downgrade(&shell));
        assert!(set.is_ok(), "the listener of a log has one shell");
        Ok((shell, found.report, rebuild.extra))
    }

    /// What the machine knows.
    pub fn with_machine<R>(&self, look: impl FnOnce(&Partition<Produced>) -> R) -> R {
        look(&self.machine.borrow())
    }

    /// What is wrong with acknowledged data, if anything is known to be.
    pub fn damage(&self) -> Option<&Damage> {
        self.damage.get()
    }

    /// A read came upon damage; false if some was known already.
    pub fn found_damage(self: &Rc<Self>, damage: Damage) -> bool {
        let new = self.damage.set(damage).is_ok();
        if new {
            self.apply(Event::Damaged);
        }
        new
    }

    /// The sentence for a refusal with this code: for damage, what is damaged and where.
    pub fn sentence_for(&self, error: ErrorCode) -> Option<String> {
        let damage = self
            .damage()
            .filter(|_| error == ErrorCode::PartitionReadOnly);
        damage.map(ToString::to_string)
    }

    /// Its log.
    pub fn log(&self) -> &Rc<Log<I>> {
        &self.log
    }

    /// Takes new settings and a new leader epoch from the metadata.
    pub fn update(self: &Rc<Self>, config: &TopicConfig, epoch: LeaderEpoch) {
        self.max_batch_size.set(config.max_batch_bytes);
        self.timestamp_type.set(config.timestamp_type);
        self.require_keys(config.cleanup_policy.compacts());
        self.ttl_ms.set(config.ttl_ms);
        self.log.set_options(log_options(config));
        self.apply(Event::Led { epoch });
        if let Some(Role::Partition(delay)) = self.role.get() {
            delay.update(config, epoch);
        }
    }

    /// Batches without a timestamp from here on are over; `None` if none ever is.
    pub(super) fn live_from_ms(&self) -> Option<i64> {
        let ttl_ms = i64::try_from(self.ttl_ms.get()?).unwrap_or(i64::MAX);
        Some(self.io.wall_ms().saturating_sub(ttl_ms))
    }

    /// From now on records without a key are refused, or taken.
    pub fn require_keys(&self, required: bool) {
        self.keys_required.set(required);
    }

    /// Appends whole batches; `produced` is told once they are durable, or why they are not.
    pub fn produce(
        self: &Rc<Self>,
        records: &mut [u8],
        leader_epoch: LeaderEpoch,
        mut produced: Produced,
    ) {
        let now_ms = self.io.wall_ms();
        match self.prepare(records, now_ms) {
            Err(error) => produced.refuse(error.error_code(), error.to_string()),
            Ok(batches) => {
                if self.timestamp_type.get() == TimestampType::LogAppendTime {
                    produced.stamped(now_ms);
                }
                let event = Event::Produce {
                    token: produced,
                    batches: &batches,
                    leader_epoch,
                    now_ms,
                };
                self.apply_produce(event, records, &batches);
            }
        }
    }

    /// Appends batches that the broker itself made. True if they are in the log, in memory: then `produced`
    /// is told when they are durable.
    pub(super) fn append_own(
        self: &Rc<Self>,
        records: &mut [u8],
        now_ms: i64,
        produced: Produced,
    ) -> bool {
        let headers = Batches::trusted(records).map(|batch| Ok(batch?.0));
        let headers: Result<Vec<BatchHeader>, BatchError> = headers.collect();
        let batches = headers.expect("the broker makes good batches");
        let before = self.log.log_end();
        let event = Event::Produce {
            token: produced,
            batches: &batches,
            leader_epoch: LeaderEpoch::UNKNOWN,
            now_ms,
        };
        self.apply_produce(event, records, &batches);
        self.log.log_end() > before
    }

    /// Checks what a producer sent, and stamps the time where the topic wants the broker's.
    fn prepare(&self, records: &mut [u8], now_ms: i64) -> Result<Vec<BatchHeader>, BatchError> {
        if records.len() > MAX_BATCH_SIZE as usize {
            // A frame holds a little more, and many batches of any size.
            return Err(BatchError::TooLarge {
                size: u32::try_from(records.len()).unwrap_or(u32::MAX),
                limit: MAX_BATCH_SIZE,
            });
        }
        let mut batches = Vec::with_capacity(1);
        for batch in Batches::produced(records, self.max_batch_size.get()) {
            let (header, bytes) = batch?;
            if self.keys_required.get() {
                DecodedBatch::open(bytes)?.check_keys()?;
            }
            batches.push(header);
        }
        if batches.is_empty() {
            return Err(BatchError::Empty);
        }
        if self.timestamp_type.get() == TimestampType::LogAppendTime {
            let mut rest = &mut *records;
            for header in &mut batches {
                let (batch, tail) = rest.split_at_mut(header.size as usize);
                set_append_time(batch, now_ms)?;
                header.max_timestamp_ms = now_ms;
                rest = tail;
            }
        }
        Ok(batches)
    }

    fn apply_produce(
        self: &Rc<Self>,
        event: Event<'_, Produced>,
        records: &mut [u8],
        batches: &[BatchHeader],
    ) {
        let mut append = Append { records, batches };
        let mut actions = self.actions.take();
        self.machine.borrow_mut().apply(event, &mut actions);
        self.perform(&mut actions, Some(&mut append));
        self.actions.replace(actions);
    }

    fn apply(self: &Rc<Self>, event: Event<'_, Produced>) {
        let mut actions = self.actions.take();
        self.machine.borrow_mut().apply(event, &mut actions);
        self.perform(&mut actions, None);
        self.actions.replace(actions);
    }

    fn perform(
        self: &Rc<Self>,
        actions: &mut Vec<Action<Produced>>,
        mut append: Option<&mut Append<'_>>,
    ) {
        for action in actions.drain(..) {
            match action {
                Action::Append {
                    skip,
                    base_offset,
                    next_offset,
                    epoch,
                } => {
                    let append = append.as_mut().expect("only a produce appends");
                    self.append(append, skip, base_offset, next_offset, epoch);
                }
                Action::Answer { token, result } => {
                    let error = result.map_or_else(|refusal| refusal.error, |_| ErrorCode::None);
                    match self.sentence_for(error) {
                        Some(sentence) => token.refuse(error, sentence),
                        None => token.answer(result, self.log.log_start()),
                    }
                }
                Action::HighWatermarkMoved => self.wake_waiting(),
            }
        }
    }

    fn append(
        self: &Rc<Self>,
        append: &mut Append<'_>,
        skip: usize,
        base_offset: Offset,
        next_offset: Offset,
        epoch: LeaderEpoch,
    ) {
        let skipped: usize = append.batches[..skip].iter().map(|b| b.size as usize).sum();
        let batches = &append.batches[skip..];
        let records = &mut append.records[skipped..];
        let placed = place_all(records, base_offset, epoch).expect("checked before");
        assert_eq!(placed, next_offset, "the machine and the batches agree");
        let newest = batches.iter().map(|batch| batch.max_timestamp_ms).max();
        let count = u32::try_from(batches.len()).expect("a frame holds fewer batches");
        let appended = self.log.append(
            records,
            base_offset,
            next_offset,
            epoch,
            newest.unwrap_or(-1),
            count,
        );
        match appended {
            Ok(()) => self.now_appended(records),
            Err(error) => self.refused(base_offset, &error),
        }
    }

    fn refused(self: &Rc<Self>, end: Offset, error: &LogError) {
        tracing::warn!(partition = %self.log.id(), %error, "append refused");
        let error = log_error_code(error);
        // An earlier refusal may have cut the log below this one already.
        let end = end.min(self.machine.borrow().log_end());
        self.apply(Event::Refused { end, error });
        self.now_cut(end);
    }

    fn log_failed(self: &Rc<Self>, error: &LogError) {
        tracing::error!(partition = %self.log.id(), %error, "partition offline");
        self.apply(Event::Failed);
        self.wake_waiting();
        self.now_durable();
    }

    fn wake_waiting(&self) {
        for waiter in self.waiting.take() {
            if let Some(waiter) = waiter.upgrade() {
                waiter.raise();
            }
        }
    }

    /// Raises `waiter` once when the high watermark moves, or the partition fails or goes.
    pub fn watch(&self, waiter: &Rc<Signal>) {
        let mut waiting = self.waiting.borrow_mut();
        // Swept when it would grow: with thousands of fetches waiting, a look at all of them for
        // each new one would take the shard's whole time.
        if waiting.len() == waiting.capacity() {
            waiting.retain(|other| other.strong_count() > 0);
            let room = waiting.len().max(8);
            waiting.reserve(room);
        }
        waiting.push(Rc::downgrade(waiter));
    }

    /// Stores a checkpoint, unless one is on its way.
    pub fn checkpoint_soon(self: &Rc<Self>) {
        if self.closed.get() || self.checkpointing.replace(true) {
            return;
        }
        let shell = Rc::clone(self);
        self.io.spawn(TaskClass::Background, async move {
            match shell.log.checkpoint(shell.snapshot()).await {
                // A snapshot taken since, at the close, may not be durable.
                Ok(true) if !shell.closed.get() => shell.now_checkpointed(),
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(partition = %shell.log.id(), %error, "no checkpoint");
                }
            }
            shell.checkpointing.set(false);
        });
    }

    /// Forgets idempotent producers that have been silent for long. The clock was set by so many
    /// milliseconds since the last call.
    pub fn expire_producers(&self, set_by_ms: i64) {
        self.machine
            .borrow_mut()
            .expire_producers(self.io.wall_ms(), set_by_ms);
        if let Some(Role::Partition(delay)) = self.role.get() {
            delay.expire_producers(set_by_ms);
        }
    }

    /// Raises the log start offset, durably.
    ///
    /// # Errors
    /// The log's.
    pub async fn delete_records(self: &Rc<Self>, before: Offset) -> Result<Offset, LogError> {
        self.log.set_log_start(before).await?;
        let offset = self.log.log_start();
        self.apply(Event::LogStartMoved { offset });
        Ok(offset)
    }

    /// Makes everything durable and closes the log.
    ///
    /// # Errors
    /// The log's.
    pub async fn close(&self) -> Result<(), LogError> {
        let delayed = match self.role.get() {
            Some(Role::Partition(delay)) => delay.close().await,
            _ => Ok(()),
        };
        // Trouble with one log keeps nobody from closing the other.
        self.close_log().await.and(delayed)
    }

    /// Removes the partition's files. What waits is refused.
    ///
    /// # Errors
    /// The disk's.
    pub async fn remove(self: &Rc<Self>) -> Result<(), LogError> {
        let delayed = match self.role.get() {
            Some(Role::Partition(delay)) => delay.remove().await,
            _ => Ok(()),
        };
        self.remove_log().await.and(delayed)
    }
}

/// The bytes of the produce that is being decided.
struct Append<'a> {
    records: &'a mut [u8],
    batches: &'a [BatchHeader],
}

/// The wire's code for what the log said.
#[must_use]
pub fn log_error_code(error: &LogError) -> ErrorCode {
    match error {
        LogError::DiskFull { .. } => ErrorCode::DiskFull,
        LogError::Failed { .. } | LogError::Io { .. } => ErrorCode::StorageError,
        LogError::Damaged { .. } => ErrorCode::PartitionReadOnly,
        LogError::NewerFormat { .. } => ErrorCode::PartitionOffline,
        LogError::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        LogError::Closed => ErrorCode::UnknownPartition,
    }
}

/// A sentence for a refusal of the machine.
#[must_use]
pub fn refusal_message(refusal: &Refusal) -> String {
    use crate::partition::Detail;
    match refusal.detail {
        Detail::None => String::new(),
        Detail::CurrentEpoch(epoch) => format!("the leader epoch is {epoch}"),
        Detail::ExpectedSequence(sequence) => format!("sequence {sequence} was expected"),
        Detail::Timestamp(ms) => {
            format!("timestamp {ms} is more than an hour ahead of the broker's clock")
        }
    }
}
