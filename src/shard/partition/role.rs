//! What a log is for: a partition with its delayed records, or such a partition's delay log. Either way
//! something more than producers goes into its checkpoints, and hears of what happens to it.

use std::rc::{Rc, Weak};

use millstream_protocol::{Offset, Reader, Wire, batch::BatchHeader};

use super::PartitionShell;
use crate::{
    delay::{Deliveries, Schedule},
    io::Io,
    partition::Event,
    shard::delay::Delay,
    storage::{LogError, SnapshotRejected},
};

/// The version of a snapshot that holds more than producers. One of producers alone begins with theirs, 1.
const WITH_EXTRA: u16 = 2;

/// What a log is for.
pub enum Role<I: Io> {
    /// A partition; and its delayed records.
    Partition(Rc<Delay<I>>),
    /// A delay log; and whose.
    DelayLog(Weak<Delay<I>>),
}

/// What is rebuilt from a log besides its producers.
pub enum Extra {
    /// Of a partition: the delayed records that were delivered to it.
    Deliveries(Deliveries),
    /// Of a delay log, and the key of a new one.
    Schedule(Box<Schedule>, (u64, u64)),
}

impl Extra {
    pub(super) fn restore(&mut self, bytes: &[u8]) -> Result<(), SnapshotRejected> {
        match self {
            Self::Deliveries(deliveries) => {
                *deliveries = Deliveries::restore(bytes).map_err(|_| SnapshotRejected)?;
            }
            Self::Schedule(schedule, key) => {
                **schedule = Schedule::restore(bytes, *key).map_err(|_| SnapshotRejected)?;
            }
        }
        Ok(())
    }

    /// There is no checkpoint: all that the log still has comes.
    pub(super) fn begin_anew(&mut self) {
        match self {
            Self::Deliveries(deliveries) => *deliveries = Deliveries::without_checkpoint(),
            Self::Schedule(schedule, key) => **schedule = Schedule::new(*key),
        }
    }

    pub(super) fn batch(&mut self, header: &BatchHeader, bytes: &[u8], append_time_ms: i64) {
        match self {
            Self::Deliveries(deliveries) => deliveries.batch(header, bytes, append_time_ms),
            Self::Schedule(schedule, _) => schedule.batch(header, bytes),
        }
    }

    pub(super) fn into_deliveries(self) -> Deliveries {
        match self {
            Self::Deliveries(deliveries) => deliveries,
            Self::Schedule(..) => unreachable!("a partition was opened"),
        }
    }
}

/// The producers' part of a snapshot, and the rest.
pub(super) fn split_snapshot(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut reader = Reader::new(bytes);
    if bytes.is_empty() || u16::decode(&mut reader).ok()? != WITH_EXTRA {
        return Some((bytes, &[]));
    }
    let size = u32::decode(&mut reader).ok()? as usize;
    let producers = reader.take(size).ok()?;
    let extra = reader.take(reader.remaining()).ok()?;
    Some((producers, extra))
}

fn join_snapshot(producers: Vec<u8>, extra: &[u8]) -> Vec<u8> {
    if extra.is_empty() {
        return producers;
    }
    let mut out = Vec::with_capacity(6 + producers.len() + extra.len());
    WITH_EXTRA.encode(&mut out);
    let size = u32::try_from(producers.len()).expect("bounded by MAX_PRODUCERS");
    size.encode(&mut out);
    out.extend(producers);
    out.extend_from_slice(extra);
    out
}

impl<I: Io> PartitionShell<I> {
    /// The delayed records of this partition.
    ///
    /// # Panics
    /// If this is a delay log.
    pub fn delay(&self) -> &Rc<Delay<I>> {
        match self.role.get() {
            Some(Role::Partition(delay)) => delay,
            Some(Role::DelayLog(_)) | None => unreachable!("a partition that was opened"),
        }
    }

    /// This is a partition's delay log.
    pub(in crate::shard) fn serve_delay(&self, delay: &Rc<Delay<I>>) {
        let set = self.role.set(Role::DelayLog(Rc::downgrade(delay)));
        assert!(set.is_ok(), "a log has one role");
    }

    /// For a checkpoint of everything appended so far.
    pub(super) fn snapshot(&self) -> Vec<u8> {
        let producers = self.machine.borrow().producers().snapshot();
        let extra = match self.role.get() {
            Some(Role::Partition(delay)) => delay.partition_snapshot(),
            Some(Role::DelayLog(delay)) => {
                let delay = delay.upgrade();
                delay.map_or_else(Vec::new, |delay| delay.log_snapshot())
            }
            None => Vec::new(),
        };
        join_snapshot(producers, &extra)
    }

    fn delay_log_of(&self) -> Option<Rc<Delay<I>>> {
        match self.role.get()? {
            Role::DelayLog(delay) => delay.upgrade(),
            Role::Partition(_) => None,
        }
    }

    /// Closes this log alone.
    pub(in crate::shard) async fn close_log(&self) -> Result<(), LogError> {
        self.closed.set(true);
        self.log.close(self.snapshot()).await
    }

    /// Removes this log alone. What waits is refused.
    pub(in crate::shard) async fn remove_log(self: &Rc<Self>) -> Result<(), LogError> {
        self.closed.set(true);
        self.apply(Event::Failed);
        self.wake_waiting();
        self.log.remove().await
    }

    /// Its world.
    pub(in crate::shard) fn io(&self) -> &I {
        &self.io
    }

    /// Batches were appended, with their offsets.
    pub(super) fn now_appended(&self, batches: &[u8]) {
        if let Some(delay) = self.delay_log_of() {
            delay.log_appended(batches);
        }
    }

    /// The log is durable further than before, or will never be.
    pub(super) fn now_durable(&self) {
        match self.role.get() {
            Some(Role::Partition(delay)) => delay.partition_persisted(),
            Some(Role::DelayLog(delay)) => {
                if let Some(delay) = delay.upgrade() {
                    delay.log_persisted();
                }
            }
            None => {}
        }
    }

    /// The log ends here again.
    pub(super) fn now_cut(&self, end: Offset) {
        match self.role.get() {
            Some(Role::Partition(delay)) => delay.partition_cut(end),
            Some(Role::DelayLog(delay)) => {
                if let Some(delay) = delay.upgrade() {
                    delay.log_cut(end);
                }
            }
            None => {}
        }
    }

    /// The last snapshot that was taken is durable.
    pub(super) fn now_checkpointed(&self) {
        if let Some(delay) = self.delay_log_of() {
            delay.log_checkpointed();
        }
    }
}
