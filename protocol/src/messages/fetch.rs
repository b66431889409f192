//! `Fetch`: record batches from partitions, with a long poll and truncation detection (KIP-320).

use crate::{
    error_code::ErrorCode,
    ids::{BrokerId, LeaderEpoch, Offset, PartitionIndex, ShardId, TopicId},
    wire_struct,
};

wire_struct! {
    /// One partition to read.
    pub struct FetchPartition {
        /// The topic.
        pub topic: TopicId,
        /// The partition.
        pub partition: PartitionIndex,
        /// The leader epoch the reader knows, or -1.
        pub leader_epoch: LeaderEpoch,
        /// First offset wanted. The batch that holds it is sent whole: skip what is before.
        pub fetch_offset: Offset,
        /// Leader epoch of the last batch read, or -1: lets the broker tell that it was cut away.
        pub last_fetched_epoch: LeaderEpoch,
        /// The most bytes of this partition, unless its first batch alone is larger.
        pub max_bytes: u32,
    }

    /// Reads. Waits until there are `min_bytes`, at most `max_wait_ms`.
    pub struct FetchRequest {
        /// Longest wait in milliseconds.
        pub max_wait_ms: u32,
        /// Fewest bytes worth an answer; 0 never waits.
        pub min_bytes: u32,
        /// The most bytes of the whole reply, unless the first batch alone is larger.
        pub max_bytes: u32,
        /// The partitions, served in this order.
        pub partitions: Vec<FetchPartition>,
    }

    /// The reader's log and the leader's part ways here.
    pub struct DivergingEpoch {
        /// Largest epoch of the leader not above the reader's.
        pub epoch: LeaderEpoch,
        /// Where that epoch ends in the leader's log: read on from here.
        pub end_offset: Offset,
    }

    /// What one partition gives.
    pub struct FetchPartitionResult {
        /// The topic.
        pub topic: TopicId,
        /// The partition.
        pub partition: PartitionIndex,
        /// `None`, or what is wrong.
        pub error: ErrorCode,
        /// A sentence when there is an error.
        pub message: String,
        /// Consumers see records below this offset.
        pub high_watermark: Offset,
        /// First offset the partition still has.
        pub log_start_offset: Offset,
        /// The epoch of the leader that answers.
        pub leader_epoch: LeaderEpoch,
        /// With `NotLeader`: who leads now.
        pub leader: BrokerId,
        /// The leader's shard.
        pub shard: ShardId,
        /// Set when the reader's last epoch was cut away.
        pub diverging: Option<DivergingEpoch>,
        /// Bytes of whole record batches in the records section.
        pub records_size: u32,
    }

    /// In the order of the request. The records section holds each partition's batches, in this
    /// order; their `partitionLeaderEpoch` and `baseOffset` are the broker's.
    pub struct FetchResponse {
        /// One for each partition.
        pub partitions: Vec<FetchPartitionResult>,
    }
}
