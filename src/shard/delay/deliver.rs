//! Delivering what is due: read from the delay log, append to the partition, a bounded batch at a time, so
//! that a burst holds up nobody else.

use std::{collections::BTreeSet, pin::pin, rc::Rc, time::Duration};

use futures_util::future::select;
use millstream_protocol::{ErrorCode, Offset};

use super::Delay;
use crate::{
    delay::{Entry, FoundRecords, pack},
    io::Io,
    shard::produce::Produced,
    types::TimestampType,
};

/// Records that are read and handed over at once.
const RECORDS_AT_ONCE: usize = 256;
/// Memory that records take that are read at once, decompressed, with their headers; unless one alone takes more.
const MEMORY_AT_ONCE: usize = 1 << 20;
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
pub(super) const TRY_AGAIN: Duration = Duration::from_secs(1);

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

/// What was read of records that are due.
#[derive(Default)]
struct Read {
    found: FoundRecords,
    /// Those to be delivered, in order.
    there: Vec<Entry>,
    /// Those that the delay log has no more.
    gone: Vec<Entry>,
    /// Those that are due at another time than the index says.
    misplaced: Vec<Entry>,
}

impl<I: Io> Delay<I> {
    /// Delivers until the delay log is closed.
    pub(super) async fn deliver(self: Rc<Self>) {
        loop {
            let ticket = self.changed.ticket();
            if self.stopped.get() {
                return;
            }
            self.tending.set(true);
            let tended = self.tend_index().await;
            self.tending.set(false);
            if self.stopped.get() {
                // Whoever closes it waited for that.
                return self.changed.raise();
            }
            if let Err(trouble) = tended {
                self.note_trouble(trouble);
                self.pause().await;
                continue;
            }
            let step = self.step();
            match step {
                Step::Deliver => match self.deliver_some().await {
                    Ok(()) => {
                        self.trouble.take();
                        self.io.yield_if_needed().await;
                    }
                    Err(Held::Gone) => return,
                    Err(Held::For(trouble)) => {
                        self.note_trouble(trouble);
                        self.pause().await;
                    }
                },
                Step::Wait(wait) => {
                    // Nothing is held up any more.
                    self.trouble.take();
                    let changed = pin!(self.changed.raised_since(ticket));
                    select(changed, pin!(self.io.sleep(wait))).await;
                }
                Step::Park => {
                    self.trouble.take();
                    self.changed.raised_since(ticket).await;
                }
            }
        }
    }

    /// After trouble.
    async fn pause(&self) {
        let stopped = pin!(self.changed.wait_until(|| self.stopped.get()));
        select(stopped, pin!(self.io.sleep(TRY_AGAIN))).await;
    }

    /// The index has in memory what comes next, and on disk what is far away.
    async fn tend_index(&self) -> Result<(), String> {
        let lost = self.schedule.borrow().index_is_lost();
        if lost || !self.load_heads().await {
            self.rebuild().await?;
            self.tell_of_doubt();
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
        let _memory = self.storage.delivering().take(MEMORY_AT_ONCE).await;
        let now_ms = self.now_ms();
        let entries = self.schedule.borrow_mut().take_due(now_ms, RECORDS_AT_ONCE);
        let (read, result) = self.read(&entries).await;
        let (count, result) = match self.hand_over(&read.there, &read.found) {
            (count, Ok(())) => (count, result),
            failed => failed,
        };
        let handed_over = read.there[..count].iter();
        let over = handed_over.chain(&read.gone).chain(&read.misplaced);
        let over: BTreeSet<Offset> = over.map(|entry| entry.offset).collect();
        let mut rest = entries;
        rest.retain(|entry| !over.contains(&entry.offset));
        let mut schedule = self.schedule.borrow_mut();
        schedule.gone(&read.gone);
        schedule.put_back(&read.misplaced);
        schedule.put_back(&rest);
        drop(schedule);
        if !read.gone.is_empty() {
            let count = read.gone.len();
            tracing::error!(
                "{count} delayed records were lost from their delay log: they are not delivered"
            );
        }
        // Whoever wants to cancel one of them may go on.
        self.changed.raise();
        result
    }

    /// Reads records from the delay log, in order, as many as fit; and what kept it from reading more.
    async fn read(&self, entries: &[Entry]) -> (Read, Result<(), Held>) {
        let mut read = Read::default();
        let wanted: BTreeSet<Offset> = entries.iter().map(|entry| entry.offset).collect();
        for entry in entries {
            // What is beyond that is handed over before anybody else has his turn.
            if read.found.memory() >= MEMORY_AT_ONCE {
                break;
            }
            self.io.yield_if_needed().await;
            if let Err(held) = self.read_entry(entry, &wanted, &mut read).await {
                return (read, Err(held));
            }
        }
        (read, Ok(()))
    }

    async fn read_entry(
        &self,
        entry: &Entry,
        wanted: &BTreeSet<Offset>,
        read: &mut Read,
    ) -> Result<(), Held> {
        if read.found.of(entry.offset).is_none() {
            let is_there = self.read_one(entry.offset, wanted, &mut read.found).await?;
            if !is_there {
                let id = entry.offset;
                return Err(Held::For(format!("record {id} is not in the delay log")));
            }
        }
        match read.found.of(entry.offset).and_then(|found| found.due_ms) {
            Some(due_ms) if due_ms == entry.due_ms => read.there.push(*entry),
            Some(due_ms) => read.misplaced.push(Entry { due_ms, ..*entry }),
            None => read.gone.push(*entry),
        }
        Ok(())
    }

    /// Reads what lies at an offset of the delay log and behind it. False if nothing does, not even word that
    /// the record is gone.
    pub(super) async fn read_one(
        &self,
        offset: Offset,
        wanted: &BTreeSet<Offset>,
        found: &mut FoundRecords,
    ) -> Result<bool, Held> {
        let log = self.log.get().ok_or(Held::Gone)?;
        let up_to = log.with_machine(crate::partition::Partition::high_watermark);
        let slices = log.log().read(offset, up_to, READ_SIZE).await;
        let slices = slices.map_err(|error| Held::For(error.to_string()))?;
        let mut is_there = false;
        for slice in slices {
            let read = found.collect(slice.bytes(), offset, wanted, MEMORY_AT_ONCE);
            is_there |= read.map_err(|error| Held::For(error.to_string()))?;
        }
        Ok(is_there)
    }

    /// Appends records to the partition; how many were.
    fn hand_over(&self, entries: &[Entry], found: &FoundRecords) -> (usize, Result<(), Held>) {
        let mut count = 0;
        while count < entries.len() {
            match self.hand_over_batch(&entries[count..], found) {
                Ok(handed_over) => count += handed_over,
                Err(held) => return (count, Err(held)),
            }
        }
        (count, Ok(()))
    }

    fn hand_over_batch(&self, entries: &[Entry], found: &FoundRecords) -> Result<usize, Held> {
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
