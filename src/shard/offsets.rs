//! ListOffsets, DeleteRecords, DescribePartitions.

use std::rc::Rc;

use millstream_protocol::{
    ErrorCode, LeaderEpoch, Offset, TopicPartition,
    messages::{
        DeleteRecordsPartition, DeleteRecordsResponse, DeleteRecordsResult,
        DescribePartitionsResponse, EARLIEST_TIMESTAMP, LATEST_TIMESTAMP, ListOffsetsPartition,
        ListOffsetsResponse, ListOffsetsResult, PartitionStatus,
    },
};

use crate::{
    io::Io,
    net::ReplyTo,
    partition::clean_and_dirty,
    shard::{
        Shard,
        fetch::read_error_code,
        partition::{PartitionShell, log_error_code},
        router::{Missing, Op, OpReply, Unanswered},
    },
};

impl<I: Io> Shard<I> {
    /// Serves a ListOffsets of a client.
    pub(super) async fn list_offsets(
        self: Rc<Self>,
        entries: Vec<ListOffsetsPartition>,
        reply_to: ReplyTo<I>,
    ) {
        let results_of = |reply| match reply {
            OpReply::ListOffsets(results) => results,
            _ => Vec::new(),
        };
        let partitions = self
            .spread(
                &entries,
                |entry| TopicPartition {
                    topic: entry.topic,
                    partition: entry.partition,
                },
                Op::ListOffsets,
                results_of,
                |entry, why| listed(entry, Err(failed(why))),
            )
            .await;
        reply_to.send(&ListOffsetsResponse { partitions });
    }

    /// Looks offsets of this shard's partitions up.
    pub(super) async fn list_offsets_here(
        self: &Rc<Self>,
        entries: &[ListOffsetsPartition],
    ) -> Vec<ListOffsetsResult> {
        let mut results = Vec::with_capacity(entries.len());
        for entry in entries {
            let id = TopicPartition {
                topic: entry.topic,
                partition: entry.partition,
            };
            let found = match self.partition(id) {
                Ok(shell) => find(self, &shell, entry.timestamp_ms).await,
                Err(Missing { error, message }) => Err((error, message)),
            };
            // Its topic may have been deleted meanwhile, which says more than what came of that.
            let found = found.map_err(|failed| match self.partition(id) {
                Ok(_) => failed,
                Err(Missing { error, message }) => (error, message),
            });
            results.push(listed(entry, found));
        }
        results
    }

    /// Serves a DeleteRecords of a client.
    pub(super) async fn delete_records(
        self: Rc<Self>,
        entries: Vec<DeleteRecordsPartition>,
        reply_to: ReplyTo<I>,
    ) {
        let results_of = |reply| match reply {
            OpReply::DeleteRecords(results) => results,
            _ => Vec::new(),
        };
        let partitions = self
            .spread(
                &entries,
                |entry| TopicPartition {
                    topic: entry.topic,
                    partition: entry.partition,
                },
                Op::DeleteRecords,
                results_of,
                |entry, why| deleted(entry, Err(failed(why))),
            )
            .await;
        reply_to.send(&DeleteRecordsResponse { partitions });
    }

    /// Raises log start offsets of this shard's partitions.
    pub(super) async fn delete_records_here(
        self: &Rc<Self>,
        entries: &[DeleteRecordsPartition],
    ) -> Vec<DeleteRecordsResult> {
        let mut results = Vec::with_capacity(entries.len());
        for entry in entries {
            let id = TopicPartition {
                topic: entry.topic,
                partition: entry.partition,
            };
            let done = match self.partition(id) {
                Ok(_) if self.groups.is_offsets_topic(id.topic) => {
                    let message = "the topic is internal: only the broker deletes from it";
                    Err((ErrorCode::NotAuthorized, message.to_owned()))
                }
                Ok(shell) => raise_log_start(&shell, entry.before_offset).await,
                Err(Missing { error, message }) => Err((error, message)),
            };
            results.push(deleted(entry, done));
        }
        results
    }

    /// Serves a DescribePartitions of a client.
    pub(super) async fn describe_partitions(
        self: Rc<Self>,
        entries: Vec<TopicPartition>,
        reply_to: ReplyTo<I>,
    ) {
        let results_of = |reply| match reply {
            OpReply::Describe(results) => results,
            _ => Vec::new(),
        };
        let refused = |id: &TopicPartition, why: Unanswered| PartitionStatus {
            topic: id.topic,
            partition: id.partition,
            error: why.error_code(),
            message: why.message().to_owned(),
            ..PartitionStatus::default()
        };
        let partitions = self
            .spread(&entries, |id| *id, Op::Describe, results_of, refused)
            .await;
        reply_to.send(&DescribePartitionsResponse { partitions });
    }

    /// Tells how this shard's partitions fare.
    pub(super) fn describe_here(
        self: &Rc<Self>,
        entries: &[TopicPartition],
    ) -> Vec<PartitionStatus> {
        entries.iter().map(|id| self.describe_one(*id)).collect()
    }

    fn describe_one(self: &Rc<Self>, id: TopicPartition) -> PartitionStatus {
        let mut status = PartitionStatus {
            topic: id.topic,
            partition: id.partition,
            shard: self.id(),
            oldest_append_ms: -1,
            ..PartitionStatus::default()
        };
        let shell = match self.partition(id) {
            Ok(shell) => shell,
            Err(missing) => {
                (status.error, status.message) = (missing.error, missing.message);
                return status;
            }
        };
        shell.with_machine(|machine| {
            status.error = machine.trouble();
            status.leader_epoch = machine.epoch();
            status.log_start_offset = machine.log_start();
            status.high_watermark = machine.high_watermark();
            status.log_end_offset = machine.log_end();
        });
        status.message = shell.sentence_for(status.error).unwrap_or_default();
        let stats = shell.log().stats();
        status.logical_bytes = stats.logical_bytes;
        status.physical_bytes = stats.physical_bytes;
        // Of the segment that holds the oldest record: after a trim a little older than the record.
        let oldest = stats
            .segments
            .iter()
            .find(|it| it.next_offset > status.log_start_offset);
        if let Some(oldest) = oldest {
            status.oldest_append_ms = oldest.first_append_ms;
        } else if let Some(since_ms) = stats.unplaced_since_ms {
            status.oldest_append_ms = since_ms;
        }
        let image = self.image.borrow();
        let topic = image.topic(id.topic);
        if topic.is_some_and(|topic| topic.config.cleanup_policy.compacts()) {
            let segments: Vec<_> = stats.segments.iter().map(super::cleaner::dirt_of).collect();
            (status.clean_bytes, status.dirty_bytes) = clean_and_dirty(&segments);
        }
        status.segments = u32::try_from(stats.segments.len()).unwrap_or(u32::MAX);
        status
    }
}

type Failed = (ErrorCode, String);

fn failed(why: Unanswered) -> Failed {
    (why.error_code(), why.message().to_owned())
}

/// An offset, the timestamp of its batch, and the epoch that answers.
type Found = (Offset, i64, LeaderEpoch);

async fn find<I: Io>(
    shard: &Shard<I>,
    shell: &Rc<PartitionShell<I>>,
    timestamp_ms: i64,
) -> Result<Found, Failed> {
    let (trouble, epoch, start, end) = shell.with_machine(|machine| {
        (
            machine.trouble(),
            machine.epoch(),
            machine.log_start(),
            machine.high_watermark(),
        )
    });
    if trouble == ErrorCode::PartitionOffline {
        return Err((trouble, "the partition's disk failed".to_owned()));
    }
    let found = match timestamp_ms {
        // Where it ended before the damage: who reads up to there comes upon it, and is told.
        LATEST_TIMESTAMP => (
            shell
                .damage()
                .map_or(end, |damage| damage.acknowledged.max(end)),
            -1,
        ),
        EARLIEST_TIMESTAMP => (start, -1),
        ..EARLIEST_TIMESTAMP => {
            let message = format!("{timestamp_ms} is no timestamp: milliseconds, -1 or -2");
            return Err((ErrorCode::InvalidRequest, message));
        }
        _ => match shell.log().find_time(timestamp_ms).await {
            // A trim may have left only the later records of that batch.
            Ok(Some((offset, newest))) if offset < end => (offset.max(start), newest),
            Ok(_) => (end, -1),
            Err(error) => {
                shard.note_damage(shell, &error);
                return Err((read_error_code(&error), error.to_string()));
            }
        },
    };
    Ok((found.0, found.1, epoch))
}

fn listed(entry: &ListOffsetsPartition, found: Result<Found, Failed>) -> ListOffsetsResult {
    let mut result = ListOffsetsResult {
        topic: entry.topic,
        partition: entry.partition,
        offset: Offset(-1),
        timestamp_ms: -1,
        leader_epoch: LeaderEpoch::UNKNOWN,
        ..ListOffsetsResult::default()
    };
    match found {
        Ok((offset, timestamp_ms, epoch)) => {
            (result.offset, result.timestamp_ms, result.leader_epoch) =
                (offset, timestamp_ms, epoch);
        }
        Err((error, message)) => (result.error, result.message) = (error, message),
    }
    result
}

async fn raise_log_start<I: Io>(
    shell: &std::rc::Rc<PartitionShell<I>>,
    before: Offset,
) -> Result<Offset, Failed> {
    let (start, end) =
        shell.with_machine(|machine| (machine.log_start(), machine.high_watermark()));
    let before = if before == Offset(-1) { end } else { before };
    if before < Offset::ZERO || before > end {
        let message = format!("offset {before} is outside the partition, which ends at {end}");
        return Err((ErrorCode::OffsetOutOfRange, message));
    }
    if before <= start {
        return Ok(start);
    }
    let moved = shell.delete_records(before).await;
    moved.map_err(|error| (log_error_code(&error), error.to_string()))
}

fn deleted(entry: &DeleteRecordsPartition, done: Result<Offset, Failed>) -> DeleteRecordsResult {
    let mut result = DeleteRecordsResult {
        topic: entry.topic,
        partition: entry.partition,
        log_start_offset: Offset(-1),
        ..DeleteRecordsResult::default()
    };
    match done {
        Ok(offset) => result.log_start_offset = offset,
        Err((error, message)) => (result.error, result.message) = (error, message),
    }
    result
}
