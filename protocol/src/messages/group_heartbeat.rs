//! `GroupHeartbeat`: a member joins, tells that it lives and what it has taken on, and leaves; the
//! broker answers with its assignment. As KIP-848, with an answer that waits for news.

use crate::{
    error_code::ErrorCode,
    ids::{PartitionIndex, TopicId, TopicPartition},
    wire_struct,
};

/// `member_epoch` of a member that joins.
pub const JOIN_EPOCH: i64 = 0;
/// `member_epoch` of a member that leaves.
pub const LEAVE_EPOCH: i64 = -1;
/// `member_epoch` of a commit by someone who is no member.
pub const NO_EPOCH: i64 = -1;

wire_struct! {
    /// All that a member wants and has.
    pub struct MemberState {
        /// A name that survives the member's restarts: who comes with it takes over from who had it.
        pub instance_id: Option<String>,
        /// Topics by name. Those that do not exist yet are taken once they do.
        pub topics: Vec<String>,
        /// A regular expression; every topic whose whole name it matches is wanted too.
        pub pattern: Option<String>,
        /// `range`, `uniform` or `sticky`; empty for the default, `sticky`. The group uses what most members say.
        pub assignor: String,
        /// Unheard of for so long, the member is given up.
        pub session_timeout_ms: u32,
        /// It has so long to let go of partitions that are taken from it, or is given up.
        pub rebalance_timeout_ms: u32,
        /// What it holds now. It keeps that if the coordinator started anew.
        pub owned: Vec<TopicPartition>,
    }

    /// A member's sign of life.
    pub struct GroupHeartbeatRequest {
        /// The group.
        pub group: String,
        /// One life of one member: chosen by it, unique, used for nothing else. A UUID will do.
        pub member_id: String,
        /// Epoch of the newest assignment that the member has taken on wholly: it holds what is in it and
        /// has let go of the rest. 0 joins, -1 leaves.
        pub member_epoch: i64,
        /// How long the answer may wait for news, in milliseconds. It comes within half a session timeout.
        pub max_wait_ms: u32,
        /// When the member joins, when anything of it changes, and after every failure; else none.
        pub state: Option<MemberState>,
    }

    /// One partition of an assignment.
    pub struct AssignedPartition {
        /// Its number.
        pub partition: PartitionIndex,
        /// It is younger than the group: with no committed offset it is to be read from its beginning.
        pub is_new: bool,
    }

    /// The partitions of one topic.
    pub struct AssignedTopic {
        /// The topic.
        pub topic: TopicId,
        /// Its name.
        pub name: String,
        /// The partitions.
        pub partitions: Vec<AssignedPartition>,
    }

    /// What the member is to hold.
    pub struct GroupHeartbeatResponse {
        /// `None`, or what is wrong.
        pub error: ErrorCode,
        /// A sentence when there is an error.
        pub message: String,
        /// Epoch of the member's newest assignment; -1 once it has left.
        pub member_epoch: i64,
        /// That assignment, unless the request named its epoch.
        pub assignment: Option<Vec<AssignedTopic>>,
    }
}
