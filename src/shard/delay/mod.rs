//! The delayed records of a partition: its delay log, opened when there is something in it or to come, and
//! the schedule of what it holds. `crate::delay` decides; `deliver` and `ask` are the rest of this shell.

mod accept;
mod ask;
mod deliver;
mod runs;
mod settle;

use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::VecDeque,
    rc::{Rc, Weak},
    time::Duration,
};

use self::accept::Early;
use millstream_protocol::{LeaderEpoch, Offset, batch::Batches, limits::MAX_BATCH_SIZE};

use crate::{
    delay::{DelayClock, Deliveries, Schedule},
    io::{Io, Monotonic, Signal, TaskClass},
    shard::partition::{Extra, PartitionShell},
    storage::{LogError, ShardStorage, delay_log_of},
    types::{CleanupPolicy, TimestampType, TopicConfig},
};

/// Size at which a segment of a delay log is closed, in bytes: small enough that what is over goes soon.
const SEGMENT_SIZE: u64 = 32 << 20;
/// So many deliveries are remembered with the partition before a checkpoint of the delay log takes them over.
const REMEMBERED_DELIVERIES: usize = 50_000;

/// What is said while it cannot be said which ids wait.
const INDEX_LOST: &str = "the index of its delayed records is being made again";

/// The delayed records of one partition.
pub struct Delay<I: Io> {
    io: I,
    storage: Rc<ShardStorage<I>>,
    partition: Weak<PartitionShell<I>>,
    /// The delay log, once it is open.
    log: OnceCell<Rc<PartitionShell<I>>>,
    /// Produces that wait to be taken in, their bytes, and whether somebody sees to them.
    early: RefCell<VecDeque<Early>>,
    early_size: Cell<usize>,
    draining: Cell<bool>,
    /// Files of the index are being read or written.
    tending: Cell<bool>,
    schedule: RefCell<Schedule>,
    deliveries: RefCell<Deliveries>,
    clock: RefCell<DelayClock>,
    config: RefCell<TopicConfig>,
    /// Raised when anything moved that someone may wait for.
    changed: Signal,
    stopped: Cell<bool>,
    /// What keeps due records from being delivered, as it was logged.
    trouble: RefCell<Option<String>>,
    /// Runs whose files go once the last snapshot is durable.
    garbage: RefCell<Vec<u64>>,
    /// A file of the index could not be written: until then it is not tried again.
    spill_again_at: Cell<Monotonic>,
    /// The partition's offset below which the last snapshot knows of deliveries.
    snapshot_covers: Cell<Offset>,
}

impl<I: Io> Delay<I> {
    pub(super) fn new(
        partition: &Rc<PartitionShell<I>>,
        storage: &Rc<ShardStorage<I>>,
        mut deliveries: Deliveries,
        config: &TopicConfig,
    ) -> Rc<Self> {
        let io = partition.io().clone();
        let monotonic = Duration::from_nanos(io.now().0);
        deliveries.all_read(io.wall_ms());
        Rc::new(Self {
            storage: Rc::clone(storage),
            partition: Rc::downgrade(partition),
            log: OnceCell::new(),
            early: RefCell::default(),
            early_size: Cell::new(0),
            draining: Cell::new(false),
            tending: Cell::new(false),
            schedule: RefCell::new(Schedule::new((0, 0))),
            deliveries: RefCell::new(deliveries),
            clock: RefCell::new(DelayClock::new(monotonic, io.wall_ms())),
            config: RefCell::new(config.clone()),
            changed: Signal::default(),
            stopped: Cell::new(false),
            trouble: RefCell::default(),
            garbage: RefCell::default(),
            spill_again_at: Cell::new(Monotonic::default()),
            snapshot_covers: Cell::new(Offset::ZERO),
            io,
        })
    }

    /// Opens the delay log if there is one, and begins to deliver. Gives a line for the operator.
    pub(super) async fn recover(self: &Rc<Self>) -> Result<Option<String>, LogError> {
        let partition = self.partition.upgrade().expect("it is being opened");
        let id = delay_log_of(partition.log().id());
        let there = self.storage.has_log(id).await;
        let there = there.map_err(|error| LogError::Io {
            operation: "looking for delayed records",
            path: self.storage.dir_of(id),
            error: std::sync::Arc::new(error),
        })?;
        if there { self.open().await } else { Ok(None) }
    }

    async fn open(self: &Rc<Self>) -> Result<Option<String>, LogError> {
        let Some(partition) = self.partition.upgrade() else {
            return Err(LogError::Closed);
        };
        let id = delay_log_of(partition.log().id());
        let key = (self.io.random_u64(), self.io.random_u64());
        let extra = Extra::Schedule(Box::new(Schedule::new(key)), key);
        let epoch = partition.with_machine(crate::partition::Partition::epoch);
        let config = log_config(&self.config.borrow());
        let io = self.io.clone();
        let opened = PartitionShell::open_log(io, &self.storage, id, epoch, &config, extra).await?;
        let (log, report, Extra::Schedule(mut schedule, _)) = opened else {
            unreachable!("a delay log gives its schedule");
        };
        log.serve_delay(self);
        let whole = self.settle(&partition, &log, &mut schedule).await;
        if let Some(error) = schedule.unreadable() {
            tracing::error!(partition = %partition.log().id(), %error, "delayed records cannot be read");
        }
        self.schedule.replace(*schedule);
        let set = self.log.set(log);
        assert!(set.is_ok(), "a delay log is opened once");
        self.know_runs().await;
        self.remove_orphans().await;
        self.tell_of_doubt();
        if whole && !self.stopped.get() {
            let this = Rc::clone(self);
            let deliver = async move { this.deliver().await };
            self.io.spawn(TaskClass::Foreground, deliver);
        }
        let pending = self.schedule.borrow().pending();
        let waiting = (pending > 0).then(|| format!("{pending} wait"));
        let lines: Vec<String> = report.into_iter().chain(waiting).collect();
        Ok((!lines.is_empty()).then(|| lines.join(", ")))
    }

    /// Milliseconds since 1970, by the clock that due times are judged by.
    fn now_ms(&self) -> i64 {
        let monotonic = Duration::from_nanos(self.io.now().0);
        self.clock.borrow_mut().now_ms(monotonic, self.io.wall_ms())
    }

    /// Stores a checkpoint of the delay log, unless one is on its way.
    pub fn checkpoint_soon(&self) {
        if let Some(log) = self.log.get() {
            log.checkpoint_soon();
        }
    }

    /// Takes new settings and a new leader epoch.
    pub(super) fn update(&self, config: &TopicConfig, epoch: LeaderEpoch) {
        self.config.replace(config.clone());
        if let Some(log) = self.log.get() {
            log.update(&log_config(config), epoch);
        }
    }

    /// The delay log has these batches now, in memory.
    pub(super) fn log_appended(&self, batches: &[u8]) {
        let mut schedule = self.schedule.borrow_mut();
        for batch in Batches::trusted(batches) {
            let (header, bytes) = batch.expect("they were just appended");
            schedule.batch(&header, bytes);
        }
    }

    /// The delay log is durable further than before.
    pub(super) fn log_persisted(&self) {
        if let Some(log) = self.log.get() {
            let durable = log.log().durable_end();
            self.schedule.borrow_mut().persisted(durable);
        }
        self.changed.raise();
    }

    /// The delay log ends here again.
    pub(super) fn log_cut(&self, end: Offset) {
        self.schedule.borrow_mut().cut(end);
        self.changed.raise();
    }

    /// The partition is durable further than before.
    pub(super) fn partition_persisted(&self) {
        // Nobody waits for what else is appended there.
        if self.schedule.borrow().is_under_way() {
            self.take_in_deliveries();
            self.changed.raise();
        }
    }

    /// The partition ends here again.
    pub(super) fn partition_cut(&self, end: Offset) {
        self.deliveries.borrow_mut().cut(end);
        self.schedule.borrow_mut().partition_cut(end);
        self.changed.raise();
    }

    /// What was delivered, and is durable, is over.
    fn take_in_deliveries(&self) {
        if let Some(partition) = self.partition.upgrade() {
            // Not what the partition calls durable: a buffered one may still lose that.
            let durable = partition.log().durable_end();
            self.schedule.borrow_mut().delivered(durable);
        }
        if let Some(log) = self.log.get()
            && self.deliveries.borrow().count() > REMEMBERED_DELIVERIES
        {
            log.checkpoint_soon();
        }
    }

    /// For a checkpoint of the delay log.
    pub(super) fn log_snapshot(&self) -> Vec<u8> {
        if let Some(partition) = self.partition.upgrade() {
            let durable = partition.log().durable_end();
            self.schedule.borrow_mut().delivered(durable);
        }
        let mut schedule = self.schedule.borrow_mut();
        self.snapshot_covers.set(schedule.delivered_below());
        self.garbage.borrow_mut().extend(schedule.take_garbage());
        schedule.snapshot()
    }

    /// The snapshot is durable: the partition need not remember what it covers.
    pub(super) fn log_checkpointed(self: &Rc<Self>) {
        let covered = self.snapshot_covers.get();
        self.deliveries.borrow_mut().forget_below(covered);
        let garbage = self.garbage.take();
        if !garbage.is_empty() {
            let this = Rc::clone(self);
            let remove = async move { this.remove_runs(garbage).await };
            self.io.spawn(TaskClass::Background, remove);
        }
    }

    /// For a checkpoint of the partition.
    pub(super) fn partition_snapshot(&self) -> Vec<u8> {
        let deliveries = self.deliveries.borrow();
        if deliveries.is_empty() {
            Vec::new()
        } else {
            deliveries.snapshot()
        }
    }

    /// Now and then: frees the disk space of what is over.
    pub async fn clean(&self) {
        let Some(log) = self.log.get() else {
            return;
        };
        log.log().roll_old();
        log.log().trim_idle().await;
        let keep = {
            let schedule = self.schedule.borrow();
            schedule.needed_from().unwrap_or(log.log().durable_end())
        };
        // A start that moves within a segment frees nothing.
        let segments = log.log().stats().segments;
        let frees = segments.first().is_some_and(|it| it.next_offset <= keep);
        if frees
            && keep > log.log().log_start()
            && let Err(error) = log.delete_records(keep).await
        {
            tracing::warn!(partition = %log.log().id(), %error, "delayed records: cleaning");
        }
    }

    /// Forgets idempotent producers of delayed records that have been silent for long.
    pub(super) fn expire_producers(&self, set_by_ms: i64) {
        if let Some(log) = self.log.get() {
            log.expire_producers(set_by_ms);
        }
    }

    pub(super) async fn close(&self) -> Result<(), LogError> {
        self.stop().await;
        match self.log.get() {
            Some(log) => log.close_log().await,
            None => Ok(()),
        }
    }

    pub(super) async fn remove(&self) -> Result<(), LogError> {
        self.stop().await;
        match self.log.get() {
            Some(log) => log.remove_log().await,
            None => Ok(()),
        }
    }

    /// Nothing is delivered or accepted any more, no file is made, and the log will not be opened after this.
    async fn stop(&self) {
        self.stopped.set(true);
        self.changed.raise();
        let busy = || self.draining.get() || self.tending.get();
        self.changed.wait_until(|| !busy()).await;
    }
}

/// The settings of a delay log.
fn log_config(topic: &TopicConfig) -> TopicConfig {
    let mut config = topic.clone();
    config.segment_bytes = topic.segment_bytes.min(SEGMENT_SIZE);
    config.retention_ms = None;
    config.retention_bytes = None;
    config.max_batch_bytes = MAX_BATCH_SIZE;
    config.timestamp_type = TimestampType::CreateTime;
    config.cleanup_policy = CleanupPolicy::Delete;
    config
}
