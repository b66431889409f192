//! The controller: the pure machine that decides every change of metadata.
//!
//! It applies the entries of the metadata log in order and knows nothing else: no clock, no chance,
//! no disk. Whoever applies the same entries holds the same metadata. `plan` turns users' requests
//! into commands, `format` is what the log stores, `image` is what the shards read; the shell
//! around all of it is `control`.

mod command;
mod error;
pub mod format;
mod image;
pub mod plan;
mod snapshot;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use millstream_protocol::{
    BrokerId, ClusterId, LeaderEpoch, ProducerId, TopicId,
    limits::{MAX_PARTITIONS_PER_BROKER, MAX_PARTITIONS_PER_TOPIC},
    names::check_topic_name,
};
use uuid::Uuid;

pub use command::{Command, Outcome};
pub use error::ControllerError;
pub use image::{MetadataImage, PartitionImage, TopicImage};

use crate::types::TopicConfig;

/// Who holds the machine. Not part of the replicated state.
#[derive(Clone, Debug)]
pub struct Seat {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// This broker.
    pub broker_id: BrokerId,
    /// What a topic's unset settings are.
    pub topic_defaults: TopicConfig,
}

/// The metadata and the rules of its change.
#[derive(Clone, Debug)]
pub struct Controller {
    seat: Seat,
    index: u64,
    term: u64,
    brokers: BTreeMap<BrokerId, Uuid>,
    topics: Arc<BTreeMap<TopicId, Arc<TopicImage>>>,
    names: Arc<BTreeMap<String, TopicId>>,
    deleted: Arc<BTreeMap<TopicId, String>>,
    next_producer_id: i64,
    partition_count: usize,
}

impl Controller {
    /// The metadata before the first entry.
    #[must_use]
    pub fn new(seat: Seat) -> Self {
        Self {
            seat,
            index: 0,
            term: 0,
            brokers: BTreeMap::new(),
            topics: Arc::default(),
            names: Arc::default(),
            deleted: Arc::default(),
            next_producer_id: 0,
            partition_count: 0,
        }
    }

    /// Index of the last entry applied; 0 before the first.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Term of the last entry applied.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.term
    }

    /// The broker that holds this machine.
    #[must_use]
    pub fn broker_id(&self) -> BrokerId {
        self.seat.broker_id
    }

    /// What the shards read.
    #[must_use]
    pub fn image(&self) -> MetadataImage {
        MetadataImage {
            index: self.index,
            term: self.term,
            cluster_id: self.seat.cluster_id,
            broker_id: self.seat.broker_id,
            controller: self.seat.broker_id,
            topics: Arc::clone(&self.topics),
            names: Arc::clone(&self.names),
            deleted: Arc::clone(&self.deleted),
        }
    }

    /// Applies the next entry of the log. A refusal changes nothing but the index: the entry is
    /// in the log, and every broker refuses it alike.
    ///
    /// # Errors
    /// Why the command does not hold in this state.
    ///
    /// # Panics
    /// If the entry is not the next one: the log would be broken.
    pub fn apply(
        &mut self,
        index: u64,
        term: u64,
        command: &Command,
    ) -> Result<Outcome, ControllerError> {
        assert_eq!(
            index,
            self.index + 1,
            "metadata entries are applied in order"
        );
        assert!(
            term >= self.term,
            "the term of a metadata entry never falls"
        );
        self.index = index;
        self.term = term;
        self.validate(command)?;
        Ok(self.perform(command))
    }

    /// Whether the command would hold in this state.
    ///
    /// # Errors
    /// Why it would not.
    pub fn validate(&self, command: &Command) -> Result<(), ControllerError> {
        match command {
            Command::BrokerStarted { .. } => Ok(()),
            Command::CreateTopic {
                id,
                name,
                configs,
                assignments,
            } => {
                self.validate_new_topic(*id, name, configs)?;
                self.validate_assignments(assignments, 0)
            }
            Command::DeleteTopic { id } => self.live_topic(*id).map(|_| ()),
            Command::AlterTopic { id, changes } => {
                self.altered(self.live_topic(*id)?, changes).map(|_| ())
            }
            Command::CreatePartitions {
                id,
                present,
                assignments,
            } => {
                let topic = self.live_topic(*id)?;
                if topic.partition_count() != *present {
                    return Err(ControllerError::Conflict(*id));
                }
                self.validate_assignments(assignments, topic.partitions.len())
            }
            Command::AllocateProducerIds { count, .. } => self
                .next_producer_id
                .checked_add(i64::from(*count))
                .map(|_| ())
                .ok_or(ControllerError::ProducerIdsExhausted),
            Command::ForgetTopic { id } => match self.deleted.contains_key(id) {
                true => Ok(()),
                false => Err(ControllerError::NotDeleted(*id)),
            },
        }
    }

    fn validate_new_topic(
        &self,
        id: TopicId,
        name: &str,
        configs: &[(String, String)],
    ) -> Result<(), ControllerError> {
        check_topic_name(name)?;
        if let Some(&id) = self.names.get(name) {
            return Err(ControllerError::TopicExists {
                name: name.to_owned(),
                id,
            });
        }
        if self.topics.contains_key(&id) || self.deleted.contains_key(&id) {
            return Err(ControllerError::TopicIdReused(id));
        }
        self.config_of(configs).map(|_| ())
    }

    /// Checks partitions that come on top of `present` ones of the same topic.
    fn validate_assignments(
        &self,
        assignments: &[Vec<BrokerId>],
        present: usize,
    ) -> Result<(), ControllerError> {
        let total = present + assignments.len();
        if assignments.is_empty() || total > MAX_PARTITIONS_PER_TOPIC as usize {
            return Err(ControllerError::PartitionCount { asked: total });
        }
        if self.partition_count + assignments.len() > MAX_PARTITIONS_PER_BROKER {
            return Err(ControllerError::TooManyPartitions {
                asked: assignments.len(),
                present: self.partition_count,
            });
        }
        for replicas in assignments {
            if replicas.is_empty() || replicas.len() > self.brokers.len() {
                return Err(ControllerError::ReplicationFactor {
                    asked: replicas.len(),
                    brokers: self.brokers.len(),
                });
            }
            for (place, broker) in replicas.iter().enumerate() {
                if !self.brokers.contains_key(broker) || replicas[..place].contains(broker) {
                    return Err(ControllerError::BadReplica(*broker));
                }
            }
        }
        Ok(())
    }

    fn live_topic(&self, id: TopicId) -> Result<&Arc<TopicImage>, ControllerError> {
        self.topics.get(&id).ok_or(ControllerError::TopicGone(id))
    }

    fn config_of(&self, configs: &[(String, String)]) -> Result<TopicConfig, ControllerError> {
        let defaults = &self.seat.topic_defaults;
        let changes = configs
            .iter()
            .map(|(name, value)| (name.as_str(), Some(value.as_str())));
        Ok(defaults.clone().as_defaults().altered(changes, defaults)?)
    }

    fn altered(
        &self,
        topic: &TopicImage,
        changes: &[(String, Option<String>)],
    ) -> Result<TopicConfig, ControllerError> {
        let changes = changes
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_deref()));
        Ok(topic.config.altered(changes, &self.seat.topic_defaults)?)
    }

    /// Makes a change that has been found valid.
    fn perform(&mut self, command: &Command) -> Outcome {
        match command {
            Command::BrokerStarted {
                broker,
                incarnation,
            } => self.start_broker(*broker, *incarnation),
            Command::CreateTopic {
                id,
                name,
                configs,
                assignments,
            } => {
                let config = self.config_of(configs).expect("validated");
                let partitions: Vec<_> = assignments
                    .iter()
                    .map(|replicas| first_epoch(replicas))
                    .collect();
                self.partition_count += partitions.len();
                let topic = TopicImage {
                    id: *id,
                    name: name.clone(),
                    config,
                    partitions,
                };
                Arc::make_mut(&mut self.names).insert(name.clone(), *id);
                Arc::make_mut(&mut self.topics).insert(*id, Arc::new(topic));
                Outcome::TopicCreated(*id)
            }
            Command::DeleteTopic { id } => {
                let topic = Arc::make_mut(&mut self.topics)
                    .remove(id)
                    .expect("validated");
                self.partition_count -= topic.partitions.len();
                Arc::make_mut(&mut self.names).remove(&topic.name);
                Arc::make_mut(&mut self.deleted).insert(*id, topic.name.clone());
                Outcome::TopicDeleted(*id)
            }
            Command::AlterTopic { id, changes } => {
                let config = self.altered(&self.topics[id], changes).expect("validated");
                self.topic_mut(*id).config = config;
                Outcome::TopicAltered(*id)
            }
            Command::CreatePartitions {
                id, assignments, ..
            } => {
                let added = assignments.iter().map(|replicas| first_epoch(replicas));
                self.topic_mut(*id).partitions.extend(added);
                self.partition_count += assignments.len();
                Outcome::PartitionsCreated(*id)
            }
            Command::AllocateProducerIds { count, .. } => {
                let first = ProducerId(self.next_producer_id);
                self.next_producer_id += i64::from(*count);
                Outcome::ProducerIds {
                    first,
                    count: *count,
                }
            }
            Command::ForgetTopic { id } => {
                Arc::make_mut(&mut self.deleted).remove(id);
                Outcome::TopicForgotten(*id)
            }
        }
    }

    fn start_broker(&mut self, broker: BrokerId, incarnation: Uuid) -> Outcome {
        self.brokers.insert(broker, incarnation);
        for topic in Arc::make_mut(&mut self.topics).values_mut() {
            if topic
                .partitions
                .iter()
                .all(|partition| partition.leader != broker)
            {
                continue;
            }
            for partition in &mut Arc::make_mut(topic).partitions {
                if partition.leader == broker {
                    let next = partition.leader_epoch.0.checked_add(1);
                    partition.leader_epoch = LeaderEpoch(next.expect("2^31 leader epochs"));
                }
            }
        }
        Outcome::BrokerStarted
    }

    fn topic_mut(&mut self, id: TopicId) -> &mut TopicImage {
        let topic = Arc::make_mut(&mut self.topics)
            .get_mut(&id)
            .expect("validated");
        Arc::make_mut(topic)
    }

    /// Asserts every invariant of the state. Run after each change in tests, and after a snapshot
    /// is read.
    ///
    /// # Panics
    /// If one does not hold.
    pub fn check(&self) {
        assert_eq!(self.names.len(), self.topics.len(), "a name for each topic");
        let mut partition_count = 0;
        for (id, topic) in self.topics.iter() {
            assert_eq!(topic.id, *id);
            assert_eq!(
                self.names.get(&topic.name),
                Some(id),
                "names lead to their topics"
            );
            assert!(check_topic_name(&topic.name).is_ok(), "{:?}", topic.name);
            assert!(
                !self.deleted.contains_key(id),
                "{id} is both there and deleted"
            );
            assert!(!topic.partitions.is_empty(), "{id} has no partitions");
            partition_count += topic.partitions.len();
            for partition in &topic.partitions {
                assert!(partition.leader_epoch.0 >= 0);
                assert!(partition.replicas.contains(&partition.leader));
                assert!(partition.isr.contains(&partition.leader));
                assert!(
                    partition
                        .isr
                        .iter()
                        .all(|broker| partition.replicas.contains(broker))
                );
                assert!(
                    partition
                        .replicas
                        .iter()
                        .all(|broker| self.brokers.contains_key(broker))
                );
            }
        }
        assert_eq!(partition_count, self.partition_count);
        assert!(partition_count <= MAX_PARTITIONS_PER_BROKER);
        assert!(self.next_producer_id >= 0);
    }
}

fn first_epoch(replicas: &[BrokerId]) -> PartitionImage {
    PartitionImage {
        leader: replicas[0],
        leader_epoch: LeaderEpoch(0),
        replicas: replicas.to_vec(),
        isr: replicas.to_vec(),
    }
}
