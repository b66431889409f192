//! A bench to put a producer machine on: what goes in is short, what comes out is said in words.

use std::{rc::Rc, sync::Arc, time::Duration};

use millstream_protocol::{
    BrokerId, ErrorCode, LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId, ShardId,
    TopicId, TopicPartition,
    batch::{Batches, Compression, DecodedBatch},
    messages::ProducePartitionResult,
};

use super::{Action, Config, Event, Identity, Machine, ProduceSend, Refusal, RequestId};
use crate::{
    error::{ProduceError, RequestError},
    metadata::{Leader, Node, Topic},
    producer::{linger::Linger, partitioner::Partitioning, record::ProducerRecord},
};

type Handle = Rc<()>;

pub(super) const TOPIC: TopicId = TopicId(uuid::Uuid::from_u128(1));

pub(super) fn config() -> Config {
    Config {
        linger: Linger::default(),
        batch_size: 1000,
        buffer_memory: 10_000,
        max_request_size: 5000,
        max_in_flight: 2,
        idempotent: true,
        delivery_timeout: Duration::from_secs(10),
        partitioning: Partitioning::default(),
        seed: 1,
    }
}

pub(super) fn node(shard: u32) -> Node {
    Node {
        broker: BrokerId(0),
        shard: ShardId(shard),
    }
}

/// Topic `t`, each partition on the shard given, all in one epoch.
pub(super) fn topic(shards: &[u32], epoch: i32) -> Arc<Topic> {
    let leader = |shard: &u32| {
        Some(Leader {
            node: node(*shard),
            epoch: LeaderEpoch(epoch),
        })
    };
    Arc::new(Topic {
        name: "t".into(),
        id: TOPIC,
        leaders: shards.iter().map(leader).collect(),
        heard_at: Duration::ZERO,
    })
}

pub(super) fn at(partition: u32) -> TopicPartition {
    TopicPartition {
        topic: TOPIC,
        partition: PartitionIndex(partition),
    }
}

pub(super) fn answer(partition: u32, error: ErrorCode, base_offset: i64) -> ProducePartitionResult {
    ProducePartitionResult {
        topic: TOPIC,
        partition: PartitionIndex(partition),
        error,
        base_offset: Offset(base_offset),
        append_time_ms: -1,
        leader_epoch: LeaderEpoch::UNKNOWN,
        ..ProducePartitionResult::default()
    }
}

/// A machine, its clock, and what it said in words.
pub(super) struct Bench {
    pub machine: Machine<Handle>,
    pub now: Duration,
    handles: Vec<Handle>,
}

impl Bench {
    pub(super) fn new(config: Config) -> Self {
        Self {
            machine: Machine::new(config),
            now: Duration::ZERO,
            handles: Vec::new(),
        }
    }

    /// With a topic of two partitions on one shard, and an identity.
    pub(super) fn ready(config: Config) -> Self {
        let mut bench = Self::new(config);
        assert_eq!(bench.apply(Event::TopicLearned(topic(&[0, 0], 1))), [""; 0]);
        if bench.machine.config.idempotent {
            assert_eq!(bench.identity(7), [""; 0]);
        }
        bench
    }

    /// As `ready`, and the broker knows that identity already.
    pub(super) fn known(config: Config) -> Self {
        let mut bench = Self::ready(config);
        bench.make_known();
        bench
    }

    pub(super) fn make_known(&mut self) {
        let topics = self.machine.topics.values_mut();
        for partition in topics.flat_map(|topic| &mut topic.partitions) {
            partition.known_until = Duration::MAX;
        }
    }

    pub(super) fn identity(&mut self, id: i64) -> Vec<String> {
        self.apply(Event::IdentityAllocated(Identity {
            id: ProducerId(id),
            epoch: ProducerEpoch(0),
        }))
    }

    pub(super) fn append(&mut self, partition: u32, value: &str) -> Result<bool, Refusal> {
        let record = ProducerRecord::to("t")
            .partition(PartitionIndex(partition))
            .value(value.to_owned());
        self.append_record(&record)
    }

    pub(super) fn append_record(&mut self, record: &ProducerRecord) -> Result<bool, Refusal> {
        let appended = self.machine.append(|| self.now, record, 5)?;
        self.machine.check();
        if !self
            .handles
            .iter()
            .any(|it| Rc::ptr_eq(it, &appended.handle))
        {
            self.handles.push(appended.handle);
        }
        Ok(appended.wake)
    }

    pub(super) fn tick(&mut self, ms: u64) -> Vec<String> {
        self.now += Duration::from_millis(ms);
        self.apply(Event::Ticked)
    }

    pub(super) fn replied(
        &mut self,
        request: u64,
        results: &[ProducePartitionResult],
    ) -> Vec<String> {
        self.apply(Event::Replied(RequestId(request), results.to_vec()))
    }

    pub(super) fn lost(&mut self, request: u64) -> Vec<String> {
        let error = RequestError::ConnectionLost {
            address: "a:1".into(),
            reason: "gone".into(),
        };
        self.apply(Event::RequestFailed(RequestId(request), error))
    }

    pub(super) fn apply(&mut self, event: Event) -> Vec<String> {
        let mut actions = Vec::new();
        self.machine.apply(self.now, event, &mut actions);
        let said = actions.into_iter().map(|it| self.say(it)).collect();
        self.machine.check();
        said
    }

    fn say(&mut self, action: Action<Handle>) -> String {
        match action {
            Action::Send(send) => self.say_send(send),
            Action::InitProducerId => "init".to_owned(),
            Action::RefreshTopic { name, .. } => format!("refresh {name}"),
            Action::ForgetTopic(_) => "forget".to_owned(),
            Action::Settle { handle, result } => {
                let which = self.handles.iter().position(|it| Rc::ptr_eq(it, &handle));
                let which = which.expect("a handle that append gave");
                match result {
                    Ok(place) => format!("settle #{which} at {}", place.base_offset),
                    Err(ProduceError::Refused { code, .. }) => format!("settle #{which} {code:?}"),
                    Err(ProduceError::TimedOut { maybe_written, .. }) => {
                        format!("settle #{which} timed out, maybe written: {maybe_written}")
                    }
                    Err(error) => format!("settle #{which} {error}"),
                }
            }
        }
    }

    /// `send 1 to 0: p0 e1 7@0 [a b]`: request, shard; partition, epoch, producer id and sequence,
    /// records.
    fn say_send(&mut self, send: ProduceSend) -> String {
        let mut said = format!("send {} to {}:", send.request.0, send.node.shard);
        for parcel in send.parcels {
            let bytes = parcel.contents.encode(Compression::None);
            let (header, batch) = Batches::checked(&bytes)
                .next()
                .expect("one")
                .expect("valid");
            let values: Vec<String> = DecodedBatch::open(batch)
                .expect("valid")
                .records()
                .map(|it| String::from_utf8_lossy(it.expect("valid").value.expect("set")).into())
                .collect();
            said += &format!(
                " p{} e{} {}@{} [{}]",
                parcel.partition.partition,
                parcel.leader_epoch,
                header.producer_id,
                header.base_sequence,
                values.join(" ")
            );
            self.machine.encoded(parcel.partition, parcel.batch, bytes);
        }
        said
    }
}
