//! `ListOffsets` and `DeleteRecords`.

use crate::{
    error_code::ErrorCode,
    ids::{LeaderEpoch, Offset, PartitionIndex, TopicId},
    wire_struct,
};

/// Asks for the high watermark.
pub const LATEST_TIMESTAMP: i64 = -1;
/// Asks for the log start offset.
pub const EARLIEST_TIMESTAMP: i64 = -2;

wire_struct! {
    /// One partition and what is wanted of it.
    pub struct ListOffsetsPartition {
        /// The topic.
        pub topic: TopicId,
        /// The partition.
        pub partition: PartitionIndex,
        /// Milliseconds since 1970, [`LATEST_TIMESTAMP`] or [`EARLIEST_TIMESTAMP`].
        pub timestamp_ms: i64,
    }

    /// Looks offsets up.
    pub struct ListOffsetsRequest {
        /// The partitions.
        pub partitions: Vec<ListOffsetsPartition>,
    }

    /// One answer.
    pub struct ListOffsetsResult {
        /// The topic.
        pub topic: TopicId,
        /// The partition.
        pub partition: PartitionIndex,
        /// `None`, or what is wrong.
        pub error: ErrorCode,
        /// A sentence when there is an error.
        pub message: String,
        /// For a time: base offset of the first batch whose largest timestamp is at or after it
        /// (the client finds the record within), or the high watermark when there is none.
        pub offset: Offset,
        /// Largest timestamp of that batch, or -1.
        pub timestamp_ms: i64,
        /// Leader epoch of the answer.
        pub leader_epoch: LeaderEpoch,
    }

    /// In the order of the request.
    pub struct ListOffsetsResponse {
        /// One for each partition.
        pub partitions: Vec<ListOffsetsResult>,
    }

    /// One partition and where it shall begin.
    pub struct DeleteRecordsPartition {
        /// The topic.
        pub topic: TopicId,
        /// The partition.
        pub partition: PartitionIndex,
        /// Records below go; -1 means the high watermark.
        pub before_offset: Offset,
    }

    /// Raises log start offsets; durable when answered.
    pub struct DeleteRecordsRequest {
        /// The partitions.
        pub partitions: Vec<DeleteRecordsPartition>,
    }

    /// One answer.
    pub struct DeleteRecordsResult {
        /// The topic.
        pub topic: TopicId,
        /// The partition.
        pub partition: PartitionIndex,
        /// `None`, or what is wrong.
        pub error: ErrorCode,
        /// A sentence when there is an error.
        pub message: String,
        /// The log start offset now.
        pub log_start_offset: Offset,
    }

    /// In the order of the request.
    pub struct DeleteRecordsResponse {
        /// One for each partition.
        pub partitions: Vec<DeleteRecordsResult>,
    }
}
