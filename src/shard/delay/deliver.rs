//! Delivering what is due: read from the delay log, append to the partition, a bounded batch at a time, so
//! that a burst holds up nobody else.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    rc::Rc,
    time::Duration,
};

use futures_util::future::select;
use millstream_protocol::{ErrorCode, Offset};

use super::Delay;
use crate::{
    delay::{Entry, Found, pack},
    io::Io,
    shard::{partition::PartitionShell, produce::Produced},
    types::TimestampType,
};

/// Records that are read and handed over at once.
const RECORDS_AT_ONCE: usize = 256;
/// Bytes of records that are read at once, unless one alone is larger.
const READ_AT_ONCE: usize = 1 << 20;
/// Bytes of one read of the delay log.
const READ_SIZE: usize = 64 << 10;
/// Size of a batch that is handed over, unless one record alone is larger.
const BATCH_SIZE: usize = 128 << 10;
/// Records that may be handed over and not durable yet.
const MAX_UNDER_WAY: usize = 4 * RECORDS_AT_ONCE;
/// The wall clock may be set forward while nobody looks: it is looked at this often.
const LOOK_AT_CLOCK: Duration = Duration::from_millis(500);
/// A buffered log says only when asked how far it is on stable storage.
const LOOK_AT_LOGS: Duration = Duration::from_millis(50);
/// After trouble, until the next attempt.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// What there is to do.
enum Step {
    Deliver,
    /// Wait for something to change, at most so long.
    Wait(Duration),
    /// Wait for something to change.
    Park,
}

/// Why due records are not delivered now.
pub(super) enum Held {
    /// It passes.
    For(String),
    /// The partition or its delay log is gone.
    Gone,
}

impl<I: Io> Delay<I> {
    /// Delivers until the delay log is closed.
    pub(super) async fn deliver(self: Rc<Self>) {
        loop {
            let ticket = self.changed.ticket();
            if self.stopped.get() {
                return;
            }
            if let Err(trouble) = self.tend_index().await {
                self.note_trouble(trouble);
                self.io.sleep(TRY_AGAIN).await;
                continue;
            }
            let wait = match self.step() {
                Step::Deliver => match self.deliver_some().await {
                    Ok(()) => {
                        self.trouble.take();
                        self.io.yield_if_needed().await;
                        continue;
                    }
                    Err(Held::Gone) => return,
                    Err(Held::For(trouble)) => {
                        self.note_trouble(trouble);
                        self.io.sleep(TRY_AGAIN).await;
                        continue;
                    }
                },
                Step::Wait(wait) => wait,
                Step::Park => {
                    self.changed.raised_since(ticket).await;
                    continue;
                }
            };
            let changed = pin!(self.changed.raised_since(ticket));
            select(changed, pin!(self.io.sleep(wait))).await;
        }
    }

    /// The index has in memory what comes next, and on disk what is far away.
    async fn tend_index(&self) -> Result<(), String> {
        let lost = self.schedule.borrow().index_is_lost();
        if lost || !self.load_heads().await {
            self.rebuild().await?;
        }
        self.spill().await;
        Ok(())
    }

    pub(super) fn note_trouble(&self, trouble: String) {
        let told = self.trouble.borrow().as_ref() == Some(&trouble);
        if !told && let Some(log) = self.log.get() {
            tracing::warn!(partition = %log.log().id(), "delayed records are not delivered: {trouble}");
            self.trouble.replace(Some(trouble));
        }
    }

    fn step(&self) -> Step {
        self.take_in_deliveries();
        if let Some(log) = self.log.get() {
            let durable = log.log().durable_end();
            self.schedule.borrow_mut().persisted(durable);
        }
        let now_ms = self.now_ms();
        let schedule = self.schedule.borrow();
        if schedule.under_way() >= MAX_UNDER_WAY {
            return Step::Wait(LOOK_AT_LOGS);
        }
        let unsettled = schedule.under_way() > 0 || schedule.waits_for_log();
        match schedule.deadline() {
            Some(due_ms) if due_ms <= now_ms => Step::Deliver,
            Some(due_ms) => {
                let left_ms = u64::try_from(due_ms.saturating_sub(now_ms)).unwrap_or(u64::MAX);
                let look = if unsettled {
                    LOOK_AT_LOGS
                } else {
                    LOOK_AT_CLOCK
                };
                Step::Wait(Duration::from_millis(left_ms).min(look))
            }
            None if unsettled => Step::Wait(LOOK_AT_LOGS),
            None => Step::Park,
        }
    }

    /// Delivers some of what is due, in order.
    async fn deliver_some(&self) -> Result<(), Held> {
        self.storage.room().await;
        let now_ms = self.now_ms();
        let entries = self.schedule.borrow_mut().take_due(now_ms, RECORDS_AT_ONCE);
        let done = match self.read(&entries).await {
            Ok(found) => self.hand_over(&entries, &found),
            Err(held) => (0, Err(held)),
        };
        let (count, result) = done;
        self.schedule.borrow_mut().put_back(&entries[count..]);
        // Whoever wants to cancel one of them may go on.
        self.changed.raise();
        result
    }

    /// Reads records from the delay log, in order, as many as fit.
    async fn read(&self, entries: &[Entry]) -> Result<BTreeMap<Offset, Found>, Held> {
        let log = self.log.get().ok_or(Held::Gone)?;
        let wanted: BTreeSet<Offset> = entries.iter().map(|entry| entry.offset).collect();
        let mut found = BTreeMap::new();
        let mut size = 0;
        for entry in entries {
            if found.contains_key(&entry.offset) {
                continue;
            }
            if size >= READ_AT_ONCE {
                break;
            }
            size += self
                .read_one(log, entry.offset, &wanted, &mut found)
                .await?;
            let record = found.get(&entry.offset);
            if record.is_none_or(|record| record.due_ms != Some(entry.due_ms)) {
                let id = entry.offset;
                return Err(Held::For(format!("record {id} is not in the delay log")));
            }
            self.io.yield_if_needed().await;
        }
        Ok(found)
    }

    /// Reads what lies at an offset of the delay log and behind it; how many bytes that were.
    pub(super) async fn read_one(
        &self,
        log: &Rc<PartitionShell<I>>,
        offset: Offset,
        wanted: &BTreeSet<Offset>,
        found: &mut BTreeMap<Offset, Found>,
    ) -> Result<usize, Held> {
        let up_to = log.with_machine(crate::partition::Partition::high_watermark);
        let slices = log.log().read(offset, up_to, READ_SIZE).await;
        let slices = slices.map_err(|error| Held::For(error.to_string()))?;
        let mut size = 0;
        for slice in slices {
            size += slice.size();
            let read = Found::collect(slice.bytes(), wanted, found);
            read.map_err(|error| Held::For(error.to_string()))?;
        }
        Ok(size)
    }

    /// Appends records to the partition; how many were.
    fn hand_over(
        &self,
        entries: &[Entry],
        found: &BTreeMap<Offset, Found>,
    ) -> (usize, Result<(), Held>) {
        let mut count = 0;
        while count < entries.len() && found.contains_key(&entries[count].offset) {
            match self.hand_over_batch(&entries[count..], found) {
                Ok(handed_over) => count += handed_over,
                Err(held) => return (count, Err(held)),
            }
        }
        (count, Ok(()))
    }

    fn hand_over_batch(
        &self,
        entries: &[Entry],
        found: &BTreeMap<Offset, Found>,
    ) -> Result<usize, Held> {
        let partition = self.partition.upgrade().ok_or(Held::Gone)?;
        if self.stopped.get() {
            return Err(Held::Gone);
        }
        let trouble = partition.with_machine(crate::partition::Partition::trouble);
        if trouble != ErrorCode::None {
            return Err(Held::For(format!("the partition says {trouble}")));
        }
        let append_time = self.config.borrow().timestamp_type == TimestampType::LogAppendTime;
        // By the clock that said that they are due.
        let now_ms = self.now_ms();
        let packed = pack(entries, found, now_ms, BATCH_SIZE, append_time);
        let parcel = packed.map_err(|error| Held::For(error.to_string()))?;
        let Some(mut parcel) = parcel else {
            return Err(Held::For("a record fits no batch".to_owned()));
        };
        let base = partition.log().log_end();
        if !partition.append_own(&mut parcel.batch, now_ms, Produced::nobody()) {
            return Err(Held::For("the partition takes no records".to_owned()));
        }
        let next = partition.log().log_end();
        let count = parcel.entries.len();
        self.deliveries
            .borrow_mut()
            .handed_over(base, next, &parcel.entries);
        self.schedule
            .borrow_mut()
            .handed_over(base, next, parcel.entries);
        Ok(count)
    }
}
