//! The controller's whole state as an archive, so that the log before it may go.

use std::{collections::BTreeMap, sync::Arc};

use millstream_protocol::{BrokerId, LeaderEpoch, TopicId};
use rkyv::{Archive, Deserialize, Serialize};
use uuid::Uuid;

use super::{Controller, PartitionImage, Seat, TopicImage};

#[derive(Archive, Serialize, Deserialize)]
pub(super) struct SnapshotV1 {
    brokers: Vec<BrokerV1>,
    topics: Vec<TopicV1>,
    deleted: Vec<DeletedTopicV1>,
    next_producer_id: i64,
}

#[derive(Archive, Serialize, Deserialize)]
struct BrokerV1 {
    id: u32,
    incarnation: [u8; 16],
}

#[derive(Archive, Serialize, Deserialize)]
struct TopicV1 {
    id: [u8; 16],
    name: String,
    configs: Vec<(String, String)>,
    partitions: Vec<PartitionV1>,
}

#[derive(Archive, Serialize, Deserialize)]
struct PartitionV1 {
    leader: u32,
    leader_epoch: i32,
    replicas: Vec<u32>,
    isr: Vec<u32>,
}

#[derive(Archive, Serialize, Deserialize)]
struct DeletedTopicV1 {
    id: [u8; 16],
    name: String,
}

impl SnapshotV1 {
    pub(super) fn of(controller: &Controller) -> Self {
        let brokers = controller.brokers.iter().map(|(id, incarnation)| BrokerV1 {
            id: id.0,
            incarnation: incarnation.into_bytes(),
        });
        let deleted = controller.deleted.iter().map(|(id, name)| DeletedTopicV1 {
            id: id.0.into_bytes(),
            name: name.clone(),
        });
        Self {
            brokers: brokers.collect(),
            topics: controller
                .topics
                .values()
                .map(|topic| TopicV1::of(topic))
                .collect(),
            deleted: deleted.collect(),
            next_producer_id: controller.next_producer_id,
        }
    }

    /// The state again, or which of its parts makes no sense.
    pub(super) fn restore(self, index: u64, term: u64, seat: Seat) -> Result<Controller, String> {
        let mut topics = BTreeMap::new();
        let mut names = BTreeMap::new();
        let mut partition_count = 0;
        for stored in self.topics {
            let topic = stored.restore(&seat)?;
            partition_count += topic.partitions.len();
            names.insert(topic.name.clone(), topic.id);
            topics.insert(topic.id, Arc::new(topic));
        }
        let brokers = self.brokers.into_iter();
        let deleted = self.deleted.into_iter();
        Ok(Controller {
            seat,
            index,
            term,
            brokers: brokers
                .map(|broker| (BrokerId(broker.id), Uuid::from_bytes(broker.incarnation)))
                .collect(),
            topics: Arc::new(topics),
            names: Arc::new(names),
            deleted: Arc::new(
                deleted
                    .map(|topic| (TopicId(Uuid::from_bytes(topic.id)), topic.name))
                    .collect(),
            ),
            next_producer_id: self.next_producer_id,
            partition_count,
        })
    }
}

impl TopicV1 {
    fn of(topic: &TopicImage) -> Self {
        let partitions = topic.partitions.iter().map(|partition| PartitionV1 {
            leader: partition.leader.0,
            leader_epoch: partition.leader_epoch.0,
            replicas: partition.replicas.iter().map(|broker| broker.0).collect(),
            isr: partition.isr.iter().map(|broker| broker.0).collect(),
        });
        Self {
            id: topic.id.0.into_bytes(),
            name: topic.name.clone(),
            configs: topic
                .config
                .overrides()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
            partitions: partitions.collect(),
        }
    }

    fn restore(self, seat: &Seat) -> Result<TopicImage, String> {
        let mut config = seat.topic_defaults.clone().as_defaults();
        for (name, value) in &self.configs {
            config
                .set(name, value)
                .map_err(|error| format!("topic {}: {error}", self.name))?;
        }
        let partitions = self.partitions.into_iter().map(|partition| PartitionImage {
            leader: BrokerId(partition.leader),
            leader_epoch: LeaderEpoch(partition.leader_epoch),
            replicas: partition.replicas.into_iter().map(BrokerId).collect(),
            isr: partition.isr.into_iter().map(BrokerId).collect(),
        });
        Ok(TopicImage {
            id: TopicId(Uuid::from_bytes(self.id)),
            name: self.name,
            config,
            partitions: partitions.collect(),
        })
    }
}
