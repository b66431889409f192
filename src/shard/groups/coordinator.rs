//! The coordinator of the groups of one partition: their machines and offsets, and the order between
//! what is decided, what is durable and what is told.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet, VecDeque},
    rc::Rc,
};

use millstream_protocol::{
    ErrorCode, LeaderEpoch, TopicPartition,
    batch::{BatchBuilder, Compression, NO_HEADERS},
    messages::{GroupHeartbeatResponse, ProducePartition},
};

use super::{
    entry::{Entry, GROUP_SIZE},
    order::Appends,
    wire::{loading, reply_to_heartbeat},
};
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
    /// Groups with something due, soonest first.
    due: RefCell<BTreeSet<(Monotonic, Rc<str>)>>,
    next_life: Cell<u64>,
    appends: RefCell<Appends>,
    pub(super) moved: Signal,
    /// Answers that may be given when so many appends have ended.
    waiting: RefCell<VecDeque<(u64, Token, GroupHeartbeatResponse)>>,
    /// What must be kept was not, and why: all is to be read anew.
    pub(super) trouble: RefCell<Option<Refusal>>,
}

/// What must be kept, even on a disk that is full, or has all be read anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Must {
    Be,
    NotBe,
}

impl Coordinator {
    pub(super) fn new(partition: TopicPartition, epoch: LeaderEpoch) -> Self {
        Self {
            partition,
            phase: RefCell::new(Phase::Loading),
            groups: RefCell::default(),
            start: Cell::new(Epoch::before_first(epoch)),
            due: RefCell::default(),
            next_life: Cell::new(0),
            appends: RefCell::default(),
            moved: Signal::default(),
            waiting: RefCell::default(),
            trouble: RefCell::default(),
        }
    }

    pub(super) fn group_names(&self) -> Vec<Rc<str>> {
        self.groups.borrow().keys().cloned().collect()
    }

    /// A number that no other group of it had.
    pub(super) fn next_life(&self) -> u64 {
        self.next_life.set(self.next_life.get() + 1);
        self.next_life.get()
    }

    /// Adds a group.
    pub(super) fn insert(&self, name: Rc<str>, mut entry: Entry) {
        self.note_due(&name, &mut entry);
        self.groups.borrow_mut().insert(name, entry);
    }

    /// Puts a group where it belongs among those with something due.
    pub(super) fn note_due(&self, name: &Rc<str>, entry: &mut Entry) {
        let newest = entry.group.deadline();
        if newest == entry.due {
            return;
        }
        let mut due = self.due.borrow_mut();
        if let Some(before) = entry.due {
            due.remove(&(before, Rc::clone(name)));
        }
        due.extend(newest.map(|at| (at, Rc::clone(name))));
        entry.due = newest;
    }

    /// Groups with something due by now.
    pub(super) fn due_by(&self, now: Monotonic) -> Vec<Rc<str>> {
        let due = self.due.borrow();
        let due = due.iter().take_while(|(at, _)| *at <= now);
        due.map(|(_, name)| Rc::clone(name)).collect()
    }

    /// Whether something will be due.
    pub(super) fn is_alive(&self) -> bool {
        !self.due.borrow().is_empty()
    }

    /// Why nothing can be asked of it now.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        let (error, message) = match &*self.phase.borrow() {
            Phase::Ready if self.trouble.borrow().is_none() => return None,
            Phase::Ready | Phase::Loading => return Some(loading()),
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
        let begun = self.appends.borrow().begun();
        let ended = || self.appends.borrow().have_ended(begun);
        self.moved.wait_until(ended).await;
    }

    /// Notes that an append has ended, with the trouble that this means, and gives the answers that waited
    /// for it.
    fn end(&self, number: u64, trouble: Option<Refusal>) {
        self.appends.borrow_mut().end(number);
        if trouble.is_some() {
            *self.trouble.borrow_mut() = trouble;
        }
        loop {
            let next = {
                let mut waiting = self.waiting.borrow_mut();
                let ended = |at| self.appends.borrow().have_ended(at);
                let is_first = waiting.front().is_some_and(|it| ended(it.0));
                if is_first { waiting.pop_front() } else { None }
            };
            let Some((_, token, response)) = next else {
                break;
            };
            if self.trouble.borrow().is_some() {
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

    /// Answers a heartbeat. If it brings an assignment, or says that the member has left, then only when
    /// everything begun so far is durable: neither may be undone by a crash.
    fn answer(&self, token: Token, response: GroupHeartbeatResponse) {
        let has_left = response.error == ErrorCode::None && response.member_epoch == Epoch::LEAVE.0;
        let must_last = response.assignment.is_some() || has_left;
        let begun = self.appends.borrow().begun();
        if must_last && !self.appends.borrow().have_ended(begun) {
            let place = (begun, token, response);
            self.waiting.borrow_mut().push_back(place);
        } else {
            token.0(response);
        }
    }

    /// Forgets everything and answers whoever waits: it is to be loaded anew, or ends.
    pub(super) fn clear(&self, phase: Phase) {
        *self.phase.borrow_mut() = phase;
        self.due.borrow_mut().clear();
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
        if let Some((name, entry)) = self.groups.borrow_mut().remove_entry(name) {
            self.start.set(self.start.get().max(entry.group.epoch()));
            if let Some(due) = entry.due {
                self.due.borrow_mut().remove(&(due, name));
            }
        }
    }

    /// A group of which nothing is kept is none.
    pub(super) fn drop_if_void(&self, name: &str) {
        let is_void = self.groups.borrow().get(name).is_some_and(Entry::is_void);
        if is_void {
            self.drop_group(name);
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
            entry.group.apply(now, event, &mut actions);
            entry.recharge();
            coordinator.note_due(name, entry);
        }
        if coordinator.is_alive() {
            self.groups.alive.raise();
        }
        self.perform_for_group(coordinator, name, actions);
        coordinator.drop_if_void(name);
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
            self.append_for_groups(coordinator, &records, Must::Be, |_| ());
        }
        for (token, result) in answers {
            let topics = Rc::clone(&self.groups.topics.borrow());
            coordinator.answer(token, reply_to_heartbeat(result, &topics));
        }
    }

    /// Appends records; `when_done` hears when they are durable, or why they are not.
    pub(super) fn append_for_groups(
        self: &Rc<Self>,
        coordinator: &Rc<Coordinator>,
        records: &[Record],
        must: Must,
        when_done: impl FnOnce(Result<(), Refusal>) + 'static,
    ) {
        let number = coordinator.appends.borrow_mut().begin();
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
                let trouble = match must {
                    Must::Be => done.clone().err(),
                    Must::NotBe => None,
                };
                when_done(done);
                coordinator.end(number, trouble);
            },
        );
        let author = match must {
            Must::Be => Author::BrokerInNeed,
            Must::NotBe => Author::Broker,
        };
        self.produce_for(author, &[entry], &mut batch, When::Now, done);
    }

    /// The group of a name, made if it is not there. False if there is no room for it.
    pub(super) fn ensure_group(&self, coordinator: &Rc<Coordinator>, name: &str) -> bool {
        let mut groups = coordinator.groups.borrow_mut();
        if groups.contains_key(name) {
            return true;
        }
        if !self.groups.has_room(GROUP_SIZE + name.len()) {
            return false;
        }
        let id: Rc<str> = name.into();
        let topics = Rc::clone(&self.groups.topics.borrow());
        let start = coordinator.start.get();
        let group = Group::new(Rc::clone(&id), start, topics, GroupRecord::default());
        let life = coordinator.next_life();
        let entry = Entry::new(group, Offsets::default(), life, &self.groups.used);
        groups.insert(id, entry);
        true
    }
}

#[cfg(test)]
#[path = "coordinator_tests.rs"]
mod tests;
