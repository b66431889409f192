//! The coordinator of the groups of one partition: their machines and offsets, and the order between
//! what is decided, what is durable and what is told.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    rc::Rc,
};

use millstream_protocol::{
    ErrorCode, LeaderEpoch, TopicPartition,
    batch::{BatchBuilder, Compression, NO_HEADERS},
    messages::{GroupHeartbeatResponse, ProducePartition},
};

use super::wire::reply_to_heartbeat;
use crate::{
    group::{
        Action, Epoch, Event, Group, GroupRecord, Moment, Refusal, format::Key, offsets::Offsets,
    },
    io::{Io, Monotonic, Signal},
    shard::{
        Shard,
        produce::{Author, When},
    },
};

/// Where the answer to a heartbeat goes.
pub(super) struct Token(pub(super) Box<dyn FnOnce(GroupHeartbeatResponse)>);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

/// A group looks after what is due within so long of being heard of.
const LOOK_AFTER: std::time::Duration = std::time::Duration::from_millis(200);

/// One group.
pub(super) struct Entry {
    pub(super) group: Group<Token>,
    pub(super) offsets: Offsets,
    /// Nothing is due before.
    pub(super) due: Option<Monotonic>,
}

/// What a coordinator can do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its partition is being read.
    Loading,
    /// It serves.
    Ready,
    /// Its partition cannot be read; the reason.
    Failed(String),
    /// The broker is on its way down.
    Stopped,
}

/// A record: what of which group, and its value; none means that it is no more.
pub(super) type Record = (Key, Option<Vec<u8>>);

/// The coordinator of one partition of the offsets topic.
pub(super) struct Coordinator {
    pub(super) partition: TopicPartition,
    pub(super) phase: RefCell<Phase>,
    pub(super) groups: RefCell<BTreeMap<Rc<str>, Entry>>,
    /// Every epoch handed out so far is no newer than this.
    pub(super) start: Cell<Epoch>,
    /// Appends that were begun, and those that have ended, in order.
    begun: Cell<u64>,
    ended: Cell<u64>,
    pub(super) moved: Signal,
    /// Answers that may be given when so many appends have ended.
    waiting: RefCell<VecDeque<(u64, Token, GroupHeartbeatResponse)>>,
    /// What was to be kept of members was not: all is read anew.
    pub(super) broken: Cell<bool>,
}

impl Coordinator {
    pub(super) fn new(partition: TopicPartition, epoch: LeaderEpoch) -> Self {
        Self {
            partition,
            phase: RefCell::new(Phase::Loading),
            groups: RefCell::default(),
            start: Cell::new(Epoch::before_first(epoch)),
            begun: Cell::new(0),
            ended: Cell::new(0),
            moved: Signal::default(),
            waiting: RefCell::default(),
            broken: Cell::new(false),
        }
    }

    pub(super) fn group_names(&self) -> Vec<Rc<str>> {
        self.groups.borrow().keys().cloned().collect()
    }

    /// Why nothing can be asked of it now.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        let (error, message) = match &*self.phase.borrow() {
            Phase::Ready if !self.broken.get() => return None,
            Phase::Ready | Phase::Loading => (
                ErrorCode::CoordinatorLoading,
                "the group is being loaded: try again".to_owned(),
            ),
            Phase::Failed(reason) => (ErrorCode::PartitionOffline, reason.clone()),
            Phase::Stopped => (
                ErrorCode::ShuttingDown,
                "the broker is shutting down".to_owned(),
            ),
        };
        Some(Refusal { error, message })
    }

    /// Waits until every append that was begun before has ended.
    pub(super) async fn settled(&self) {
        let begun = self.begun.get();
        self.moved.wait_until(|| self.ended.get() >= begun).await;
    }

    /// Notes that appends up to this one have ended, and gives the answers that waited for that.
    fn end(&self, number: u64, failed: bool) {
        self.ended.set(self.ended.get().max(number));
        if failed {
            self.broken.set(true);
        }
        loop {
            let next = {
                let mut waiting = self.waiting.borrow_mut();
                let ready = waiting.front().is_some_and(|it| it.0 <= self.ended.get());
                if ready { waiting.pop_front() } else { None }
            };
            let Some((_, token, response)) = next else {
                break;
            };
            if self.broken.get() {
                token.0(GroupHeartbeatResponse {
                    error: ErrorCode::CoordinatorLoading,
                    message: "what was decided could not be kept: try again".to_owned(),
                    ..GroupHeartbeatResponse::default()
                });
            } else {
                token.0(response);
            }
        }
        self.moved.raise();
    }

    /// Answers a heartbeat; if it brings an assignment, when everything begun so far is durable.
    fn answer(&self, token: Token, response: GroupHeartbeatResponse) {
        if response.assignment.is_some() && self.ended.get() < self.begun.get() {
            let place = (self.begun.get(), token, response);
            self.waiting.borrow_mut().push_back(place);
        } else {
            token.0(response);
        }
    }

    /// Forgets everything and answers whoever waits: it is to be loaded anew, or ends.
    pub(super) fn clear(&self, phase: Phase) {
        *self.phase.borrow_mut() = phase;
        let groups = std::mem::take(&mut *self.groups.borrow_mut());
        let mut tokens: Vec<Token> = self.waiting.take().into_iter().map(|it| it.1).collect();
        for (_, mut entry) in groups {
            self.start.set(self.start.get().max(entry.group.epoch()));
            tokens.extend(entry.group.release());
        }
        let refusal = self.refusal();
        for token in tokens {
            let refusal = refusal.clone().expect("it is not ready");
            token.0(GroupHeartbeatResponse {
                error: refusal.error,
                message: refusal.message,
                ..GroupHeartbeatResponse::default()
            });
        }
    }

    /// Drops a group; what it handed out is never handed out again.
    pub(super) fn drop_group(&self, name: &str) {
        if let Some(entry) = self.groups.borrow_mut().remove(name) {
            self.start.set(self.start.get().max(entry.group.epoch()));
        }
    }
}

impl<I: Io> Shard<I> {
    /// Now, on both clocks.
    pub(super) fn moment(&self) -> Moment {
        Moment {
            monotonic: self.io().now(),
            wall_ms: self.io().wall_ms(),
        }
    }

    /// Lets a group decide about an event, keeps what is to be kept and answers who is to be answered.
    pub(super) fn apply_to_group(
        self: &Rc<Self>,
        coordinator: &Rc<Coordinator>,
        name: &Rc<str>,
        event: Event<Token>,
    ) {
        let now = self.moment();
        let mut actions = Vec::new();
        {
            let mut groups = coordinator.groups.borrow_mut();
            let Some(entry) = groups.get_mut(name) else {
                return;
            };
            let before = entry.group.member_count();
            entry.group.apply(now, event, &mut actions);
            let after = entry.group.member_count();
            let used = self.groups.used.get() + after * MEMBER_SIZE;
            self.groups.used.set(used - before * MEMBER_SIZE);
            let look = (after > 0).then(|| now.monotonic + LOOK_AFTER);
            entry.due = match (entry.due, look) {
                (Some(due), Some(look)) => Some(due.min(look)),
                (due, look) => due.or(look),
            };
        }
        self.groups.alive.raise();
        self.perform_for_group(coordinator, name, actions);
        self.drop_if_void(coordinator, name);
    }

    /// A group of which nothing is kept is none.
    fn drop_if_void(&self, coordinator: &Coordinator, name: &str) {
        let is_void = coordinator.groups.borrow().get(name).is_some_and(|entry| {
            let record = entry.group.record();
            let members = entry.group.member_count();
            members == 0 && entry.offsets.is_empty() && *record == GroupRecord::default()
        });
        if is_void {
            coordinator.drop_group(name);
            let used = self.groups.used.get();
            self.groups.used.set(used.saturating_sub(GROUP_SIZE));
        }
    }

    fn perform_for_group(
        self: &Rc<Self>,
        coordinator: &Rc<Coordinator>,
        name: &Rc<str>,
        actions: Vec<Action<Token>>,
    ) {
        let mut records: Vec<Record> = Vec::new();
        let mut answers = Vec::new();
        for action in actions {
            match action {
                Action::Answer { token, result } => answers.push((token, result)),
                Action::KeepMember(member, record) => {
                    let key = Key::Member(name.to_string(), member);
                    records.push((key, record.map(|it| it.encode())));
                }
                Action::KeepGroup(record) => {
                    let key = Key::Group(name.to_string());
                    records.push((key, Some(record.encode())));
                }
                Action::Say(text) => tracing::info!(group = %name, "{text}"),
            }
        }
        if !records.is_empty() {
            self.append_for_groups(coordinator, &records, true, |_| ());
        }
        for (token, result) in answers {
            let topics = Rc::clone(&self.groups.topics.borrow());
            coordinator.answer(token, reply_to_heartbeat(result, &topics));
        }
    }

    /// Appends records; `when_done` hears when they are durable, or why they are not. What must not be
    /// lost has the coordinator load anew if it is.
    pub(super) fn append_for_groups(
        self: &Rc<Self>,
        coordinator: &Rc<Coordinator>,
        records: &[Record],
        must: bool,
        when_done: impl FnOnce(Result<(), Refusal>) + 'static,
    ) {
        let number = coordinator.begun.get() + 1;
        coordinator.begun.set(number);
        let mut builder = BatchBuilder::new();
        let now_ms = self.io().wall_ms();
        for (key, value) in records {
            let (key, value) = (key.encode(), value.as_deref());
            let pushed = builder.push(now_ms, Some(&key), value, NO_HEADERS);
            pushed.expect("a record of a group is small");
        }
        let mut batch = builder.finish(None, Compression::None);
        let entry = ProducePartition {
            topic: coordinator.partition.topic,
            partition: coordinator.partition.partition,
            leader_epoch: LeaderEpoch::UNKNOWN,
            records_size: u32::try_from(batch.len()).expect("a batch is small"),
        };
        let coordinator = Rc::clone(coordinator);
        let done = Box::new(
            move |results: Vec<millstream_protocol::messages::ProducePartitionResult>| {
                let result = results
                    .into_iter()
                    .next()
                    .expect("one partition, one result");
                let done = match result.error {
                    ErrorCode::None => Ok(()),
                    error => Err(Refusal {
                        error,
                        message: result.message,
                    }),
                };
                let failed = must && done.is_err();
                when_done(done);
                coordinator.end(number, failed);
            },
        );
        self.produce_for(Author::Broker, &[entry], &mut batch, When::Now, done);
    }

    /// The group of a name, made if it is not there. False if there is no room for it.
    pub(super) fn ensure_group(&self, coordinator: &Rc<Coordinator>, name: &str) -> bool {
        let mut groups = coordinator.groups.borrow_mut();
        if groups.contains_key(name) {
            return true;
        }
        if !self.groups.has_room(GROUP_SIZE) {
            return false;
        }
        let id: Rc<str> = name.into();
        let topics = Rc::clone(&self.groups.topics.borrow());
        let start = coordinator.start.get();
        let entry = Entry {
            group: Group::new(Rc::clone(&id), start, topics, GroupRecord::default()),
            offsets: Offsets::default(),
            due: None,
        };
        groups.insert(id, entry);
        self.groups.used.set(self.groups.used.get() + GROUP_SIZE);
        true
    }
}

/// About what a group takes besides its members and offsets, in bytes ...
pub(super) const GROUP_SIZE: usize = 1 << 10;
/// ... and each of its members: subscription, assignment and a heartbeat that waits.
pub(super) const MEMBER_SIZE: usize = 4 << 10;
