//! Everything in a simulated history: the broker with its disk, clients, the recorder, and what an
//! administrator does. A test of its own (`small`) or a whole scenario drives it.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use millstream::{
    controller::TopicImage,
    io::{
        Clock as _, Disk as _, Random, TaskClass, Tasks as _,
        sim::{CrashPolicy, SimIo},
    },
    types::TopicConfig,
};
use millstream_client::RequestError;
use millstream_protocol::{
    ErrorCode, Offset, TopicPartition,
    messages::{
        ANY_SHARD, AlterTopicRequest, CreateTopicsRequest, DeleteTopicsRequest, NewTopic, Request,
        TopicResult,
    },
};

use crate::{
    broker::{BROKER, Broker, CLIENTS, InUse, Limits, within},
    consumer::Consumer,
    history::{History, Recorder, What},
    member::{self, Member},
    producer::{Plan, Producer, Target},
    scenario::Scenario,
    wire::Connections,
};

/// Between two looks at the memory in use.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The node of the first member of a group.
const FIRST_MEMBER: u32 = 10;

/// See the module.
pub struct World {
    pub io: SimIo,
    pub scenario: Scenario,
    pub random: Random,
    pub broker: Broker,
    pub clients: SimIo,
    pub admin: Rc<Connections>,
    pub recorder: Recorder,
    pub producers: Vec<Rc<Producer>>,
    pub consumers: Vec<Rc<Consumer>>,
    /// Of all groups, those that live.
    pub members: Vec<Rc<Member>>,
    /// Nobody asks for commits any more.
    pub stop_watching: Rc<Cell<bool>>,
    /// Members that there ever were.
    member_count: u32,
}

impl World {
    /// The broker runs, the topics are there, the clients have begun.
    pub async fn new(
        io: SimIo,
        seed: u64,
        scenario: Scenario,
        history: &Rc<RefCell<History>>,
    ) -> Self {
        let mut random = Random::new(seed ^ 0x5ced_01e5);
        let limits = Limits {
            memory: [2 << 20, 16 << 20][random.index(2)],
            cache_size: [0, 64 << 10, 4 << 20][random.index(3)],
            unflushed_limit: [32 << 10, 1 << 20][random.index(2)],
            open_files: [1, 4, 64][random.index(3)],
        };
        let recorder = Recorder::new(&io, history);
        recorder.say(format!("seed {seed}, {limits:?}"));
        let broker = Broker::new(&io, limits, &recorder);
        let clients = io.node(CLIENTS, broker.disk());
        // The data directory is made, durably, before a broker starts.
        clients
            .create_dir_all("/data".as_ref())
            .await
            .expect("an empty disk");
        clients.sync_dir("/".as_ref()).await.expect("an empty disk");
        let admin = Connections::new(clients.clone());
        let mut world = Self {
            io,
            scenario,
            random,
            broker,
            clients,
            admin,
            recorder,
            producers: Vec::new(),
            consumers: Vec::new(),
            members: Vec::new(),
            stop_watching: Rc::default(),
            member_count: 0,
        };
        world.start();
        world.broker.ready().await;
        world.watch_memory(limits);
        for topic in world.scenario.topics.clone() {
            world.create(&topic).await;
        }
        world.start_clients();
        world.watch_commits();
        world
    }

    fn start_clients(&mut self) {
        let targets: Vec<Target> = self.scenario.topics.iter().map(target_of).collect();
        let (plain, delayed) = (self.scenario.producers, self.scenario.delayers);
        for number in 0..plain + delayed {
            let delay = (number >= plain).then_some(self.scenario.delay);
            let topics = match delay {
                None => targets.clone(),
                Some(_) => self.targets_of_delayed(),
            };
            let plan = Plan {
                topics,
                records: self.scenario.records,
                pause: self.scenario.pause,
                delivery_timeout: self.scenario.delivery_timeout,
                sizes: self.scenario.sizes.clone(),
                value_size: 30_000,
                large_one_in: self.scenario.large_one_in,
                delay,
            };
            let producer = Producer::start(&self.clients, number, plan, &self.recorder);
            self.producers.push(producer);
        }
        for _ in 0..self.scenario.consumers {
            let consumer = self.new_consumer();
            self.consumers.push(consumer);
        }
        for group in 0..self.scenario.groups {
            for number in 0..self.scenario.members {
                // Some have a name that survives them.
                let instance = self.random.chance(30);
                self.add_member(group, instance.then(|| format!("g{group}-i{number}")));
            }
        }
    }

    /// Another member of a group, on a node of its own.
    pub fn add_member(&mut self, group: u32, instance: Option<String>) {
        let number = self.member_count;
        self.member_count += 1;
        let names = self.scenario.topics.iter();
        let plan = member::Plan {
            group,
            name: format!("m{number}"),
            instance,
            topics: names.map(|topic| topic.name.as_str().into()).collect(),
            session: self.scenario.session,
            auto_commit: [None, Some(Duration::from_millis(300))][self.random.index(2)],
            // All of a group say the same, or the broker would have to choose.
            assignor: ["", "range", "uniform"][group as usize % 3],
        };
        let node = FIRST_MEMBER + number;
        let member = Member::start(&self.clients, node, plan, &self.recorder);
        self.members.push(member);
    }

    /// Resets every connection of a client.
    pub fn reset_clients(&self) {
        for node in self.client_nodes() {
            self.io.sim_net().reset_connections(node);
        }
    }

    /// Lets nothing through between the broker and its clients.
    pub fn block_clients(&self) {
        for node in self.client_nodes() {
            self.io.sim_net().block(BROKER, node);
        }
    }

    /// Those of members that are gone too: what they had open may still be.
    fn client_nodes(&self) -> impl Iterator<Item = u32> {
        [CLIENTS]
            .into_iter()
            .chain(FIRST_MEMBER..FIRST_MEMBER + self.member_count)
    }

    /// Someone else who reads everything.
    pub fn new_consumer(&self) -> Rc<Consumer> {
        let names = self.scenario.topics.iter();
        let names: Vec<Arc<str>> = names.map(|topic| topic.name.as_str().into()).collect();
        let mut settings = self.scenario.topics.iter().flat_map(|topic| &topic.configs);
        let notes_batches = settings.any(|(name, _)| name == "ttl.ms");
        Consumer::start(&self.clients, &names, notes_batches, &self.recorder)
    }

    /// Notes what each shard has in use, when it is more than ever before.
    fn watch_memory(&self, limits: Limits) {
        let (io, recorder) = (self.io.clone(), self.recorder.clone());
        let counters = self.broker.watch();
        self.clients.spawn(TaskClass::Foreground, async move {
            let mut most: BTreeMap<(usize, &str), u64> = BTreeMap::new();
            loop {
                io.sleep(LOOK_EVERY).await;
                let shards = counters.borrow().clone();
                for (shard, counters) in shards.iter().enumerate() {
                    for InUse { what, used, limit } in limits.in_use(counters) {
                        let before = most.entry((shard, what)).or_default();
                        if used > *before {
                            *before = used;
                            recorder.note(What::InUse {
                                shard,
                                what,
                                used,
                                limit,
                            });
                        }
                    }
                }
            }
        });
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
        let image = self.broker.metadata().image();
        let topic = image.topic_named(&new.name);
        let topic = topic.expect("it was just created");
        self.recorder.created(&new.name, topic.id, &topic.config);
    }

    /// Deletes a topic, unless an attempt whose answer was lost has done so.
    pub async fn delete(&self, name: &str) {
        self.about_to_delete(name);
        self.recorder.say(format!("topic {name} is deleted"));
        let request = DeleteTopicsRequest {
            names: vec![name.to_owned()],
        };
        let done = self.ask(&request).await.topics;
        expect(&done[0], ErrorCode::UnknownTopic);
    }

    /// Notes that a topic may be gone from here on.
    pub fn about_to_delete(&self, name: &str) {
        let image = self.broker.metadata().image();
        if let Some(topic) = image.topic_named(name) {
            self.recorder.note(What::Deleting(topic.id));
        }
    }

    /// Changes a setting of a topic.
    pub async fn alter(&self, name: &str, setting: &str, value: &str) {
        let image = self.broker.metadata().image();
        let topic = image.topic_named(name).expect("every topic is there");
        let mut config = TopicConfig::clone(&topic.config);
        config
            .set(setting, value)
            .expect("a setting that is allowed");
        // From before it can be so, for it may be so before the answer comes.
        let config = Box::new(config);
        let topic = topic.id;
        self.recorder.note(What::Altered { topic, config });
        let request = AlterTopicRequest {
            name: name.to_owned(),
            configs: vec![(setting.to_owned(), Some(value.to_owned()))],
            force: false,
        };
        let done = self.ask(&request).await.topic;
        expect(&done, ErrorCode::None);
    }

    /// Cuts the power and starts again, with any number of shards.
    pub async fn cut_power(&mut self, policy: CrashPolicy) {
        self.recorder.say(format!("the power is cut, {policy:?}"));
        self.broker.cut_power(policy);
        let down = Duration::from_millis(self.random.below(400));
        self.io.sleep(down).await;
        self.start();
    }

    pub fn start(&mut self) {
        let shard_count = 1 + u32::try_from(self.random.below(3)).expect("small");
        self.recorder.note(What::Started(shard_count));
        self.broker.start(shard_count);
    }

    /// How far consumers were shown a partition.
    pub fn shown(&self, at: TopicPartition) -> Offset {
        let consumers = self.consumers.iter();
        let shown = consumers.map(|consumer| consumer.high_watermark(at));
        shown.max().unwrap_or(Offset::ZERO)
    }

    /// Reads everything from its start to its end, and notes all of it.
    pub async fn read_whole(&self) {
        let reader = self.new_consumer();
        reader.restless.set(false);
        within(&self.io, "reading to the end", || reader.is_at_end()).await;
        for consumer in &self.consumers {
            let there = || consumer.is_at_end();
            within(&self.io, "a consumer's way to the end", there).await;
        }
        let groups = || {
            let mut members = self.members.iter().filter(|it| !it.done.get());
            self.groups_are_whole() && members.all(|it| it.is_at_end())
        };
        within(&self.io, "a group's way to the end", groups).await;
        for (at, view) in reader.views() {
            self.recorder
                .note(What::Whole(at, view.start, view.records));
        }
        reader.stop.set(true);
    }

    /// Every topic that is there.
    pub fn topics(&self) -> Vec<Arc<TopicImage>> {
        let image = self.broker.metadata().image();
        image.topics().cloned().collect()
    }
}

pub fn target_of(topic: &NewTopic) -> Target {
    let config = config_of(topic);
    Target {
        name: topic.name.as_str().into(),
        compacted: config.cleanup_policy.compacts(),
    }
}

/// The settings that a new topic asks for.
fn config_of(topic: &NewTopic) -> TopicConfig {
    let mut config = TopicConfig::default();
    for (name, value) in &topic.configs {
        config.set(name, value).expect("a setting that is allowed");
    }
    config
}

fn expect(done: &TopicResult, too: ErrorCode) {
    let fine = done.error == ErrorCode::None || done.error == too;
    assert!(fine, "{}: {:?} {}", done.name, done.error, done.message);
}
