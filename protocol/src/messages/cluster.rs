//! `DescribeCluster`: the brokers and how they fare.

use crate::{
    ids::{BrokerId, ClusterId},
    wire_struct,
};

wire_struct! {
    /// Nothing to ask for yet.
    pub struct DescribeClusterRequest {}

    /// One broker's state.
    pub struct BrokerStatus {
        /// Its number.
        pub id: BrokerId,
        /// Its software version.
        pub version: String,
        /// How many shards it has.
        pub shard_count: u32,
        /// Milliseconds since it was ready.
        pub uptime_ms: u64,
        /// Client connections open now.
        pub connections: u32,
        /// Partitions it serves.
        pub partitions: u32,
        /// Partitions that are offline or read-only.
        pub partitions_failed: u32,
        /// Memory budget in bytes.
        pub memory_budget: u64,
        /// Bytes of that budget in use.
        pub memory_used: u64,
        /// Data directory.
        pub data_dir: String,
        /// Free bytes on its file system.
        pub disk_free: u64,
        /// Total bytes of its file system.
        pub disk_total: u64,
        /// Direct I/O is in use.
        pub direct_io: bool,
        /// Requests that reached the wrong shard and were forwarded, since the start.
        pub forwarded_requests: u64,
    }

    /// The cluster.
    pub struct DescribeClusterResponse {
        /// Its identity.
        pub cluster_id: ClusterId,
        /// The controller.
        pub controller: BrokerId,
        /// Feature level.
        pub feature_level: u16,
        /// Index of the last metadata entry.
        pub metadata_index: u64,
        /// Every broker.
        pub brokers: Vec<BrokerStatus>,
    }
}
