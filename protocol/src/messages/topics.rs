//! `CreateTopics`, `DeleteTopics`, `AlterTopic`, `CreatePartitions`.

use crate::{error_code::ErrorCode, ids::TopicId, wire_struct};

wire_struct! {
    /// A topic to create.
    pub struct NewTopic {
        /// Its name.
        pub name: String,
        /// How many partitions; 0 for the default.
        pub partitions: u32,
        /// How many replicas; 0 for the default.
        pub replication_factor: u16,
        /// Settings, as (name, value).
        pub configs: Vec<(String, String)>,
    }

    /// Creates topics, each on its own: one may fail while others succeed.
    pub struct CreateTopicsRequest {
        /// The topics.
        pub topics: Vec<NewTopic>,
        /// Check only.
        pub validate_only: bool,
    }

    /// What became of one topic.
    pub struct TopicResult {
        /// Its name.
        pub name: String,
        /// Its identity, where it exists.
        pub id: TopicId,
        /// `None`, or what is wrong.
        pub error: ErrorCode,
        /// A sentence when there is an error.
        pub message: String,
    }

    /// In the order of the request.
    pub struct CreateTopicsResponse {
        /// One for each topic.
        pub topics: Vec<TopicResult>,
    }

    /// Deletes topics by name.
    pub struct DeleteTopicsRequest {
        /// The names.
        pub names: Vec<String>,
    }

    /// In the order of the request.
    pub struct DeleteTopicsResponse {
        /// One for each name.
        pub topics: Vec<TopicResult>,
    }

    /// Changes settings of one topic, all or none of them.
    pub struct AlterTopicRequest {
        /// The topic.
        pub name: String,
        /// (setting, new value); no value restores the default.
        pub configs: Vec<(String, Option<String>)>,
        /// Change them even where that leaves records behind that the new settings would refuse:
        /// `cleanup.policy=compact` on a topic that holds records without a key.
        pub force: bool,
    }

    /// What became of it.
    pub struct AlterTopicResponse {
        /// The outcome.
        pub topic: TopicResult,
    }

    /// Raises the number of partitions of one topic.
    pub struct CreatePartitionsRequest {
        /// The topic.
        pub name: String,
        /// The new total.
        pub total: u32,
    }

    /// What became of it.
    pub struct CreatePartitionsResponse {
        /// The outcome.
        pub topic: TopicResult,
    }
}
