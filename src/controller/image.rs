//! What the metadata is at one index of its log: immutable, shared, cheap to take.

use std::{collections::BTreeMap, sync::Arc};

use millstream_protocol::{BrokerId, ClusterId, LeaderEpoch, PartitionIndex, TopicId};

use crate::types::TopicConfig;

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionImage {
    /// The broker that leads it.
    pub leader: BrokerId,
    /// Its leader's epoch.
    pub leader_epoch: LeaderEpoch,
    /// Every replica, the preferred leader first.
    pub replicas: Vec<BrokerId>,
    /// The replicas in sync.
    pub isr: Vec<BrokerId>,
}

/// One topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicImage {
    /// Its identity.
    pub id: TopicId,
    /// Its name.
    pub name: String,
    /// Its settings, defaults filled in.
    pub config: TopicConfig,
    /// Its partitions; the place is the number.
    pub partitions: Vec<PartitionImage>,
}

impl TopicImage {
    /// The partition of a number, if the topic has it.
    #[must_use]
    pub fn partition(&self, index: PartitionIndex) -> Option<&PartitionImage> {
        self.partitions.get(usize::try_from(index.0).ok()?)
    }

    /// How many partitions it has.
    #[must_use]
    pub fn partition_count(&self) -> u32 {
        u32::try_from(self.partitions.len()).expect("limits.rs bounds the partitions of a topic")
    }
}

/// The metadata after the entry `index`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataImage {
    /// Index of the last entry that this is made from; only grows.
    pub index: u64,
    /// Term of that entry.
    pub term: u64,
    /// The cluster.
    pub cluster_id: ClusterId,
    /// This broker.
    pub broker_id: BrokerId,
    /// The controller: the leader of the metadata quorum.
    pub controller: BrokerId,
    pub(super) topics: Arc<BTreeMap<TopicId, Arc<TopicImage>>>,
    pub(super) names: Arc<BTreeMap<String, TopicId>>,
    pub(super) deleted: Arc<BTreeMap<TopicId, String>>,
}

impl MetadataImage {
    /// A topic by identity.
    #[must_use]
    pub fn topic(&self, id: TopicId) -> Option<&Arc<TopicImage>> {
        self.topics.get(&id)
    }

    /// A topic by name.
    #[must_use]
    pub fn topic_named(&self, name: &str) -> Option<&Arc<TopicImage>> {
        self.topics.get(self.names.get(name)?)
    }

    /// Every topic, in order of name.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<TopicImage>> {
        self.names.values().map(|id| &self.topics[id])
    }

    /// How many topics there are.
    #[must_use]
    pub fn topic_count(&self) -> usize {
        self.topics.len()
    }

    /// Topics that are gone while files of theirs may be left.
    pub fn deleted(&self) -> impl Iterator<Item = TopicId> {
        self.deleted.keys().copied()
    }

    /// Whether the topic is gone while files of its may be left.
    #[must_use]
    pub fn is_deleted(&self, id: TopicId) -> bool {
        self.deleted.contains_key(&id)
    }
}
