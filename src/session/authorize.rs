//! Who may do what: every API declares an operation on a resource, and one function decides.

use millstream_protocol::messages::Api;

/// Who a session speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// Nobody in particular: the listener asks for no authentication.
    Anonymous,
}

/// What is done to a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Learn that it exists and how it fares.
    Describe,
    /// Make a new one.
    Create,
    /// Change its settings.
    Alter,
    /// Remove it, or some of its records.
    Delete,
    /// Append to it.
    Write,
    /// Read from it.
    Read,
}

/// What something is done to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// The cluster as a whole.
    Cluster,
    /// Topics, those that the request names.
    Topic,
    /// Consumer groups, those that the request names.
    Group,
}

/// What an API does to what. `None` for what every session may do.
#[must_use]
pub fn required(api: Api) -> Option<(Operation, Resource)> {
    match api {
        Api::Handshake => None,
        Api::Metadata | Api::ListOffsets | Api::DescribePartitions | Api::DescribeDelayed => {
            Some((Operation::Describe, Resource::Topic))
        }
        Api::CreateTopics => Some((Operation::Create, Resource::Topic)),
        Api::DeleteTopics | Api::DeleteRecords => Some((Operation::Delete, Resource::Topic)),
        Api::AlterTopic | Api::CreatePartitions => Some((Operation::Alter, Resource::Topic)),
        Api::Produce | Api::ProduceDelayed | Api::CancelDelayed => {
            Some((Operation::Write, Resource::Topic))
        }
        Api::Fetch | Api::ListDelayed => Some((Operation::Read, Resource::Topic)),
        Api::InitProducerId => Some((Operation::Write, Resource::Cluster)),
        Api::GroupHeartbeat | Api::OffsetCommit => Some((Operation::Read, Resource::Group)),
        Api::OffsetFetch | Api::ListGroups | Api::DescribeGroups => {
            Some((Operation::Describe, Resource::Group))
        }
        Api::DeleteGroups => Some((Operation::Delete, Resource::Group)),
        Api::DescribeCluster => Some((Operation::Describe, Resource::Cluster)),
    }
}

/// Whether `principal` may do it. Allows all until there is authentication; every request passes
/// through here already.
#[must_use]
pub fn authorize(principal: &Principal, operation: Operation, resource: Resource) -> bool {
    match (principal, operation, resource) {
        (Principal::Anonymous, _, _) => true,
    }
}
