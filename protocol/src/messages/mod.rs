//! The messages, one file per request. A body is its fields in order, then tagged extensions.

mod cluster;
mod delay;
mod error_reply;
mod fetch;
mod group_heartbeat;
mod group_offsets;
mod groups;
mod handshake;
mod metadata;
mod offsets;
mod partitions;
mod produce;
mod producer_id;
mod topics;

pub use cluster::{BrokerStatus, DescribeClusterRequest, DescribeClusterResponse};
pub use delay::{
    CancelDelayed, CancelDelayedRequest, CancelDelayedResponse, CancelDelayedResult, CancelOutcome,
    DelayedRecord, DelayedStatus, DescribeDelayedRequest, DescribeDelayedResponse,
    ListDelayedPartition, ListDelayedRequest, ListDelayedResponse, ListDelayedResult,
    ProduceDelayedRequest, ProduceDelayedResponse,
};
pub use error_reply::ErrorReply;
pub use fetch::{
    DivergingEpoch, FetchPartition, FetchPartitionResult, FetchRequest, FetchResponse,
};
pub use group_heartbeat::{
    AssignedPartition, AssignedTopic, GroupHeartbeatRequest, GroupHeartbeatResponse, JOIN_EPOCH,
    LEAVE_EPOCH, MemberState, NO_EPOCH,
};
pub use group_offsets::{
    CommittedOffset, OffsetCommitPartition, OffsetCommitRequest, OffsetCommitResponse,
    OffsetCommitResult, OffsetFetchRequest, OffsetFetchResponse,
};
pub use groups::{
    DeleteGroupsRequest, DeleteGroupsResponse, DeleteGroupsResult, DescribeGroupsRequest,
    DescribeGroupsResponse, GroupDescription, GroupMember, ListGroupsRequest, ListGroupsResponse,
    ListedGroup,
};
pub use handshake::{ANY_SHARD, ApiVersions, HandshakeRequest, HandshakeResponse};
pub use metadata::{
    BrokerInfo, ConfigEntry, MetadataRequest, MetadataResponse, PartitionInfo, TopicInfo,
};
pub use offsets::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsResponse, DeleteRecordsResult,
    EARLIEST_TIMESTAMP, LATEST_TIMESTAMP, ListOffsetsPartition, ListOffsetsRequest,
    ListOffsetsResponse, ListOffsetsResult,
};
pub use partitions::{DescribePartitionsRequest, DescribePartitionsResponse, PartitionStatus};
pub use produce::{ProducePartition, ProducePartitionResult, ProduceRequest, ProduceResponse};
pub use producer_id::{InitProducerIdRequest, InitProducerIdResponse};
pub use topics::{
    AlterTopicRequest, AlterTopicResponse, CreatePartitionsRequest, CreatePartitionsResponse,
    CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse, NewTopic,
    TopicResult,
};

use std::fmt;

use crate::{
    codec::{DecodeError, Reader, Wire, encode_no_extensions, skip_extensions},
    schema::{Entry, Layout},
};

/// A request: knows its API, its reply and the versions of its layout.
pub trait Request: Wire {
    /// The API it asks.
    const API: Api;
    /// What answers it.
    type Response: Wire;
}

/// Encodes a whole body: the fields, then no extensions.
#[must_use]
pub fn encode_body<M: Wire>(message: &M) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    message.encode(&mut out);
    encode_no_extensions(&mut out);
    out
}

/// Decodes a whole body, skips extensions, refuses trailing bytes.
///
/// # Errors
/// [`DecodeError`] if the bytes are no such message.
pub fn decode_body<M: Wire>(body: &[u8]) -> Result<M, DecodeError> {
    let mut reader = Reader::new(body);
    let message = M::decode(&mut reader)?;
    skip_extensions(&mut reader)?;
    reader.finish()?;
    Ok(message)
}

macro_rules! apis {
    ($($(#[doc = $doc:literal])* $name:ident = $number:literal, $request:ty => $response:ty, $max:literal;)*) => {
        /// What can be asked of a broker. Numbers are append-only.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum Api {
            $($(#[doc = $doc])* $name = $number,)*
        }

        impl Api {
            /// Every API.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// Name, number and meaning of every API.
            pub const ENTRIES: &'static [Entry] = &[$(Entry {
                name: stringify!($name),
                number: $number,
                doc: &[$($doc),*],
            }),*];

            /// Its name, as the documentation has it.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            /// Layouts of the newest version's request and response.
            #[must_use]
            pub fn layouts(self) -> (Layout, Layout) {
                match self {
                    $(Self::$name => (Layout::of::<$request>(), Layout::of::<$response>()),)*
                }
            }

            /// The API of a number.
            #[must_use]
            pub fn from_number(number: u16) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The newest version this build knows; 0 is always known.
            #[must_use]
            pub fn max_version(self) -> u16 {
                match self {
                    $(Self::$name => $max,)*
                }
            }
        }

        $(impl Request for $request {
            const API: Api = Api::$name;
            type Response = $response;
        })*
    };
}

impl fmt::Display for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

apis! {
    /// First on every connection.
    Handshake = 0, HandshakeRequest => HandshakeResponse, 0;
    /// Brokers, topics, partitions and who leads them.
    Metadata = 1, MetadataRequest => MetadataResponse, 0;
    /// New topics.
    CreateTopics = 2, CreateTopicsRequest => CreateTopicsResponse, 0;
    /// Topics away, with all they hold.
    DeleteTopics = 3, DeleteTopicsRequest => DeleteTopicsResponse, 0;
    /// Change a topic's settings.
    AlterTopic = 4, AlterTopicRequest => AlterTopicResponse, 0;
    /// Give a topic more partitions.
    CreatePartitions = 5, CreatePartitionsRequest => CreatePartitionsResponse, 0;
    /// Append record batches.
    Produce = 6, ProduceRequest => ProduceResponse, 0;
    /// Read record batches.
    Fetch = 7, FetchRequest => FetchResponse, 0;
    /// Offsets by time, first and last.
    ListOffsets = 9, ListOffsetsRequest => ListOffsetsResponse, 0;
    /// Raise the log start offset.
    DeleteRecords = 10, DeleteRecordsRequest => DeleteRecordsResponse, 0;
    /// An identity for an idempotent producer.
    InitProducerId = 11, InitProducerIdRequest => InitProducerIdResponse, 0;
    /// The brokers and how they fare.
    DescribeCluster = 16, DescribeClusterRequest => DescribeClusterResponse, 0;
    /// Offsets, sizes and segments of partitions.
    DescribePartitions = 18, DescribePartitionsRequest => DescribePartitionsResponse, 0;
    /// Join a group, live in it, leave it.
    GroupHeartbeat = 19, GroupHeartbeatRequest => GroupHeartbeatResponse, 0;
    /// Commit how far a group has read.
    OffsetCommit = 20, OffsetCommitRequest => OffsetCommitResponse, 0;
    /// How far a group has read.
    OffsetFetch = 21, OffsetFetchRequest => OffsetFetchResponse, 0;
    /// Every group.
    ListGroups = 22, ListGroupsRequest => ListGroupsResponse, 0;
    /// Groups with their members.
    DescribeGroups = 23, DescribeGroupsRequest => DescribeGroupsResponse, 0;
    /// Groups away, with their offsets.
    DeleteGroups = 24, DeleteGroupsRequest => DeleteGroupsResponse, 0;
    /// Accept record batches whose records are delivered later.
    ProduceDelayed = 28, ProduceDelayedRequest => ProduceDelayedResponse, 0;
    /// Delayed records that wait, in order of due time.
    ListDelayed = 29, ListDelayedRequest => ListDelayedResponse, 0;
    /// Take delayed records back.
    CancelDelayed = 30, CancelDelayedRequest => CancelDelayedResponse, 0;
    /// How many delayed records wait.
    DescribeDelayed = 31, DescribeDelayedRequest => DescribeDelayedResponse, 0;
}
