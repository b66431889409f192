//! What clients ask of delayed records: list, cancel, how many.

use std::{collections::BTreeSet, rc::Rc};

use futures_channel::oneshot;
use millstream_protocol::{
    ErrorCode, Offset, TopicPartition,
    limits::{MAX_DELAY_ID_SIZE, MAX_DELAYED_PER_PAGE},
    messages::{
        CancelDelayed, CancelDelayedResponse, CancelDelayedResult, CancelOutcome, DelayedRecord,
        DelayedStatus, DescribeDelayedResponse, ListDelayedPartition, ListDelayedResponse,
        ListDelayedResult,
    },
};

use super::{Delay, INDEX_LOST, deliver::Held};
use crate::{
    delay::{CancelVerdict, Entry, Found, FoundRecords, Target, note},
    io::Io,
    net::ReplyTo,
    shard::{
        Shard,
        produce::Produced,
        router::{Op, OpReply, Unanswered},
    },
};

/// Bytes of the records that one reply lists.
const MAX_LIST_SIZE: usize = 1 << 20;
/// Of a longer key a list gives the beginning.
const MAX_LISTED_KEY_SIZE: usize = 64 << 10;
/// Besides its id and key, what a listed record takes.
const LISTED_SIZE: usize = 40;

/// An error's code and sentence.
type Failed = (ErrorCode, String);

impl<I: Io> Delay<I> {
    /// Takes a record back. Answers once that is durable.
    ///
    /// # Errors
    /// The delay log's.
    pub async fn cancel(&self, target: Target<'_>) -> Result<(CancelOutcome, Offset), Failed> {
        let Some(log) = self.log.get() else {
            return Ok((CancelOutcome::Unknown, Offset(-1)));
        };
        let asked_by = match target {
            Target::Id(id) => Some(id),
            Target::Offset(_) => None,
        };
        loop {
            let ticket = self.changed.ticket();
            if self.stopped.get() {
                return Err((ErrorCode::ShuttingDown, "it is being closed".to_owned()));
            }
            if !self.schedule.borrow().ids_known() {
                return Err((ErrorCode::PartitionLoading, INDEX_LOST.to_owned()));
            }
            let verdict = self.schedule.borrow().cancel(target);
            match verdict {
                CancelVerdict::Over(outcome, offset) => return Ok((outcome, offset)),
                CancelVerdict::Busy => self.changed.raised_since(ticket).await,
                CancelVerdict::Note(offset) => {
                    let (told, answer) = oneshot::channel();
                    let produced = Produced::told(&self.storage, move |result| {
                        let _ = told.send((result.error, result.message));
                    });
                    let now_ms = self.now_ms();
                    let mut note = note(offset, asked_by, now_ms);
                    log.append_own(&mut note, now_ms, produced);
                    return match answer.await {
                        Ok((ErrorCode::None, _)) => Ok((CancelOutcome::Cancelled, offset)),
                        Ok(failed) => Err(failed),
                        Err(_) => Err((ErrorCode::Internal, String::new())),
                    };
                }
            }
        }
    }

    /// A page of what waits, in order of due time, and whether there is more. It ends early where more would
    /// pass `max_size` bytes.
    ///
    /// # Errors
    /// The delay log's.
    pub async fn list(
        &self,
        after: (i64, Offset),
        max_records: usize,
        max_size: usize,
    ) -> Result<(Vec<DelayedRecord>, bool), Failed> {
        if self.log.get().is_none() {
            return Ok((Vec::new(), false));
        }
        if self.schedule.borrow().index_is_lost() {
            return Err((ErrorCode::PartitionLoading, INDEX_LOST.to_owned()));
        }
        let mut after = after;
        loop {
            let page = self.page(after, max_records + 1).await;
            let mut entries: Vec<Entry> =
                page.map_err(|error| (ErrorCode::StorageError, error.to_string()))?;
            let more = entries.len() > max_records;
            entries.truncate(max_records);
            let (listed, is_full) = self.listed(&entries, max_size).await?;
            match entries.last() {
                // All of them were delivered meanwhile.
                Some(last) if more && listed.is_empty() && !is_full => {
                    after = (last.due_ms, last.offset);
                }
                _ => return Ok((listed, more || is_full)),
            }
        }
    }

    /// What of these still waits, read from the log; and whether more would be too much.
    async fn listed(
        &self,
        entries: &[Entry],
        max_size: usize,
    ) -> Result<(Vec<DelayedRecord>, bool), Failed> {
        let wanted: BTreeSet<Offset> = entries.iter().map(|entry| entry.offset).collect();
        let mut listed = Vec::with_capacity(entries.len());
        let mut size = 0;
        let mut found = FoundRecords::default();
        for entry in entries {
            let waits = || self.schedule.borrow().is_waiting(entry.offset);
            if found.of(entry.offset).is_none()
                && let Err(trouble) = self.read_one(entry.offset, &wanted, &mut found).await
                && waits()
            {
                return Err(cannot_be_read(entry, trouble));
            }
            // It may have been delivered meanwhile, and its place cleaned.
            if let Some(record) = found.take(entry.offset).filter(|_| waits()) {
                let record = listed_as(entry, record);
                size += size_of(&record);
                if size > max_size {
                    return Ok((listed, true));
                }
                listed.push(record);
            }
            self.io.yield_if_needed().await;
        }
        Ok((listed, false))
    }

    /// How many wait, when the next one is due or -1, and the bytes of disk for all.
    pub fn status(&self) -> (u64, i64, u64) {
        let schedule = self.schedule.borrow();
        let log = self.log.get();
        let physical = log.map_or(0, |log| log.log().stats().physical_bytes);
        (
            schedule.pending(),
            schedule.deadline().unwrap_or(-1),
            physical,
        )
    }
}

fn cannot_be_read(entry: &Entry, trouble: Held) -> Failed {
    let why = match trouble {
        Held::For(why) => why,
        Held::Gone => "it is being closed".to_owned(),
    };
    let message = format!("delayed record {} cannot be read: {why}", entry.offset);
    (ErrorCode::StorageError, message)
}

/// Bytes of a record in a reply, about.
fn size_of(record: &DelayedRecord) -> usize {
    let key = record.key.as_ref().map_or(0, Vec::len);
    LISTED_SIZE + record.id.len() + key
}

fn listed_as(entry: &Entry, record: Found) -> DelayedRecord {
    let id = record.id();
    let key = record.key.map(|mut key| {
        key.truncate(MAX_LISTED_KEY_SIZE);
        key
    });
    DelayedRecord {
        due_ms: entry.due_ms,
        delay_id: entry.offset,
        id,
        value_size: record
            .value
            .map_or(0, |it| u32::try_from(it.len()).unwrap_or(u32::MAX)),
        key,
    }
}

fn partition_of(topic: millstream_protocol::TopicId, partition: u32) -> TopicPartition {
    TopicPartition {
        topic,
        partition: partition.into(),
    }
}

impl<I: Io> Shard<I> {
    fn delay_of(self: &Rc<Self>, id: TopicPartition) -> Result<Rc<Delay<I>>, Failed> {
        let shell = self.partition(id);
        let shell = shell.map_err(|missing| (missing.error, missing.message))?;
        Ok(Rc::clone(shell.delay()))
    }

    /// Serves a CancelDelayed of a client.
    pub(in crate::shard) async fn cancel_delayed(
        self: Rc<Self>,
        records: Vec<CancelDelayed>,
        reply_to: ReplyTo<I>,
    ) {
        let results_of = |reply| match reply {
            OpReply::CancelDelayed(results) => results,
            _ => Vec::new(),
        };
        let refused = |entry: &CancelDelayed, why: Unanswered| {
            cancelled(entry, Err((why.error_code(), why.message().to_owned())))
        };
        let of = |entry: &CancelDelayed| partition_of(entry.topic, entry.partition.0);
        let spread = self.spread(&records, of, Op::CancelDelayed, results_of, refused);
        let results = spread.await;
        reply_to.send(&CancelDelayedResponse { results });
    }

    /// Takes delayed records of this shard's partitions back.
    pub(in crate::shard) async fn cancel_delayed_here(
        self: &Rc<Self>,
        records: &[CancelDelayed],
    ) -> Vec<CancelDelayedResult> {
        let results = records.iter().map(async |entry| {
            let done = async {
                if entry.id.len() > MAX_DELAY_ID_SIZE {
                    let message = format!("a delay id has at most {MAX_DELAY_ID_SIZE} bytes");
                    return Err((ErrorCode::InvalidRequest, message));
                }
                let id = partition_of(entry.topic, entry.partition.0);
                let target = match entry.delay_id {
                    Offset(..0) => Target::Id(&entry.id),
                    offset => Target::Offset(offset),
                };
                self.delay_of(id)?.cancel(target).await
            };
            cancelled(entry, done.await)
        });
        futures_util::future::join_all(results).await
    }

    /// Serves a ListDelayed of a client.
    pub(in crate::shard) async fn list_delayed(
        self: Rc<Self>,
        entries: Vec<ListDelayedPartition>,
        reply_to: ReplyTo<I>,
    ) {
        let results_of = |reply| match reply {
            OpReply::ListDelayed(results) => results,
            _ => Vec::new(),
        };
        let refused = |entry: &ListDelayedPartition, why: Unanswered| {
            listed(entry, Err((why.error_code(), why.message().to_owned())))
        };
        let of = |entry: &ListDelayedPartition| partition_of(entry.topic, entry.partition.0);
        let spread = self.spread(&entries, of, Op::ListDelayed, results_of, refused);
        let partitions = spread.await;
        reply_to.send(&ListDelayedResponse { partitions });
    }

    /// Lists what waits in this shard's partitions: one page's worth, all together.
    pub(in crate::shard) async fn list_delayed_here(
        self: &Rc<Self>,
        entries: &[ListDelayedPartition],
    ) -> Vec<ListDelayedResult> {
        let mut results = Vec::with_capacity(entries.len());
        let mut left = MAX_DELAYED_PER_PAGE;
        let mut size = MAX_LIST_SIZE;
        for entry in entries {
            let max = entry.max_records.min(left);
            let page = match self.delay_of(partition_of(entry.topic, entry.partition.0)) {
                Ok(delay) => {
                    let after = (entry.after_ms, entry.after_delay_id);
                    delay.list(after, max as usize, size).await
                }
                Err(failed) => Err(failed),
            };
            let result = listed(entry, page);
            left -= u32::try_from(result.records.len())
                .unwrap_or(left)
                .min(left);
            size = size.saturating_sub(result.records.iter().map(size_of).sum());
            results.push(result);
        }
        results
    }

    /// Serves a DescribeDelayed of a client.
    pub(in crate::shard) async fn describe_delayed(
        self: Rc<Self>,
        entries: Vec<TopicPartition>,
        reply_to: ReplyTo<I>,
    ) {
        let results_of = |reply| match reply {
            OpReply::DescribeDelayed(results) => results,
            _ => Vec::new(),
        };
        let refused = |id: &TopicPartition, why: Unanswered| {
            described(*id, Err((why.error_code(), why.message().to_owned())))
        };
        let spread = self.spread(&entries, |id| *id, Op::DescribeDelayed, results_of, refused);
        let partitions = spread.await;
        reply_to.send(&DescribeDelayedResponse { partitions });
    }

    /// Tells how much waits in this shard's partitions.
    pub(in crate::shard) fn describe_delayed_here(
        self: &Rc<Self>,
        entries: &[TopicPartition],
    ) -> Vec<DelayedStatus> {
        let statuses = entries.iter().map(|id| {
            let delay = self.delay_of(*id);
            described(*id, delay.map(|delay| delay.status()))
        });
        statuses.collect()
    }
}

fn cancelled(
    entry: &CancelDelayed,
    done: Result<(CancelOutcome, Offset), Failed>,
) -> CancelDelayedResult {
    let mut result = CancelDelayedResult {
        topic: entry.topic,
        partition: entry.partition,
        delay_id: Offset(-1),
        ..CancelDelayedResult::default()
    };
    match done {
        Ok((outcome, offset)) => {
            result.outcome = outcome.number();
            result.delay_id = offset;
        }
        Err((error, message)) => (result.error, result.message) = (error, message),
    }
    result
}

fn listed(
    entry: &ListDelayedPartition,
    page: Result<(Vec<DelayedRecord>, bool), Failed>,
) -> ListDelayedResult {
    let mut result = ListDelayedResult {
        topic: entry.topic,
        partition: entry.partition,
        ..ListDelayedResult::default()
    };
    match page {
        Ok((records, more)) => (result.records, result.more) = (records, more),
        Err((error, message)) => (result.error, result.message) = (error, message),
    }
    result
}

fn described(id: TopicPartition, status: Result<(u64, i64, u64), Failed>) -> DelayedStatus {
    let mut described = DelayedStatus {
        topic: id.topic,
        partition: id.partition,
        next_due_ms: -1,
        ..DelayedStatus::default()
    };
    match status {
        Ok((pending, next_due_ms, physical_bytes)) => {
            described.pending = pending;
            described.next_due_ms = next_due_ms;
            described.physical_bytes = physical_bytes;
        }
        Err((error, message)) => (described.error, described.message) = (error, message),
    }
    described
}
