//! One group commit: the requests that waited, the commands they became, and their answers.

use std::collections::VecDeque;

use millstream_protocol::{
    ProducerId, TopicId,
    messages::{
        AlterTopicResponse, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse,
        DeleteTopicsResponse, TopicResult,
    },
    names::OFFSETS_TOPIC,
};

use super::request::{ControlAnswer, ControlError, ControlReply, ControlRequest, topic_result};
use crate::controller::{Command, Controller, ControllerError, Outcome};

/// Producer ids taken from the log at a time.
pub(super) const PRODUCER_ID_BLOCK: u32 = 1000;

/// What each command did, in order.
pub(super) type Outcomes = [Result<Outcome, ControllerError>];

/// Producer ids that are ours to hand out, in memory only: what is left at a stop is never used.
#[derive(Debug, Default)]
pub(super) struct ProducerIds(VecDeque<std::ops::Range<i64>>);

impl ProducerIds {
    fn count(&self) -> i64 {
        self.0.iter().map(|block| block.end - block.start).sum()
    }

    fn add(&mut self, first: ProducerId, count: u32) {
        self.0.push_back(first.0..first.0 + i64::from(count));
    }

    fn take(&mut self) -> Option<ProducerId> {
        while let Some(block) = self.0.front_mut() {
            if let Some(id) = block.next() {
                return Some(ProducerId(id));
            }
            self.0.pop_front();
        }
        None
    }
}

/// One topic's share of a request.
struct Part {
    name: String,
    /// The command's place in the batch; an answer that needs none is here already.
    command: Result<Option<usize>, ControllerError>,
    id: TopicId,
}

enum Planned {
    CreateTopics(Vec<Part>),
    DeleteTopics(Vec<Part>),
    AlterTopic(Part),
    CreatePartitions(Part),
    CreateOffsetsTopic(Part),
    InitProducerId,
    ForgetTopic(usize),
}

/// Requests turned into commands, not yet committed.
#[derive(Default)]
pub(super) struct Batch {
    planned: Vec<Planned>,
    commands: Vec<Command>,
}

impl Batch {
    /// Plans a request; answers come out of [`Batch::answers`] in the same order.
    pub(super) fn plan(
        &mut self,
        controller: &Controller,
        request: ControlRequest,
        new_topic_id: &mut dyn FnMut() -> TopicId,
    ) {
        let planned = match request {
            ControlRequest::CreateTopics(request) => {
                Planned::CreateTopics(self.plan_topics(controller, request, new_topic_id))
            }
            ControlRequest::DeleteTopics(request) => {
                let names = request.names.into_iter();
                let parts = names.map(|name| {
                    let command = controller.plan_deletion(&name);
                    self.part(name, command)
                });
                Planned::DeleteTopics(parts.collect())
            }
            ControlRequest::AlterTopic(request) => {
                let name = request.name.clone();
                Planned::AlterTopic(self.part(name, controller.plan_alteration(request)))
            }
            ControlRequest::CreatePartitions(request) => {
                let command = controller.plan_partitions(&request);
                Planned::CreatePartitions(self.part(request.name, command))
            }
            ControlRequest::CreateOffsetsTopic => {
                let command = controller.plan_offsets_topic(new_topic_id());
                Planned::CreateOffsetsTopic(self.part(OFFSETS_TOPIC.to_owned(), command))
            }
            ControlRequest::InitProducerId => Planned::InitProducerId,
            ControlRequest::ForgetTopic(id) => {
                Planned::ForgetTopic(self.command(Command::ForgetTopic { id }))
            }
        };
        self.planned.push(planned);
    }

    fn plan_topics(
        &mut self,
        controller: &Controller,
        request: CreateTopicsRequest,
        new_topic_id: &mut dyn FnMut() -> TopicId,
    ) -> Vec<Part> {
        let topics = request.topics.into_iter();
        let parts = topics.map(|new| {
            let name = new.name.clone();
            let command = controller.plan_topic(new_topic_id(), new);
            if request.validate_only {
                return Part {
                    name,
                    command: command.map(|_| None),
                    id: TopicId::default(),
                };
            }
            self.part(name, command)
        });
        parts.collect()
    }

    fn part(&mut self, name: String, command: Result<Command, ControllerError>) -> Part {
        let id = command
            .as_ref()
            .map_or_else(|_| TopicId::default(), topic_of);
        Part {
            name,
            command: command.map(|command| Some(self.command(command))),
            id,
        }
    }

    fn command(&mut self, command: Command) -> usize {
        self.commands.push(command);
        self.commands.len() - 1
    }

    /// The commands to commit, with a new block of producer ids if those at hand do not suffice.
    pub(super) fn take_commands(
        &mut self,
        controller: &Controller,
        ids: &ProducerIds,
    ) -> Vec<Command> {
        let wanted = self
            .planned
            .iter()
            .filter(|it| matches!(it, Planned::InitProducerId))
            .count();
        let missing = i64::try_from(wanted)
            .unwrap_or(i64::MAX)
            .saturating_sub(ids.count());
        if missing > 0 {
            let count = u32::try_from(missing)
                .unwrap_or(u32::MAX)
                .max(PRODUCER_ID_BLOCK);
            let broker = controller.broker_id();
            self.commands
                .push(Command::AllocateProducerIds { broker, count });
        }
        std::mem::take(&mut self.commands)
    }

    /// The answers, given what the commands did.
    pub(super) fn answers(self, outcomes: &Outcomes, ids: &mut ProducerIds) -> Vec<ControlReply> {
        for outcome in outcomes {
            if let Ok(Outcome::ProducerIds { first, count }) = outcome {
                ids.add(*first, *count);
            }
        }
        let answer = |planned: Planned| {
            Ok(match planned {
                Planned::CreateTopics(parts) => ControlAnswer::CreateTopics(CreateTopicsResponse {
                    topics: parts
                        .into_iter()
                        .map(|part| part.result(outcomes))
                        .collect(),
                }),
                Planned::DeleteTopics(parts) => ControlAnswer::DeleteTopics(DeleteTopicsResponse {
                    topics: parts
                        .into_iter()
                        .map(|part| part.result(outcomes))
                        .collect(),
                }),
                Planned::AlterTopic(part) => ControlAnswer::AlterTopic(AlterTopicResponse {
                    topic: part.result(outcomes),
                }),
                Planned::CreatePartitions(part) => {
                    let topic = part.result(outcomes);
                    ControlAnswer::CreatePartitions(CreatePartitionsResponse { topic })
                }
                Planned::CreateOffsetsTopic(part) => match part.outcome(outcomes) {
                    // Two shards may ask at once.
                    Ok(()) | Err(ControllerError::TopicExists { .. }) => {
                        ControlAnswer::CreateOffsetsTopic
                    }
                    Err(error) => return Err(ControlError::Refused(error)),
                },
                Planned::InitProducerId => {
                    let id = ids.take().ok_or(ControllerError::ProducerIdsExhausted)?;
                    ControlAnswer::InitProducerId(id)
                }
                Planned::ForgetTopic(place) => {
                    outcomes[place].clone().map_err(ControlError::from)?;
                    ControlAnswer::ForgetTopic
                }
            })
        };
        self.planned.into_iter().map(answer).collect()
    }
}

impl Part {
    fn result(self, outcomes: &Outcomes) -> TopicResult {
        let result = self.outcome(outcomes);
        topic_result(self.name, self.id, &result)
    }

    fn outcome(&self, outcomes: &Outcomes) -> Result<(), ControllerError> {
        match &self.command {
            Ok(Some(place)) => outcomes[*place].as_ref().map(|_| ()).map_err(Clone::clone),
            Ok(None) => Ok(()),
            Err(error) => Err(error.clone()),
        }
    }
}

fn topic_of(command: &Command) -> TopicId {
    match command {
        Command::CreateTopic { id, .. }
        | Command::DeleteTopic { id }
        | Command::AlterTopic { id, .. }
        | Command::CreatePartitions { id, .. }
        | Command::ForgetTopic { id } => *id,
        Command::BrokerStarted { .. } | Command::AllocateProducerIds { .. } => TopicId::default(),
    }
}
