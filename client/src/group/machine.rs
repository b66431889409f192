//! The member of a group, decided: when to send which heartbeat, what an answer means, what the next
//! poll has to do. Pure.
//!
//! The broker says what the member is to hold; the member says which assignment it has taken on. What
//! is taken away is let go, and what is given is taken, by the caller's next poll: only then is it
//! certain that nothing of an earlier one is still being worked on.
#![allow(
    missing_docs,
    reason = "pub for simulations only, and hidden from the documentation"
)]

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use millstream_protocol::{
    ErrorCode, TopicPartition,
    limits::MAX_OWNED_PARTITIONS,
    messages::{
        AssignedTopic, GroupHeartbeatRequest, GroupHeartbeatResponse, JOIN_EPOCH, LEAVE_EPOCH,
        MemberState,
    },
};

use crate::{
    backoff::Backoff,
    error::{ConsumeError, RequestError},
};

/// An answer without news that came sooner than this is not asked for again at once.
const LEAST_ROUND: Duration = Duration::from_millis(100);

/// Heartbeats in a session timeout, at least.
const HEARTBEATS_PER_SESSION: u32 = 3;

/// Settings of a member.
#[derive(Clone, Debug)]
pub struct Config {
    pub group: Arc<str>,
    /// Unique; each life of the member adds a number to it.
    pub member_id: String,
    pub instance_id: Option<String>,
    pub topics: Vec<String>,
    pub pattern: Option<String>,
    pub assignor: String,
    pub session_timeout: Duration,
    pub heartbeat_interval: Duration,
    pub max_poll_interval: Duration,
    pub seed: u64,
}

/// Which heartbeat an answer is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeartbeatId(pub u64);

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// The caller polls.
    Polled,
    /// It has what that gave.
    PollEnded,
    Answered(HeartbeatId, Result<GroupHeartbeatResponse, RequestError>),
    /// These are not read any more.
    Released(Vec<TopicPartition>),
    /// All that this assignment gives is being read, and nothing else.
    TakenOn(i64, Vec<TopicPartition>),
    /// Nothing is being read any more, as was asked for.
    Dropped,
    /// The caller is done.
    Closed,
    Ticked,
}

/// What to do.
#[derive(Debug)]
pub enum Action {
    Heartbeat(HeartbeatId, GroupHeartbeatRequest),
    /// There is work for the next poll, or the one under way.
    News,
}

/// What a poll has to do before it returns records.
#[derive(Clone, Debug)]
pub enum Work {
    Nothing,
    /// Everything belongs to others: drop it, commit nothing, and tell the caller why if there is a reason
    /// that concerns it.
    DropAll(Option<ConsumeError>),
    /// Hold just this.
    TakeOn(i64, Vec<AssignedTopic>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nobody has polled yet.
    Idle,
    Member,
    Leaving,
    Ended,
}

#[derive(Debug)]
struct InFlight {
    id: HeartbeatId,
    since: Duration,
}

/// The member.
#[derive(Debug)]
pub struct Machine {
    config: Config,
    backoff: Backoff,
    phase: Phase,
    life: u32,
    /// Of the newest assignment that was taken on.
    epoch: i64,
    held: BTreeSet<TopicPartition>,
    /// An assignment that was not taken on yet.
    told: Option<(i64, Vec<AssignedTopic>)>,
    /// All belongs to others, and why, if it concerns the caller.
    lost: Option<Option<ConsumeError>>,
    /// Said on every poll.
    fatal: Option<ConsumeError>,
    in_flight: Option<InFlight>,
    next_id: HeartbeatId,
    next_at: Duration,
    say_all: bool,
    failures: u32,
    polling: bool,
    last_poll: Duration,
}

impl Machine {
    pub fn new(config: Config) -> Self {
        Self {
            backoff: Backoff::new(config.seed),
            config,
            phase: Phase::Idle,
            life: 0,
            epoch: JOIN_EPOCH,
            held: BTreeSet::new(),
            told: None,
            lost: None,
            fatal: None,
            in_flight: None,
            next_id: HeartbeatId(1),
            next_at: Duration::ZERO,
            say_all: true,
            failures: 0,
            polling: false,
            last_poll: Duration::ZERO,
        }
    }

    /// Decides what to do about an event, and about everything due by `now`.
    pub fn apply(&mut self, now: Duration, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Polled => {
                self.polling = true;
                if self.phase == Phase::Idle {
                    self.phase = Phase::Member;
                    self.next_at = now;
                }
            }
            Event::PollEnded => {
                self.polling = false;
                self.last_poll = now;
            }
            Event::Answered(id, result) => self.answered(now, id, result, actions),
            Event::Released(partitions) => {
                for partition in &partitions {
                    self.held.remove(partition);
                }
            }
            Event::TakenOn(epoch, held) => self.taken_on(now, epoch, held),
            Event::Dropped => self.dropped(now),
            Event::Closed => self.close(now, actions),
            Event::Ticked => {}
        }
        self.leave_if_stuck(now, actions);
        self.beat(now, actions);
    }

    /// What the next poll has to do first.
    pub fn work(&self) -> Result<Work, ConsumeError> {
        if let Some(lost) = &self.lost {
            return Ok(Work::DropAll(lost.clone()));
        }
        if let Some(fatal) = &self.fatal {
            return Err(fatal.clone());
        }
        Ok(match &self.told {
            Some((epoch, assignment)) => Work::TakeOn(*epoch, assignment.clone()),
            None => Work::Nothing,
        })
    }

    /// When there is something to do although nothing happens.
    pub fn deadline(&self) -> Option<Duration> {
        if self.phase != Phase::Member || self.lost.is_some() {
            return None;
        }
        let beat = self.in_flight.is_none().then_some(self.next_at);
        let poll = (!self.polling).then(|| self.last_poll + self.config.max_poll_interval);
        beat.into_iter().chain(poll).min()
    }

    /// Under which name and epoch to commit.
    pub fn identity(&self) -> (String, i64) {
        (self.member_id(), self.epoch)
    }

    /// What the next poll will let go.
    pub fn leaving(&self) -> Vec<TopicPartition> {
        let Some((_, assignment)) = &self.told else {
            return Vec::new();
        };
        let kept: BTreeSet<TopicPartition> = partitions_of(assignment).collect();
        self.held.difference(&kept).copied().collect()
    }

    pub fn has_ended(&self) -> bool {
        self.phase == Phase::Ended
    }

    fn member_id(&self) -> String {
        format!("{}-{}", self.config.member_id, self.life)
    }

    fn heartbeat(&mut self, now: Duration, epoch: i64, max_wait: Duration) -> Action {
        let id = self.next_id;
        self.next_id.0 += 1;
        self.in_flight = Some(InFlight { id, since: now });
        let state = (self.say_all && epoch != LEAVE_EPOCH).then(|| MemberState {
            instance_id: self.config.instance_id.clone(),
            topics: self.config.topics.clone(),
            pattern: self.config.pattern.clone(),
            assignor: self.config.assignor.clone(),
            session_timeout_ms: millis(self.config.session_timeout),
            rebalance_timeout_ms: millis(self.config.max_poll_interval),
            owned: self.held.iter().copied().collect(),
        });
        let request = GroupHeartbeatRequest {
            group: self.config.group.to_string(),
            member_id: self.member_id(),
            member_epoch: epoch,
            max_wait_ms: millis(max_wait),
            state,
        };
        Action::Heartbeat(id, request)
    }

    fn interval(&self) -> Duration {
        let longest = self.config.session_timeout / HEARTBEATS_PER_SESSION;
        self.config.heartbeat_interval.min(longest)
    }

    fn beat(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let may = self.phase == Phase::Member && self.lost.is_none();
        if !may || self.in_flight.is_some() || self.next_at > now {
            return;
        }
        if self.say_all && self.held.len() > MAX_OWNED_PARTITIONS {
            // More than can be said. What is not said may be given to others, so all is dropped.
            self.lose(None, actions);
            return;
        }
        if self.say_all {
            // The broker counts on what it is told now: what it said before is void.
            self.told = None;
        }
        // Who has not taken on what it was told hears nothing newer by waiting.
        let max_wait = match self.told {
            Some(_) => Duration::ZERO,
            None => self.interval(),
        };
        let action = self.heartbeat(now, self.epoch, max_wait);
        actions.push(action);
    }

    fn answered(
        &mut self,
        now: Duration,
        id: HeartbeatId,
        result: Result<GroupHeartbeatResponse, RequestError>,
        actions: &mut Vec<Action>,
    ) {
        let Some(in_flight) = self.in_flight.take_if(|it| it.id == id) else {
            return;
        };
        if self.phase == Phase::Leaving {
            self.phase = Phase::Ended;
            return;
        }
        if self.phase != Phase::Member || self.lost.is_some() {
            return;
        }
        let (code, message) = match result {
            Ok(response) if response.error == ErrorCode::None => {
                return self.heard(now, in_flight.since, response, actions);
            }
            Ok(response) => (response.error, response.message.into()),
            Err(RequestError::Broker { code, message }) => (code, message),
            Err(error) if error.is_retriable() => return self.failed(now),
            Err(error) => {
                self.end(ConsumeError::Request(error), actions);
                return;
            }
        };
        match code {
            ErrorCode::UnknownMemberId | ErrorCode::FencedMemberEpoch => {
                tracing::warn!(group = %self.config.group, %message, "the member was given up, and joins anew");
                self.lose(None, actions);
            }
            code if code.is_retriable() => self.failed(now),
            code => {
                let group = Arc::clone(&self.config.group);
                self.end(
                    ConsumeError::Group {
                        group,
                        code,
                        message,
                    },
                    actions,
                );
            }
        }
    }

    fn heard(
        &mut self,
        now: Duration,
        since: Duration,
        response: GroupHeartbeatResponse,
        actions: &mut Vec<Action>,
    ) {
        self.failures = 0;
        self.say_all = false;
        if let Some(assignment) = response.assignment {
            let is_new = self
                .told
                .as_ref()
                .is_none_or(|told| told.0 != response.member_epoch);
            self.told = Some((response.member_epoch, assignment));
            if is_new {
                actions.push(Action::News);
            }
        }
        self.next_at = match self.told {
            Some(_) => now + self.interval(),
            None => now.max(since + LEAST_ROUND.min(self.interval())),
        };
    }

    fn failed(&mut self, now: Duration) {
        self.failures += 1;
        self.say_all = true;
        self.next_at = now + self.backoff.pause(self.failures).min(self.interval());
    }

    fn lose(&mut self, why: Option<ConsumeError>, actions: &mut Vec<Action>) {
        self.lost = Some(why);
        self.told = None;
        self.in_flight = None;
        actions.push(Action::News);
    }

    fn end(&mut self, why: ConsumeError, actions: &mut Vec<Action>) {
        self.fatal = Some(why);
        self.phase = Phase::Ended;
        self.lose(None, actions);
    }

    fn taken_on(&mut self, now: Duration, epoch: i64, held: Vec<TopicPartition>) {
        if self.told.as_ref().is_some_and(|told| told.0 == epoch) {
            self.told = None;
            self.epoch = epoch;
            self.next_at = now;
        }
        self.held = held.into_iter().collect();
    }

    /// Everything is let go: a new life may begin.
    fn dropped(&mut self, now: Duration) {
        self.lost = None;
        self.held.clear();
        self.told = None;
        self.life += 1;
        self.epoch = JOIN_EPOCH;
        self.say_all = true;
        self.next_at = now;
    }

    fn close(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let is_member = self.phase == Phase::Member && self.lost.is_none();
        if !is_member || self.config.instance_id.is_some() {
            // A static member comes back to what it has.
            self.phase = Phase::Ended;
            return;
        }
        self.phase = Phase::Leaving;
        let action = self.heartbeat(now, LEAVE_EPOCH, Duration::ZERO);
        actions.push(action);
    }

    /// A caller that does not poll is stuck: others go on in its place.
    fn leave_if_stuck(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let stuck = !self.polling && now >= self.last_poll + self.config.max_poll_interval;
        if !stuck || self.phase != Phase::Member || self.lost.is_some() {
            return;
        }
        let action = self.heartbeat(now, LEAVE_EPOCH, Duration::ZERO);
        actions.push(action);
        let error = ConsumeError::MaxPollInterval {
            group: Arc::clone(&self.config.group),
            max_poll_interval: self.config.max_poll_interval,
        };
        self.lose(Some(error), actions);
    }
}

/// The partitions of an assignment.
pub fn partitions_of(assignment: &[AssignedTopic]) -> impl Iterator<Item = TopicPartition> {
    assignment.iter().flat_map(|topic| {
        let partitions = topic.partitions.iter();
        partitions.map(|it| TopicPartition {
            topic: topic.topic,
            partition: it.partition,
        })
    })
}

fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
