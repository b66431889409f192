//! Every change of metadata, as a value that the log carries and each broker applies alike.

use millstream_protocol::{BrokerId, ProducerId, TopicId};
use uuid::Uuid;

/// One change. Its form in the log is in `format`, with a version of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A broker came up: every partition that it leads gets a new leader epoch, since a tail that
    /// it never acknowledged may be gone.
    BrokerStarted {
        /// The broker.
        broker: BrokerId,
        /// Another one at every start, so that a rebooted replica is not taken for its past.
        incarnation: Uuid,
    },
    /// A new topic.
    CreateTopic {
        /// Its identity, never used before.
        id: TopicId,
        /// Its name.
        name: String,
        /// What it sets itself, as (name, value).
        configs: Vec<(String, String)>,
        /// The replicas of each partition, the preferred leader first.
        assignments: Vec<Vec<BrokerId>>,
    },
    /// A topic ends. Its identity is remembered until its files are gone.
    DeleteTopic {
        /// The topic.
        id: TopicId,
    },
    /// Settings change, all or none.
    AlterTopic {
        /// The topic.
        id: TopicId,
        /// (name, new value); no value restores the default.
        changes: Vec<(String, Option<String>)>,
    },
    /// A topic gets more partitions.
    CreatePartitions {
        /// The topic.
        id: TopicId,
        /// How many it had when this was decided.
        present: u32,
        /// The replicas of each new partition.
        assignments: Vec<Vec<BrokerId>>,
    },
    /// A broker takes a block of producer ids, to hand out without asking again.
    AllocateProducerIds {
        /// The broker.
        broker: BrokerId,
        /// How many.
        count: u32,
    },
    /// The files of a deleted topic are gone everywhere.
    ForgetTopic {
        /// The topic.
        id: TopicId,
    },
}

impl Command {
    /// Whether the change is one that a full disk must not stand in the way of: it lets space go,
    /// or lets a broker start.
    #[must_use]
    pub fn may_use_reserve(&self) -> bool {
        match self {
            Self::BrokerStarted { .. }
            | Self::DeleteTopic { .. }
            | Self::AlterTopic { .. }
            | Self::ForgetTopic { .. } => true,
            Self::CreateTopic { .. }
            | Self::CreatePartitions { .. }
            | Self::AllocateProducerIds { .. } => false,
        }
    }
}

/// What a change did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The broker is registered and its partitions have new leader epochs.
    BrokerStarted,
    /// The topic is there.
    TopicCreated(TopicId),
    /// The topic is gone.
    TopicDeleted(TopicId),
    /// The settings hold.
    TopicAltered(TopicId),
    /// The partitions are there.
    PartitionsCreated(TopicId),
    /// The block `first .. first + count` belongs to the broker that asked.
    ProducerIds {
        /// The first id.
        first: ProducerId,
        /// How many.
        count: u32,
    },
    /// Nothing remembers the topic any more.
    TopicForgotten(TopicId),
}
