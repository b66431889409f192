//! What can go wrong, one enum per family of calls. Each says whether trying again may help, and
//! what to do otherwise. All are `Clone`: one failed batch fails each of its records.

use std::{sync::Arc, time::Duration};

use millstream_protocol::{ErrorCode, Offset, PartitionIndex};

/// A request failed: connecting, metadata, admin, and the ground under producing and consuming.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RequestError {
    /// No connection came to be.
    #[error("cannot connect to {address}: {reason}; check the address and that the broker runs")]
    Connect {
        /// Where to.
        address: Arc<str>,
        /// What the system said.
        reason: Arc<str>,
    },
    /// The connection ended before the answer; whether the request took effect is unknown.
    #[error("the connection to {address} was lost: {reason}")]
    ConnectionLost {
        /// Where to.
        address: Arc<str>,
        /// What happened.
        reason: Arc<str>,
    },
    /// No answer in time; whether the request took effect is unknown.
    #[error("no answer from {address} within {timeout:?}; it may be overloaded or unreachable")]
    TimedOut {
        /// Who was asked.
        address: Arc<str>,
        /// How long was waited.
        timeout: Duration,
    },
    /// The broker refused, in its own words.
    #[error("{message} ({code:?})")]
    Broker {
        /// The reason as a number.
        code: ErrorCode,
        /// The reason as a sentence.
        message: Arc<str>,
    },
    /// There is no topic of that name.
    #[error("no topic {0:?}; create it with: millstream topic create {0}")]
    UnknownTopic(Arc<str>),
    /// The topic has no such partition.
    #[error("topic {topic:?} has no partition {partition}; it has {count}, counted from 0")]
    UnknownPartition {
        /// The topic.
        topic: Arc<str>,
        /// What was asked for.
        partition: PartitionIndex,
        /// How many there are.
        count: usize,
    },
    /// The answer is not what the protocol allows.
    #[error(
        "{address} does not speak this protocol ({reason}); check that it is a Millstream broker \
         and that client and broker are not too far apart in version"
    )]
    Protocol {
        /// Who said it.
        address: Arc<str>,
        /// What is wrong with it.
        reason: Arc<str>,
    },
    /// A setting of the client makes no sense.
    #[error("{0}")]
    Configuration(Arc<str>),
}

impl RequestError {
    /// Whether the same call may succeed later without anything being changed.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::ConnectionLost { .. } | Self::TimedOut { .. } => true,
            Self::Broker { code, .. } => code.is_retriable(),
            Self::UnknownTopic(_)
            | Self::UnknownPartition { .. }
            | Self::Protocol { .. }
            | Self::Configuration(_) => false,
        }
    }

    /// The broker's error code, where it is the broker that refused.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Broker { code, .. } => Some(*code),
            Self::UnknownTopic(_) => Some(ErrorCode::UnknownTopic),
            Self::UnknownPartition { .. } => Some(ErrorCode::UnknownPartition),
            Self::Connect { .. }
            | Self::ConnectionLost { .. }
            | Self::TimedOut { .. }
            | Self::Protocol { .. }
            | Self::Configuration(_) => None,
        }
    }
}

/// A record was not delivered.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProduceError {
    /// The broker refused the batch for good.
    #[error(
        "{topic}/{partition} refused a batch: {message} ({code:?}){}",
        if *.maybe_written { "; an earlier attempt may have written it" } else { "" }
    )]
    Refused {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: PartitionIndex,
        /// The reason as a number.
        code: ErrorCode,
        /// The reason as a sentence.
        message: Arc<str>,
        /// An earlier attempt ended without an answer, so the batch may be in the log; otherwise
        /// nothing of it was written.
        maybe_written: bool,
    },
    /// The delivery timeout passed.
    #[error(
        "{topic}/{partition} did not take a batch within {timeout:?} ({}); last trouble: {reason}",
        if *.maybe_written { "it may have been written" } else { "it was not written" }
    )]
    TimedOut {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: PartitionIndex,
        /// The delivery timeout.
        timeout: Duration,
        /// An attempt ended without an answer, so the batch may be in the log.
        maybe_written: bool,
        /// Why the last attempt failed.
        reason: Arc<str>,
    },
    /// The record can never be sent with these settings.
    #[error("a record of {size} bytes is larger than the limit of {limit}; raise {setting}")]
    RecordTooLarge {
        /// Bytes of the record with its framing.
        size: usize,
        /// The most that is taken.
        limit: usize,
        /// The setting that says so.
        setting: &'static str,
    },
    /// The record breaks a rule of the format.
    #[error("the record can't be sent: {0}")]
    InvalidRecord(&'static str),
    /// The topic could not be looked up, or there is no such partition.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The producer was closed, or dropped, before the record was delivered.
    #[error("the producer is closed; a record that was not acknowledged may be lost")]
    Closed,
}

impl ProduceError {
    /// Whether sending the record again may succeed. With `maybe_written` it may then be there
    /// twice.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::TimedOut { .. } => true,
            Self::Refused { code, .. } => code.is_retriable(),
            Self::Request(error) => error.is_retriable(),
            Self::RecordTooLarge { .. } | Self::InvalidRecord(_) | Self::Closed => false,
        }
    }

    /// The broker's error code, where it is the broker that refused.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            Self::Request(error) => error.code(),
            Self::TimedOut { .. }
            | Self::RecordTooLarge { .. }
            | Self::InvalidRecord(_)
            | Self::Closed => None,
        }
    }
}

/// Reading a partition met an obstacle. The consumer stays usable: the partition named is paused
/// until `seek` says where to go on (a retriable error resumes by itself).
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConsumeError {
    /// The position is below the log start (deleted by retention or trim) or beyond the end.
    #[error(
        "offset {offset} of {topic}/{partition} is out of range: it holds {log_start} to \
         {high_watermark}; seek to one of these, or set a policy for offsets out of range"
    )]
    OffsetOutOfRange {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: PartitionIndex,
        /// The position.
        offset: Offset,
        /// First offset there is.
        log_start: Offset,
        /// End of what consumers see.
        high_watermark: Offset,
    },
    /// Records that were read have since been cut from the log: it forked below the position.
    #[error(
        "{topic}/{partition} was cut at {diverged_at} after it was read up to {position}: records \
         from {diverged_at} on are not what they were; seek to {diverged_at} to go on"
    )]
    LogTruncated {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: PartitionIndex,
        /// Where the consumer was.
        position: Offset,
        /// Where the log parts from what was read.
        diverged_at: Offset,
    },
    /// A batch can't be read.
    #[error(
        "a batch at offset {offset} of {topic}/{partition} is damaged: {reason}; seek behind it \
         to skip it, and run `millstream log verify` on the broker"
    )]
    Corrupt {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: PartitionIndex,
        /// Base offset of the batch.
        offset: Offset,
        /// What is wrong with it.
        reason: Arc<str>,
    },
    /// The broker refused to serve the partition.
    #[error("{topic}/{partition} can't be read: {message} ({code:?})")]
    Refused {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: PartitionIndex,
        /// The reason as a number.
        code: ErrorCode,
        /// The reason as a sentence.
        message: Arc<str>,
    },
    /// The partition is not assigned to this consumer.
    #[error("{topic}/{partition} is not assigned to this consumer; call assign first")]
    NotAssigned {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: PartitionIndex,
    },
    /// The caller did not poll for too long, so others took over.
    #[error(
        "poll was not called for {max_poll_interval:?}, so the member left group {group} and others have its \
         partitions; poll more often, take fewer records at once (max_poll_records), or raise max_poll_interval"
    )]
    MaxPollInterval {
        /// The group.
        group: Arc<str>,
        /// The setting.
        max_poll_interval: Duration,
    },
    /// The group has committed nothing of the partition, and `auto_offset_reset` is none.
    #[error(
        "group {group} has committed no offset of {topic}/{partition}: seek, or set auto_offset_reset"
    )]
    NoCommittedOffset {
        /// The group.
        group: Arc<str>,
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: PartitionIndex,
    },
    /// An offset was not committed.
    #[error("offset {offset} of {topic}/{partition} was not committed: {message} ({code:?})")]
    CommitRefused {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: PartitionIndex,
        /// The offset.
        offset: Offset,
        /// The reason as a number.
        code: ErrorCode,
        /// The reason as a sentence.
        message: Arc<str>,
    },
    /// The group does not take this member.
    #[error("group {group}: {message} ({code:?})")]
    Group {
        /// The group.
        group: Arc<str>,
        /// The reason as a number.
        code: ErrorCode,
        /// The reason as a sentence.
        message: Arc<str>,
    },
    /// The topic could not be looked up, or offsets not be resolved.
    #[error(transparent)]
    Request(#[from] RequestError),
}

impl ConsumeError {
    /// Whether reading may go on by itself: nothing needs to be changed.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Refused { code, .. }
            | Self::CommitRefused { code, .. }
            | Self::Group { code, .. } => code.is_retriable(),
            Self::Request(error) => error.is_retriable(),
            // The next poll joins again.
            Self::MaxPollInterval { .. } => true,
            Self::NoCommittedOffset { .. }
            | Self::OffsetOutOfRange { .. }
            | Self::LogTruncated { .. }
            | Self::Corrupt { .. }
            | Self::NotAssigned { .. } => false,
        }
    }

    /// The broker's error code, where there is one.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::OffsetOutOfRange { .. } => Some(ErrorCode::OffsetOutOfRange),
            Self::Corrupt { .. } => Some(ErrorCode::CorruptBatch),
            Self::Refused { code, .. }
            | Self::CommitRefused { code, .. }
            | Self::Group { code, .. } => Some(*code),
            Self::Request(error) => error.code(),
            Self::LogTruncated { .. }
            | Self::NotAssigned { .. }
            | Self::MaxPollInterval { .. }
            | Self::NoCommittedOffset { .. } => None,
        }
    }
}

/// Any of the client's errors, for callers who do not tell them apart.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A request failed.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// A record was not delivered.
    #[error(transparent)]
    Produce(#[from] ProduceError),
    /// Reading met an obstacle.
    #[error(transparent)]
    Consume(#[from] ConsumeError),
}

impl Error {
    /// Whether trying again may help.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Request(error) => error.is_retriable(),
            Self::Produce(error) => error.is_retriable(),
            Self::Consume(error) => error.is_retriable(),
        }
    }

    /// The broker's error code, where there is one.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Request(error) => error.code(),
            Self::Produce(error) => error.code(),
            Self::Consume(error) => error.code(),
        }
    }
}
