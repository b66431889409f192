//! A simulated consumer: the client's machine in a small shell on the simulated world. It reads every
//! partition of its topics from the beginning, on and on, and now and then begins again.

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
    ConsumeError, OutOfRangePolicy, RequestError, TruncationPolicy,
    machines::{
        Topic,
        consumer::{Action, Config, Event, Item, Machine},
    },
};
use millstream_protocol::{ErrorCode, Offset, PartitionIndex, TopicId, TopicPartition};

use crate::{
    oracle::{Oracle, RecordId},
    producer::look_up,
    wire::Connections,
};

/// What a consumer has of one partition since it began to read it.
type View = Vec<(Offset, RecordId)>;

/// See the module.
pub struct Consumer {
    io: SimIo,
    oracle: Rc<RefCell<Oracle>>,
    connections: Rc<Connections>,
    random: RefCell<Random>,
    machine: RefCell<Machine>,
    topics: Vec<Arc<str>>,
    /// Which of them are assigned, and as what.
    assigned: RefCell<BTreeMap<Arc<str>, (TopicId, usize)>>,
    looking_up: RefCell<Vec<Arc<str>>>,
    views: RefCell<BTreeMap<TopicPartition, View>>,
    events: RefCell<VecDeque<Event>>,
    wake: Signal,
    /// A flushed log never loses what it showed: a truncation is a violation.
    may_truncate: bool,
    /// Begins again now and then.
    pub restless: Cell<bool>,
    pub stop: Cell<bool>,
}

impl Consumer {
    /// Starts one.
    pub fn start(
        io: &SimIo,
        topics: &[Arc<str>],
        oracle: &Rc<RefCell<Oracle>>,
        may_truncate: bool,
    ) -> Rc<Self> {
        let mut random = Random::new(io.random_u64());
        let config = Config {
            prefetch_bytes: [8 << 10, 100 << 10, 1 << 20][random.index(3)],
            fetch_bytes: [1 << 10, 20 << 10, 1 << 20][random.index(3)],
            max_wait_ms: [20, 100, 500][random.index(3)],
            out_of_range: OutOfRangePolicy::Error,
            truncation: TruncationPolicy::Error,
            seed: random.next_u64(),
        };
        let consumer = Rc::new(Self {
            io: io.clone(),
            oracle: Rc::clone(oracle),
            connections: Connections::new(io.clone()),
            random: RefCell::new(random),
            machine: RefCell::new(Machine::new(config)),
            topics: topics.to_vec(),
            assigned: RefCell::default(),
            looking_up: RefCell::default(),
            views: RefCell::default(),
            events: RefCell::default(),
            wake: Signal::default(),
            may_truncate,
            restless: Cell::new(true),
            stop: Cell::new(false),
        });
        io.spawn(TaskClass::Foreground, Rc::clone(&consumer).run());
        consumer
    }

    /// Its connections, to cut.
    pub fn connections(&self) -> &Connections {
        &self.connections
    }

    /// What it has read, by partition.
    pub fn views(&self) -> BTreeMap<TopicPartition, View> {
        self.views.borrow().clone()
    }

    /// Whether every partition was read to its end, as of the last replies.
    pub fn is_at_end(&self) -> bool {
        let assigned = self.assigned.borrow();
        let partitions: usize = assigned.values().map(|known| known.1).sum();
        let machine = self.machine.borrow();
        // The machine may yet have to hear of what was just assigned.
        assigned.len() == self.topics.len()
            && machine.assignment().len() == partitions
            && machine.is_at_end()
    }

    /// Forgets what it read and begins at the first offset of everything again.
    pub fn begin_again(&self) {
        for (topic, (id, partitions)) in self.assigned.borrow().iter() {
            for partition in 0..u32::try_from(*partitions).expect("few") {
                let at = TopicPartition {
                    topic: *id,
                    partition: PartitionIndex(partition),
                };
                self.seek(at, Arc::clone(topic), self.oracle.borrow().log_start(at));
            }
        }
        self.wake.raise();
    }

    fn seek(&self, at: TopicPartition, topic: Arc<str>, offset: Offset) {
        let mut views = self.views.borrow_mut();
        let view = views.entry(at).or_default();
        view.retain(|(read, _)| *read < offset);
        if view.last().is_some_and(|(last, _)| last.plus(1) != offset) {
            view.clear();
        }
        let leader = None;
        self.events.borrow_mut().push_back(Event::Assigned {
            at,
            topic,
            leader,
            offset,
        });
    }

    fn now(&self) -> Duration {
        Duration::from_nanos(self.io.now().0)
    }

    async fn run(self: Rc<Self>) {
        while !self.stop.get() {
            let ticket = self.wake.ticket();
            self.look_up_missing();
            if self.restless.get() && self.random.borrow_mut().below(200) == 0 {
                self.begin_again();
            }
            self.apply_events();
            while let Some(item) = self.take() {
                self.taken(item);
            }
            self.apply_events();
            let now = self.now();
            let deadline = self.machine.borrow().deadline(now);
            let wait = deadline.map_or(Duration::from_secs(1), |at| at.saturating_sub(now));
            let wait = wait.min(Duration::from_secs(1));
            select(
                pin!(self.wake.raised_since(ticket)),
                pin!(self.io.sleep(wait)),
            )
            .await;
        }
        self.connections.close();
    }

    fn take(&self) -> Option<Item> {
        self.machine.borrow_mut().take(true)
    }

    fn look_up_missing(self: &Rc<Self>) {
        for topic in &self.topics {
            let known = self.assigned.borrow().contains_key(topic);
            if known || self.looking_up.borrow().contains(topic) {
                continue;
            }
            self.looking_up.borrow_mut().push(Arc::clone(topic));
            let (consumer, topic) = (Rc::clone(self), Arc::clone(topic));
            self.io.spawn(TaskClass::Foreground, async move {
                let found = look_up(&consumer.io, &consumer.connections, &topic).await;
                consumer
                    .looking_up
                    .borrow_mut()
                    .retain(|other| *other != topic);
                if let Ok(found) = found {
                    consumer.assign(&found);
                }
                consumer.wake.raise();
            });
        }
    }

    fn assign(&self, topic: &Topic) {
        let known = (topic.id, topic.leaders.len());
        self.assigned
            .borrow_mut()
            .insert(Arc::clone(&topic.name), known);
        for (partition, leader) in (0..).zip(&topic.leaders) {
            let at = TopicPartition {
                topic: topic.id,
                partition: PartitionIndex(partition),
            };
            let offset = self.oracle.borrow().log_start(at);
            let (topic, leader) = (Arc::clone(&topic.name), *leader);
            self.views.borrow_mut().insert(at, View::new());
            self.events.borrow_mut().push_back(Event::Assigned {
                at,
                topic,
                leader,
                offset,
            });
        }
    }

    /// The topic is gone: what was read of it counts no more, and its name may come back.
    fn unassign(&self, id: TopicId) {
        let mut assigned = self.assigned.borrow_mut();
        let partitions = assigned
            .values()
            .find(|known| known.0 == id)
            .map_or(0, |known| known.1);
        assigned.retain(|_, known| known.0 != id);
        for partition in 0..u32::try_from(partitions).expect("few") {
            let at = TopicPartition {
                topic: id,
                partition: PartitionIndex(partition),
            };
            self.views.borrow_mut().remove(&at);
            self.events.borrow_mut().push_back(Event::Unassigned(at));
        }
    }

    fn apply_events(self: &Rc<Self>) {
        let mut event = Some(Event::Ticked);
        while let Some(next) = event {
            self.note_watermarks(&next);
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

    fn note_watermarks(&self, event: &Event) {
        let Event::Fetched(_, results, _) = event else {
            return;
        };
        for result in results
            .iter()
            .filter(|result| result.error == ErrorCode::None)
        {
            let at = TopicPartition {
                topic: result.topic,
                partition: result.partition,
            };
            self.oracle
                .borrow_mut()
                .high_watermark(at, result.high_watermark);
        }
    }

    fn perform(self: &Rc<Self>, action: Action) {
        match action {
            Action::Fetch { id, node, request } => {
                let reply = self.connections.request(node.shard.0, &request, &[]);
                self.later(async move {
                    match reply.await {
                        Ok((reply, records)) => Event::Fetched(id, reply.partitions, records),
                        Err(error) => Event::FetchFailed(id, error),
                    }
                });
            }
            Action::RefreshTopic { name, id } => {
                let consumer = Rc::clone(self);
                self.later(async move {
                    match look_up(&consumer.io, &consumer.connections, &name).await {
                        Ok(topic) => Event::TopicLearned(topic),
                        Err(error) => Event::TopicLookupFailed(id, error),
                    }
                });
            }
            Action::ForgetTopic(id) => self.unassign(id),
            Action::Warn(error) => panic!("no policy moves this consumer: {error}"),
        }
    }

    fn later(self: &Rc<Self>, event: impl Future<Output = Event> + 'static) {
        let consumer = Rc::clone(self);
        self.io.spawn(TaskClass::Foreground, async move {
            let event = event.await;
            consumer.events.borrow_mut().push_back(event);
            consumer.wake.raise();
        });
    }

    fn taken(&self, item: Item) {
        match item {
            Item::Batch(batch) => {
                let id = self.assigned.borrow()[batch.topic()].0;
                let at = TopicPartition {
                    topic: id,
                    partition: batch.partition(),
                };
                let records = batch.records().expect("what the broker sends is whole");
                let mut views = self.views.borrow_mut();
                let view = views.entry(at).or_default();
                for record in records {
                    if let Some((last, _)) = view.last() {
                        assert_eq!(
                            record.offset,
                            last.plus(1),
                            "{at:?}: a consumer skips nothing"
                        );
                    }
                    let value = record.value.expect("every record has a value");
                    let id = self.oracle.borrow_mut().read(at, record.offset, &value);
                    view.push((record.offset, id));
                }
            }
            Item::Obstacle(at, error) => self.obstacle(at, &error),
        }
    }

    fn obstacle(&self, at: TopicPartition, error: &ConsumeError) {
        let named = self
            .assigned
            .borrow()
            .iter()
            .find(|(_, known)| known.0 == at.topic)
            .map(|it| Arc::clone(it.0));
        // Another partition of the topic may have told already.
        let Some(topic) = named else { return };
        let position = self.machine.borrow().position(at).expect("it is assigned");
        match error {
            ConsumeError::Request(RequestError::UnknownTopic(_)) => self.unassign(at.topic),
            ConsumeError::LogTruncated { diverged_at, .. } => {
                assert!(
                    self.may_truncate,
                    "a flushed log lost what it showed: {error}"
                );
                self.seek(at, topic, *diverged_at);
            }
            ConsumeError::OffsetOutOfRange {
                offset, log_start, ..
            } => {
                let trimmed = self.oracle.borrow().log_start(at);
                let explained = *offset < *log_start && *log_start <= trimmed;
                assert!(
                    explained || self.may_truncate,
                    "{error}; trimmed to {trimmed}"
                );
                self.seek(at, topic, if explained { *log_start } else { Offset::ZERO });
            }
            ConsumeError::Refused { code, .. } => {
                let expected = [ErrorCode::StorageError, ErrorCode::PartitionOffline];
                assert!(expected.contains(code), "{error}");
                self.seek(at, topic, position);
            }
            other => panic!("{at:?} can't be read: {other}"),
        }
        self.wake.raise();
    }
}
