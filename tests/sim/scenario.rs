//! One simulated history: a broker comes up, clients work, faults strike, then all is quiet and
//! everything that clients were told is judged, before and after one more power cut.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, sync::Arc, time::Duration};

use millstream::{
    controller::TopicImage,
    io::{
        Clock as _, Disk as _, Random,
        sim::{CrashPolicy, DiskTimes, Sim, SimIo},
    },
};
use millstream_client::RequestError;
use millstream_protocol::{
    ErrorCode, Offset, TopicPartition,
    messages::{
        ANY_SHARD, CreateTopicsRequest, DeleteTopicsRequest, NewTopic, Request, TopicResult,
    },
};

use crate::{
    broker::{Broker, CLIENTS, Limits, within},
    consumer::Consumer,
    faults::Fault,
    oracle::{Oracle, RecordId},
    producer::{Plan, Producer},
    wire::Connections,
};

/// What happens in a history, apart from what the seed chooses.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub topics: Vec<NewTopic>,
    pub producers: u32,
    /// Records of each producer.
    pub records: u32,
    /// Longest pause of a producer between two records.
    pub pause: Duration,
    pub delivery_timeout: Duration,
    pub consumers: u32,
    /// Faults to draw from, and how many strike.
    pub faults: Vec<Fault>,
    pub fault_count: u32,
    /// A topic may lose its unflushed end.
    pub buffered: bool,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            topics: vec![topic("a", 3, "flushed"), topic("b", 1, "flushed")],
            producers: 3,
            records: 100,
            pause: Duration::from_millis(120),
            delivery_timeout: Duration::from_secs(600),
            consumers: 2,
            faults: Vec::new(),
            fault_count: 4,
            buffered: false,
        }
    }
}

/// A topic in small segments.
pub fn topic(name: &str, partitions: u32, durability: &str) -> NewTopic {
    let configs = [("segment.bytes", "65536"), ("durability", durability)];
    NewTopic {
        name: name.to_owned(),
        partitions,
        replication_factor: 1,
        configs: configs
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
    }
}

/// What came of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub trace_hash: u64,
    pub sent: usize,
    pub acknowledged: usize,
    pub reads: u64,
}

/// Plays a history.
pub fn play(seed: u64, scenario: Scenario) -> Outcome {
    let mut sim = Sim::new(seed);
    let (sent, acknowledged, reads) = sim.run(|io| async move {
        let mut world = World::new(io, seed, scenario).await;
        world.strike().await;
        world.settle().await;
        let judged = world.judge().await;
        world.cut_power(CrashPolicy::DropAll).await;
        world.broker.ready().await;
        let again = world.judge().await;
        assert_eq!(judged, again, "a quiet log does not change by a power cut");
        world.be_quiet().await;
        let oracle = world.oracle.borrow();
        let (sent, acknowledged) = oracle.counts();
        (sent, acknowledged, oracle.reads)
    });
    Outcome {
        trace_hash: sim.trace_hash(),
        sent,
        acknowledged,
        reads,
    }
}

/// Everything in a history.
pub struct World {
    pub io: SimIo,
    pub scenario: Scenario,
    pub random: Random,
    pub broker: Broker,
    pub clients: SimIo,
    pub admin: Rc<Connections>,
    pub oracle: Rc<RefCell<Oracle>>,
    pub producers: Vec<Rc<Producer>>,
    pub consumers: Vec<Rc<Consumer>>,
}

/// A partition as a whole.
pub type Logs = BTreeMap<TopicPartition, Vec<(Offset, RecordId)>>;

impl World {
    /// The broker runs, the topics are there, the clients have begun.
    pub async fn new(io: SimIo, seed: u64, scenario: Scenario) -> Self {
        let mut random = Random::new(seed ^ 0x5ced_01e5);
        let limits = Limits {
            memory: [2 << 20, 16 << 20][random.index(2)],
            cache_size: [0, 64 << 10, 4 << 20][random.index(3)],
            unflushed_limit: [32 << 10, 1 << 20][random.index(2)],
            open_files: [1, 4, 64][random.index(3)],
        };
        let mut broker = Broker::new(&io, limits);
        let clients = io.node(CLIENTS, broker.disk());
        // The data directory is made, durably, before a broker starts.
        clients
            .create_dir_all("/data".as_ref())
            .await
            .expect("an empty disk");
        clients.sync_dir("/".as_ref()).await.expect("an empty disk");
        broker.start(1 + u32::try_from(random.below(3)).expect("small"));
        broker.ready().await;
        let oracle = Rc::new(RefCell::new(Oracle::default()));
        let admin = Connections::new(clients.clone());
        let mut world = Self {
            io,
            scenario,
            random,
            broker,
            clients,
            admin,
            oracle,
            producers: Vec::new(),
            consumers: Vec::new(),
        };
        for topic in world.scenario.topics.clone() {
            world.create(&topic).await;
        }
        world.start_clients();
        world
    }

    fn start_clients(&mut self) {
        let names = self.names();
        for number in 0..self.scenario.producers {
            let plan = Plan {
                topics: names.clone(),
                records: self.scenario.records,
                pause: self.scenario.pause,
                delivery_timeout: self.scenario.delivery_timeout,
                value_size: 30_000,
            };
            let producer = Producer::start(&self.clients, number, plan, &self.oracle);
            self.producers.push(producer);
        }
        for _ in 0..self.scenario.consumers {
            let consumer = self.new_consumer();
            self.consumers.push(consumer);
        }
    }

    fn new_consumer(&self) -> Rc<Consumer> {
        Consumer::start(
            &self.clients,
            &self.names(),
            &self.oracle,
            self.scenario.buffered,
        )
    }

    fn names(&self) -> Vec<Arc<str>> {
        self.scenario
            .topics
            .iter()
            .map(|topic| topic.name.as_str().into())
            .collect()
    }

    /// Asks until there is an answer.
    pub async fn ask<R: Request>(&self, request: &R) -> R::Response {
        loop {
            match self.admin.request(ANY_SHARD, request, &[]).await {
                Ok((reply, _)) => return reply,
                Err(RequestError::Protocol { reason, .. }) => panic!("{reason}"),
                Err(_) => self.io.sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Creates a topic, unless an attempt whose answer was lost has done so.
    pub async fn create(&self, new: &NewTopic) {
        let request = CreateTopicsRequest {
            topics: vec![new.clone()],
            validate_only: false,
        };
        let done = self.ask(&request).await.topics;
        expect(&done[0], ErrorCode::TopicExists);
        if self.scenario.buffered {
            let image = self.broker.metadata().image();
            let id = image
                .topic_named(&new.name)
                .expect("it was just created")
                .id;
            self.oracle.borrow_mut().is_buffered(id);
        }
    }

    /// Deletes a topic, unless an attempt whose answer was lost has done so.
    pub async fn delete(&self, name: &str) {
        let request = DeleteTopicsRequest {
            names: vec![name.to_owned()],
        };
        let done = self.ask(&request).await.topics;
        expect(&done[0], ErrorCode::UnknownTopic);
    }

    /// Cuts the power and starts again, with any number of shards.
    pub async fn cut_power(&mut self, policy: CrashPolicy) {
        self.broker.cut_power(policy);
        let down = Duration::from_millis(self.random.below(400));
        self.io.sleep(down).await;
        self.start();
    }

    pub fn start(&mut self) {
        self.broker
            .start(1 + u32::try_from(self.random.below(3)).expect("small"));
    }

    async fn strike(&mut self) {
        if self.scenario.faults.is_empty() {
            return;
        }
        for _ in 0..self.scenario.fault_count {
            let calm = Duration::from_micros(self.random.below(800_000));
            self.io.sleep(calm).await;
            let fault = self.scenario.faults[self.random.index(self.scenario.faults.len())];
            fault.strike(self).await;
        }
    }

    /// The faults end, and every producer hears of all that it sent.
    async fn settle(&mut self) {
        self.io.sim_net().unblock_all();
        self.broker.disk().heal();
        self.broker.disk().set_times(DiskTimes::default());
        self.broker.ready().await;
        for producer in &self.producers {
            within(&self.io, "delivery", || producer.done.get()).await;
        }
        for consumer in &self.consumers {
            consumer.restless.set(false);
        }
        // Whoever waits or backs off has come to know what there is.
        self.io.sleep(Duration::from_secs(5)).await;
    }

    /// Reads everything from its start to its end and judges it.
    pub async fn judge(&self) -> Logs {
        let reader = self.new_consumer();
        reader.restless.set(false);
        within(&self.io, "reading to the end", || reader.is_at_end()).await;
        for consumer in &self.consumers {
            within(&self.io, "a consumer's way to the end", || {
                consumer.is_at_end()
            })
            .await;
        }
        let logs = reader.views();
        reader.stop.set(true);
        for (at, log) in &logs {
            self.oracle.borrow_mut().complete(*at, log);
        }
        for consumer in &self.consumers {
            self.compare(&logs, &consumer.views());
        }
        logs
    }

    /// What any consumer has, and did not hear to be cut, is in the log.
    fn compare(&self, logs: &Logs, views: &Logs) {
        for (at, view) in views {
            let log: BTreeMap<_, _> = logs[at].iter().copied().collect();
            let first = self.oracle.borrow().log_start(*at);
            for (offset, id) in view.iter().filter(|(offset, _)| *offset >= first) {
                let there = log.get(offset);
                assert_eq!(
                    there,
                    Some(id),
                    "{at:?} {offset}: a consumer has something else"
                );
            }
        }
    }

    /// Clients leave; the memory that they took is given back, and no file of what is gone stays.
    async fn be_quiet(&mut self) {
        for consumer in &self.consumers {
            consumer.stop.set(true);
        }
        // Once more for what they began when they lost the first ones.
        for _ in 0..2 {
            self.io.sim_net().reset_connections(CLIENTS);
            self.io.sleep(Duration::from_secs(5)).await;
        }
        for (shard, counters) in self.broker.counters().iter().enumerate() {
            let left = |what: &str, value: u64| assert_eq!(value, 0, "shard {shard}: {what}");
            left("connections", counters.connections.value());
            left("receive buffers", counters.receive_buffer_bytes.value());
            left("replies", counters.reply_bytes.value());
            left("unflushed", counters.unflushed_bytes.value());
            left("failed partitions", counters.partitions_failed.value());
        }
        let image = self.broker.metadata().image();
        let listed = self.clients.read_dir("/data/topics".as_ref()).await;
        // A topic that nothing was written to has no directory.
        for dir in listed.unwrap_or_default() {
            let live = |topic: &Arc<TopicImage>| dir.ends_with(topic.id.to_string());
            assert!(
                image.topics().any(live),
                "{dir:?} is left of a deleted topic"
            );
        }
        assert_eq!(
            image.deleted().count(),
            0,
            "a deleted topic is not forgotten"
        );
    }
}

fn expect(done: &TopicResult, too: ErrorCode) {
    let fine = done.error == ErrorCode::None || done.error == too;
    assert!(fine, "{}: {:?} {}", done.name, done.error, done.message);
}
