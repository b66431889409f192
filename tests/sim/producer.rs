//! A simulated producer: the client's machine in a small shell on the simulated world.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    pin::pin,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use futures_util::future::select;
use millstream::io::{Clock as _, Io as _, Random, Signal, TaskClass, Tasks as _, sim::SimIo};
use millstream_client::{
    Compression, Linger, Murmur2, ProduceError, ProducerRecord, RequestError,
    machines::{
        Leader, Node, Topic,
        producer::{
            Action, BatchPlace, Config, Event, Identity, Machine, Partitioning, ProduceSend,
            Refusal,
        },
    },
};
use millstream_protocol::{
    ErrorCode, PartitionIndex, TopicId, TopicPartition,
    messages::{
        ANY_SHARD, InitProducerIdRequest, MetadataRequest, ProducePartition, ProduceRequest,
        TopicInfo,
    },
};

use crate::{
    history::{DelayEvent, Record, RecordId, Recorder, What, id_header},
    wire::Connections,
};

/// A topic to write to.
#[derive(Clone, Debug)]
pub struct Target {
    pub name: Arc<str>,
    /// It is compacted: every record has one of a few keys, and some are tombstones.
    pub compacted: bool,
}

/// What a producer does.
#[derive(Clone, Debug)]
pub struct Plan {
    pub topics: Vec<Target>,
    pub records: u32,
    /// Longest pause between two records.
    pub pause: Duration,
    pub delivery_timeout: Duration,
    /// Sizes of values to draw from; if there is none, they are as follows.
    pub sizes: Vec<usize>,
    /// Largest value, in bytes; one in so many may be as large.
    pub value_size: u64,
    pub large_one_in: u64,
    /// Its records are delayed, up to so long; some of them are taken back.
    pub delay: Option<Duration>,
}

/// Keys of a compacted topic: few, so that most records replace another.
const COMPACTED_KEYS: u64 = 12;

/// The records of one batch, in order.
type Handle = Rc<RefCell<Vec<(RecordId, TopicPartition)>>>;

/// See the module.
pub struct Producer {
    io: SimIo,
    number: u32,
    plan: Plan,
    recorder: Recorder,
    connections: Rc<Connections>,
    random: RefCell<Random>,
    machine: RefCell<Machine<Handle>>,
    /// Topics as the machine knows them, with their number of partitions.
    topics: RefCell<BTreeMap<Arc<str>, (TopicId, usize)>>,
    looking_up: Cell<bool>,
    events: RefCell<VecDeque<Event>>,
    wake: Signal,
    pub done: Cell<bool>,
}

impl Producer {
    /// Starts one.
    pub fn start(io: &SimIo, number: u32, plan: Plan, recorder: &Recorder) -> Rc<Self> {
        let mut random = Random::new(io.random_u64());
        let config = Config {
            linger: match random.index(3) {
                0 => Linger::Auto,
                _ => Linger::Fixed(Duration::from_millis(random.below(20))),
            },
            batch_size: [200, 4 << 10, 40 << 10][random.index(3)],
            buffer_memory: 256 << 10,
            max_request_size: 100 << 10,
            max_in_flight: 1 + random.index(5),
            idempotent: true,
            delivery_timeout: plan.delivery_timeout,
            partitioning: Partitioning::default(),
            seed: random.next_u64(),
        };
        let producer = Rc::new(Self {
            io: io.clone(),
            number,
            plan,
            recorder: recorder.clone(),
            connections: Connections::new(io.clone()),
            random: RefCell::new(random),
            machine: RefCell::new(Machine::new(config)),
            topics: RefCell::default(),
            looking_up: Cell::new(false),
            events: RefCell::default(),
            wake: Signal::default(),
            done: Cell::new(false),
        });
        io.spawn(TaskClass::Foreground, Rc::clone(&producer).run());
        producer
    }

    /// Its connections, to cut.
    pub fn connections(&self) -> &Rc<Connections> {
        &self.connections
    }

    pub fn io(&self) -> &SimIo {
        &self.io
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    fn now(&self) -> Duration {
        Duration::from_nanos(self.io.now().0)
    }

    async fn run(self: Rc<Self>) {
        let mut left = self.plan.records;
        let mut next_at = self.now();
        loop {
            let ticket = self.wake.ticket();
            while left > 0 && self.now() >= next_at {
                let sent = self.send_one();
                left -= u32::from(sent);
                next_at = self.now() + self.pause();
                if left == 0 {
                    self.events.borrow_mut().push_back(Event::FlushWanted);
                }
            }
            self.apply_events();
            if left == 0 && self.machine.borrow().unsettled_records() == 0 {
                break;
            }
            let now = self.now();
            let deadline = self.machine.borrow().deadline(now);
            let deadline = [deadline, (left > 0).then_some(next_at)]
                .into_iter()
                .flatten()
                .min();
            let wait = deadline.map_or(Duration::from_secs(3600), |at| at.saturating_sub(now));
            select(
                pin!(self.wake.raised_since(ticket)),
                pin!(self.io.sleep(wait)),
            )
            .await;
        }
        self.done.set(true);
    }

    fn pause(&self) -> Duration {
        let mut random = self.random.borrow_mut();
        // Bursts, so that batches fill and requests pipeline.
        match random.chance(60) {
            true => Duration::ZERO,
            false => Duration::from_nanos(random.below(nanos(self.plan.pause))),
        }
    }

    /// Hands one record to the machine; false if it takes none now.
    fn send_one(self: &Rc<Self>) -> bool {
        let target = {
            let mut random = self.random.borrow_mut();
            self.plan.topics[random.index(self.plan.topics.len())].clone()
        };
        let known = self.topics.borrow().get(&target.name).copied();
        let Some((topic, partitions)) = known else {
            self.look_up(target.name, None);
            return false;
        };
        let (record, key) = self.next_record(&target, topic, partitions);
        let at = record.at;
        let delayed = record.delayed.clone();
        let (id, value) = self.recorder.sending(record);
        let (header, bytes) = id_header(id);
        let mut record = ProducerRecord::to(target.name).header(header, Some(bytes.into()));
        if let Some(delayed) = &delayed {
            record = delayed.put_on(record);
        }
        if let Some(value) = value {
            record = record.value(value);
        }
        let record = match key {
            Some(key) => record.key(key),
            None => record.partition(at.partition),
        };
        let appended = self
            .machine
            .borrow_mut()
            .append(|| self.now(), &record, self.io.wall_ms());
        match appended {
            Ok(appended) => appended.handle.borrow_mut().push((id, at)),
            Err(Refusal::Full) => {
                self.recorder.not_sent(id);
                return false;
            }
            Err(other) => panic!("the machine refuses a record: {other:?}"),
        }
        true
    }

    fn next_record(
        &self,
        target: &Target,
        topic: TopicId,
        partitions: usize,
    ) -> (Record, Option<String>) {
        // Half of the records have a key, and the machine has to find their partition.
        let key = match target.compacted {
            true => Some(self.below(COMPACTED_KEYS)),
            false => (self.below(2) == 0).then(|| self.below(100)),
        };
        let text = key.map(|key| key.to_string());
        let partition = match &text {
            Some(text) => {
                let count = u32::try_from(partitions).expect("few");
                Murmur2::partition_of(text.as_bytes(), count)
            }
            None => PartitionIndex(self.below(partitions as u64)),
        };
        let one_in = match target.compacted {
            true => self.plan.large_one_in.min(3),
            false => self.plan.large_one_in,
        };
        let size = match self.below(one_in) {
            _ if !self.plan.sizes.is_empty() => {
                let sizes = &self.plan.sizes;
                sizes[self.below(sizes.len() as u64) as usize]
            }
            0 => self.below(self.plan.value_size) as usize,
            _ => 8 + self.below(200) as usize,
        };
        let record = Record {
            producer: self.number,
            at: TopicPartition { topic, partition },
            key,
            tombstone: target.compacted && self.below(6) == 0,
            size,
            delayed: self.any_delay(),
        };
        (record, text)
    }

    pub fn below(&self, bound: u64) -> u32 {
        u32::try_from(self.random.borrow_mut().below(bound)).expect("small")
    }

    fn apply_events(self: &Rc<Self>) {
        let mut event = Some(Event::Ticked);
        while let Some(next) = event {
            self.note_topic(&next);
            let mut actions = Vec::new();
            self.machine
                .borrow_mut()
                .apply(self.now(), next, &mut actions);
            for action in actions {
                self.perform(action);
            }
            event = self.events.borrow_mut().pop_front();
        }
    }

    fn note_topic(&self, event: &Event) {
        if let Event::TopicLearned(topic) = event {
            let known = (topic.id, topic.leaders.len());
            self.topics
                .borrow_mut()
                .insert(Arc::clone(&topic.name), known);
        }
    }

    fn perform(self: &Rc<Self>, action: Action<Handle>) {
        match action {
            Action::Send(send) => self.send(send),
            Action::InitProducerId => {
                let request = InitProducerIdRequest::default();
                let reply = self.connections.request(ANY_SHARD, &request, &[]);
                self.later(async move {
                    match reply.await {
                        Ok((reply, _)) => Event::IdentityAllocated(Identity {
                            id: reply.producer_id,
                            epoch: reply.producer_epoch,
                        }),
                        Err(error) => Event::IdentityFailed(error),
                    }
                });
            }
            Action::RefreshTopic { name, id } => self.look_up(name, Some(id)),
            Action::ForgetTopic(id) => self.topics.borrow_mut().retain(|_, known| known.0 != id),
            Action::Settle { handle, result } => self.settle(&handle, &result),
        }
    }

    fn send(self: &Rc<Self>, send: ProduceSend) {
        let mut partitions = Vec::new();
        let mut records = Vec::new();
        for parcel in send.parcels {
            let bytes = parcel.contents.encode(Compression::None);
            partitions.push(ProducePartition {
                topic: parcel.partition.topic,
                partition: parcel.partition.partition,
                leader_epoch: parcel.leader_epoch,
                records_size: u32::try_from(bytes.len()).expect("small"),
            });
            let mut machine = self.machine.borrow_mut();
            machine.encoded(parcel.partition, parcel.batch, bytes.clone());
            records.push(bytes);
        }
        let request = ProduceRequest {
            timeout_ms: 4000,
            partitions,
        };
        let id = send.request;
        let shard = send.node.shard.0;
        if self.plan.delay.is_some() {
            return self.send_delayed(id, shard, request, &records);
        }
        let reply = self.connections.request(shard, &request, &records);
        self.later(async move {
            match reply.await {
                Ok((reply, _)) => Event::Replied(id, reply.partitions),
                Err(error) => Event::RequestFailed(id, error),
            }
        });
    }

    pub fn later(self: &Rc<Self>, event: impl Future<Output = Event> + 'static) {
        let producer = Rc::clone(self);
        self.io.spawn(TaskClass::Foreground, async move {
            let event = event.await;
            producer.events.borrow_mut().push_back(event);
            producer.wake.raise();
        });
    }

    /// Looks a topic up: for the machine that asks for `id`, or because it was never heard of.
    fn look_up(self: &Rc<Self>, name: Arc<str>, id: Option<TopicId>) {
        if id.is_none() && self.looking_up.replace(true) {
            return;
        }
        let (io, connections) = (self.io.clone(), Rc::clone(&self.connections));
        let producer = Rc::clone(self);
        self.io.spawn(TaskClass::Foreground, async move {
            let found = look_up(&io, &connections, &name).await;
            let event = match (found, id) {
                (Ok(topic), _) => Some(Event::TopicLearned(topic)),
                (Err(error), Some(id)) => Some(Event::TopicLookupFailed(id, error)),
                (Err(_), None) => None,
            };
            if id.is_none() {
                producer.looking_up.set(false);
            }
            producer.events.borrow_mut().extend(event);
            producer.wake.raise();
        });
    }

    fn settle(self: &Rc<Self>, handle: &Handle, result: &Result<BatchPlace, ProduceError>) {
        for (index, (id, at)) in (0u32..).zip(handle.borrow().iter()) {
            let what = match result {
                Ok(place) => {
                    assert_eq!(place.partition, at.partition);
                    let known = place.base_offset.0 >= 0;
                    let known = known.then(|| place.base_offset.plus(index));
                    match self.plan.delay {
                        None => What::Acknowledged(*id, known),
                        Some(longest) => {
                            self.perhaps_cancel(*id, *at, known, longest);
                            What::Delay(DelayEvent::Accepted(*id, known))
                        }
                    }
                }
                Err(
                    ProduceError::Refused { maybe_written, .. }
                    | ProduceError::TimedOut { maybe_written, .. },
                ) => What::GivenUp(*id, *maybe_written),
                // The topic is gone; what was written went with it.
                Err(ProduceError::Request(RequestError::UnknownTopic(_))) => {
                    What::GivenUp(*id, true)
                }
                Err(other) => What::Unexplained(format!("record {id} failed: {other}")),
            };
            self.recorder.note(what);
        }
    }
}

/// Asks for a topic, after a moment so that nobody asks in a tight circle.
pub async fn look_up(
    io: &SimIo,
    connections: &Connections,
    name: &Arc<str>,
) -> Result<Arc<Topic>, RequestError> {
    io.sleep(Duration::from_millis(20)).await;
    let request = MetadataRequest {
        topics: Some(vec![name.to_string()]),
        include_internal: false,
    };
    let (reply, _) = connections.request(ANY_SHARD, &request, &[]).await?;
    let info = reply.topics.into_iter().next().expect("one was asked for");
    match info.error {
        ErrorCode::None => Ok(Arc::new(topic_of(info, Duration::from_nanos(io.now().0)))),
        ErrorCode::UnknownTopic => Err(RequestError::UnknownTopic(Arc::clone(name))),
        code => panic!("{name} can't be described: {code:?}"),
    }
}

fn topic_of(info: TopicInfo, heard_at: Duration) -> Topic {
    let leaders = info.partitions.iter().map(|partition| {
        Some(Leader {
            node: Node {
                broker: partition.leader,
                shard: partition.shard,
            },
            epoch: partition.leader_epoch,
        })
    });
    let leaders = leaders.collect();
    Topic {
        name: info.name.into(),
        id: info.id,
        leaders,
        heard_at,
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos())
        .expect("a short time")
        .max(1)
}
