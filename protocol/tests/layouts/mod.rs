//! Every struct of the wire, and how to take their types apart.

use millstream_protocol::{
    messages::*,
    schema::{Described, Layout},
};

fn of<T: Described>() -> Layout {
    Layout::of::<T>()
}

/// Every layout: requests, replies and what is inside them.
pub fn all() -> Vec<Layout> {
    let mut layouts = vec![
        of::<ErrorReply>(),
        of::<ApiVersions>(),
        of::<BrokerInfo>(),
        of::<TopicInfo>(),
        of::<ConfigEntry>(),
        of::<PartitionInfo>(),
        of::<NewTopic>(),
        of::<TopicResult>(),
        of::<ProducePartition>(),
        of::<ProducePartitionResult>(),
        of::<FetchPartition>(),
        of::<FetchPartitionResult>(),
        of::<DivergingEpoch>(),
        of::<ListOffsetsPartition>(),
        of::<ListOffsetsResult>(),
        of::<DeleteRecordsPartition>(),
        of::<DeleteRecordsResult>(),
        of::<BrokerStatus>(),
        of::<PartitionStatus>(),
        of::<MemberState>(),
        of::<AssignedPartition>(),
        of::<AssignedTopic>(),
        of::<OffsetCommitPartition>(),
        of::<OffsetCommitResult>(),
        of::<CommittedOffset>(),
        of::<ListedGroup>(),
        of::<GroupMember>(),
        of::<GroupDescription>(),
        of::<DeleteGroupsResult>(),
        of::<ListDelayedPartition>(),
        of::<ListDelayedResult>(),
        of::<DelayedRecord>(),
        of::<CancelDelayed>(),
        of::<CancelDelayedResult>(),
        of::<DelayedStatus>(),
    ];
    for api in Api::ALL {
        let (request, response) = api.layouts();
        layouts.extend([request, response]);
    }
    layouts
}

/// A type as Rust has it, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub enum Shape<'a> {
    /// `Vec<T>`.
    Array(&'a str),
    /// `Option<T>`.
    Optional(&'a str),
    /// `(A, B)`.
    Pair(&'a str, &'a str),
    /// Anything else, by name.
    Named(&'a str),
}

/// Takes the outermost layer of a type off.
pub fn shape(type_name: &str) -> Shape<'_> {
    let inner = |prefix: &str| type_name.strip_prefix(prefix)?.strip_suffix('>');
    if let Some(element) = inner("Vec<") {
        Shape::Array(element)
    } else if let Some(value) = inner("Option<") {
        Shape::Optional(value)
    } else if let Some(pair) = type_name
        .strip_prefix('(')
        .and_then(|t| t.strip_suffix(')'))
    {
        // No pair has a pair in front.
        let (first, second) = pair.split_once(", ").expect("a pair has two");
        Shape::Pair(first, second)
    } else {
        Shape::Named(type_name)
    }
}
