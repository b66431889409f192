//! Topics, settings and offsets.

use millstream_protocol::{
    Offset, PartitionIndex, TopicId,
    messages::{DescribeClusterResponse, PartitionStatus, TopicInfo},
};

use crate::{client::Client, error::RequestError};

/// Asks the cluster about topics and changes them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Admin {
    client: Client,
}

/// A topic to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTopic {
    name: String,
    partitions: u32,
    replication_factor: u16,
    configs: Vec<(String, String)>,
}

/// Which offset of each partition is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetSpec {
    /// The first there is (log start offset).
    Earliest,
    /// Behind the last that consumers may see (high watermark).
    Latest,
    /// The first record at or after a time in milliseconds since 1970; the high watermark if there
    /// is none.
    Timestamp(i64),
}

impl NewTopic {
    /// A topic with the broker's defaults.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            partitions: 0,
            replication_factor: 0,
            configs: Vec::new(),
        }
    }

    /// How many partitions; 0 for the broker's default.
    #[must_use]
    pub fn partitions(mut self, count: u32) -> Self {
        self.partitions = count;
        self
    }

    /// How many replicas; 0 for the broker's default.
    #[must_use]
    pub fn replication_factor(mut self, count: u16) -> Self {
        self.replication_factor = count;
        self
    }

    /// Sets a topic setting, such as `durability` or `retention.ms`.
    #[must_use]
    pub fn config(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.configs.push((name.into(), value.into()));
        self
    }
}

impl Admin {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Creates a topic; it is there, durably, when this returns.
    ///
    /// # Errors
    /// [`RequestError::Broker`] with `TopicExists`, `InvalidTopicName`, `InvalidConfig`, ...
    pub async fn create_topic(&self, topic: NewTopic) -> Result<TopicId, RequestError> {
        Ok(TopicId::default())
    }

    /// Deletes a topic with all that it holds.
    ///
    /// # Errors
    /// [`RequestError::UnknownTopic`] if there is none.
    pub async fn delete_topic(&self, name: &str) -> Result<(), RequestError> {
        Ok(())
    }

    /// Changes settings, all or none; no value restores the default.
    ///
    /// # Errors
    /// [`RequestError`] if the topic is unknown or a setting is refused.
    pub async fn alter_topic(
        &self,
        name: &str,
        configs: Vec<(String, Option<String>)>,
    ) -> Result<(), RequestError> {
        Ok(())
    }

    /// Raises the number of partitions to `total`.
    ///
    /// # Errors
    /// [`RequestError`] if the topic is unknown or has that many already.
    pub async fn create_partitions(&self, name: &str, total: u32) -> Result<(), RequestError> {
        Ok(())
    }

    /// Every topic, by name; internal ones too if wanted.
    ///
    /// # Errors
    /// [`RequestError`] if the broker can't be asked.
    pub async fn topics(&self, include_internal: bool) -> Result<Vec<TopicInfo>, RequestError> {
        Ok(Vec::new())
    }

    /// One topic, asked afresh.
    ///
    /// # Errors
    /// [`RequestError::UnknownTopic`] if there is none.
    pub async fn topic(&self, name: &str) -> Result<TopicInfo, RequestError> {
        Ok(TopicInfo::default())
    }

    /// Offsets, sizes and segments of each partition, in order.
    ///
    /// # Errors
    /// [`RequestError`] if the broker can't be asked; a partition's own trouble is in its status.
    pub async fn describe_partitions(
        &self,
        topic: &TopicInfo,
    ) -> Result<Vec<PartitionStatus>, RequestError> {
        Ok(Vec::new())
    }

    /// The brokers and how they fare.
    ///
    /// # Errors
    /// [`RequestError`] if the broker can't be asked.
    pub async fn describe_cluster(&self) -> Result<DescribeClusterResponse, RequestError> {
        Ok(DescribeClusterResponse::default())
    }

    /// An offset of each partition, in order; a time is refined to the record.
    ///
    /// # Errors
    /// [`RequestError`] if the topic is unknown or any partition can't answer.
    pub async fn list_offsets(
        &self,
        topic: &str,
        spec: OffsetSpec,
    ) -> Result<Vec<(PartitionIndex, Offset)>, RequestError> {
        Ok(Vec::new())
    }

    /// Deletes the records below an offset of each partition given (-1: below the high watermark).
    /// Returns the new log start offsets, durable.
    ///
    /// # Errors
    /// [`RequestError`] if the topic is unknown or any partition refuses.
    pub async fn delete_records(
        &self,
        topic: &str,
        before: Vec<(PartitionIndex, Offset)>,
    ) -> Result<Vec<(PartitionIndex, Offset)>, RequestError> {
        Ok(Vec::new())
    }
}
