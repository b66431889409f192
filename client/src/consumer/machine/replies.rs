//! What a reply brings: records, a moved leader, a log that shrank, or an obstacle.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use millstream_protocol::{
    ErrorCode, LeaderEpoch, Offset, TopicId, TopicPartition,
    batch::Batches,
    messages::{DivergingEpoch, FetchPartitionResult},
};

use super::{Action, FetchId, Item, Machine};
use crate::{
    consumer::{
        batch::ConsumerBatch,
        record::{OutOfRangePolicy, TruncationPolicy},
    },
    error::{ConsumeError, RequestError},
    metadata::{Leader, Node, Topic},
};

/// Failures in a row that the pause after a failed look-up is that of: some 160 ms.
const LOOKUP_PAUSE: u32 = 4;

impl Machine {
    pub(super) fn fetched(
        &mut self,
        now: Duration,
        id: FetchId,
        results: Vec<FetchPartitionResult>,
        mut records: Bytes,
        actions: &mut Vec<Action>,
    ) {
        let mut waiting = self.fetch_ended(id);
        for result in results {
            let size = result.records_size as usize;
            if size > records.len() {
                // The reply contradicts itself; what it has left to say can't be told apart.
                break;
            }
            let bytes = records.split_to(size);
            let at = TopicPartition {
                topic: result.topic,
                partition: result.partition,
            };
            if let Some(index) = waiting.iter().position(|it| *it == at) {
                waiting.swap_remove(index);
                self.answered(now, at, &result, &bytes, actions);
            }
        }
        // Left out of the reply: ask again, not at once.
        for at in waiting {
            self.pause(now, at);
        }
    }

    fn answered(
        &mut self,
        now: Duration,
        at: TopicPartition,
        result: &FetchPartitionResult,
        bytes: &Bytes,
        actions: &mut Vec<Action>,
    ) {
        let partition = self.partitions.get_mut(&at).expect("it waited for this");
        let leader = Leader {
            node: Node {
                broker: result.leader,
                shard: result.shard,
            },
            epoch: result.leader_epoch,
        };
        match result.error {
            ErrorCode::None => {
                partition.failures = 0;
                partition.high_watermark = Some(result.high_watermark);
                match &result.diverging {
                    Some(diverging) => self.diverged(at, diverging, actions),
                    None => self.read(at, bytes),
                }
            }
            ErrorCode::OffsetOutOfRange => self.out_of_range(at, result, actions),
            ErrorCode::NotLeader
                if leader.epoch > LeaderEpoch::UNKNOWN && partition.set_leader(leader) => {}
            ErrorCode::NotLeader | ErrorCode::FencedLeaderEpoch | ErrorCode::UnknownLeaderEpoch => {
                self.lookups.want(at.topic);
                self.pause(now, at);
            }
            ErrorCode::UnknownTopic => {
                let gone = RequestError::UnknownTopic(Arc::clone(&partition.topic));
                self.obstacle(at, gone.into());
                actions.push(Action::ForgetTopic(at.topic));
            }
            code if code.is_retriable() => self.pause(now, at),
            code => {
                let error = ConsumeError::Refused {
                    topic: Arc::clone(&partition.topic),
                    partition: at.partition,
                    code,
                    message: result.message.as_str().into(),
                };
                self.obstacle(at, error);
            }
        }
    }

    /// Queues whole batches as slices of the reply; none is decoded here.
    fn read(&mut self, at: TopicPartition, bytes: &Bytes) {
        let partition = self.partitions.get_mut(&at).expect("an assigned partition");
        for batch in Batches::trusted(bytes) {
            let (header, batch) = match batch {
                Ok(batch) => batch,
                Err(error) => {
                    let error = ConsumeError::Corrupt {
                        topic: Arc::clone(&partition.topic),
                        partition: at.partition,
                        offset: partition.fetch_offset,
                        reason: error.to_string().into(),
                    };
                    self.obstacle(at, error);
                    return;
                }
            };
            if header.next_offset() <= partition.fetch_offset {
                continue;
            }
            let batch = ConsumerBatch {
                topic: Arc::clone(&partition.topic),
                at,
                header,
                bytes: bytes.slice_ref(batch),
                from: partition.fetch_offset,
                ttl_ms: None,
            };
            partition.fetch_offset = header.next_offset();
            partition.last_fetched_epoch = header.leader_epoch;
            partition.buffered += batch.size();
            self.buffered += batch.size();
            match partition.paused {
                true => partition.held.push_back(Item::Batch(batch)),
                false => self.queue.push_back(Item::Batch(batch)),
            }
        }
    }

    /// The log parted from what was read, below the fetch offset (KIP-320). If the caller has not
    /// seen what was cut, there is nothing to tell.
    fn diverged(
        &mut self,
        at: TopicPartition,
        diverging: &DivergingEpoch,
        actions: &mut Vec<Action>,
    ) {
        let partition = self.partitions.get_mut(&at).expect("an assigned partition");
        let diverged_at = diverging.end_offset.min(partition.fetch_offset);
        let error = ConsumeError::LogTruncated {
            topic: Arc::clone(&partition.topic),
            partition: at.partition,
            position: partition.position,
            diverged_at,
        };
        let seen = partition.position > diverged_at;
        self.drop_queued_from(at, diverged_at);
        let partition = self.partitions.get_mut(&at).expect("just found");
        if seen && self.config.truncation == TruncationPolicy::Error {
            partition.diverged = Some((diverged_at, diverging.epoch));
            self.obstacle(at, error);
            return;
        }
        let queued_end = self.queued_end(at);
        let partition = self.partitions.get_mut(&at).expect("just found");
        partition.position = partition.position.min(diverged_at);
        // Not `diverged_at`: a batch across it was dropped, and its first records are still good.
        partition.fetch_offset = queued_end.unwrap_or(partition.position);
        partition.last_fetched_epoch = diverging.epoch;
        if seen {
            actions.push(Action::Warn(error));
        }
    }

    /// Forgets what was read ahead from an offset on: it is no longer what the log holds. A batch
    /// across that offset stays out too, and is read again.
    fn drop_queued_from(&mut self, at: TopicPartition, from: Offset) {
        let mut dropped = 0;
        self.queue_of(at).retain(|item| match item {
            Item::Batch(batch) if batch.at == at && batch.header.next_offset() > from => {
                dropped += batch.size();
                false
            }
            Item::Batch(_) | Item::Obstacle(..) => true,
        });
        self.buffered -= dropped;
        let partition = self.partitions.get_mut(&at).expect("an assigned partition");
        partition.buffered -= dropped;
    }

    /// Where what is read ahead of a partition ends.
    fn queued_end(&self, at: TopicPartition) -> Option<Offset> {
        let partition = self.partitions.get(&at)?;
        let queue = if partition.paused {
            &partition.held
        } else {
            &self.queue
        };
        let mut newest_first = queue.iter().rev();
        newest_first.find_map(|item| match item {
            Item::Batch(batch) if batch.at == at => Some(batch.header.next_offset()),
            Item::Batch(_) | Item::Obstacle(..) => None,
        })
    }

    fn out_of_range(
        &mut self,
        at: TopicPartition,
        result: &FetchPartitionResult,
        actions: &mut Vec<Action>,
    ) {
        let partition = self.partitions.get_mut(&at).expect("an assigned partition");
        let error = ConsumeError::OffsetOutOfRange {
            topic: Arc::clone(&partition.topic),
            partition: at.partition,
            offset: partition.fetch_offset,
            log_start: result.log_start_offset,
            high_watermark: result.high_watermark,
        };
        let offset = match self.config.out_of_range {
            OutOfRangePolicy::Error => {
                self.obstacle(at, error);
                return;
            }
            OutOfRangePolicy::Earliest => result.log_start_offset,
            OutOfRangePolicy::Latest => result.high_watermark,
        };
        self.drop_queued(at);
        let partition = self.partitions.get_mut(&at).expect("just found");
        partition.seek(offset);
        partition.high_watermark = Some(result.high_watermark);
        actions.push(Action::Warn(error));
    }

    /// Reports what stands in the way, behind what was read before it, and waits for a seek.
    fn obstacle(&mut self, at: TopicPartition, error: ConsumeError) {
        let partition = self.partitions.get_mut(&at).expect("an assigned partition");
        partition.obstructed = true;
        self.queue_of(at).push_back(Item::Obstacle(at, error));
    }

    fn pause(&mut self, now: Duration, at: TopicPartition) {
        let partition = self.partitions.get_mut(&at).expect("an assigned partition");
        partition.failures += 1;
        partition.backoff_until = Some(now + self.backoff.pause(partition.failures));
    }

    pub(super) fn fetch_failed(&mut self, now: Duration, id: FetchId, error: &RequestError) {
        for at in self.fetch_ended(id) {
            if error.is_retriable() {
                self.lookups.want(at.topic);
                self.pause(now, at);
            } else {
                self.obstacle(at, error.clone().into());
            }
        }
    }

    pub(super) fn learn_topic(&mut self, topic: &Arc<Topic>) {
        self.lookups.done(topic.id);
        let mut gone = Vec::new();
        for (at, partition) in &mut self.partitions {
            if at.topic == topic.id {
                let leader = topic.leaders.get(at.partition.0 as usize);
                if let Some(Some(leader)) = leader {
                    partition.set_leader(*leader);
                }
            } else if partition.topic == topic.name && !partition.obstructed {
                gone.push(*at);
            }
        }
        // Its name is another topic's by now: this one was deleted.
        for at in gone {
            self.lookups.done(at.topic);
            self.obstacle(
                at,
                RequestError::UnknownTopic(Arc::clone(&topic.name)).into(),
            );
        }
    }

    pub(super) fn lookup_failed(
        &mut self,
        now: Duration,
        id: TopicId,
        error: RequestError,
        actions: &mut Vec<Action>,
    ) {
        if error.code() != Some(ErrorCode::UnknownTopic) {
            let retry_at = now + self.backoff.pause(LOOKUP_PAUSE);
            self.lookups.failed(id, retry_at);
            return;
        }
        self.lookups.done(id);
        let affected = |(at, it): (&TopicPartition, &super::Partition)| {
            (at.topic == id && !it.obstructed).then_some(*at)
        };
        let gone: Vec<TopicPartition> = self.partitions.iter().filter_map(affected).collect();
        for at in gone {
            self.obstacle(at, error.clone().into());
        }
        actions.push(Action::ForgetTopic(id));
    }
}
