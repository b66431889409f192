//! A simulated member of a consumer group: the client's machines in a shell on the simulated world, as
//! `GroupConsumer` is on the real one. It polls, commits what earlier polls returned, and lives on a node
//! of its own, so that it can be cut off or killed alone.

mod offsets;
mod reading;

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use futures_util::future::select;
use millstream::io::{Clock as _, Io as _, Random, Signal, TaskClass, Tasks as _, sim::SimIo};
use millstream_client::{
    ConsumeError,
    machines::group::{Action, Config, Event, HeartbeatId, Machine, Work, partitions_of},
};
use millstream_protocol::{
    ErrorCode, Offset, TopicPartition,
    messages::{ANY_SHARD, AssignedTopic, GroupHeartbeatRequest, LEAVE_EPOCH},
};

use self::reading::Reading;
use crate::{
    history::{GroupEvent, GroupWhat, MemberName, Recorder, What},
    wire::Connections,
};

/// A member that stops has so long to say that it leaves.
const LEAVE_WITHIN: Duration = Duration::from_secs(5);
/// Longest time without a look at what there is.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What a member is to do.
#[derive(Clone, Debug)]
pub struct Plan {
    pub group: u32,
    /// Names it, for all its lives.
    pub name: String,
    pub instance: Option<String>,
    pub topics: Vec<Arc<str>>,
    pub session: Duration,
    /// It commits so often what earlier polls returned; without, whenever it feels like it.
    pub auto_commit: Option<Duration>,
    pub assignor: &'static str,
}

/// See the module.
pub struct Member {
    io: SimIo,
    node: u32,
    pub plan: Plan,
    recorder: Recorder,
    connections: Rc<Connections>,
    random: RefCell<Random>,
    machine: RefCell<Machine>,
    reading: Reading,
    /// What was last committed, or found committed, of what is read.
    committed: RefCell<BTreeMap<TopicPartition, Offset>>,
    next_commit: Cell<Duration>,
    /// One commit at a time, and those that were begun and have not ended.
    committing: Cell<bool>,
    commits_begun: Cell<u32>,
    commit_ended: Signal,
    wake: Signal,
    beat: Signal,
    /// Polls not before then.
    pub hang_until: Cell<Duration>,
    pub stop: Cell<bool>,
    /// It has left, or was fenced for good.
    pub done: Cell<bool>,
}

impl Member {
    /// Starts one, on a node of its own.
    pub fn start(io: &SimIo, node: u32, plan: Plan, recorder: &Recorder) -> Rc<Self> {
        let io = &io.node(node, io.sim_disk());
        let mut random = Random::new(io.random_u64());
        let config = Config {
            group: format!("g{}", plan.group).into(),
            member_id: plan.name.clone(),
            instance_id: plan.instance.clone(),
            topics: plan.topics.iter().map(ToString::to_string).collect(),
            pattern: None,
            assignor: plan.assignor.to_owned(),
            session_timeout: plan.session,
            heartbeat_interval: Duration::from_millis(300 + random.below(1_000)),
            max_poll_interval: plan.session * 3,
            seed: random.next_u64(),
        };
        let connections = Connections::new(io.clone());
        let member = Rc::new(Self {
            io: io.clone(),
            node,
            plan,
            recorder: recorder.clone(),
            reading: Reading::new(io, &connections, &mut random),
            connections,
            random: RefCell::new(random),
            machine: RefCell::new(Machine::new(config)),
            committed: RefCell::default(),
            next_commit: Cell::default(),
            committing: Cell::new(false),
            commits_begun: Cell::new(0),
            commit_ended: Signal::default(),
            wake: Signal::default(),
            beat: Signal::default(),
            hang_until: Cell::default(),
            stop: Cell::new(false),
            done: Cell::new(false),
        });
        io.spawn(TaskClass::Foreground, Rc::clone(&member).run());
        io.spawn(TaskClass::Foreground, Rc::clone(&member).keep_beating());
        member
    }

    /// The node it lives on.
    pub fn node(&self) -> u32 {
        self.node
    }

    /// Its connections, to cut.
    pub fn connections(&self) -> &Connections {
        &self.connections
    }

    /// The name of this life.
    pub fn who(&self) -> MemberName {
        self.machine.borrow().identity().0.into()
    }

    /// What it reads.
    pub fn holds(&self) -> BTreeSet<TopicPartition> {
        self.reading.held()
    }

    /// Whether it holds what it is to hold, as far as it knows.
    pub fn is_settled(&self) -> bool {
        matches!(self.machine.borrow().work(), Ok(Work::Nothing))
    }

    /// Whether it has read all that it holds to the end.
    pub fn is_at_end(&self) -> bool {
        self.is_settled() && self.reading.is_at_end()
    }

    fn note(&self, what: GroupWhat) {
        self.note_of(self.who(), what);
    }

    fn note_of(&self, who: MemberName, what: GroupWhat) {
        let group = self.plan.group;
        self.recorder
            .note(What::Group(GroupEvent { group, who, what }));
    }

    fn unexplained(&self, said: &str) {
        let said = format!("{}: {said}", self.who());
        self.recorder.note(What::Unexplained(said));
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
            match action {
                Action::News => self.wake.raise(),
                Action::Heartbeat(id, request) => self.send_heartbeat(id, request),
            }
        }
        self.beat.raise();
    }

    fn send_heartbeat(self: &Rc<Self>, id: HeartbeatId, request: GroupHeartbeatRequest) {
        let who: MemberName = request.member_id.as_str().into();
        let number = id.0;
        self.note_of(
            Rc::clone(&who),
            GroupWhat::HeartbeatSent {
                number,
                session: self.plan.session,
                instance: self.plan.instance.as_deref().map(Into::into),
                leaves: request.member_epoch == LEAVE_EPOCH,
            },
        );
        let asked = self.connections.request(ANY_SHARD, &request, &[]);
        let member = Rc::clone(self);
        self.io.spawn(TaskClass::Foreground, async move {
            let answer = asked.await.map(|(response, _)| response);
            if let Ok(response) = &answer {
                member.note_of(
                    who,
                    match response.error {
                        ErrorCode::None => GroupWhat::HeartbeatAnswered {
                            number,
                            epoch: response.member_epoch,
                            assignment: response
                                .assignment
                                .as_ref()
                                .map(|it| partitions_of(it).collect()),
                        },
                        error => GroupWhat::HeartbeatRefused { number, error },
                    },
                );
            }
            member.apply(Event::Answered(id, answer));
        });
    }

    /// Sends what is due, whatever the rest of the member does meanwhile.
    async fn keep_beating(self: Rc<Self>) {
        while !self.done.get() {
            let ticket = self.beat.ticket();
            let now = self.now();
            let deadline = self.machine.borrow().deadline();
            let wait = deadline.map_or(Duration::from_secs(3600), |at| at.saturating_sub(now));
            if wait.is_zero() {
                self.apply(Event::Ticked);
            }
            // A deadline that the machine does not act upon is no reason to turn in a circle.
            let wait = wait.max(Duration::from_millis(1));
            select(
                pin!(self.beat.raised_since(ticket)),
                pin!(self.io.sleep(wait)),
            )
            .await;
        }
    }

    async fn run(self: Rc<Self>) {
        while !self.stop.get() && !self.done.get() {
            let ticket = self.wake.ticket();
            self.hang().await;
            self.apply(Event::Polled);
            self.poll().await;
            self.apply(Event::PollEnded);
            let wait = Duration::from_millis(1 + self.random.borrow_mut().below(100));
            self.io.sleep(wait).await;
            let news = async {
                select(
                    pin!(self.wake.raised_since(ticket)),
                    pin!(self.reading.arrived()),
                )
                .await;
            };
            select(pin!(news), pin!(self.io.sleep(LOOK_EVERY))).await;
        }
        self.leave().await;
        self.done.set(true);
        self.beat.raise();
        self.reading.stop();
        self.connections.close();
    }

    async fn hang(&self) {
        let left = self.hang_until.get().saturating_sub(self.now());
        if !left.is_zero() {
            self.note(GroupWhat::Hangs);
            self.io.sleep(left).await;
            self.note(GroupWhat::Wakes);
        }
    }

    async fn poll(self: &Rc<Self>) {
        self.commit_if_due();
        match self.settle().await {
            Ok(()) => self.take_records(),
            Err(ConsumeError::MaxPollInterval { .. }) => {}
            Err(ConsumeError::Group {
                code: ErrorCode::FencedInstanceId,
                ..
            }) => {
                self.done.set(true);
            }
            Err(error) if error.is_retriable() => {}
            Err(error) => {
                self.unexplained(&error.to_string());
                self.done.set(true);
            }
        }
    }

    /// Does what the group asks for: lets go, takes, or drops everything.
    async fn settle(self: &Rc<Self>) -> Result<(), ConsumeError> {
        let work = self.machine.borrow().work()?;
        match work {
            Work::Nothing => Ok(()),
            Work::DropAll(why) => {
                for at in self.holds() {
                    self.stop_reading(at);
                }
                self.apply(Event::Dropped);
                why.map_or(Ok(()), Err)
            }
            Work::TakeOn(epoch, assignment) => self.take_on(epoch, &assignment).await,
        }
    }

    async fn take_on(
        self: &Rc<Self>,
        epoch: i64,
        assignment: &[AssignedTopic],
    ) -> Result<(), ConsumeError> {
        let wanted: BTreeSet<TopicPartition> = partitions_of(assignment).collect();
        let leaving: Vec<TopicPartition> = self.holds().difference(&wanted).copied().collect();
        if !leaving.is_empty() {
            if self.plan.auto_commit.is_some() {
                let offsets = self.uncommitted(|at| leaving.contains(&at));
                // The next owner does again what was done; nothing is lost.
                let _ = self.commit(&offsets).await;
            }
            // What was begun before counts only as long as they are not let go.
            self.commit_ended
                .wait_until(|| self.commits_begun.get() == 0)
                .await;
            for at in &leaving {
                self.stop_reading(*at);
            }
            self.apply(Event::Released(leaving));
        }
        self.start_reading(assignment).await?;
        let held = wanted.into_iter().collect();
        self.apply(Event::TakenOn(epoch, held));
        Ok(())
    }

    fn stop_reading(&self, at: TopicPartition) {
        self.reading.unassign(at);
        self.committed.borrow_mut().remove(&at);
        self.note(GroupWhat::LetsGo(at));
    }

    async fn start_reading(
        self: &Rc<Self>,
        assignment: &[AssignedTopic],
    ) -> Result<(), ConsumeError> {
        let held = self.holds();
        for topic in assignment {
            let name: Arc<str> = topic.name.as_str().into();
            for assigned in &topic.partitions {
                let at = TopicPartition {
                    topic: topic.topic,
                    partition: assigned.partition,
                };
                if held.contains(&at) {
                    continue;
                }
                let committed = self.fetch_committed(at).await?;
                let has = committed.offset >= Offset::ZERO;
                // `earliest`, and what is younger than the group begins at its beginning anyway.
                let offset = committed.offset.max(Offset::ZERO);
                self.note(GroupWhat::Takes(at, offset));
                self.reading
                    .assign(at, Arc::clone(&name), offset, committed.leader_epoch);
                if has {
                    self.committed.borrow_mut().insert(at, offset);
                }
            }
        }
        Ok(())
    }

    fn take_records(&self) {
        let taken = self.reading.take();
        for (at, record) in taken.records {
            match self.recorder.recognise(at, &record) {
                Ok(id) => self.note(GroupWhat::Reads(at, record.offset, id)),
                Err(reason) => {
                    self.unexplained(&format!(
                        "{} holds what nobody sent: {reason}",
                        record.offset
                    ));
                }
            }
        }
        for said in taken.unexplained {
            self.unexplained(&said);
        }
    }

    async fn leave(self: &Rc<Self>) {
        if self.done.get() {
            return;
        }
        if self.plan.auto_commit.is_some() {
            let offsets = self.uncommitted(|_| true);
            let _ = self.commit(&offsets).await;
        }
        self.note(GroupWhat::Leaves);
        self.apply(Event::Closed);
        let gone = self.io.now() + LEAVE_WITHIN;
        while !self.machine.borrow().has_ended() && self.io.now() < gone {
            self.io.sleep(Duration::from_millis(10)).await;
        }
    }

    /// Its process is killed: nobody is told, unless the host closes what it had open.
    pub fn kill(&self, closes: bool) {
        self.note(GroupWhat::Dies);
        if closes {
            self.io.sim_net().reset_connections(self.node);
        }
        self.io.kill();
        self.done.set(true);
    }
}
