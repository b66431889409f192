//! The one call per record: choose the partition, put the record into its open batch.

use std::{sync::Arc, time::Duration};

use millstream_protocol::{
    PartitionIndex, TopicPartition,
    batch::{BATCH_HEADER_SIZE, BatchBuilder},
    limits::MAX_BATCH_SIZE,
};

use super::{
    Action, Machine, Partition, TopicState,
    batch::{Batch, BatchId, BatchState, Payload},
    drain::SMALL_REQUESTS_IN_FLIGHT,
    place::Place,
    sticky::Sticky,
};
use crate::{
    metadata::{Leader, Topic},
    producer::{linger::Linger, record::ProducerRecord},
};

/// A record that was taken.
#[derive(Debug)]
pub struct Appended<H> {
    pub handle: H,
    /// The record's place in its batch.
    pub index: u32,
    /// There may be something to send, or to wait for: apply a tick soon.
    pub wake: bool,
}

/// Why a record was not taken; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Look the topic up and report it first.
    UnknownTopic,
    UnknownPartition {
        partition: PartitionIndex,
        count: usize,
    },
    /// No room before a batch settles.
    Full,
    /// Larger than the whole buffer, or than any batch may be.
    TooLarge {
        size: usize,
        limit: usize,
        setting: &'static str,
    },
    NegativeTimestamp,
    Closed,
}

impl<H: Clone + Default> Machine<H> {
    /// Takes a record. The time is only asked for where it begins a batch: asking for each of
    /// millions of records a second would take a tenth of a core.
    pub fn append(
        &mut self,
        now: impl Fn() -> Duration,
        record: &ProducerRecord,
        timestamp_ms: i64,
    ) -> Result<Appended<H>, Refusal> {
        if self.closed {
            return Err(Refusal::Closed);
        }
        let topic_id = *self
            .names
            .get(&*record.topic)
            .ok_or(Refusal::UnknownTopic)?;
        if timestamp_ms < 0 {
            return Err(Refusal::NegativeTimestamp);
        }
        let size = self.check_size(record)?;
        let topic = self
            .topics
            .get_mut(&topic_id)
            .expect("a name leads to a topic");
        let Place { index, sticks } = topic.place(record, size, self.config.batch_size)?;
        let partition = &mut topic.partitions[index];

        let mut wake = false;
        if let Some(last) = partition.batches.back_mut()
            && last.is_open()
            && last.size + size > self.config.batch_size
        {
            last.seal();
            partition.capacity_hint = last.size;
            wake = true;
        }
        let mut charged = 0;
        if !partition.batches.back().is_some_and(Batch::is_open) {
            if partition.batches.is_empty() {
                self.active.push(TopicPartition {
                    topic: topic_id,
                    partition: u32::try_from(index).expect("checked").into(),
                });
            }
            partition.begin_batch(self.next_batch, now());
            self.next_batch.0 += 1;
            charged += BATCH_HEADER_SIZE;
            wake = true;
        }
        let batch = partition.batches.back_mut().expect("one is open");
        let Payload::Open(builder) = &mut batch.payload else {
            unreachable!("the last batch was just found open");
        };
        builder
            .push(
                timestamp_ms,
                record.key.as_deref(),
                record.value.as_deref(),
                &record.headers,
            )
            .expect("size and timestamp were checked");
        charged += builder.size() - batch.size;
        batch.size = builder.size();
        batch.record_count += 1;
        if sticks {
            topic.sticky.took(batch.id, size);
        }
        let index = batch.record_count - 1;
        let handle = batch.handle.clone();
        if batch.size >= self.config.batch_size {
            batch.seal();
            wake = true;
        } else if self.config.linger == Linger::Auto
            && let Some(Leader { node, .. }) = partition.leader
            && (self.in_flight.get(&node))
                .is_some_and(|it| *it < self.config.max_in_flight.min(SMALL_REQUESTS_IN_FLIGHT))
        {
            wake = wake || self.pacing.is_over(now, node, batch.record_count);
        }
        self.buffered += charged;
        Ok(Appended {
            handle,
            index,
            wake,
        })
    }

    /// Refuses what never fits, and what does not fit now. Returns the most that it takes.
    fn check_size(&mut self, record: &ProducerRecord) -> Result<usize, Refusal> {
        let size = BatchBuilder::max_record_size(
            record.key.as_deref(),
            record.value.as_deref(),
            &record.headers,
        );
        let needed = size + BATCH_HEADER_SIZE;
        if needed > self.config.buffer_memory {
            return Err(Refusal::TooLarge {
                size,
                limit: self.config.buffer_memory,
                setting: "the producer's buffer_memory",
            });
        }
        if needed > MAX_BATCH_SIZE as usize {
            return Err(Refusal::TooLarge {
                size,
                limit: MAX_BATCH_SIZE as usize,
                setting: "nothing: it is the protocol's limit, so split the record",
            });
        }
        if self.buffered + needed > self.config.buffer_memory {
            self.hurry = true;
            return Err(Refusal::Full);
        }
        Ok(size)
    }

    pub(super) fn learn_topic(&mut self, topic: &Arc<Topic>, actions: &mut Vec<Action<H>>) {
        let known = self.names.insert(Arc::clone(&topic.name), topic.id);
        if let Some(known) = known.filter(|known| *known != topic.id) {
            // Deleted and created again under its name: what was meant for the old one has no home.
            self.drop_topic(known, actions);
        }
        let state = self.topics.entry(topic.id).or_insert_with(|| TopicState {
            name: Arc::clone(&topic.name),
            partitions: Vec::new(),
            partitioner: self.config.partitioning.of_topic(),
            sticky: Sticky::new(self.config.seed),
        });
        self.lookups.done(topic.id);
        for (index, leader) in topic.leaders.iter().enumerate() {
            match (state.partitions.get_mut(index), leader) {
                (None, leader) => state.partitions.push(Partition::new(*leader)),
                (Some(partition), Some(leader)) => {
                    if partition.set_leader(*leader) {
                        partition.backoff_until = None;
                    }
                }
                (Some(partition), None) => partition.leader = None,
            }
        }
        state.sticky.grow(state.partitions.len());
    }
}

impl<H: Clone + Default> Partition<H> {
    fn begin_batch(&mut self, id: BatchId, now: Duration) {
        self.batches.push_back(Batch {
            id,
            handle: H::default(),
            created_at: now,
            record_count: 0,
            size: BATCH_HEADER_SIZE,
            payload: Payload::Open(BatchBuilder::with_capacity(self.capacity_hint)),
            stamp: None,
            stamp_number: 0,
            state: BatchState::Waiting,
            uncertain: false,
            trouble: None,
        });
    }
}
