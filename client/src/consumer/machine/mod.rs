//! The consumer's decisions: pure, without clock, network or randomness.
//!
//! Each assigned partition has at most one fetch under way and reads ahead within a shared budget;
//! partitions of one shard share requests. What arrived waits in one queue, in order of arrival, and
//! [`Machine::take`] hands it out. Promises, for each partition: records come in offset order, each
//! once, none skipped, unless an obstacle is reported or a policy says so.
#![allow(
    missing_docs,
    reason = "pub for simulations only, and hidden from the documentation"
)]

mod fetch;
mod partition;
mod pausing;
mod replies;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use millstream_protocol::{
    LeaderEpoch, Offset, TopicId, TopicPartition,
    messages::{FetchPartitionResult, FetchRequest},
};

use self::partition::Partition;
use super::{
    batch::ConsumerBatch,
    record::{OutOfRangePolicy, TruncationPolicy},
};
use crate::{
    backoff::Backoff,
    error::{ConsumeError, RequestError},
    lookups::Lookups,
    metadata::{Leader, Node, Topic},
};

/// Numbers the fetches of one consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FetchId(pub u64);

/// The settings that decide anything here.
#[derive(Clone, Debug)]
pub struct Config {
    pub prefetch_bytes: usize,
    pub fetch_bytes: usize,
    pub max_wait_ms: u32,
    pub out_of_range: OutOfRangePolicy,
    pub truncation: TruncationPolicy,
    /// Seeds the jitter of back-offs.
    pub seed: u64,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// Read this partition from this offset on, or move it there.
    Assigned {
        at: TopicPartition,
        topic: Arc<str>,
        leader: Option<Leader>,
        offset: Offset,
        /// Leader epoch of what was read before that offset, or -1: if that was cut away, the broker can
        /// tell.
        read_epoch: LeaderEpoch,
    },
    Unassigned(TopicPartition),
    /// Hand out nothing of this partition until it is resumed, and read no further ahead.
    Paused(TopicPartition),
    Resumed(TopicPartition),
    /// A batch that was taken can't be read: report it, and go no further.
    Damaged {
        at: TopicPartition,
        position: Offset,
        error: ConsumeError,
    },
    /// Results in the order of the request, and all their records.
    Fetched(FetchId, Vec<FetchPartitionResult>, Bytes),
    FetchFailed(FetchId, RequestError),
    TopicLearned(Arc<Topic>),
    TopicLookupFailed(TopicId, RequestError),
    /// Time has passed, or something was taken.
    Ticked,
}

/// What to do.
#[derive(Debug)]
pub enum Action {
    Fetch {
        id: FetchId,
        node: Node,
        request: FetchRequest,
    },
    /// Look the topic up, as heard after now, and report it.
    RefreshTopic { name: Arc<str>, id: TopicId },
    /// The topic is gone; its name may come back as another.
    ForgetTopic(TopicId),
    /// A policy moved the position across a gap: say so in the log.
    Warn(ConsumeError),
}

/// What waits to be handed out.
#[derive(Debug)]
pub enum Item {
    Batch(ConsumerBatch),
    Obstacle(TopicPartition, ConsumeError),
}

impl Item {
    fn partition(&self) -> TopicPartition {
        match self {
            Self::Batch(batch) => batch.at,
            Self::Obstacle(at, _) => *at,
        }
    }
}

#[derive(Debug)]
pub struct Machine {
    config: Config,
    backoff: Backoff,
    partitions: BTreeMap<TopicPartition, Partition>,
    /// The partitions in the order they are asked for; turned by one for each request.
    order: Vec<TopicPartition>,
    queue: VecDeque<Item>,
    lookups: Lookups,
    fetches: BTreeMap<FetchId, UnderWay>,
    next_fetch: FetchId,
    /// Bytes in the queue.
    buffered: usize,
    /// Bytes that replies under way may bring.
    reserved: usize,
}

/// A fetch that has no reply yet.
#[derive(Debug)]
struct UnderWay {
    node: Node,
    partitions: Vec<TopicPartition>,
    /// Bytes set aside for the reply.
    reserved: usize,
}

impl Machine {
    pub fn new(config: Config) -> Self {
        Self {
            backoff: Backoff::new(config.seed),
            config,
            partitions: BTreeMap::new(),
            order: Vec::new(),
            queue: VecDeque::new(),
            lookups: Lookups::default(),
            fetches: BTreeMap::new(),
            next_fetch: FetchId(1),
            buffered: 0,
            reserved: 0,
        }
    }

    /// Decides what to do about an event, and about everything due by `now`.
    pub fn apply(&mut self, now: Duration, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Assigned {
                at,
                topic,
                leader,
                offset,
                read_epoch,
            } => {
                self.assign(at, topic, leader, offset);
                self.read_before(at, read_epoch);
            }
            Event::Unassigned(at) => self.unassign(at),
            Event::Paused(at) => self.pause_reading(at),
            Event::Resumed(at) => self.resume_reading(at),
            Event::Damaged {
                at,
                position,
                error,
            } => self.damaged(at, position, error),
            Event::Fetched(id, results, records) => {
                self.fetched(now, id, results, records, actions);
            }
            Event::FetchFailed(id, error) => self.fetch_failed(now, id, &error),
            Event::TopicLearned(topic) => self.learn_topic(&topic),
            Event::TopicLookupFailed(id, error) => self.lookup_failed(now, id, error, actions),
            Event::Ticked => {}
        }
        self.fetch(now, actions);
    }

    /// The next thing to hand out; an obstacle only if the caller has room for one. Tick afterwards:
    /// there is room to read ahead again.
    pub fn take(&mut self, obstacles_too: bool) -> Option<Item> {
        loop {
            if !obstacles_too && matches!(self.queue.front(), Some(Item::Obstacle(..))) {
                return None;
            }
            let item = self.queue.pop_front()?;
            let Item::Batch(batch) = &item else {
                return Some(item);
            };
            let partition = self.partitions.get_mut(&batch.at);
            let partition = partition.expect("the queue holds assigned partitions only");
            partition.position = batch.header.next_offset();
            partition.position_epoch = batch.header.leader_epoch;
            partition.buffered -= batch.size();
            self.buffered -= batch.size();
            // Control batches are the log's own; they count as read, and are not shown.
            if !batch.header.attributes.is_control() {
                return Some(item);
            }
        }
    }

    pub fn has_items(&self) -> bool {
        !self.queue.is_empty()
    }

    /// When there is something to do although nothing happens.
    pub fn deadline(&self, now: Duration) -> Option<Duration> {
        let pauses = self.partitions.values().filter_map(|it| it.backoff_until);
        let pauses = pauses.chain(self.lookups.deadline());
        pauses.filter(|until| *until > now).min()
    }

    pub fn assignment(&self) -> Vec<(Arc<str>, TopicPartition)> {
        let assigned = self.partitions.iter();
        assigned
            .map(|(at, it)| (Arc::clone(&it.topic), *at))
            .collect()
    }

    pub fn position(&self, at: TopicPartition) -> Option<Offset> {
        self.partitions.get(&at).map(|it| it.position)
    }

    /// The position, and the leader epoch of the batch before it.
    pub fn done_up_to(&self, at: TopicPartition) -> Option<(Offset, LeaderEpoch)> {
        let partition = self.partitions.get(&at)?;
        Some((partition.position, partition.position_epoch))
    }

    pub fn high_watermark(&self, at: TopicPartition) -> Option<Offset> {
        self.partitions.get(&at)?.high_watermark
    }

    /// Offsets that are left to hand out, as of the last reply.
    pub fn lag(&self, at: TopicPartition) -> Option<u64> {
        self.partitions.get(&at)?.lag()
    }

    /// Whether everything that consumers may see has been handed out, as of the last replies.
    pub fn is_at_end(&self) -> bool {
        self.partitions.values().all(Partition::is_at_end)
    }

    fn assign(
        &mut self,
        at: TopicPartition,
        topic: Arc<str>,
        leader: Option<Leader>,
        offset: Offset,
    ) {
        self.drop_queued(at);
        if let Some(partition) = self.partitions.get_mut(&at) {
            partition.seek(offset);
            if let Some(leader) = leader {
                partition.set_leader(leader);
            }
        } else {
            self.partitions
                .insert(at, Partition::new(topic, leader, offset));
            self.order.push(at);
        }
    }

    fn read_before(&mut self, at: TopicPartition, epoch: LeaderEpoch) {
        let partition = self.partitions.get_mut(&at).expect("just assigned");
        partition.position_epoch = epoch;
        if partition.last_fetched_epoch == LeaderEpoch::UNKNOWN {
            partition.last_fetched_epoch = epoch;
        }
    }

    fn unassign(&mut self, at: TopicPartition) {
        self.drop_queued(at);
        self.partitions.remove(&at);
        self.order.retain(|it| *it != at);
    }

    fn damaged(&mut self, at: TopicPartition, position: Offset, error: ConsumeError) {
        if self.partitions.contains_key(&at) {
            self.drop_queued(at);
            let partition = self.partitions.get_mut(&at).expect("just found");
            partition.position = position;
            partition.obstructed = true;
            self.queue.push_front(Item::Obstacle(at, error));
        }
    }

    /// Forgets what was read ahead of a partition.
    fn drop_queued(&mut self, at: TopicPartition) {
        let mut dropped = 0;
        self.queue_of(at).retain(|item| match item {
            Item::Batch(batch) if batch.at == at => {
                dropped += batch.size();
                false
            }
            Item::Obstacle(of, _) => *of != at,
            Item::Batch(_) => true,
        });
        self.buffered -= dropped;
        if let Some(partition) = self.partitions.get_mut(&at) {
            partition.buffered -= dropped;
        }
    }

    /// Asserts what must always hold.
    #[cfg(test)]
    pub fn check(&self) {
        let size_of = |wanted: Option<TopicPartition>| -> usize {
            let held = self.partitions.values().flat_map(|it| &it.held);
            let sizes = self.queue.iter().chain(held).map(|item| match item {
                Item::Batch(batch) if wanted.is_none_or(|at| at == batch.at) => batch.size(),
                Item::Batch(_) | Item::Obstacle(..) => 0,
            });
            sizes.sum()
        };
        assert_eq!(self.buffered, size_of(None));
        let reserved: usize = self.fetches.values().map(|it| it.reserved).sum();
        assert_eq!(self.reserved, reserved);
        let assigned: Vec<TopicPartition> = self.partitions.keys().copied().collect();
        let mut order = self.order.clone();
        order.sort_unstable();
        assert_eq!(order, assigned);
        for (at, partition) in &self.partitions {
            assert_eq!(partition.buffered, size_of(Some(*at)));
            assert!(partition.paused || partition.held.is_empty());
            let queued = self.queue.iter().any(|item| item.partition() == *at);
            assert!(!(partition.paused && queued), "what is paused is held");
            assert!(partition.position <= partition.fetch_offset);
            if let Some(id) = partition.in_flight {
                assert!(self.fetches[&id].partitions.contains(at));
            }
        }
    }
}
