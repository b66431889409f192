//! `OffsetCommit` and `OffsetFetch`: how far a group has read.

use crate::{
    error_code::ErrorCode,
    ids::{LeaderEpoch, Offset, PartitionIndex, TopicId, TopicPartition},
    wire_struct,
};

wire_struct! {
    /// How far one partition was read.
    pub struct OffsetCommitPartition {
        /// The topic.
        pub topic: TopicId,
        /// The partition.
        pub partition: PartitionIndex,
        /// The next record to read. -1 forgets what was committed.
        pub offset: Offset,
        /// Leader epoch of the last record read, or -1.
        pub leader_epoch: LeaderEpoch,
        /// Whatever the member wants to know again.
        pub metadata: String,
    }

    /// Commits offsets; durable when answered.
    pub struct OffsetCommitRequest {
        /// The group.
        pub group: String,
        /// The member, or empty for someone who is none: that is for groups without members only.
        pub member_id: String,
        /// The newest epoch that the member knows; -1 with an empty member.
        pub member_epoch: i64,
        /// The partitions; each once.
        pub partitions: Vec<OffsetCommitPartition>,
    }

    /// One answer.
    pub struct OffsetCommitResult {
        /// The topic.
        pub topic: TopicId,
        /// The partition.
        pub partition: PartitionIndex,
        /// `None`, or what is wrong.
        pub error: ErrorCode,
        /// A sentence when there is an error.
        pub message: String,
    }

    /// In the order of the request.
    pub struct OffsetCommitResponse {
        /// One for each partition.
        pub partitions: Vec<OffsetCommitResult>,
    }

    /// Asks for committed offsets. What was committed before, if not answered yet, is waited for.
    pub struct OffsetFetchRequest {
        /// The group.
        pub group: String,
        /// The partitions, or none for every one that has an offset.
        pub partitions: Option<Vec<TopicPartition>>,
    }

    /// One committed offset.
    pub struct CommittedOffset {
        /// The topic.
        pub topic: TopicId,
        /// The partition.
        pub partition: PartitionIndex,
        /// The next record to read; -1 if nothing was committed.
        pub offset: Offset,
        /// Leader epoch of the last record read, or -1.
        pub leader_epoch: LeaderEpoch,
        /// What came with it.
        pub metadata: String,
        /// When it was committed; -1 if it was not.
        pub commit_ms: i64,
    }

    /// In the order of the request.
    pub struct OffsetFetchResponse {
        /// `None`, or what is wrong.
        pub error: ErrorCode,
        /// A sentence when there is an error.
        pub message: String,
        /// One for each partition.
        pub partitions: Vec<CommittedOffset>,
    }
}
