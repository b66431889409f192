//! Why a change of metadata was refused, and the wire's code for each reason.

use millstream_protocol::{
    BrokerId, ErrorCode, TopicId,
    limits::{MAX_PARTITIONS_PER_BROKER, MAX_PARTITIONS_PER_TOPIC},
    names::TopicNameError,
};

use crate::types::ConfigError;

/// A change that the controller does not make. Each message says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControllerError {
    /// The name breaks the rules.
    #[error(transparent)]
    InvalidTopicName(#[from] TopicNameError),
    /// Only the broker itself makes, changes and deletes such topics.
    #[error("{name} is internal: names that begin with \"__\" belong to the broker")]
    InternalTopic {
        /// The name.
        name: String,
    },
    /// A topic of that name is there.
    #[error("topic {name} exists already")]
    TopicExists {
        /// The name.
        name: String,
        /// The identity of the topic that has it.
        id: TopicId,
    },
    /// The identity was used before.
    #[error("topic id {0} was used before")]
    TopicIdReused(TopicId),
    /// No topic of that name.
    #[error("there is no topic {name}; create it with: millstream topic create {name}")]
    UnknownTopic {
        /// The name.
        name: String,
    },
    /// The topic went away between the request and the change.
    #[error("topic {0} is gone")]
    TopicGone(TopicId),
    /// A setting was refused.
    #[error(transparent)]
    InvalidConfig(#[from] ConfigError),
    /// A topic needs at least one partition and has a limit.
    #[error("{asked} partitions: a topic has 1 to {MAX_PARTITIONS_PER_TOPIC}")]
    PartitionCount {
        /// How many were asked for.
        asked: usize,
    },
    /// The broker's limit.
    #[error(
        "{asked} more partitions, with {present} there, exceed this broker's limit of \
         {MAX_PARTITIONS_PER_BROKER}"
    )]
    TooManyPartitions {
        /// How many were asked for.
        asked: usize,
        /// How many there are.
        present: usize,
    },
    /// Partitions are never taken away.
    #[error("topic {name} has {present} partitions: the new total must be more, not {asked}")]
    NotMorePartitions {
        /// The topic.
        name: String,
        /// How many there are.
        present: u32,
        /// The total asked for.
        asked: u32,
    },
    /// There is one broker.
    #[error("replication factor {asked} needs {asked} brokers: this cluster has {brokers}")]
    ReplicationFactor {
        /// What was asked for.
        asked: usize,
        /// How many brokers there are.
        brokers: usize,
    },
    /// A replica was put on a broker that the cluster does not have, or twice on one.
    #[error("a replica cannot be placed on broker {0}")]
    BadReplica(BrokerId),
    /// The change was made for another state of the topic.
    #[error("topic {0} changed at the same time: try again")]
    Conflict(TopicId),
    /// The topic is not waiting for its files to go.
    #[error("topic {0} is not a deleted topic")]
    NotDeleted(TopicId),
    /// No identities are left; there were 2^63.
    #[error("no producer ids are left")]
    ProducerIdsExhausted,
}

impl From<&ControllerError> for ErrorCode {
    fn from(error: &ControllerError) -> Self {
        match error {
            ControllerError::InvalidTopicName(_) => Self::InvalidTopicName,
            ControllerError::InternalTopic { .. } => Self::NotAuthorized,
            ControllerError::TopicExists { .. } => Self::TopicExists,
            ControllerError::UnknownTopic { .. } | ControllerError::TopicGone(_) => {
                Self::UnknownTopic
            }
            ControllerError::InvalidConfig(_) => Self::InvalidConfig,
            ControllerError::PartitionCount { .. }
            | ControllerError::TooManyPartitions { .. }
            | ControllerError::NotMorePartitions { .. } => Self::InvalidPartitions,
            ControllerError::ReplicationFactor { .. } | ControllerError::BadReplica(_) => {
                Self::InvalidReplicationFactor
            }
            ControllerError::Conflict(_) => Self::Overloaded,
            ControllerError::TopicIdReused(_)
            | ControllerError::NotDeleted(_)
            | ControllerError::ProducerIdsExhausted => Self::Internal,
        }
    }
}
