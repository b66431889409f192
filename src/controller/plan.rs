//! From what a user asks for to the command that does it: names become identities, defaults are
//! filled in, replicas are placed. Pure, like the machine; identities come in from the shell.

use millstream_protocol::{
    BrokerId, TopicId,
    limits::MAX_PARTITIONS_PER_TOPIC,
    messages::{AlterTopicRequest, CreatePartitionsRequest, NewTopic},
    names::{OFFSETS_TOPIC, check_topic_name, is_internal},
};

use super::{Command, Controller, ControllerError, TopicImage};

/// Partitions of a topic whose creator did not say.
pub const DEFAULT_PARTITION_COUNT: u32 = 1;

/// Partitions of the topic of groups and their offsets: groups spread over them, and so over shards.
/// It never changes, or groups would lose their coordinators.
const OFFSETS_PARTITION_COUNT: u32 = 16;

/// Whatever the defaults for topics of users are. Small segments, since only those that are full are compacted,
/// and all of it is read at the start.
const OFFSETS_CONFIGS: [(&str, &str); 4] = [
    ("cleanup.policy", "compact"),
    ("durability", "flushed"),
    ("message.timestamp.type", "CreateTime"),
    ("segment.bytes", "8388608"),
];

impl Controller {
    /// The command that creates a topic for a user.
    ///
    /// # Errors
    /// Why there can be no such topic now.
    pub fn plan_topic(&self, id: TopicId, new: NewTopic) -> Result<Command, ControllerError> {
        check_topic_name(&new.name)?;
        refuse_internal(&new.name)?;
        let partitions = match new.partitions {
            0 => DEFAULT_PARTITION_COUNT,
            partitions => partitions,
        };
        let replicas = self.place(usize::from(new.replication_factor.max(1)))?;
        let command = Command::CreateTopic {
            id,
            name: new.name,
            configs: new.configs,
            assignments: spread(&replicas, partitions)?,
        };
        self.validate(&command)?;
        Ok(command)
    }

    /// The command that creates the topic of groups and their offsets.
    ///
    /// # Errors
    /// It is there, or there is no room for it.
    pub fn plan_offsets_topic(&self, id: TopicId) -> Result<Command, ControllerError> {
        let configs = OFFSETS_CONFIGS.iter();
        let command = Command::CreateTopic {
            id,
            name: OFFSETS_TOPIC.to_owned(),
            configs: configs
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            assignments: spread(&self.place(1)?, OFFSETS_PARTITION_COUNT)?,
        };
        self.validate(&command)?;
        Ok(command)
    }

    /// The command that deletes a topic for a user.
    ///
    /// # Errors
    /// There is no such topic, or it is not the user's.
    pub fn plan_deletion(&self, name: &str) -> Result<Command, ControllerError> {
        refuse_internal(name)?;
        Ok(Command::DeleteTopic {
            id: self.named(name)?.id,
        })
    }

    /// The command that changes a topic's settings for a user.
    ///
    /// # Errors
    /// There is no such topic, or a setting is refused.
    pub fn plan_alteration(&self, request: AlterTopicRequest) -> Result<Command, ControllerError> {
        refuse_internal(&request.name)?;
        let id = self.named(&request.name)?.id;
        let command = Command::AlterTopic {
            id,
            changes: request.configs,
        };
        self.validate(&command)?;
        Ok(command)
    }

    /// The command that gives a topic more partitions for a user.
    ///
    /// # Errors
    /// There is no such topic, or the total is not more than it has, or too many.
    pub fn plan_partitions(
        &self,
        request: &CreatePartitionsRequest,
    ) -> Result<Command, ControllerError> {
        refuse_internal(&request.name)?;
        let topic = self.named(&request.name)?;
        let present = topic.partition_count();
        let more = request.total.checked_sub(present).filter(|more| *more > 0);
        let more = more.ok_or_else(|| ControllerError::NotMorePartitions {
            name: topic.name.clone(),
            present,
            asked: request.total,
        })?;
        let replicas = self.place(topic.partitions[0].replicas.len())?;
        let assignments = spread(&replicas, more)?;
        let command = Command::CreatePartitions {
            id: topic.id,
            present,
            assignments,
        };
        self.validate(&command)?;
        Ok(command)
    }

    fn named(&self, name: &str) -> Result<&TopicImage, ControllerError> {
        check_topic_name(name)?;
        let id = self.names.get(name);
        let id = id.ok_or_else(|| ControllerError::UnknownTopic {
            name: name.to_owned(),
        })?;
        Ok(&self.topics[id])
    }

    /// The replicas of a new partition. One broker holds everything until there are more.
    fn place(&self, replication_factor: usize) -> Result<Vec<BrokerId>, ControllerError> {
        if replication_factor > 1 {
            return Err(ControllerError::ReplicationFactor {
                asked: replication_factor,
                brokers: 1,
            });
        }
        Ok(vec![self.seat.broker_id])
    }
}

fn refuse_internal(name: &str) -> Result<(), ControllerError> {
    match is_internal(name) {
        true => Err(ControllerError::InternalTopic {
            name: name.chars().take(64).collect(),
        }),
        false => Ok(()),
    }
}

fn spread(replicas: &[BrokerId], partitions: u32) -> Result<Vec<Vec<BrokerId>>, ControllerError> {
    let count = usize::try_from(partitions).unwrap_or(usize::MAX);
    // Before the list is built: the number comes from a peer.
    if partitions > MAX_PARTITIONS_PER_TOPIC {
        return Err(ControllerError::PartitionCount { asked: count });
    }
    Ok(vec![replicas.to_vec(); count])
}
