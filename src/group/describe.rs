//! A group as an operator sees it.

use std::time::Duration;

use millstream_protocol::TopicPartition;

use super::{Assignor, Epoch, Group, Speaker};
use crate::io::Monotonic;

/// What a group is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nobody is a member.
    Empty,
    /// Members from before the coordinator's start are waited for.
    Recovering,
    /// Partitions are on the move.
    Reconciling,
    /// Everyone has what it is to have.
    Stable,
}

impl State {
    /// Its name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Recovering => "recovering",
            Self::Reconciling => "reconciling",
            Self::Stable => "stable",
        }
    }
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberDescription {
    /// Its name for this life.
    pub member_id: String,
    /// Its name for all its lives.
    pub instance_id: Option<String>,
    /// Who speaks for it.
    pub speaker: Speaker,
    /// Of its newest assignment.
    pub epoch: Epoch,
    /// Topics by name.
    pub topics: Vec<String>,
    /// Topics by pattern.
    pub pattern: Option<String>,
    /// What it has.
    pub assignment: Vec<TopicPartition>,
    /// What it is asked to let go.
    pub revoking: Vec<TopicPartition>,
    /// Since it was last heard of.
    pub silent_for: Duration,
    /// Unheard of for so long, it is given up.
    pub session_timeout: Duration,
}

/// One group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// What it is doing.
    pub state: State,
    /// The newest epoch that was handed out.
    pub epoch: Epoch,
    /// How partitions are handed out.
    pub assignor: Assignor,
    /// Its members.
    pub members: Vec<MemberDescription>,
}

impl<T> Group<T> {
    /// What it is doing.
    #[must_use]
    pub fn state(&self) -> State {
        if self.members.is_empty() {
            State::Empty
        } else if self.is_recovering() {
            State::Recovering
        } else if self
            .members
            .values()
            .any(|it| !it.owned.keys().eq(&it.target))
        {
            State::Reconciling
        } else {
            State::Stable
        }
    }

    /// About how large a description is, in bytes; it is no larger.
    #[must_use]
    pub fn description_size(&self) -> usize {
        /// What a member or group takes besides what is counted.
        const FIXED: usize = 256;
        let members = self.members.iter().map(|(id, member)| {
            let names = id.len() + member.speaker.client.len() + member.speaker.host.len();
            let partitions = member.owned.len() * size_of::<TopicPartition>();
            FIXED + names + member.wants.said_size() + partitions
        });
        FIXED + members.sum::<usize>()
    }

    /// All that an operator may want to know.
    #[must_use]
    pub fn describe(&self, now: Monotonic) -> Description {
        let members = self.members.iter().map(|(id, member)| MemberDescription {
            member_id: id.clone(),
            instance_id: member.wants.instance_id.clone(),
            speaker: member.speaker.clone(),
            epoch: member.epoch,
            topics: member.wants.topics.iter().cloned().collect(),
            pattern: member
                .wants
                .pattern
                .as_ref()
                .map(|it| it.source().to_owned()),
            assignment: member
                .assignment(|_| false)
                .into_iter()
                .map(|it| it.partition)
                .collect(),
            revoking: member.revoking.iter().copied().collect(),
            silent_for: now.since(member.heard_at),
            session_timeout: member.wants.session_timeout,
        });
        Description {
            state: self.state(),
            epoch: self.epoch,
            assignor: self.assignor(),
            members: members.collect(),
        }
    }
}
