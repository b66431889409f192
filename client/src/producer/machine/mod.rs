//! The producer's decisions: pure, without clock, network or randomness.
//!
//! Records enter by [`Machine::append`], the one call per record; everything else is an [`Event`],
//! and what is to be done about it comes out as [`Action`]s. Promises, for each partition:
//! - records are written in the order of their appends, batches never overtake each other;
//! - every batch settles once: written, or failed for a reason;
//! - idempotent (KIP-98, KIP-360): an attempt whose outcome is unknown is repeated with the same
//!   sequence, so it is written once. A new identity is begun only when the broker's answer proves
//!   that what gets a new sequence has not been written.
//!
//! `H` is the shell's handle of a batch: made when the batch begins, given back when it settles.
#![allow(
    missing_docs,
    reason = "pub for simulations only, and hidden from the documentation"
)]

mod append;
mod batch;
mod drain;
mod pacing;
mod partition;
mod place;
mod settle;
mod sticky;

#[cfg(test)]
mod bench;
#[cfg(test)]
mod linger_tests;
#[cfg(test)]
mod model;
#[cfg(test)]
mod place_tests;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use millstream_protocol::{
    LeaderEpoch, TopicId, TopicPartition,
    batch::{BatchBuilder, Compression, set_producer},
    messages::ProducePartitionResult,
};

pub use self::{
    append::Refusal,
    batch::{BatchId, Identity, RequestId, Stamp},
};
use self::{
    batch::Batch,
    pacing::Pacing,
    partition::{Partition, Readiness},
    sticky::Sticky,
};
use super::{
    delivery::BatchPlace,
    linger::Linger,
    partitioner::{Partitioner, Partitioning},
};
use crate::{
    backoff::Backoff,
    error::{ProduceError, RequestError},
    lookups::Lookups,
    metadata::{Node, Topic},
};

/// How many batches of one producer and partition a broker can recognise (KIP-98).
pub const MAX_IDEMPOTENT_IN_FLIGHT: usize = millstream_protocol::limits::MAX_BATCHES_IN_FLIGHT;

/// The settings that decide anything here.
#[derive(Clone, Debug)]
pub struct Config {
    pub linger: Linger,
    pub batch_size: usize,
    pub buffer_memory: usize,
    /// Most bytes of one request, unless its first batch alone is larger.
    pub max_request_size: usize,
    pub max_in_flight: usize,
    pub idempotent: bool,
    pub delivery_timeout: Duration,
    /// Where records go that name no partition.
    pub partitioning: Partitioning,
    /// Seeds the jitter of back-offs, and which partition comes first.
    pub seed: u64,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// A topic was looked up, for the first time or again.
    TopicLearned(Arc<Topic>),
    /// Looking a topic up again failed.
    TopicLookupFailed(TopicId, RequestError),
    IdentityAllocated(Identity),
    IdentityFailed(RequestError),
    /// Results in the order of the request.
    Replied(RequestId, Vec<ProducePartitionResult>),
    RequestFailed(RequestId, RequestError),
    /// Send what there is now, without lingering.
    FlushWanted,
    /// No further records; what there is gets flushed.
    Closed,
    /// Time has passed, or records were appended.
    Ticked,
}

/// What to do.
#[derive(Debug)]
pub enum Action<H> {
    /// Encode what is not encoded, report it with [`Machine::encoded`], and send.
    Send(ProduceSend),
    InitProducerId,
    /// Look the topic up, as heard after now, and report it.
    RefreshTopic {
        name: Arc<str>,
        id: TopicId,
    },
    /// The topic is gone; its name may come back as another.
    ForgetTopic(TopicId),
    /// A batch is done.
    Settle {
        handle: H,
        result: Result<BatchPlace, ProduceError>,
    },
}

/// One request: batches of partitions of one shard, those of a partition in order.
#[derive(Debug)]
pub struct ProduceSend {
    pub request: RequestId,
    pub node: Node,
    pub parcels: Vec<Parcel>,
}

#[derive(Debug)]
pub struct Parcel {
    pub partition: TopicPartition,
    pub leader_epoch: LeaderEpoch,
    pub batch: BatchId,
    pub contents: Contents,
}

/// A batch for the shell to encode, as far as it is not encoded yet.
#[derive(Debug)]
pub enum Contents {
    Records(BatchBuilder, Option<Stamp>),
    Encoded(Bytes),
    /// Encoded, to be given another stamp.
    Restamp(Bytes, Stamp),
}

#[derive(Debug)]
pub struct Machine<H> {
    config: Config,
    backoff: Backoff,
    names: BTreeMap<Arc<str>, TopicId>,
    topics: BTreeMap<TopicId, TopicState<H>>,
    lookups: Lookups,
    /// Partitions with batches, in the order they are looked at; turned by one for each request.
    active: Vec<TopicPartition>,
    /// Some of them have none any more.
    idled: bool,
    in_flight: BTreeMap<Node, usize>,
    requests: BTreeMap<RequestId, SentRequest>,
    pacing: Pacing,
    identity: IdentityState,
    /// Bytes of all batches.
    buffered: usize,
    /// An append was refused for lack of room since the last batch settled.
    hurry: bool,
    flush_before: BatchId,
    next_batch: BatchId,
    next_request: RequestId,
    closed: bool,
}

#[derive(Debug)]
struct TopicState<H> {
    name: Arc<str>,
    partitions: Vec<Partition<H>>,
    /// Where records go that name no partition.
    partitioner: Box<dyn Partitioner>,
    /// Where those go for which it does not matter.
    sticky: Sticky,
}

#[derive(Debug)]
struct SentRequest {
    node: Node,
    sent_at: Duration,
    batches: Vec<(TopicPartition, BatchId)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IdentityState {
    None,
    /// Asked for, after this many failures in a row.
    Requested(u32),
    Known(Identity),
    /// It failed so many times in a row; try again then.
    PausedUntil(Duration, u32),
}

impl Contents {
    /// The batch's bytes; compresses, so call it where that holds nobody up.
    pub fn encode(self, compression: Compression) -> Bytes {
        match self {
            Self::Records(mut builder, stamp) => {
                let producer = stamp.map(|stamp| {
                    let identity = stamp.identity;
                    (identity.id, identity.epoch, stamp.base_sequence)
                });
                builder.finish(producer, compression).into()
            }
            Self::Encoded(bytes) => bytes,
            Self::Restamp(bytes, stamp) => {
                let mut batch = Vec::from(bytes);
                let Identity { id, epoch } = stamp.identity;
                set_producer(&mut batch, id, epoch, stamp.base_sequence);
                batch.into()
            }
        }
    }
}

impl<H: Clone + Default> Machine<H> {
    pub fn new(mut config: Config) -> Self {
        config.max_in_flight = config.max_in_flight.max(1);
        if config.idempotent {
            config.max_in_flight = config.max_in_flight.min(MAX_IDEMPOTENT_IN_FLIGHT);
        }
        Self {
            backoff: Backoff::new(config.seed),
            config,
            names: BTreeMap::new(),
            topics: BTreeMap::new(),
            lookups: Lookups::default(),
            active: Vec::new(),
            idled: false,
            in_flight: BTreeMap::new(),
            requests: BTreeMap::new(),
            pacing: Pacing::default(),
            identity: IdentityState::None,
            buffered: 0,
            hurry: false,
            flush_before: BatchId(0),
            next_batch: BatchId(1),
            next_request: RequestId(1),
            closed: false,
        }
    }

    /// Decides what to do about an event, and about everything due by `now`.
    pub fn apply(&mut self, now: Duration, event: Event, actions: &mut Vec<Action<H>>) {
        match event {
            Event::TopicLearned(topic) => self.learn_topic(&topic, actions),
            Event::TopicLookupFailed(id, error) => self.lookup_failed(now, id, error, actions),
            Event::IdentityAllocated(identity) => self.identity = IdentityState::Known(identity),
            Event::IdentityFailed(error) => self.identity_failed(now, &error, actions),
            Event::Replied(request, results) => self.replied(now, request, results, actions),
            Event::RequestFailed(request, error) => {
                self.request_failed(now, request, &error, actions);
            }
            Event::FlushWanted => self.flush_before = self.next_batch,
            Event::Closed => {
                self.closed = true;
                self.flush_before = self.next_batch;
            }
            Event::Ticked => {}
        }
        self.expire(now, actions);
        self.forget_idle();
        self.drain(now, actions);
    }

    /// Takes a batch's encoded bytes back, for retries. Comes before the outcome of its request.
    pub fn encoded(&mut self, partition: TopicPartition, batch: BatchId, bytes: Bytes) {
        let Some(batch) = self.batch_mut(partition, batch) else {
            return;
        };
        batch.payload = batch::Payload::Encoded(bytes, batch.stamp);
    }

    /// When there is something to do although nothing happens.
    pub fn deadline(&self, now: Duration) -> Option<Duration> {
        let conditions = self.conditions(now);
        let mut deadlines = Vec::new();
        for at in &self.active {
            let partition = self.partition(*at).expect("active partitions exist");
            let next = partition.batches.front();
            deadlines.extend(
                next.filter(|batch| !batch.is_in_flight())
                    .map(|batch| batch.created_at + self.config.delivery_timeout),
            );
            match partition.readiness(&conditions) {
                Readiness::Until(until) => deadlines.push(until),
                Readiness::Ready(node) => {
                    let next = &partition.batches[partition.in_flight];
                    deadlines.extend(self.paced_until(now, node, next));
                }
                Readiness::Blocked | Readiness::NoLeader | Readiness::NoIdentity => {}
            }
        }
        deadlines.extend(self.lookups.deadline());
        if let IdentityState::PausedUntil(until, _) = self.identity {
            deadlines.push(until);
        }
        // What is due already was looked at and waits for an event.
        deadlines.into_iter().filter(|due| *due > now).min()
    }

    /// Every batch begun before this one counts for a flush that starts now.
    pub fn flush_mark(&self) -> BatchId {
        self.next_batch
    }

    /// Whether every batch before `mark` has settled.
    pub fn is_settled_before(&self, mark: BatchId) -> bool {
        let oldest = self.active.iter().filter_map(|at| {
            let partition = self.partition(*at)?;
            partition.batches.front().map(|batch| batch.id)
        });
        oldest.min().is_none_or(|oldest| oldest >= mark)
    }

    /// Records that are not settled.
    pub fn unsettled_records(&self) -> u64 {
        let batches = self.active.iter().filter_map(|at| self.partition(*at));
        let counts = batches.flat_map(|partition| partition.batches.iter());
        counts.map(|batch| u64::from(batch.record_count)).sum()
    }

    /// Fails everything: nobody will drive the machine any more.
    pub fn abandon(&mut self, actions: &mut Vec<Action<H>>) {
        self.closed = true;
        for at in std::mem::take(&mut self.active) {
            let partition = self.partition_mut(at).expect("active partitions exist");
            for batch in std::mem::take(&mut partition.batches) {
                actions.push(Action::Settle {
                    handle: batch.handle,
                    result: Err(ProduceError::Closed),
                });
            }
        }
    }

    fn partition(&self, at: TopicPartition) -> Option<&Partition<H>> {
        let topic = self.topics.get(&at.topic)?;
        topic.partitions.get(at.partition.0 as usize)
    }

    fn partition_mut(&mut self, at: TopicPartition) -> Option<&mut Partition<H>> {
        let topic = self.topics.get_mut(&at.topic)?;
        topic.partitions.get_mut(at.partition.0 as usize)
    }

    fn batch_mut(&mut self, at: TopicPartition, id: BatchId) -> Option<&mut Batch<H>> {
        let partition = self.partition_mut(at)?;
        let index = partition.index_of(id)?;
        partition.batches.get_mut(index)
    }

    /// Asserts what must always hold.
    #[cfg(test)]
    pub fn check(&self) {
        let mut buffered = 0;
        for (id, topic) in &self.topics {
            for (index, partition) in topic.partitions.iter().enumerate() {
                partition.check();
                buffered += partition
                    .batches
                    .iter()
                    .map(|batch| batch.size)
                    .sum::<usize>();
                let at = TopicPartition {
                    topic: *id,
                    partition: u32::try_from(index).expect("few partitions").into(),
                };
                let times = self.active.iter().filter(|active| **active == at).count();
                assert_eq!(times, usize::from(!partition.batches.is_empty()));
                assert!(self.config.idempotent || partition.in_flight <= 1);
            }
        }
        assert_eq!(buffered, self.buffered);
        for (node, count) in &self.in_flight {
            let requests = self.requests.values().filter(|sent| sent.node == *node);
            assert_eq!(requests.count(), *count);
            assert!(*count <= self.config.max_in_flight);
        }
    }
}
