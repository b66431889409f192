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
        consumer::{Action, Config, Event, FetchId, Item, Machine},
    },
};
use millstream_protocol::{
    ErrorCode, LeaderEpoch, Offset, PartitionIndex, TopicId, TopicPartition, batch::Batches,
};

use crate::{
    history::{ReaderId, RecordId, Recorder, What},
    producer::look_up,
    wire::Connections,
};

/// What a consumer has of one partition, and where it began.
#[derive(Clone, Debug, Default)]
pub struct View {
    pub start: Offset,
    pub records: Vec<(Offset, RecordId)>,
}

/// See the module.
pub struct Consumer {
    io: SimIo,
    recorder: Recorder,
    pub id: ReaderId,
    connections: Rc<Connections>,
    random: RefCell<Random>,
    machine: RefCell<Machine>,
    topics: Vec<Arc<str>>,
    /// Which of them are assigned, and as what.
    assigned: RefCell<BTreeMap<Arc<str>, (TopicId, usize)>>,
    looking_up: RefCell<Vec<Arc<str>>>,
    views: RefCell<BTreeMap<TopicPartition, View>>,
    /// Where each log starts and how far consumers see, as was last heard.
    heard: RefCell<BTreeMap<TopicPartition, (Offset, Offset)>>,
    /// When each fetch under way was sent, by what was noted; only if every batch is to be noted.
    asked: Option<RefCell<BTreeMap<FetchId, usize>>>,
    events: RefCell<VecDeque<Event>>,
    wake: Signal,
    /// Begins again now and then.
    pub restless: Cell<bool>,
    pub stop: Cell<bool>,
}

impl Consumer {
    /// Starts one.
    pub fn start(
        io: &SimIo,
        topics: &[Arc<str>],
        notes_batches: bool,
        recorder: &Recorder,
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
            recorder: recorder.clone(),
            id: recorder.reader(),
            connections: Connections::new(io.clone()),
            random: RefCell::new(random),
            machine: RefCell::new(Machine::new(config)),
            topics: topics.to_vec(),
            assigned: RefCell::default(),
            looking_up: RefCell::default(),
            views: RefCell::default(),
            heard: RefCell::default(),
            asked: notes_batches.then(RefCell::default),
            events: RefCell::default(),
            wake: Signal::default(),
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

    /// What it has of each partition, without what is below the start of the log by now.
    pub fn views(&self) -> BTreeMap<TopicPartition, View> {
        let mut views = self.views.borrow().clone();
        for (at, view) in &mut views {
            let log_start = self.heard.borrow().get(at).map(|heard| heard.0);
            view.start = view.start.max(log_start.unwrap_or_default());
            view.records.retain(|(offset, _)| *offset >= view.start);
        }
        views
    }

    /// How far it was shown a partition.
    pub fn high_watermark(&self, at: TopicPartition) -> Offset {
        self.heard.borrow().get(&at).map_or(Offset::ZERO, |it| it.1)
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
                self.seek(at, Arc::clone(topic), Offset::ZERO);
            }
        }
        self.wake.raise();
    }

    /// Reads from an offset on, as if anew.
    fn seek(&self, at: TopicPartition, topic: Arc<str>, offset: Offset) {
        self.began(at, offset);
        self.go_on(at, topic, offset);
    }

    fn began(&self, at: TopicPartition, start: Offset) {
        self.recorder.note(What::Began(self.id, at, start));
        let records = Vec::new();
        self.views.borrow_mut().insert(at, View { start, records });
    }

    fn go_on(&self, at: TopicPartition, topic: Arc<str>, offset: Offset) {
        let leader = None;
        self.events.borrow_mut().push_back(Event::Assigned {
            at,
            topic,
            leader,
            offset,
            read_epoch: LeaderEpoch::UNKNOWN,
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
        self.recorder.note(What::Left(self.id));
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
            let offset = Offset::ZERO;
            let (topic, leader) = (Arc::clone(&topic.name), *leader);
            self.began(at, offset);
            self.events.borrow_mut().push_back(Event::Assigned {
                at,
                topic,
                leader,
                offset,
                read_epoch: LeaderEpoch::UNKNOWN,
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
            self.note_replies(&next);
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

    fn note_replies(&self, event: &Event) {
        let Event::Fetched(id, results, records) = event else {
            return;
        };
        let asked = self
            .asked
            .as_ref()
            .and_then(|it| it.borrow_mut().remove(id));
        let mut position = 0;
        for result in results {
            let size = result.records_size as usize;
            let part = &records[position..position + size];
            position += size;
            if result.error != ErrorCode::None {
                continue;
            }
            let at = TopicPartition {
                topic: result.topic,
                partition: result.partition,
            };
            if let Some(asked) = asked {
                self.note_batches(at, part, result.high_watermark, asked);
            }
            let last = Batches::trusted(part).last();
            let end = last.map(|batch| batch.expect("it was checked").0.next_offset());
            let now = (result.log_start_offset, result.high_watermark);
            if self.heard.borrow_mut().insert(at, now) != Some(now) || end.is_some() {
                self.recorder.note(What::Replied {
                    reader: self.id,
                    at,
                    log_start: now.0,
                    high_watermark: now.1,
                    end,
                });
            }
        }
    }

    fn note_batches(&self, at: TopicPartition, part: &[u8], end: Offset, asked: usize) {
        for batch in Batches::trusted(part) {
            let (header, _) = batch.expect("it was checked");
            self.recorder.note(What::Served {
                reader: self.id,
                at,
                base: header.base_offset,
                max_timestamp_ms: header.max_timestamp_ms,
                is_last: header.next_offset() >= end,
                asked,
            });
        }
    }

    fn perform(self: &Rc<Self>, action: Action) {
        match action {
            Action::Fetch { id, node, request } => {
                if let Some(asked) = &self.asked {
                    asked.borrow_mut().insert(id, self.recorder.count());
                }
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
            Action::Warn(error) => self.unexplained(format!("no policy moves it: {error}")),
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

    fn unexplained(&self, said: String) {
        let said = format!("reader {}: {said}", self.id);
        self.recorder.note(What::Unexplained(said));
    }

    fn taken(&self, item: Item) {
        match item {
            Item::Batch(batch) => {
                let id = self.assigned.borrow()[batch.topic()].0;
                let at = TopicPartition {
                    topic: id,
                    partition: batch.partition(),
                };
                match batch.records() {
                    Ok(records) => {
                        let mut views = self.views.borrow_mut();
                        let view = &mut views.entry(at).or_default().records;
                        for record in &records {
                            let id = self.recorder.read(self.id, at, record);
                            view.extend(id.map(|id| (record.offset, id)));
                        }
                    }
                    Err(error) => self.unexplained(error.to_string()),
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
        let next = match error {
            ConsumeError::Request(RequestError::UnknownTopic(_)) => {
                self.unassign(at.topic);
                return self.wake.raise();
            }
            ConsumeError::LogTruncated { diverged_at, .. } => {
                self.recorder
                    .note(What::Diverged(self.id, at, *diverged_at));
                *diverged_at
            }
            ConsumeError::OffsetOutOfRange {
                offset, log_start, ..
            } => {
                self.recorder
                    .note(What::OutOfRange(self.id, at, *offset, *log_start));
                // One that ends below what was read is read again as a whole.
                if offset < log_start {
                    *log_start
                } else {
                    Offset::ZERO
                }
            }
            ConsumeError::Refused { code, .. } => {
                let expected = [ErrorCode::StorageError, ErrorCode::PartitionOffline];
                if !expected.contains(code) {
                    self.unexplained(error.to_string());
                }
                self.go_on(at, topic, position);
                return self.wake.raise();
            }
            other => {
                self.unexplained(other.to_string());
                self.go_on(at, topic, position);
                return self.wake.raise();
            }
        };
        self.seek(at, topic, next);
        self.wake.raise();
    }
}
