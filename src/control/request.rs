//! What shards ask of the control plane, and what it answers.

use millstream_protocol::{
    ErrorCode, ProducerId, TopicId,
    messages::{
        AlterTopicRequest, AlterTopicResponse, CreatePartitionsRequest, CreatePartitionsResponse,
        CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
        TopicResult,
    },
};

use crate::controller::ControllerError;

/// One request. Those of users are the protocol's own messages, already decoded and authorized.
#[derive(Clone, Debug)]
pub enum ControlRequest {
    /// Creates topics for a user.
    CreateTopics(CreateTopicsRequest),
    /// Deletes topics for a user.
    DeleteTopics(DeleteTopicsRequest),
    /// Changes a topic's settings for a user.
    AlterTopic(AlterTopicRequest),
    /// Gives a topic more partitions for a user.
    CreatePartitions(CreatePartitionsRequest),
    /// The broker itself: the internal topic that keeps groups and their offsets, if it is not there.
    CreateOffsetsTopic,
    /// A producer id that nobody had before.
    InitProducerId,
    /// The broker itself: the files of a deleted topic are gone.
    ForgetTopic(TopicId),
}

/// The answer to the request of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlAnswer {
    /// One result for each topic.
    CreateTopics(CreateTopicsResponse),
    /// One result for each topic.
    DeleteTopics(DeleteTopicsResponse),
    /// The result.
    AlterTopic(AlterTopicResponse),
    /// The result.
    CreatePartitions(CreatePartitionsResponse),
    /// It is there.
    CreateOffsetsTopic,
    /// The id. Its epoch is 0.
    InitProducerId(ProducerId),
    /// It is forgotten, or was not known.
    ForgetTopic,
}

/// Why a request as a whole was not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// The broker is on its way down.
    #[error("the broker is shutting down")]
    ShuttingDown,
    /// Nothing was changed for lack of space; it heals by itself.
    #[error("{0}")]
    DiskFull(String),
    /// The metadata log failed. Whether this request took effect is unknown until a restart.
    #[error("the metadata log failed, nothing can be changed until the broker is restarted: {0}")]
    LogFailed(String),
    /// The controller refused what only the broker asks for.
    #[error(transparent)]
    Refused(#[from] ControllerError),
}

impl From<&ControlError> for ErrorCode {
    fn from(error: &ControlError) -> Self {
        match error {
            ControlError::ShuttingDown => Self::ShuttingDown,
            ControlError::DiskFull(_) => Self::DiskFull,
            ControlError::LogFailed(_) => Self::StorageError,
            ControlError::Refused(error) => Self::from(error),
        }
    }
}

/// What a reply closure is given.
pub type ControlReply = Result<ControlAnswer, ControlError>;

/// The queue of the control thread is full: answer [`ErrorCode::Overloaded`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the control thread has too many requests waiting: try again")]
pub struct Overloaded;

/// The result of one topic.
pub(super) fn topic_result(
    name: String,
    id: TopicId,
    result: &Result<(), ControllerError>,
) -> TopicResult {
    match result {
        Ok(()) => TopicResult {
            name,
            id,
            error: ErrorCode::None,
            message: String::new(),
        },
        Err(error) => TopicResult {
            name,
            id: TopicId::default(),
            error: ErrorCode::from(error),
            message: error.to_string(),
        },
    }
}
