//! `Produce`: record batches for partitions. Applied to each partition in order of arrival.

use crate::{
    error_code::ErrorCode,
    ids::{BrokerId, LeaderEpoch, Offset, PartitionIndex, ShardId, TopicId},
    wire_struct,
};

wire_struct! {
    /// Where the next `records_size` bytes of the records section go.
    pub struct ProducePartition {
        /// The topic.
        pub topic: TopicId,
        /// The partition.
        pub partition: PartitionIndex,
        /// The leader epoch the producer knows, or -1.
        pub leader_epoch: LeaderEpoch,
        /// Bytes of whole record batches, one or more.
        pub records_size: u32,
    }

    /// Appends. The records section holds each partition's batches, in this order.
    pub struct ProduceRequest {
        /// Milliseconds after which the client gives up; the broker may drop what it has not begun.
        pub timeout_ms: u32,
        /// One for each partition; a partition may appear once.
        pub partitions: Vec<ProducePartition>,
    }

    /// What became of one partition's batches: all appended and durable as the topic promises, or
    /// none.
    pub struct ProducePartitionResult {
        /// The topic.
        pub topic: TopicId,
        /// The partition.
        pub partition: PartitionIndex,
        /// `None`, or what is wrong.
        pub error: ErrorCode,
        /// A sentence when there is an error.
        pub message: String,
        /// Offset of the first record.
        pub base_offset: Offset,
        /// Time of the append in milliseconds since 1970 for log-append-time topics, else -1.
        pub append_time_ms: i64,
        /// First offset the partition still has.
        pub log_start_offset: Offset,
        /// With `NotLeader`: who leads now.
        pub leader: BrokerId,
        /// The leader's epoch.
        pub leader_epoch: LeaderEpoch,
        /// The leader's shard.
        pub shard: ShardId,
    }

    /// In the order of the request.
    pub struct ProduceResponse {
        /// One for each partition.
        pub partitions: Vec<ProducePartitionResult>,
    }
}
