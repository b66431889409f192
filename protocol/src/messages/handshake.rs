//! `Handshake`: versions, features, authentication, the wanted shard. Version 0 is frozen for ever.

use crate::{
    error_code::ErrorCode,
    ids::{BrokerId, ClusterId, ShardId},
    wire_struct,
};

/// `wanted_shard` of a client that does not mind.
pub const ANY_SHARD: u32 = u32::MAX;

wire_struct! {
    /// The first request of every connection.
    pub struct HandshakeRequest {
        /// Name of the client's software.
        pub client_name: String,
        /// Its version.
        pub client_version: String,
        /// Features the client can use, as bits; none is defined yet.
        pub features: u64,
        /// The shard the connection shall live on, or [`ANY_SHARD`]. One that does not exist is
        /// answered by one that does.
        pub wanted_shard: u32,
        /// Replies must come in the order of the requests.
        pub ordered_replies: bool,
        /// The cluster the client expects, to catch a wrong address.
        pub cluster_id: Option<ClusterId>,
        /// Authentication mechanism; empty for none.
        pub auth_mechanism: String,
        /// What the mechanism says in this round.
        pub auth_data: Vec<u8>,
    }

    /// One API and the versions the broker knows of it.
    pub struct ApiVersions {
        /// Number of the API.
        pub api: u16,
        /// Oldest version.
        pub min: u16,
        /// Newest version.
        pub max: u16,
    }

    /// The answer: who the broker is and what it can do.
    pub struct HandshakeResponse {
        /// `None`, or why the connection is about to end.
        pub error: ErrorCode,
        /// A sentence when there is an error.
        pub message: String,
        /// Authentication goes on: send another handshake.
        pub auth_continues: bool,
        /// What the mechanism answers.
        pub auth_data: Vec<u8>,
        /// The cluster.
        pub cluster_id: ClusterId,
        /// The broker.
        pub broker_id: BrokerId,
        /// The shard that this connection lives on from now.
        pub shard: ShardId,
        /// How many shards the broker has.
        pub shard_count: u32,
        /// The broker's software version.
        pub broker_version: String,
        /// Feature level of the cluster.
        pub feature_level: u16,
        /// Largest frame the broker takes, in bytes.
        pub max_frame_size: u32,
        /// Every API with its versions.
        pub apis: Vec<ApiVersions>,
    }
}
