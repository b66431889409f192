//! Topics, settings and offsets.

mod delayed;
mod groups;

use std::sync::Arc;

pub use delayed::{DelayRef, DelayedRecord};

use bytes::Bytes;
use millstream_protocol::{
    ErrorCode, Offset, PartitionIndex, TopicId, TopicPartition,
    messages::{
        self, AlterTopicRequest, CreatePartitionsRequest, CreateTopicsRequest,
        DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsResponse, DeleteTopicsRequest,
        DescribeClusterRequest, DescribeClusterResponse, DescribePartitionsRequest,
        EARLIEST_TIMESTAMP, LATEST_TIMESTAMP, PartitionStatus, TopicInfo, TopicResult,
    },
};

use crate::{
    client::Client,
    error::RequestError,
    metadata::check,
    offsets,
    routing::{PartitionAnswer, ask_leaders},
};

pub use groups::Committed;

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
        let request = CreateTopicsRequest {
            topics: vec![messages::NewTopic {
                name: topic.name,
                partitions: topic.partitions,
                replication_factor: topic.replication_factor,
                configs: topic.configs,
            }],
            validate_only: false,
        };
        let response = self.client.shared.metadata.ask_any(&request).await?;
        outcome(response.topics.into_iter().next())
    }

    /// Deletes a topic with all that it holds.
    ///
    /// # Errors
    /// [`RequestError::UnknownTopic`] if there is none.
    pub async fn delete_topic(&self, name: &str) -> Result<(), RequestError> {
        let request = DeleteTopicsRequest {
            names: vec![name.to_owned()],
        };
        let response = self.client.shared.metadata.ask_any(&request).await?;
        let id = outcome(response.topics.into_iter().next())?;
        self.client.shared.metadata.forget(id);
        Ok(())
    }

    /// Changes settings, all or none; no value restores the default.
    ///
    /// # Errors
    /// [`RequestError`] if the topic is unknown or a setting is refused. A topic that holds records
    /// without a key is not made a compacted one; see [`Admin::force_alter_topic`].
    pub async fn alter_topic(
        &self,
        name: &str,
        configs: Vec<(String, Option<String>)>,
    ) -> Result<(), RequestError> {
        self.alter(name, configs, false).await
    }

    /// The same, even if the topic then holds records that its settings would refuse: those without a
    /// key, when it becomes a compacted one. Compaction leaves them where they are.
    ///
    /// # Errors
    /// [`RequestError`] if the topic is unknown or a setting is refused.
    pub async fn force_alter_topic(
        &self,
        name: &str,
        configs: Vec<(String, Option<String>)>,
    ) -> Result<(), RequestError> {
        self.alter(name, configs, true).await
    }

    async fn alter(
        &self,
        name: &str,
        configs: Vec<(String, Option<String>)>,
        force: bool,
    ) -> Result<(), RequestError> {
        let request = AlterTopicRequest {
            name: name.to_owned(),
            configs,
            force,
        };
        let response = self.client.shared.metadata.ask_any(&request).await?;
        outcome(Some(response.topic)).map(drop)
    }

    /// Raises the number of partitions to `total`.
    ///
    /// # Errors
    /// [`RequestError`] if the topic is unknown or has that many already.
    pub async fn create_partitions(&self, name: &str, total: u32) -> Result<(), RequestError> {
        let request = CreatePartitionsRequest {
            name: name.to_owned(),
            total,
        };
        let response = self.client.shared.metadata.ask_any(&request).await?;
        let id = outcome(Some(response.topic))?;
        self.client.shared.metadata.forget(id);
        Ok(())
    }

    /// Every topic, by name; internal ones too if wanted.
    ///
    /// # Errors
    /// [`RequestError`] if the broker can't be asked.
    pub async fn topics(&self, include_internal: bool) -> Result<Vec<TopicInfo>, RequestError> {
        let response = self.client.shared.metadata.ask(None, include_internal);
        let mut topics = response.await?.topics;
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(topics)
    }

    /// One topic, asked afresh.
    ///
    /// # Errors
    /// [`RequestError::UnknownTopic`] if there is none.
    pub async fn topic(&self, name: &str) -> Result<TopicInfo, RequestError> {
        let names = Some(vec![name.to_owned()]);
        let response = self.client.shared.metadata.ask(names, true).await?;
        let topic = response.topics.into_iter().next();
        let topic = topic.ok_or_else(|| RequestError::UnknownTopic(name.into()))?;
        check(&topic)?;
        Ok(topic)
    }

    /// Offsets, sizes and segments of each partition, in order.
    ///
    /// # Errors
    /// [`RequestError`] if the broker can't be asked; a partition's own trouble is in its status.
    pub async fn describe_partitions(
        &self,
        topic: &TopicInfo,
    ) -> Result<Vec<PartitionStatus>, RequestError> {
        let partitions = topic.partitions.iter().map(|it| TopicPartition {
            topic: topic.id,
            partition: it.partition,
        });
        let request = DescribePartitionsRequest {
            partitions: partitions.collect(),
        };
        let response = self.client.shared.metadata.ask_any(&request).await?;
        Ok(response.partitions)
    }

    /// The brokers and how they fare.
    ///
    /// # Errors
    /// [`RequestError`] if the broker can't be asked.
    pub async fn describe_cluster(&self) -> Result<DescribeClusterResponse, RequestError> {
        let request = DescribeClusterRequest {};
        self.client.shared.metadata.ask_any(&request).await
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
        let timestamp_ms = match spec {
            OffsetSpec::Earliest => EARLIEST_TIMESTAMP,
            OffsetSpec::Latest => LATEST_TIMESTAMP,
            // Negative times mean something else on the wire, and nothing is older than 1970.
            OffsetSpec::Timestamp(timestamp_ms) => timestamp_ms.max(0),
        };
        let partitions = self.partitions(topic).await?;
        let shared = &self.client.shared;
        let offsets = offsets::list_offsets(shared, topic, &partitions, timestamp_ms).await?;
        Ok(offsets.into_iter().collect())
    }

    async fn partitions(&self, topic: &str) -> Result<Vec<PartitionIndex>, RequestError> {
        let shared = &self.client.shared;
        let known = shared.metadata.refresh(topic, shared.clock.now()).await?;
        let count = u32::try_from(known.leaders.len()).expect("a topic has few partitions");
        Ok((0..count).map(PartitionIndex).collect())
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
        let partitions: Vec<PartitionIndex> = before.iter().map(|(it, _)| *it).collect();
        let before_of = |partition| {
            let found = before.iter().find(|(it, _)| *it == partition);
            found.map_or(Offset::ZERO, |(_, offset)| *offset)
        };
        let request = |group: &[TopicPartition]| DeleteRecordsRequest {
            partitions: group
                .iter()
                .map(|at| DeleteRecordsPartition {
                    topic: at.topic,
                    partition: at.partition,
                    before_offset: before_of(at.partition),
                })
                .collect(),
        };
        let answers = |response: DeleteRecordsResponse, _: Bytes| {
            let answers = response.partitions.into_iter().map(|it| PartitionAnswer {
                partition: it.partition,
                error: it.error,
                message: it.message,
                value: it.log_start_offset,
            });
            answers.collect()
        };
        let shared = &self.client.shared;
        let starts = ask_leaders(shared, topic, &partitions, request, answers).await?;
        Ok(starts.into_iter().collect())
    }
}

/// A topic's id, or what is wrong with it.
fn outcome(result: Option<TopicResult>) -> Result<TopicId, RequestError> {
    let result = result.ok_or_else(|| RequestError::Broker {
        code: ErrorCode::Internal,
        message: "the broker's answer leaves the topic out".into(),
    })?;
    match result.error {
        ErrorCode::None => Ok(result.id),
        ErrorCode::UnknownTopic => Err(RequestError::UnknownTopic(result.name.into())),
        code => {
            let message: Arc<str> = match result.message.as_str() {
                "" => format!("topic {:?} was refused", result.name).into(),
                message => message.into(),
            };
            Err(RequestError::Broker { code, message })
        }
    }
}
