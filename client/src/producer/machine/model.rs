//! The producer machine against a simulated broker and a network that loses, delays and reorders
//! answers. Whatever happens: every batch settles, what is acknowledged is in the log once and where
//! it was said to be, nothing is in the log twice, and no record overtakes another of its partition.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use millstream_protocol::{
    ErrorCode, LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId, ShardId,
    batch::{BatchHeader, Compression, DecodedBatch},
    messages::ProducePartitionResult,
};
use proptest::prelude::*;

use super::{
    Action, Config, Event, Identity, Machine, ProduceSend, RequestId,
    bench::{answer, config, topic},
};
use crate::{
    error::{ProduceError, RequestError},
    metadata::Node,
    producer::{delivery::BatchPlace, linger::Linger, record::ProducerRecord},
};

const PARTITIONS: u32 = 2;
const SHARDS: u32 = 2;

#[derive(Clone, Debug)]
enum Step {
    Append {
        partition: u32,
        size: usize,
    },
    /// The oldest unread request of a connection reaches the broker.
    Arrive {
        shard: u32,
    },
    /// It does, and is refused whole, or times out after having been written.
    ArriveBadly {
        shard: u32,
        error: BadLuck,
    },
    /// One of the answers under way reaches the client.
    Answer {
        which: usize,
    },
    /// The connection breaks: requests and answers under way are gone. Some requests may still have
    /// reached the broker.
    Break {
        shard: u32,
        arrived: usize,
    },
    /// A partition moves to another shard.
    Move {
        partition: u32,
    },
    Wait {
        ms: u64,
    },
    Flush,
}

#[derive(Clone, Copy, Debug)]
enum BadLuck {
    Overloaded,
    WrittenThenTimeout,
    Invalid,
}

fn step() -> impl Strategy<Value = Step> {
    let partition = 0..PARTITIONS;
    let shard = 0..SHARDS;
    let bad_luck = prop_oneof![
        Just(BadLuck::Overloaded),
        Just(BadLuck::WrittenThenTimeout),
        Just(BadLuck::Invalid)
    ];
    prop_oneof![
        8 => (partition.clone(), 10..600usize)
            .prop_map(|(partition, size)| Step::Append { partition, size }),
        8 => shard.clone().prop_map(|shard| Step::Arrive { shard }),
        1 => (shard.clone(), bad_luck)
            .prop_map(|(shard, error)| Step::ArriveBadly { shard, error }),
        6 => (0..8usize).prop_map(|which| Step::Answer { which }),
        1 => (shard, 0..3usize).prop_map(|(shard, arrived)| Step::Break { shard, arrived }),
        1 => partition.prop_map(|partition| Step::Move { partition }),
        4 => (1..300u64).prop_map(|ms| Step::Wait { ms }),
        1 => Just(Step::Flush),
    ]
}

/// What settled batches were told; a handle is shared by the records of a batch.
type Outcome = Rc<RefCell<Option<Result<BatchPlace, ProduceError>>>>;

/// A partition's log: the value of each record, and the last batches of each producer.
#[derive(Debug, Default)]
struct Log {
    shard: u32,
    epoch: i32,
    records: Vec<String>,
    /// By producer: sequence and base offset of its last five batches, and the next sequence.
    producers: BTreeMap<ProducerId, (VecDeque<(i32, i64)>, i32)>,
}

impl Log {
    fn append(&mut self, bytes: &[u8]) -> (ErrorCode, i64) {
        let header = BatchHeader::decode(bytes).expect("a batch");
        if header.has_producer() {
            // One that is not known may begin anywhere.
            let entry = self.producers.entry(header.producer_id);
            let (recent, next) = entry.or_insert((VecDeque::new(), header.base_sequence));
            if let Some((_, offset)) = recent.iter().find(|(it, _)| *it == header.base_sequence) {
                return (ErrorCode::None, *offset);
            }
            if header.base_sequence != *next {
                return (ErrorCode::OutOfOrderSequence, -1);
            }
            let base = i64::try_from(self.records.len()).expect("few");
            recent.push_back((header.base_sequence, base));
            if recent.len() > super::MAX_IDEMPOTENT_IN_FLIGHT {
                recent.pop_front();
            }
            *next += i32::try_from(header.record_count).expect("few");
        }
        let base = i64::try_from(self.records.len()).expect("few");
        for record in DecodedBatch::open(bytes).expect("valid").records() {
            let value = record.expect("valid").value.expect("set").to_vec();
            self.records.push(String::from_utf8(value).expect("digits"));
        }
        (ErrorCode::None, base)
    }
}

/// A request's batches: partition, leader epoch, bytes.
type Parcels = Vec<(PartitionIndex, i32, Bytes)>;

struct World {
    machine: Machine<Outcome>,
    now: Duration,
    logs: Vec<Log>,
    /// Requests that the broker has not read, by connection, in order.
    requests: BTreeMap<u32, VecDeque<(RequestId, Parcels)>>,
    /// Answers that the client has not read.
    answers: Vec<(u32, RequestId, Vec<ProducePartitionResult>)>,
    next_producer: i64,
    /// Every record taken, by partition, in order: its value, its batch, its index in it.
    sent: Vec<Vec<(String, Outcome, u32)>>,
    next_value: usize,
}

impl World {
    fn new(config: Config) -> Self {
        let mut world = Self {
            machine: Machine::new(config),
            now: Duration::ZERO,
            logs: (0..PARTITIONS).map(|_| Log::default()).collect(),
            requests: BTreeMap::new(),
            answers: Vec::new(),
            next_producer: 1,
            sent: vec![Vec::new(); PARTITIONS as usize],
            next_value: 0,
        };
        world.learn();
        world
    }

    fn learn(&mut self) {
        let mut learned = (*topic(&vec![0; PARTITIONS as usize], 0)).clone();
        for (leader, log) in learned.leaders.iter_mut().zip(&self.logs) {
            let leader = leader.as_mut().expect("it has one");
            leader.node.shard = ShardId(log.shard);
            leader.epoch = LeaderEpoch(log.epoch);
        }
        self.apply(Event::TopicLearned(learned.into()));
    }

    fn apply(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.machine.apply(self.now, event, &mut actions);
        for action in actions {
            match action {
                Action::Send(send) => self.send(send),
                Action::InitProducerId => {
                    let identity = Identity {
                        id: ProducerId(self.next_producer),
                        epoch: ProducerEpoch(0),
                    };
                    self.next_producer += 1;
                    self.apply(Event::IdentityAllocated(identity));
                }
                Action::RefreshTopic { .. } => self.learn(),
                Action::ForgetTopic(_) => panic!("no topic is deleted here"),
                Action::Settle { handle, result } => {
                    let before = handle.replace(Some(result));
                    assert!(before.is_none(), "a batch settles once");
                }
            }
        }
        self.machine.check();
    }

    fn send(&mut self, send: ProduceSend) {
        let mut parcels = Vec::new();
        for parcel in send.parcels {
            let bytes = parcel.contents.encode(Compression::None);
            self.machine
                .encoded(parcel.partition, parcel.batch, bytes.clone());
            parcels.push((parcel.partition.partition, parcel.leader_epoch.0, bytes));
        }
        let Node { shard, .. } = send.node;
        let queue = self.requests.entry(shard.0).or_default();
        queue.push_back((send.request, parcels));
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Append { partition, size } => self.append(partition, size),
            Step::Arrive { shard } => self.arrive(shard, None),
            Step::ArriveBadly { shard, error } => self.arrive(shard, Some(error)),
            Step::Answer { which } => {
                if !self.answers.is_empty() {
                    let which = which % self.answers.len();
                    let (_, request, results) = self.answers.remove(which);
                    self.apply(Event::Replied(request, results));
                }
            }
            Step::Break { shard, arrived } => self.break_connection(shard, arrived),
            Step::Move { partition } => {
                let log = &mut self.logs[partition as usize];
                log.shard = (log.shard + 1) % SHARDS;
                log.epoch += 1;
            }
            Step::Wait { ms } => {
                self.now += Duration::from_millis(ms);
                self.apply(Event::Ticked);
            }
            Step::Flush => self.apply(Event::FlushWanted),
        }
    }

    fn append(&mut self, partition: u32, size: usize) {
        let value = format!("{:0size$}", self.next_value);
        let record = ProducerRecord::to("t")
            .partition(PartitionIndex(partition))
            .value(value.clone());
        let Ok(appended) = self.machine.append(|| self.now, &record, 1) else {
            return;
        };
        self.next_value += 1;
        let sent = &mut self.sent[partition as usize];
        sent.push((value, appended.handle, appended.index));
        if appended.wake {
            self.apply(Event::Ticked);
        }
    }

    fn arrive(&mut self, shard: u32, bad: Option<BadLuck>) {
        let queue = self.requests.entry(shard).or_default();
        let Some((request, parcels)) = queue.pop_front() else {
            return;
        };
        let mut results = Vec::new();
        for (partition, epoch, bytes) in parcels {
            let log = &mut self.logs[partition.0 as usize];
            let mut result = answer(partition.0, ErrorCode::None, -1);
            if log.shard != shard || log.epoch != epoch {
                result.error = ErrorCode::NotLeader;
                result.leader_epoch = LeaderEpoch(log.epoch);
                result.shard = ShardId(log.shard);
            } else {
                let (error, base_offset) = match bad {
                    None => log.append(&bytes),
                    Some(BadLuck::Overloaded) => (ErrorCode::Overloaded, -1),
                    Some(BadLuck::Invalid) => (ErrorCode::InvalidBatch, -1),
                    Some(BadLuck::WrittenThenTimeout) => match log.append(&bytes) {
                        (ErrorCode::None, _) => (ErrorCode::Timeout, -1),
                        refused => refused,
                    },
                };
                result.error = error;
                result.base_offset = Offset(base_offset);
            }
            results.push(result);
        }
        self.answers.push((shard, request, results));
    }

    fn break_connection(&mut self, shard: u32, arrived: usize) {
        for _ in 0..arrived {
            self.arrive(shard, None);
        }
        let unread = self.requests.remove(&shard).unwrap_or_default();
        let mut lost: Vec<RequestId> = unread.into_iter().map(|(request, _)| request).collect();
        self.answers.retain(|(of, request, _)| {
            if *of == shard {
                lost.push(*request);
            }
            *of != shard
        });
        lost.sort_unstable();
        for request in lost {
            let error = RequestError::ConnectionLost {
                address: "a:1".into(),
                reason: "it broke".into(),
            };
            self.apply(Event::RequestFailed(request, error));
        }
    }

    /// No more bad luck: everything settles.
    fn calm_down(&mut self) {
        self.apply(Event::Closed);
        for _ in 0..1000 {
            for shard in 0..SHARDS {
                self.arrive(shard, None);
            }
            while !self.answers.is_empty() {
                self.step(Step::Answer { which: 0 });
            }
            if self.machine.unsettled_records() == 0 {
                return;
            }
            let due = self.machine.deadline(self.now);
            self.now = due.unwrap_or(self.now).max(self.now);
            self.apply(Event::Ticked);
        }
        panic!("records do not settle: {:?}", self.machine);
    }

    fn check_logs(&self, idempotent: bool) {
        for (log, sent) in self.logs.iter().zip(&self.sent) {
            // Values count up, so order and repetition both show.
            let numbers: Vec<usize> = log
                .records
                .iter()
                .map(|it| it.parse().expect("digits"))
                .collect();
            if idempotent {
                assert!(
                    numbers.is_sorted_by(|a, b| a < b),
                    "repeated or out of order: {numbers:?}"
                );
            }
            for (value, outcome, index) in sent {
                let outcome = outcome.borrow();
                let outcome = outcome.as_ref().expect("every record settles");
                let is_there = log.records.contains(value);
                match outcome {
                    Ok(place) => {
                        let offset = place.base_offset.plus(*index).0;
                        let offset = usize::try_from(offset).expect("an offset");
                        assert_eq!(
                            log.records.get(offset),
                            Some(value),
                            "acknowledged at {offset}"
                        );
                    }
                    Err(
                        ProduceError::TimedOut { maybe_written, .. }
                        | ProduceError::Refused { maybe_written, .. },
                    ) => {
                        assert!(
                            *maybe_written || !is_there,
                            "said not to be written: {value}"
                        );
                    }
                    Err(error) => panic!("nothing here fails so: {error}"),
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_repeated_or_reordered(
        steps in proptest::collection::vec(step(), 0..150),
        linger in prop_oneof![
            Just(Linger::Auto),
            Just(Linger::Fixed(Duration::ZERO)),
            Just(Linger::Fixed(Duration::from_millis(50))),
        ],
        delivery_timeout_ms in prop_oneof![Just(400), Just(600_000)],
        idempotent in prop::bool::weighted(0.8),
        max_in_flight in 1..=super::MAX_IDEMPOTENT_IN_FLIGHT,
    ) {
        let mut settings = config();
        settings.linger = linger;
        settings.delivery_timeout = Duration::from_millis(delivery_timeout_ms);
        settings.idempotent = idempotent;
        settings.max_in_flight = max_in_flight;
        let mut world = World::new(settings);
        for step in steps {
            world.step(step);
        }
        world.calm_down();
        world.check_logs(idempotent);
    }
}
