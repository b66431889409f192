//! `Metadata`: brokers, topics, partitions, who leads each and on which shard.

use crate::{
    error_code::ErrorCode,
    ids::{BrokerId, ClusterId, LeaderEpoch, PartitionIndex, ShardId, TopicId},
    wire_struct,
};

wire_struct! {
    /// Asks for some topics by name, or all.
    pub struct MetadataRequest {
        /// Names, or none for every topic.
        pub topics: Option<Vec<String>>,
        /// Include internal topics when all are asked for.
        pub include_internal: bool,
    }

    /// A broker's address.
    pub struct BrokerInfo {
        /// Its number.
        pub id: BrokerId,
        /// Advertised host. Empty: the address the client connected to (port forwards, containers).
        pub host: String,
        /// Advertised port; 0 with an empty host.
        pub port: u16,
        /// Rack, or empty.
        pub rack: String,
        /// How many shards it has.
        pub shard_count: u32,
    }

    /// One partition and who serves it.
    pub struct PartitionInfo {
        /// Its number.
        pub partition: PartitionIndex,
        /// `None`, or why it has no leader now.
        pub error: ErrorCode,
        /// The leader.
        pub leader: BrokerId,
        /// The leader's epoch.
        pub leader_epoch: LeaderEpoch,
        /// The leader's shard that owns it.
        pub shard: ShardId,
        /// Every replica.
        pub replicas: Vec<BrokerId>,
        /// The replicas in sync.
        pub isr: Vec<BrokerId>,
    }

    /// One setting of a topic.
    pub struct ConfigEntry {
        /// Name, such as `retention.ms`.
        pub name: String,
        /// Value as text.
        pub value: String,
        /// Set on the topic; otherwise the default shows.
        pub is_set: bool,
    }

    /// One topic.
    pub struct TopicInfo {
        /// `None`, or `UnknownTopic`.
        pub error: ErrorCode,
        /// Its name.
        pub name: String,
        /// Its identity.
        pub id: TopicId,
        /// Its settings, defaults included.
        pub configs: Vec<ConfigEntry>,
        /// Its partitions in order of number.
        pub partitions: Vec<PartitionInfo>,
    }

    /// What the broker knows.
    pub struct MetadataResponse {
        /// Index of the last metadata entry this is made from; only grows.
        pub metadata_index: u64,
        /// The cluster.
        pub cluster_id: ClusterId,
        /// The controller.
        pub controller: BrokerId,
        /// Every broker.
        pub brokers: Vec<BrokerInfo>,
        /// The topics asked for.
        pub topics: Vec<TopicInfo>,
    }
}
