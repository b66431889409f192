//! What can happen to a group, and what it then wants done.

use std::{collections::BTreeSet, rc::Rc, time::Duration};

use millstream_protocol::{ErrorCode, LeaderEpoch, TopicPartition};

use super::{
    assignor::Assignor,
    format::{GroupRecord, MemberRecord},
    topics::{Pattern, Topics, TopicsChange},
};
use crate::io::Monotonic;

/// When something happens, on both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// For waiting.
    pub monotonic: Monotonic,
    /// For what is kept over a restart, in milliseconds since 1970.
    pub wall_ms: i64,
}

/// A generation of a group, and of a member's assignment in it: the coordinator's leader epoch in the
/// high half, a counter in the low one, so that no coordinator ever repeats another's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(pub i64);

impl Epoch {
    /// What a member says that joins.
    pub const JOIN: Self = Self(0);
    /// What a member says that leaves.
    pub const LEAVE: Self = Self(-1);

    /// Before the first that a coordinator of this leader epoch hands out.
    #[must_use]
    pub fn before_first(leader: LeaderEpoch) -> Self {
        Self(i64::from(leader.0.max(0)) << 32)
    }

    /// The leader epoch of the coordinator that handed it out.
    #[must_use]
    pub fn leader(self) -> LeaderEpoch {
        LeaderEpoch(i32::try_from(self.0 >> 32).unwrap_or(-1))
    }

    /// How many there are after it, of the same coordinator.
    #[must_use]
    pub fn left(self) -> u32 {
        u32::MAX - u32::try_from(self.0 & i64::from(u32::MAX)).expect("the low half")
    }

    /// The next of the same coordinator; the same again if there is none.
    #[must_use]
    pub fn next(self) -> Self {
        match self.left() {
            0 => self,
            _ => Self(self.0 + 1),
        }
    }
}

/// What a member wants, and what it has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// Survives the member's restart: whoever comes with it takes over.
    pub instance_id: Option<String>,
    /// Topics by name.
    pub topics: BTreeSet<String>,
    /// Topics by pattern, besides.
    pub pattern: Option<Pattern>,
    /// How it would have partitions handed out.
    pub assignor: Assignor,
    /// Unheard of for so long, it is given up.
    pub session_timeout: Duration,
    /// It has so long to let go of partitions.
    pub rebalance_timeout: Duration,
    /// What an earlier coordinator gave it and it still holds.
    pub owned: Vec<TopicPartition>,
}

impl Wants {
    /// About how much memory it takes, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.said_size() + self.pattern.as_ref().map_or(0, Pattern::size)
    }

    /// The same of its names alone.
    #[must_use]
    pub fn said_size(&self) -> usize {
        const STRING_SIZE: usize = 48;
        let topics = self.topics.iter().map(|it| STRING_SIZE + it.len());
        let instance = self.instance_id.as_ref().map_or(0, String::len);
        let pattern = self.pattern.as_ref().map_or(0, |it| it.source().len());
        topics.sum::<usize>() + instance + pattern
    }
}

/// Who speaks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Speaker {
    /// Name of the client's software.
    pub client: String,
    /// Where it connects from.
    pub host: String,
}

/// A member's sign of life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// One life of one member: made by it, never used again.
    pub member_id: String,
    /// Of the newest assignment that it has taken on, all of it; or [`Epoch::JOIN`], [`Epoch::LEAVE`].
    pub epoch: Epoch,
    /// The answer may wait so long for news.
    pub max_wait: Duration,
    /// When it joins, when it changed, and after every failure.
    pub wants: Option<Wants>,
    /// Who speaks.
    pub speaker: Speaker,
}

/// What can happen to a group. `T` is the caller's token for an answer it owes.
#[derive(Debug)]
pub enum Event<T> {
    /// A member is heard of.
    Heartbeat {
        /// Answered by exactly one [`Action::Answer`].
        token: T,
        /// What it says.
        heartbeat: Box<Heartbeat>,
    },
    /// Topics came, went or grew.
    Topics(Rc<Topics>, Rc<TopicsChange>),
    /// Time has passed.
    Ticked,
}

/// One partition of an assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Assigned {
    /// The partition.
    pub partition: TopicPartition,
    /// It came after the group: without a committed offset it is read from its beginning.
    pub is_new: bool,
}

/// The answer to a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Of the member's newest assignment.
    pub epoch: Epoch,
    /// That assignment, unless the member said that it has taken it on. It may be told only when what
    /// was to be kept before is durable.
    pub assignment: Option<Vec<Assigned>>,
}

/// Why a member or a commit is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The wire's code.
    pub error: ErrorCode,
    /// A sentence.
    pub message: String,
}

impl Refusal {
    pub(super) fn new(error: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            error,
            message: message.into(),
        }
    }

    /// What someone is told who is no member any more, or never was.
    #[must_use]
    pub fn no_member() -> Self {
        Self::new(
            ErrorCode::UnknownMemberId,
            "no such member: it left, or was not heard of for its session timeout",
        )
    }
}

/// What the shell must do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action<T> {
    /// Answer a heartbeat.
    Answer {
        /// The heartbeat's token.
        token: T,
        /// What to say.
        result: Result<Reply, Refusal>,
    },
    /// Keep that this member is there; or, with no record, that it is not.
    KeepMember(String, Option<MemberRecord>),
    /// Keep this of the group.
    KeepGroup(GroupRecord),
    /// Tell the operator.
    Say(String),
}
