//! Random interleavings of everything that happens to groups, against members that do as the client
//! does and an oracle that only looks at what they were told. Time is simulated.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::Duration,
};

use millstream_protocol::{LeaderEpoch, PartitionIndex, TopicId, TopicPartition};
use uuid::Uuid;

use super::*;

const STEP: Duration = Duration::from_millis(100);
const SESSION: Duration = Duration::from_secs(10);
const REBALANCE: Duration = Duration::from_secs(8);
const HEARTBEAT: Duration = Duration::from_secs(3);
/// A request without an answer is given up after so long.
const PATIENCE: Duration = Duration::from_secs(4);
const CASES: u64 = 300;

/// Splitmix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % below
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.roll(count) == 0
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Live,
    /// Silent until then, with all that it believes.
    Paused(Monotonic),
    Dead,
}

/// A member as the client has it.
#[derive(Debug)]
struct Actor {
    id: String,
    wants: Wants,
    life: Life,
    epoch: Epoch,
    held: BTreeSet<TopicPartition>,
    /// An assignment that it has not taken on yet.
    told: Option<(Epoch, BTreeSet<TopicPartition>)>,
    /// It lets go of nothing until then.
    stuck_until: Monotonic,
    asked: Option<(u64, Monotonic)>,
    next: Monotonic,
    say_all: bool,
}

struct World {
    dice: Dice,
    now: Monotonic,
    leader: i32,
    group: Group<u64>,
    /// What the log holds of the group.
    kept: (BTreeMap<String, MemberRecord>, GroupRecord),
    topics: BTreeMap<u8, u32>,
    actors: Vec<Actor>,
    requests: BTreeMap<u64, usize>,
    next_request: u64,
    next_member: u64,
    /// Who was last told to have each partition.
    told: BTreeMap<TopicPartition, String>,
    counts: Counts,
    /// Answers may be lost.
    lossy: bool,
}

/// What the cases met, so that a test which meets nothing fails.
#[derive(Default, Debug)]
struct Counts {
    commits: u64,
    refused: u64,
    takeovers: u64,
    restarts: u64,
    statics: u64,
    evictions: u64,
}

fn topic(number: u8) -> TopicId {
    TopicId(Uuid::from_u128(u128::from(number) + 1))
}

impl World {
    fn new(seed: u64) -> Self {
        let topics = BTreeMap::from([(0, 4), (1, 3)]);
        let group = Group::new(
            "g".into(),
            Epoch::before_first(LeaderEpoch(1)),
            table(&topics),
            GroupRecord::default(),
        );
        Self {
            dice: Dice(seed),
            now: Monotonic(0) + SESSION,
            leader: 1,
            group,
            kept: Default::default(),
            topics,
            actors: Vec::new(),
            requests: BTreeMap::new(),
            next_request: 0,
            next_member: 0,
            told: BTreeMap::new(),
            counts: Counts::default(),
            lossy: true,
        }
    }

    /// At rest, with so many members, and fewer than `more` besides, that share two topics.
    fn settled(seed: u64, members: u64, more: u64) -> Self {
        let mut world = Self::new(seed);
        world.lossy = false;
        for _ in 0..members + world.dice.roll(more) {
            world.join();
            let actor = world.actors.last_mut().expect("just joined");
            actor.wants.instance_id = None;
            actor.wants.topics = BTreeSet::from(["t0".to_owned(), "t1".to_owned()]);
        }
        world.pass(SESSION + SESSION);
        world.check_quiet(seed);
        world
    }

    fn apply(&mut self, event: Event<u64>) {
        let before = self.group.epoch();
        let now = Moment {
            monotonic: self.now,
            wall_ms: 0,
        };
        let mut actions = Vec::new();
        self.group.apply(now, event, &mut actions);
        self.group.check();
        assert!(self.group.epoch() >= before, "a generation only grows");
        for action in actions {
            match action {
                Action::Answer { token, result } => self.answered(token, result),
                Action::KeepMember(id, Some(record)) => drop(self.kept.0.insert(id, record)),
                Action::KeepMember(id, None) => drop(self.kept.0.remove(&id)),
                Action::KeepGroup(record) => self.kept.1 = record,
                Action::Say(text) => {
                    self.counts.evictions += u64::from(text.contains("let go"));
                }
            }
        }
    }

    fn answered(&mut self, request: u64, result: Result<Reply, Refusal>) {
        let at = self.requests.remove(&request).expect("asked once");
        let lost = self.lossy && self.dice.one_in(20);
        let actor = &mut self.actors[at];
        if let Ok(reply) = &result {
            for assigned in reply.assignment.iter().flatten() {
                let before = self.told.insert(assigned.partition, actor.id.clone());
                self.counts.takeovers += u64::from(before.is_some_and(|it| it != actor.id));
            }
        }
        if actor.asked.is_none_or(|(id, _)| id != request) || actor.life != Life::Live || lost {
            return;
        }
        actor.asked = None;
        actor.next = self.now;
        match result {
            Ok(reply) => {
                assert!(reply.epoch >= actor.epoch, "a member's epoch only grows");
                actor.say_all = false;
                if let Some(assignment) = reply.assignment {
                    let told = assignment.iter().map(|it| it.partition).collect();
                    actor.told = Some((reply.epoch, told));
                }
            }
            Err(refusal) if refusal.error.is_retriable() => {
                actor.say_all = true;
                actor.next = self.now + STEP;
            }
            Err(refusal) if refusal.error == ErrorCode::FencedInstanceId => actor.life = Life::Dead,
            Err(_) => self.start_anew(at),
        }
    }

    /// Fenced or forgotten: all is dropped, and a new life begins.
    fn start_anew(&mut self, at: usize) {
        self.next_member += 1;
        let id = format!("m{}", self.next_member);
        let actor = &mut self.actors[at];
        actor.id = id;
        actor.epoch = Epoch::JOIN;
        actor.held.clear();
        actor.told = None;
        actor.say_all = true;
        actor.asked = None;
    }

    fn heartbeats(&mut self) {
        for at in 0..self.actors.len() {
            let now = self.now;
            let actor = &mut self.actors[at];
            match actor.life {
                Life::Dead => continue,
                Life::Paused(until) if until > now => continue,
                Life::Paused(_) => actor.life = Life::Live,
                Life::Live => {}
            }
            if actor
                .asked
                .is_some_and(|(_, since)| now.since(since) > PATIENCE)
            {
                actor.asked = None;
                actor.say_all = true;
            }
            self.take_on(at);
            let actor = &mut self.actors[at];
            if actor.asked.is_some() || actor.next > now {
                continue;
            }
            self.next_request += 1;
            if actor.say_all {
                // Whoever it tells what it holds counts on that: what it was told before is void.
                actor.told = None;
            }
            let wants = actor.say_all.then(|| Wants {
                owned: actor.held.iter().copied().collect(),
                ..actor.wants.clone()
            });
            // Who has not taken on what it was told does not wait for more.
            let waits = actor.told.is_none();
            let heartbeat = Box::new(Heartbeat {
                member_id: actor.id.clone(),
                epoch: actor.epoch,
                max_wait: if waits { HEARTBEAT } else { Duration::ZERO },
                wants,
                speaker: Speaker::default(),
            });
            actor.asked = Some((self.next_request, now));
            actor.next = now + HEARTBEAT;
            self.requests.insert(self.next_request, at);
            let token = self.next_request;
            self.apply(Event::Heartbeat { token, heartbeat });
        }
    }

    fn take_on(&mut self, at: usize) {
        let actor = &mut self.actors[at];
        let Some((epoch, told)) = &actor.told else {
            return;
        };
        if actor.stuck_until > self.now && !actor.held.is_subset(told) {
            return;
        }
        let (epoch, told) = (*epoch, told.clone());
        actor.told = None;
        actor.epoch = epoch;
        actor.next = self.now;
        let id = actor.id.clone();
        actor.held.clone_from(&told);
        if !self.group.members.contains_key(&id) {
            // It will hear of that; until then its commits are refused.
            return;
        }
        for partition in told {
            // Members that are heard of never hold one partition twice.
            for (other, actor) in self.actors.iter().enumerate() {
                let listens =
                    actor.life == Life::Live && self.group.members.contains_key(&actor.id);
                let twice = other != at && listens && actor.held.contains(&partition);
                assert!(!twice, "{partition} is held by {id} and {}", actor.id);
            }
        }
    }

    fn commits(&mut self, at: usize) {
        let actor = &self.actors[at];
        for partition in &actor.held {
            match self.group.may_commit(&actor.id, actor.epoch, *partition) {
                Ok(()) => {
                    self.counts.commits += 1;
                    let owner = &self.told[partition];
                    assert_eq!(owner, &actor.id, "a commit of an old generation stuck");
                }
                Err(_) => self.counts.refused += 1,
            }
        }
    }

    fn act(&mut self) {
        let some = |world: &mut Self| match world.actors.len() as u64 {
            0 => None,
            count => usize::try_from(world.dice.roll(count)).ok(),
        };
        match self.dice.roll(22) {
            0..4 => self.join(),
            4 => self.some_leaves(some),
            5 => {
                if let Some(at) = some(self) {
                    self.actors[at].life = Life::Dead;
                }
            }
            6..8 => {
                let wait = Duration::from_secs(self.dice.roll(20));
                if let Some(at) = some(self)
                    && self.actors[at].life == Life::Live
                {
                    self.actors[at].life = Life::Paused(self.now + wait);
                }
            }
            8 => {
                let wait = Duration::from_secs(self.dice.roll(14));
                if let Some(at) = some(self) {
                    self.actors[at].stuck_until = self.now + wait;
                }
            }
            9..19 => {
                if let Some(at) = some(self) {
                    self.commits(at);
                }
            }
            19 => self.restart(),
            _ => self.change_topics(),
        }
    }

    fn some_leaves(&mut self, some: impl Fn(&mut Self) -> Option<usize>) {
        let Some(at) = some(self) else { return };
        if self.actors[at].life != Life::Live {
            return;
        }
        self.actors[at].life = Life::Dead;
        self.next_request += 1;
        self.requests.insert(self.next_request, at);
        let heartbeat = Box::new(Heartbeat {
            member_id: self.actors[at].id.clone(),
            epoch: Epoch::LEAVE,
            max_wait: Duration::ZERO,
            wants: None,
            speaker: Speaker::default(),
        });
        let token = self.next_request;
        self.apply(Event::Heartbeat { token, heartbeat });
    }

    fn join(&mut self) {
        self.next_member += 1;
        let pattern = self
            .dice
            .one_in(3)
            .then(|| Pattern::new("t.*").expect("good"));
        let names = match self.dice.roll(3) {
            0 => vec!["t0"],
            1 => vec!["t0", "t1"],
            _ => vec!["t0", "t1", "t2"],
        };
        let instance = self
            .dice
            .one_in(4)
            .then(|| format!("i{}", self.dice.roll(2)));
        self.counts.statics += u64::from(instance.is_some());
        let assignor = Assignor::ALL[usize::try_from(self.dice.roll(3)).expect("small")];
        self.actors.push(Actor {
            id: format!("m{}", self.next_member),
            wants: Wants {
                instance_id: instance,
                topics: names.into_iter().map(str::to_owned).collect(),
                pattern,
                assignor,
                session_timeout: SESSION,
                rebalance_timeout: REBALANCE,
                owned: Vec::new(),
            },
            life: Life::Live,
            epoch: Epoch::JOIN,
            held: BTreeSet::new(),
            told: None,
            stuck_until: Monotonic(0),
            asked: None,
            next: self.now,
            say_all: true,
        });
    }

    fn change_topics(&mut self) {
        let number = u8::try_from(self.dice.roll(4)).expect("small");
        let before = table(&self.topics);
        match self.topics.get_mut(&number) {
            Some(_) if self.dice.one_in(6) => drop(self.topics.remove(&number)),
            Some(count) => *count = (*count + 2).min(9),
            None => drop(self.topics.insert(number, 3)),
        }
        let after = table(&self.topics);
        let change = Rc::new(before.changes(&after));
        self.apply(Event::Topics(after, change));
    }

    /// The broker is killed and starts again.
    fn restart(&mut self) {
        self.counts.restarts += 1;
        self.leader += 1;
        let before = self.group.epoch();
        let (members, record) = self.kept.clone();
        let topics = table(&self.topics);
        self.group = Group::new(
            "g".into(),
            Epoch::before_first(LeaderEpoch(self.leader)),
            topics,
            record,
        );
        assert!(self.group.epoch() > before, "no epoch is handed out twice");
        for (id, record) in members {
            self.group.remember(id, record, self.now);
        }
        self.group.check();
        self.requests.clear();
        for actor in &mut self.actors {
            actor.asked = None;
            actor.say_all = true;
        }
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.now = self.now + STEP;
            if self.group.deadline().is_some_and(|due| due <= self.now) {
                self.apply(Event::Ticked);
            }
            self.heartbeats();
        }
    }

    /// With nothing happening any more, everything has an owner that lives.
    fn check_quiet(&self, seed: u64) {
        for (number, count) in &self.topics {
            let name = format!("t{number}");
            let live = || self.actors.iter().filter(|it| it.life == Life::Live);
            let wanted = live().any(|it| {
                let pattern = it.wants.pattern.as_ref();
                it.wants.topics.contains(&name) || pattern.is_some_and(|it| it.matches(&name))
            });
            for partition in (0..*count).filter(|_| wanted) {
                let partition = TopicPartition {
                    topic: topic(*number),
                    partition: PartitionIndex(partition),
                };
                let owners = live().filter(|it| it.held.contains(&partition)).count();
                assert_eq!(owners, 1, "owners of {partition} in case {seed}");
            }
        }
        assert!(!self.group.is_recovering());
    }
}

fn table(topics: &BTreeMap<u8, u32>) -> Rc<Topics> {
    let topics = topics.iter();
    let topics = topics.map(|(number, count)| (format!("t{number}"), topic(*number), *count));
    Rc::new(Topics::new(topics))
}

#[test]
fn one_owner_each_and_old_generations_do_not_commit() {
    let mut total = Counts::default();
    for seed in 0..CASES {
        let mut world = World::new(seed);
        for _ in 0..4 {
            for _ in 0..25 {
                world.act();
                let wait = Duration::from_millis(100 * world.dice.roll(15));
                world.pass(wait);
            }
            world.lossy = false;
            for actor in &mut world.actors {
                actor.stuck_until = world.now;
                if matches!(actor.life, Life::Paused(_)) {
                    actor.life = Life::Live;
                }
            }
            world.pass(SESSION + PATIENCE + Duration::from_secs(1));
            world.check_quiet(seed);
            world.lossy = true;
        }
        let counts = world.counts;
        total.commits += counts.commits;
        total.refused += counts.refused;
        total.takeovers += counts.takeovers;
        total.restarts += counts.restarts;
        total.statics += counts.statics;
        total.evictions += counts.evictions;
    }
    println!("{CASES} cases: {total:?}");
    assert!(total.commits > 10_000 && total.refused > 1_000 && total.takeovers > 5_000);
    assert!(total.restarts > 500 && total.statics > 500 && total.evictions > 20);
}

/// From the last sign of life of a member to the moment when another has all that it had.
#[test]
fn a_dead_member_is_replaced_within_its_session_timeout_and_a_second() {
    let mut longest = Duration::ZERO;
    for seed in 0..CASES {
        let mut world = World::settled(seed, 3, 4);
        world.actors[0].life = Life::Dead;
        let died_at = world.now;
        let had = world.actors[0].held.clone();
        let taken_all = |world: &World| {
            let others: BTreeSet<_> = world.actors[1..].iter().flat_map(|it| &it.held).collect();
            had.iter().all(|it| others.contains(it))
        };
        while !taken_all(&world) {
            world.pass(STEP);
            let took = world.now.since(died_at);
            assert!(
                took <= SESSION + Duration::from_secs(1),
                "case {seed}: {took:?}"
            );
            longest = longest.max(took);
        }
    }
    println!("longest takeover: {longest:?}");
    assert!(longest > SESSION / 2);
}

/// One member dies, and before anyone can know of it another, which may be to have what the first one had: then
/// its session has to end as well. From the last death on it takes no longer than after one.
#[test]
fn what_two_dead_members_had_is_taken_within_a_session_timeout_of_the_last_death() {
    let mut since_first = Duration::ZERO;
    for seed in 0..CASES {
        let mut world = World::settled(seed, 4, 3);
        let mut had = BTreeSet::new();
        let first_died_at = world.now;
        for dies in [0, 1] {
            world.actors[dies].life = Life::Dead;
            had.extend(world.actors[dies].held.clone());
            let between = Duration::from_millis(100 * world.dice.roll(100));
            world.pass(if dies == 0 { between } else { STEP });
        }
        let died_at = world.now;
        let taken_all = |world: &World| {
            let others: BTreeSet<_> = world.actors[2..].iter().flat_map(|it| &it.held).collect();
            had.iter().all(|it| others.contains(it))
        };
        while !taken_all(&world) {
            world.pass(STEP);
            let took = world.now.since(died_at);
            assert!(took <= SESSION + Duration::from_secs(1), "{seed}: {took:?}");
        }
        since_first = since_first.max(world.now.since(first_died_at));
    }
    println!("longest since the first death: {since_first:?}");
    assert!(since_first > SESSION + Duration::from_secs(4));
}
