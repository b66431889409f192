//! What clients ask of delayed records: list, cancel, how many.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

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

use super::{Delay, INDEX_LOST};
use crate::{
    delay::{CancelVerdict, Entry, Found, Target, note},
    io::Io,
    net::ReplyTo,
    shard::{
        Shard,
        produce::Produced,
        router::{Op, OpReply, Unanswered},
    },
};

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

    /// A page of what waits, in order of due time, and whether there is more.
    ///
    /// # Errors
    /// The delay log's.
    pub async fn list(
        &self,
        after: (i64, Offset),
        max_records: usize,
    ) -> Result<(Vec<DelayedRecord>, bool), Failed> {
        let Some(log) = self.log.get() else {
            return Ok((Vec::new(), false));
        };
        let page = self.page(after, max_records + 1).await;
        let mut entries: Vec<Entry> =
            page.map_err(|error| (ErrorCode::StorageError, error.to_string()))?;
        let more = entries.len() > max_records;
        entries.truncate(max_records);
        let wanted: BTreeSet<Offset> = entries.iter().map(|entry| entry.offset).collect();
        let mut listed = Vec::with_capacity(entries.len());
        let mut found: BTreeMap<Offset, Found> = BTreeMap::new();
        for entry in &entries {
            if !found.contains_key(&entry.offset) {
                let read = self.read_one(log, entry.offset, &wanted, &mut found).await;
                read.map_err(|_| {
                    let message = format!("delayed record {} cannot be read", entry.offset);
                    (ErrorCode::StorageError, message)
                })?;
            }
            if let Some(record) = found.remove(&entry.offset) {
                listed.push(DelayedRecord {
                    due_ms: entry.due_ms,
                    delay_id: entry.offset,
                    id: record.id(),
                    value_size: u32::try_from(record.value.map_or(0, |it| it.len()))
                        .unwrap_or(u32::MAX),
                    key: record.key,
                });
            }
            self.io.yield_if_needed().await;
        }
        Ok((listed, more))
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
        for entry in entries {
            let max = entry.max_records.min(left);
            let page = match self.delay_of(partition_of(entry.topic, entry.partition.0)) {
                Ok(delay) => {
                    let after = (entry.after_ms, entry.after_delay_id);
                    delay.list(after, max as usize).await
                }
                Err(failed) => Err(failed),
            };
            let result = listed(entry, page);
            left -= u32::try_from(result.records.len())
                .unwrap_or(left)
                .min(left);
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
