//! How a member reads: the client's consumer machine, with partitions that come and go.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use futures_util::future::select;
use millstream::io::{Clock as _, Random, Signal, TaskClass, Tasks as _, sim::SimIo};
use millstream_client::{
    ConsumeError, ConsumerRecord, OutOfRangePolicy, RequestError, TruncationPolicy,
    machines::consumer::{Action, Config, Event, Item, Machine},
};
use millstream_protocol::{ErrorCode, LeaderEpoch, Offset, TopicPartition};

use crate::{producer::look_up, wire::Connections};

/// What one poll gives.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub records: Vec<(TopicPartition, ConsumerRecord)>,
    pub unexplained: Vec<String>,
}

/// See the module.
pub(super) struct Reading(Rc<Inner>);

struct Inner {
    io: SimIo,
    connections: Rc<Connections>,
    machine: RefCell<Machine>,
    names: RefCell<BTreeMap<TopicPartition, Arc<str>>>,
    wake: Signal,
    arrived: Signal,
}

impl Reading {
    pub fn new(io: &SimIo, connections: &Rc<Connections>, random: &mut Random) -> Self {
        let config = Config {
            prefetch_bytes: [8 << 10, 100 << 10, 1 << 20][random.index(3)],
            fetch_bytes: [1 << 10, 20 << 10, 1 << 20][random.index(3)],
            max_wait_ms: [20, 100, 500][random.index(3)],
            out_of_range: OutOfRangePolicy::Earliest,
            truncation: TruncationPolicy::Error,
            seed: random.next_u64(),
        };
        let inner = Rc::new(Inner {
            io: io.clone(),
            connections: Rc::clone(connections),
            machine: RefCell::new(Machine::new(config)),
            names: RefCell::default(),
            wake: Signal::default(),
            arrived: Signal::default(),
        });
        io.spawn(TaskClass::Foreground, Rc::clone(&inner).tick());
        Self(inner)
    }

    pub fn held(&self) -> BTreeSet<TopicPartition> {
        self.0.names.borrow().keys().copied().collect()
    }

    pub fn is_at_end(&self) -> bool {
        let machine = self.0.machine.borrow();
        // One that has not heard of a partition yet does not know where it ends.
        let all = machine.assignment().len() == self.0.names.borrow().len();
        all && machine.is_at_end() && !machine.has_items()
    }

    pub fn done_up_to(&self, at: TopicPartition) -> Option<(Offset, LeaderEpoch)> {
        self.0.machine.borrow().done_up_to(at)
    }

    pub fn assign(
        &self,
        at: TopicPartition,
        topic: Arc<str>,
        offset: Offset,
        read_epoch: LeaderEpoch,
    ) {
        self.0.names.borrow_mut().insert(at, Arc::clone(&topic));
        self.0.go_on(at, topic, offset, read_epoch);
    }

    pub fn unassign(&self, at: TopicPartition) {
        self.0.names.borrow_mut().remove(&at);
        self.0.apply(Event::Unassigned(at));
    }

    /// Reads nothing more.
    pub fn stop(&self) {
        for at in self.held() {
            self.unassign(at);
        }
    }

    /// Waits until there may be something to take.
    pub async fn arrived(&self) {
        let ticket = self.0.arrived.ticket();
        self.0.arrived.raised_since(ticket).await;
    }

    pub fn take(&self) -> Taken {
        let mut taken = Taken::default();
        loop {
            let item = self.0.machine.borrow_mut().take(true);
            match item {
                None => break,
                Some(Item::Batch(batch)) => {
                    let at = batch.place();
                    match batch.records() {
                        Ok(records) => {
                            let records = records.into_iter().map(|record| (at, record));
                            taken.records.extend(records);
                        }
                        Err(error) => taken.unexplained.push(error.to_string()),
                    }
                }
                Some(Item::Obstacle(at, error)) => self.0.obstacle(at, &error, &mut taken),
            }
        }
        self.0.apply(Event::Ticked);
        taken
    }
}

impl Inner {
    fn obstacle(self: &Rc<Self>, at: TopicPartition, error: &ConsumeError, taken: &mut Taken) {
        let Some(topic) = self.names.borrow().get(&at).cloned() else {
            return;
        };
        let position = self.machine.borrow().done_up_to(at);
        let (position, epoch) = position.unwrap_or_default();
        match error {
            // The group will take it away.
            ConsumeError::Request(RequestError::UnknownTopic(_)) => return,
            ConsumeError::LogTruncated { diverged_at, .. } => {
                return self.go_on(at, topic, *diverged_at, LeaderEpoch::UNKNOWN);
            }
            ConsumeError::Refused {
                code: ErrorCode::StorageError | ErrorCode::PartitionOffline,
                ..
            } => {}
            other => taken.unexplained.push(other.to_string()),
        }
        self.go_on(at, topic, position, epoch);
    }

    fn go_on(
        self: &Rc<Self>,
        at: TopicPartition,
        topic: Arc<str>,
        offset: Offset,
        read_epoch: LeaderEpoch,
    ) {
        self.apply(Event::Assigned {
            at,
            topic,
            leader: None,
            offset,
            read_epoch,
        });
    }

    fn now(&self) -> Duration {
        Duration::from_nanos(self.io.now().0)
    }

    fn apply(self: &Rc<Self>, event: Event) {
        let mut actions = Vec::new();
        self.machine
            .borrow_mut()
            .apply(self.now(), event, &mut actions);
        for action in actions {
            self.perform(action);
        }
        self.wake.raise();
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
                let inner = Rc::clone(self);
                self.later(async move {
                    match look_up(&inner.io, &inner.connections, &name).await {
                        Ok(topic) => Event::TopicLearned(topic),
                        Err(error) => Event::TopicLookupFailed(id, error),
                    }
                });
            }
            // What is gone is taken away by the group; where retention overtook, `earliest` goes on.
            Action::ForgetTopic(_) | Action::Warn(_) => {}
        }
    }

    fn later(self: &Rc<Self>, event: impl Future<Output = Event> + 'static) {
        let inner = Rc::clone(self);
        self.io.spawn(TaskClass::Foreground, async move {
            inner.apply(event.await);
            inner.arrived.raise();
        });
    }

    /// Wakes the machine when something is due.
    async fn tick(self: Rc<Self>) {
        loop {
            let ticket = self.wake.ticket();
            let now = self.now();
            let deadline = self.machine.borrow().deadline(now);
            let wait = deadline.map_or(Duration::from_secs(3600), |at| at.saturating_sub(now));
            let due = async {
                self.io.sleep(wait).await;
                self.apply(Event::Ticked);
            };
            select(pin!(self.wake.raised_since(ticket)), pin!(due)).await;
        }
    }
}
