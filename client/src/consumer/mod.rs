//! The consumer: reads assigned partitions ahead of the caller.
//!
//! A driver task per consumer fetches into the machine's queue; `poll` takes from it and decodes in
//! the caller's task.

mod batch;
mod builder;
mod driver;
pub(crate) mod machine;
mod record;
mod stream;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_core::Stream;
use millstream_protocol::{
    LeaderEpoch, Offset, PartitionIndex, TopicId, TopicPartition,
    messages::{EARLIEST_TIMESTAMP, LATEST_TIMESTAMP},
};
use tokio::{sync::Notify, time::timeout_at};

pub use batch::ConsumerBatch;
pub use builder::ConsumerBuilder;
pub use record::{ConsumerRecord, OutOfRangePolicy, StartAt, TruncationPolicy};

use self::machine::{Action, Config, Event, Item, Machine};
pub(crate) use self::stream::{Polled, stream_of};
use crate::{
    client::Client, clock::FAR_AWAY, error::ConsumeError, metadata::Topic, offsets::list_offsets,
};

/// How old what is known of a topic may be when a partition of it is assigned: it may have been
/// deleted and created again, and assigning many partitions must not ask for each.
const MAX_TOPIC_AGE: Duration = Duration::from_secs(1);

/// Reads partitions. Records of one partition come in offset order; between partitions there is
/// none.
#[derive(Debug)]
pub struct Consumer {
    core: Arc<Core>,
    max_poll_records: usize,
    topics: BTreeMap<Arc<str>, TopicId>,
}

#[derive(Debug)]
struct Core {
    client: Client,
    state: Mutex<State>,
    /// Wakes the driver.
    wake: Notify,
    /// Rung when there is something to take.
    ready: Notify,
}

#[derive(Debug)]
struct State {
    machine: Machine,
    /// Decided, not yet done; the driver's to do.
    actions: Vec<Action>,
    /// The consumer is gone.
    dropped: bool,
}

impl Consumer {
    fn start(client: Client, config: Config, max_poll_records: usize) -> Self {
        let core = Arc::new(Core {
            client,
            state: Mutex::new(State {
                machine: Machine::new(config),
                actions: Vec::new(),
                dropped: false,
            }),
            wake: Notify::new(),
            ready: Notify::new(),
        });
        tokio::spawn(driver::drive(Arc::clone(&core)));
        Self {
            core,
            max_poll_records,
            topics: BTreeMap::new(),
        }
    }

    /// Starts reading a partition, or moves it if it is assigned already.
    ///
    /// # Errors
    /// [`ConsumeError`] if topic or partition do not exist, or the broker can't be asked.
    pub async fn assign(
        &mut self,
        topic: &str,
        partition: PartitionIndex,
        start: StartAt,
    ) -> Result<(), ConsumeError> {
        let epoch = LeaderEpoch::UNKNOWN;
        self.assign_after(topic, partition, start, epoch).await
    }

    /// The same; what was read before the start was of this leader epoch.
    pub(crate) async fn assign_after(
        &mut self,
        topic: &str,
        partition: PartitionIndex,
        start: StartAt,
        read_epoch: LeaderEpoch,
    ) -> Result<(), ConsumeError> {
        let shared = &self.core.client.shared;
        let newer_than = shared.clock.now().saturating_sub(MAX_TOPIC_AGE);
        let known = shared.metadata.refresh(topic, newer_than).await?;
        let at = known.partition(partition)?;
        let offset = self.core.resolve(&known, partition, start).await?;
        if let Some(old) = self.topics.insert(Arc::clone(&known.name), known.id)
            && old != known.id
        {
            // Created again under its name: what is left of the old one makes way.
            let assigned = self.core.state().machine.assignment();
            for (_, at) in assigned.into_iter().filter(|(_, at)| at.topic == old) {
                self.core.apply(Event::Unassigned(at));
            }
        }
        self.core.apply(Event::Assigned {
            at,
            topic: Arc::clone(&known.name),
            leader: known.leaders[partition.0 as usize],
            offset,
            read_epoch,
        });
        Ok(())
    }

    /// Stops reading a partition.
    pub fn unassign(&mut self, topic: &str, partition: PartitionIndex) {
        if let Some(at) = self.at(topic, partition) {
            self.core.apply(Event::Unassigned(at));
        }
    }

    /// What is assigned.
    #[must_use]
    pub fn assignment(&self) -> Vec<(Arc<str>, PartitionIndex)> {
        let assigned = self.core.state().machine.assignment();
        let assigned = assigned.into_iter();
        assigned.map(|(topic, at)| (topic, at.partition)).collect()
    }

    /// Moves an assigned partition; what was read ahead is dropped.
    ///
    /// # Errors
    /// [`ConsumeError`] if it is not assigned, or the broker can't be asked.
    pub async fn seek(
        &mut self,
        topic: &str,
        partition: PartitionIndex,
        to: StartAt,
    ) -> Result<(), ConsumeError> {
        self.assigned(topic, partition)?;
        self.assign(topic, partition, to).await
    }

    /// Returns nothing of a partition, and reads no further ahead of it, until it is resumed. Its
    /// position stays, and so does what was read ahead, which counts to
    /// [`prefetch_bytes`](ConsumerBuilder::prefetch_bytes) meanwhile. A seek does not resume it.
    ///
    /// # Errors
    /// [`ConsumeError::NotAssigned`].
    pub fn pause(&mut self, topic: &str, partition: PartitionIndex) -> Result<(), ConsumeError> {
        let at = self.assigned(topic, partition)?;
        self.core.apply(Event::Paused(at));
        Ok(())
    }

    /// Goes on with a partition that was paused, where it was.
    ///
    /// # Errors
    /// [`ConsumeError::NotAssigned`].
    pub fn resume(&mut self, topic: &str, partition: PartitionIndex) -> Result<(), ConsumeError> {
        let at = self.assigned(topic, partition)?;
        self.core.apply(Event::Resumed(at));
        Ok(())
    }

    /// What is paused.
    #[must_use]
    pub fn paused(&self) -> Vec<(Arc<str>, PartitionIndex)> {
        let paused = self.core.state().machine.paused().into_iter();
        paused.map(|(topic, at)| (topic, at.partition)).collect()
    }

    /// Records of one or more batches; waits up to `timeout` for the first, then returns nothing.
    /// Cancel-safe: a dropped future took nothing.
    ///
    /// # Errors
    /// [`ConsumeError`] once for each obstacle; the other partitions go on.
    pub async fn poll(&mut self, timeout: Duration) -> Result<Vec<ConsumerRecord>, ConsumeError> {
        self.poll_with(timeout, Self::take_records).await
    }

    /// As [`poll`](Self::poll), with whole batches, undecoded.
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    pub async fn poll_batches(
        &mut self,
        timeout: Duration,
    ) -> Result<Vec<ConsumerBatch>, ConsumeError> {
        self.poll_with(timeout, Self::take_batches).await
    }

    async fn poll_with<T>(
        &mut self,
        timeout: Duration,
        take: impl Fn(&Self) -> Result<Vec<T>, ConsumeError>,
    ) -> Result<Vec<T>, ConsumeError> {
        // A loop of polls that never has to wait must let the driver run now and then.
        tokio::task::coop::consume_budget().await;
        let deadline = tokio::time::Instant::now() + timeout.min(FAR_AWAY);
        loop {
            let taken = take(self);
            // There may be room to read ahead again.
            self.core.wake.notify_one();
            let taken = taken?;
            if !taken.is_empty() {
                return Ok(taken);
            }
            let ready = self.core.ready.notified();
            if timeout_at(deadline, ready).await.is_err() {
                return Ok(Vec::new());
            }
        }
    }

    /// As [`poll`](Self::poll), with what is there now.
    pub(crate) fn take_now(&self) -> Result<Vec<ConsumerRecord>, ConsumeError> {
        let taken = self.take_records();
        self.core.wake.notify_one();
        taken
    }

    /// Waits until there may be something to take.
    pub(crate) async fn wait_for_more(&self) {
        self.core.ready.notified().await;
    }

    /// The next offset to hand out of a partition, and the leader epoch of the last batch handed out.
    pub(crate) fn done_up_to(&self, at: TopicPartition) -> Option<(Offset, LeaderEpoch)> {
        self.core.state().machine.done_up_to(at)
    }

    /// An obstacle comes alone: what was read before it is returned first.
    fn take_records(&self) -> Result<Vec<ConsumerRecord>, ConsumeError> {
        let mut records = Vec::new();
        while records.len() < self.max_poll_records {
            let item = self.core.state().machine.take(records.is_empty());
            match item {
                None => break,
                Some(Item::Obstacle(_, error)) => return Err(error),
                Some(Item::Batch(mut batch)) => {
                    batch.ttl_ms = self.ttl_ms_of(&batch);
                    if let Err(error) = batch.append_to(&mut records) {
                        self.core.apply(Event::Damaged {
                            at: batch.at,
                            position: batch.from.max(batch.header.base_offset),
                            error,
                        });
                    }
                }
            }
        }
        Ok(records)
    }

    fn ttl_ms_of(&self, batch: &ConsumerBatch) -> Option<i64> {
        self.core.client.shared.metadata.ttl_ms(batch.at.topic)
    }

    fn take_batches(&self) -> Result<Vec<ConsumerBatch>, ConsumeError> {
        let mut batches = Vec::new();
        let mut record_count = 0;
        let mut state = self.core.state();
        while record_count < self.max_poll_records {
            match state.machine.take(batches.is_empty()) {
                None => break,
                Some(Item::Obstacle(_, error)) => return Err(error),
                Some(Item::Batch(mut batch)) => {
                    batch.ttl_ms = self.ttl_ms_of(&batch);
                    record_count += batch.record_count();
                    batches.push(batch);
                }
            }
        }
        Ok(batches)
    }

    /// Offset of the next record that `poll` will return of this partition.
    #[must_use]
    pub fn position(&self, topic: &str, partition: PartitionIndex) -> Option<Offset> {
        let at = self.at(topic, partition)?;
        self.core.state().machine.position(at)
    }

    /// End of what consumers may see, as of the last reply; none before the first.
    #[must_use]
    pub fn high_watermark(&self, topic: &str, partition: PartitionIndex) -> Option<Offset> {
        let at = self.at(topic, partition)?;
        self.core.state().machine.high_watermark(at)
    }

    /// How far the position is behind the end of what consumers may see, as of the last reply; none
    /// before the first. It counts offsets, not records: those that compaction took, and those of
    /// control batches, count too. Of a paused partition nothing new is heard.
    #[must_use]
    pub fn lag(&self, topic: &str, partition: PartitionIndex) -> Option<u64> {
        let at = self.at(topic, partition)?;
        self.core.state().machine.lag(at)
    }

    /// Whether every assigned partition was read up to its high watermark, as of the last replies.
    #[must_use]
    pub fn at_end(&self) -> bool {
        self.core.state().machine.is_at_end()
    }

    /// All records as a stream, without end. An obstacle is an item; the stream goes on after it with
    /// the other partitions.
    pub fn into_stream(self) -> impl Stream<Item = Result<ConsumerRecord, ConsumeError>> + Send {
        stream_of(self)
    }

    fn assigned(
        &self,
        topic: &str,
        partition: PartitionIndex,
    ) -> Result<TopicPartition, ConsumeError> {
        let at = self.at(topic, partition);
        let assigned = at.filter(|at| self.core.state().machine.position(*at).is_some());
        assigned.ok_or_else(|| ConsumeError::NotAssigned {
            topic: topic.into(),
            partition,
        })
    }

    fn at(&self, topic: &str, partition: PartitionIndex) -> Option<TopicPartition> {
        let topic = *self.topics.get(topic)?;
        Some(TopicPartition { topic, partition })
    }
}

impl Core {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the machine, and the driver to do what follows.
    fn apply(&self, event: Event) {
        let now = self.client.shared.clock.now();
        self.state().apply(now, event);
        self.wake.notify_one();
    }

    async fn resolve(
        &self,
        topic: &Topic,
        partition: PartitionIndex,
        start: StartAt,
    ) -> Result<Offset, ConsumeError> {
        let timestamp_ms = match start {
            StartAt::Offset(offset) => return Ok(offset),
            StartAt::Beginning => EARLIEST_TIMESTAMP,
            StartAt::End => LATEST_TIMESTAMP,
            // Negative times mean something else on the wire, and nothing is older than 1970.
            StartAt::Timestamp(timestamp_ms) => timestamp_ms.max(0),
        };
        let shared = &self.client.shared;
        let offsets = list_offsets(shared, &topic.name, &[partition], timestamp_ms).await?;
        Ok(offsets[&partition])
    }
}

impl State {
    fn apply(&mut self, now: Duration, event: Event) {
        self.machine.apply(now, event, &mut self.actions);
    }
}

impl Polled for Consumer {
    async fn next_records(
        &mut self,
        timeout: Duration,
    ) -> Result<Vec<ConsumerRecord>, ConsumeError> {
        self.poll(timeout).await
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.core.state().dropped = true;
        self.core.wake.notify_one();
    }
}
