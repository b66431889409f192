//! `DescribePartitions`: offsets, sizes and segments.

use crate::{
    error_code::ErrorCode,
    ids::{LeaderEpoch, Offset, PartitionIndex, ShardId, TopicId, TopicPartition},
    wire_struct,
};

wire_struct! {
    /// Asks about some partitions.
    pub struct DescribePartitionsRequest {
        /// The partitions.
        pub partitions: Vec<TopicPartition>,
    }

    /// One partition.
    pub struct PartitionStatus {
        /// The topic.
        pub topic: TopicId,
        /// The partition.
        pub partition: PartitionIndex,
        /// `None`, or what is wrong with it.
        pub error: ErrorCode,
        /// A sentence when there is an error.
        pub message: String,
        /// The shard that owns it.
        pub shard: ShardId,
        /// Epoch of its leader.
        pub leader_epoch: LeaderEpoch,
        /// First offset it still has.
        pub log_start_offset: Offset,
        /// Consumers see records below this offset.
        pub high_watermark: Offset,
        /// Offset of the next record.
        pub log_end_offset: Offset,
        /// Bytes of record batches.
        pub logical_bytes: u64,
        /// Bytes of disk that its files take, preallocation included.
        pub physical_bytes: u64,
        /// How many segments.
        pub segments: u32,
        /// Append time of its oldest record in milliseconds since 1970, or -1.
        pub oldest_append_ms: i64,
        /// Bytes of closed segments that compaction has been through.
        pub clean_bytes: u64,
        /// Bytes of closed segments that it has not been through.
        pub dirty_bytes: u64,
    }

    /// In the order of the request.
    pub struct DescribePartitionsResponse {
        /// One for each partition.
        pub partitions: Vec<PartitionStatus>,
    }
}
