//! From a frame's body to a typed request, with the limits that do not depend on the broker's state.

use millstream_protocol::{
    DecodeError, Wire,
    limits::{
        MAX_GROUPS_PER_REQUEST, MAX_OWNED_PARTITIONS, MAX_PARTITIONS_PER_REQUEST,
        MAX_SUBSCRIBED_TOPICS, MAX_TOPICS_PER_REQUEST,
    },
    messages::{
        AlterTopicRequest, Api, CancelDelayedRequest, CreatePartitionsRequest, CreateTopicsRequest,
        DeleteGroupsRequest, DeleteRecordsRequest, DeleteTopicsRequest, DescribeClusterRequest,
        DescribeDelayedRequest, DescribeGroupsRequest, DescribePartitionsRequest, FetchRequest,
        GroupHeartbeatRequest, InitProducerIdRequest, ListDelayedRequest, ListGroupsRequest,
        ListOffsetsRequest, MetadataRequest, OffsetCommitRequest, OffsetFetchRequest,
        ProduceRequest, decode_body,
    },
};

/// A request after the handshake.
#[derive(Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is its message")]
pub enum Request {
    Metadata(MetadataRequest),
    CreateTopics(CreateTopicsRequest),
    DeleteTopics(DeleteTopicsRequest),
    AlterTopic(AlterTopicRequest),
    CreatePartitions(CreatePartitionsRequest),
    Produce(ProduceRequest),
    Fetch(FetchRequest),
    ListOffsets(ListOffsetsRequest),
    DeleteRecords(DeleteRecordsRequest),
    InitProducerId(InitProducerIdRequest),
    DescribeCluster(DescribeClusterRequest),
    DescribePartitions(DescribePartitionsRequest),
    /// Boxed: every connection has room for a request.
    GroupHeartbeat(Box<GroupHeartbeatRequest>),
    OffsetCommit(Box<OffsetCommitRequest>),
    OffsetFetch(OffsetFetchRequest),
    ListGroups(ListGroupsRequest),
    DescribeGroups(DescribeGroupsRequest),
    DeleteGroups(DeleteGroupsRequest),
    /// The layouts of `Produce` and `ProduceDelayed` are one.
    ProduceDelayed(ProduceRequest),
    ListDelayed(ListDelayedRequest),
    CancelDelayed(CancelDelayedRequest),
    DescribeDelayed(DescribeDelayedRequest),
}

const TOO_MANY_PARTITIONS: DecodeError =
    DecodeError::OutOfRange("more partitions than one request may name");
const TOO_MANY_TOPICS: DecodeError =
    DecodeError::OutOfRange("more topics than one request may name");

impl Request {
    /// Decodes the body of a request; `records_size` is the size of the records section.
    ///
    /// # Errors
    /// The bytes are no such request, name too many things, or come with records they should not.
    pub fn decode(api: Api, body: &[u8], records_size: usize) -> Result<Self, DecodeError> {
        if !matches!(api, Api::Produce | Api::ProduceDelayed) && records_size > 0 {
            return Err(DecodeError::OutOfRange("this API takes no record batches"));
        }
        Ok(match api {
            Api::Handshake => return Err(DecodeError::OutOfRange("a handshake is no request")),
            Api::Metadata => {
                let request: MetadataRequest = decode_body(body)?;
                bound(
                    request.topics.as_ref().map_or(0, Vec::len),
                    MAX_TOPICS_PER_REQUEST,
                )?;
                Self::Metadata(request)
            }
            Api::CreateTopics => {
                Self::CreateTopics(topics(body, |r: &CreateTopicsRequest| r.topics.len())?)
            }
            Api::DeleteTopics => {
                Self::DeleteTopics(topics(body, |r: &DeleteTopicsRequest| r.names.len())?)
            }
            Api::AlterTopic => {
                Self::AlterTopic(topics(body, |r: &AlterTopicRequest| r.configs.len())?)
            }
            Api::CreatePartitions => Self::CreatePartitions(decode_body(body)?),
            Api::Produce => Self::Produce(produce(body, records_size)?),
            Api::Fetch => Self::Fetch(partitions(body, |r: &FetchRequest| r.partitions.len())?),
            Api::ListOffsets => Self::ListOffsets(partitions(body, |r: &ListOffsetsRequest| {
                r.partitions.len()
            })?),
            Api::DeleteRecords => {
                Self::DeleteRecords(partitions(body, |r: &DeleteRecordsRequest| {
                    r.partitions.len()
                })?)
            }
            Api::InitProducerId => Self::InitProducerId(decode_body(body)?),
            Api::DescribeCluster => Self::DescribeCluster(decode_body(body)?),
            Api::DescribePartitions => {
                Self::DescribePartitions(partitions(body, |r: &DescribePartitionsRequest| {
                    r.partitions.len()
                })?)
            }
            Api::GroupHeartbeat => Self::GroupHeartbeat(Box::new(heartbeat(body)?)),
            Api::OffsetCommit => {
                Self::OffsetCommit(Box::new(partitions(body, |r: &OffsetCommitRequest| {
                    r.partitions.len()
                })?))
            }
            Api::OffsetFetch => Self::OffsetFetch(partitions(body, |r: &OffsetFetchRequest| {
                r.partitions.as_ref().map_or(0, Vec::len)
            })?),
            Api::ListGroups => Self::ListGroups(decode_body(body)?),
            Api::DescribeGroups => {
                let request: DescribeGroupsRequest = decode_body(body)?;
                few_groups(&request.groups)?;
                Self::DescribeGroups(request)
            }
            Api::DeleteGroups => {
                let request: DeleteGroupsRequest = decode_body(body)?;
                few_groups(&request.groups)?;
                Self::DeleteGroups(request)
            }
            Api::ProduceDelayed => Self::ProduceDelayed(produce(body, records_size)?),
            Api::ListDelayed => Self::ListDelayed(partitions(body, |r: &ListDelayedRequest| {
                r.partitions.len()
            })?),
            Api::CancelDelayed => {
                Self::CancelDelayed(partitions(body, |r: &CancelDelayedRequest| {
                    r.records.len()
                })?)
            }
            Api::DescribeDelayed => {
                Self::DescribeDelayed(partitions(body, |r: &DescribeDelayedRequest| {
                    r.partitions.len()
                })?)
            }
        })
    }
}

fn heartbeat(body: &[u8]) -> Result<GroupHeartbeatRequest, DecodeError> {
    let request: GroupHeartbeatRequest = decode_body(body)?;
    if let Some(state) = &request.state {
        if state.topics.len() > MAX_SUBSCRIBED_TOPICS {
            return Err(TOO_MANY_TOPICS);
        }
        if state.owned.len() > MAX_OWNED_PARTITIONS {
            return Err(TOO_MANY_PARTITIONS);
        }
    }
    Ok(request)
}

fn few_groups(groups: &[String]) -> Result<(), DecodeError> {
    match groups.len() {
        ..=MAX_GROUPS_PER_REQUEST => Ok(()),
        _ => Err(DecodeError::OutOfRange(
            "more groups than one request may name",
        )),
    }
}

fn bound(count: usize, limit: usize) -> Result<(), DecodeError> {
    if count > limit {
        Err(TOO_MANY_TOPICS)
    } else {
        Ok(())
    }
}

fn topics<M: Wire>(body: &[u8], count: impl Fn(&M) -> usize) -> Result<M, DecodeError> {
    let request = decode_body(body)?;
    bound(count(&request), MAX_TOPICS_PER_REQUEST)?;
    Ok(request)
}

fn partitions<M: Wire>(body: &[u8], count: impl Fn(&M) -> usize) -> Result<M, DecodeError> {
    let request = decode_body(body)?;
    if count(&request) > MAX_PARTITIONS_PER_REQUEST {
        return Err(TOO_MANY_PARTITIONS);
    }
    Ok(request)
}

/// The sizes in the body must cover the records section exactly: nothing is left over or shared.
fn produce(body: &[u8], records_size: usize) -> Result<ProduceRequest, DecodeError> {
    let request: ProduceRequest = partitions(body, |r: &ProduceRequest| r.partitions.len())?;
    let claimed: u64 = request
        .partitions
        .iter()
        .map(|p| u64::from(p.records_size))
        .sum();
    if claimed != records_size as u64 {
        return Err(DecodeError::OutOfRange(
            "partition sizes do not add up to the records section",
        ));
    }
    Ok(request)
}
