//! `ListGroups`, `DescribeGroups`, `DeleteGroups`.

use crate::{error_code::ErrorCode, ids::TopicPartition, wire_struct};

wire_struct! {
    /// Asks for every group.
    pub struct ListGroupsRequest {
    }

    /// One group.
    pub struct ListedGroup {
        /// Its name.
        pub group: String,
        /// `empty`, `recovering`, `reconciling` or `stable`.
        pub state: String,
        /// How many members it has.
        pub member_count: u32,
    }

    /// In order of name.
    pub struct ListGroupsResponse {
        /// `None`, or why some groups are missing.
        pub error: ErrorCode,
        /// A sentence when there is an error.
        pub message: String,
        /// The groups.
        pub groups: Vec<ListedGroup>,
    }

    /// Asks for all of some groups.
    pub struct DescribeGroupsRequest {
        /// The groups.
        pub groups: Vec<String>,
    }

    /// One member of a group.
    pub struct GroupMember {
        /// Its name for this life.
        pub member_id: String,
        /// Its name for all its lives.
        pub instance_id: Option<String>,
        /// Name of its software.
        pub client_name: String,
        /// Where it connects from.
        pub host: String,
        /// Epoch of its newest assignment.
        pub member_epoch: i64,
        /// Topics by name.
        pub topics: Vec<String>,
        /// Topics by pattern.
        pub pattern: Option<String>,
        /// What it is to hold.
        pub assignment: Vec<TopicPartition>,
        /// What it is asked to let go.
        pub revoking: Vec<TopicPartition>,
        /// Since it was last heard of, in milliseconds.
        pub silent_ms: u64,
        /// Unheard of for so long, it is given up.
        pub session_timeout_ms: u32,
    }

    /// One group.
    pub struct GroupDescription {
        /// Its name.
        pub group: String,
        /// `None`, or what is wrong.
        pub error: ErrorCode,
        /// A sentence when there is an error.
        pub message: String,
        /// `empty`, `recovering`, `reconciling` or `stable`.
        pub state: String,
        /// The newest epoch of any of its assignments.
        pub epoch: i64,
        /// How partitions are handed out.
        pub assignor: String,
        /// Its members.
        pub members: Vec<GroupMember>,
    }

    /// In the order of the request.
    pub struct DescribeGroupsResponse {
        /// One for each group.
        pub groups: Vec<GroupDescription>,
    }

    /// Deletes groups without members, with their offsets.
    pub struct DeleteGroupsRequest {
        /// The groups.
        pub groups: Vec<String>,
    }

    /// One answer.
    pub struct DeleteGroupsResult {
        /// The group.
        pub group: String,
        /// `None`, or what is wrong.
        pub error: ErrorCode,
        /// A sentence when there is an error.
        pub message: String,
    }

    /// In the order of the request.
    pub struct DeleteGroupsResponse {
        /// One for each group.
        pub groups: Vec<DeleteGroupsResult>,
    }
}
