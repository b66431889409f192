//! A control plane for simulation: the real controller machine, whose state outlives the broker as a
//! durable metadata log would, behind a commit that takes time.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use millstream::{
    control::{ControlAnswer, ControlError, ControlReply, ControlRequest, Overloaded},
    controller::{Command, Controller, ControllerError, MetadataImage, Outcome, Seat},
    io::{
        Clock as _, Io as _, TaskClass, Tasks as _,
        sim::{SimDetached, SimIo},
    },
    shard::{ControlMessage, ControlPlane, Peer},
    types::TopicConfig,
};
use millstream_protocol::{
    BrokerId, ClusterId, ErrorCode, TopicId,
    messages::{
        AlterTopicResponse, CreatePartitionsResponse, CreateTopicsResponse, DeleteTopicsResponse,
        TopicResult,
    },
};
use uuid::Uuid;

/// A commit takes up to so long.
const LONGEST_COMMIT: Duration = Duration::from_millis(3);

/// What a broker's metadata log holds; clones share it.
#[derive(Clone)]
pub struct Metadata {
    controller: Rc<RefCell<Controller>>,
    term: Rc<Cell<u64>>,
}

impl Metadata {
    pub fn new() -> Self {
        let seat = Seat {
            cluster_id: ClusterId(Uuid::from_u128(0x5eed)),
            broker_id: BrokerId(0),
            topic_defaults: TopicConfig::default(),
        };
        Self {
            controller: Rc::new(RefCell::new(Controller::new(seat))),
            term: Rc::default(),
        }
    }

    fn apply(&self, command: &Command) -> Result<Outcome, ControllerError> {
        let mut controller = self.controller.borrow_mut();
        let index = controller.index() + 1;
        let outcome = controller.apply(index, self.term.get(), command);
        controller.check();
        outcome
    }

    pub fn image(&self) -> Arc<MetadataImage> {
        Arc::new(self.controller.borrow().image())
    }
}

/// The control plane of one run of the broker.
pub struct SimControl {
    io: SimIo,
    metadata: Metadata,
    image: RefCell<Arc<MetadataImage>>,
    lanes: Vec<Peer<SimDetached>>,
}

impl SimControl {
    /// Takes the next term and registers the start: every leader epoch rises.
    pub fn start(io: SimIo, metadata: Metadata, lanes: Vec<Peer<SimDetached>>) -> Rc<Self> {
        metadata.term.set(metadata.term.get() + 1);
        let incarnation = Uuid::from_u64_pair(io.random_u64(), io.random_u64());
        let broker = BrokerId(0);
        let started = metadata.apply(&Command::BrokerStarted {
            broker,
            incarnation,
        });
        started.expect("a broker may always start");
        let image = RefCell::new(metadata.image());
        Rc::new(Self {
            io,
            metadata,
            image,
            lanes,
        })
    }

    /// Plans, commits and applies, all in one step: a power cut comes before it or after it.
    fn serve(&self, request: ControlRequest) -> ControlReply {
        let answer = match request {
            ControlRequest::CreateTopics(request) => {
                let topics = request.topics.into_iter().map(|new| {
                    let id = TopicId(Uuid::from_u64_pair(
                        self.io.random_u64(),
                        self.io.random_u64(),
                    ));
                    let name = new.name.clone();
                    let planned = self.metadata.controller.borrow().plan_topic(id, new);
                    self.commit(name, planned)
                });
                ControlAnswer::CreateTopics(CreateTopicsResponse {
                    topics: topics.collect(),
                })
            }
            ControlRequest::DeleteTopics(request) => {
                let topics = request.names.into_iter().map(|name| {
                    let planned = self.metadata.controller.borrow().plan_deletion(&name);
                    self.commit(name, planned)
                });
                ControlAnswer::DeleteTopics(DeleteTopicsResponse {
                    topics: topics.collect(),
                })
            }
            ControlRequest::AlterTopic(request) => {
                let name = request.name.clone();
                let planned = self.metadata.controller.borrow().plan_alteration(request);
                let topic = self.commit(name, planned);
                ControlAnswer::AlterTopic(AlterTopicResponse { topic })
            }
            ControlRequest::CreatePartitions(request) => {
                let planned = self.metadata.controller.borrow().plan_partitions(&request);
                let topic = self.commit(request.name, planned);
                ControlAnswer::CreatePartitions(CreatePartitionsResponse { topic })
            }
            ControlRequest::CreateOffsetsTopic => {
                let id = TopicId(Uuid::from_u64_pair(
                    self.io.random_u64(),
                    self.io.random_u64(),
                ));
                let planned = self.metadata.controller.borrow().plan_offsets_topic(id);
                let planned = planned.map(in_small);
                match planned.and_then(|command| self.metadata.apply(&command)) {
                    Ok(_) | Err(ControllerError::TopicExists { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
                ControlAnswer::CreateOffsetsTopic
            }
            ControlRequest::InitProducerId => {
                let (broker, count) = (BrokerId(0), 1);
                match self
                    .metadata
                    .apply(&Command::AllocateProducerIds { broker, count })?
                {
                    Outcome::ProducerIds { first, .. } => ControlAnswer::InitProducerId(first),
                    other => unreachable!("ids were asked for: {other:?}"),
                }
            }
            ControlRequest::ForgetTopic(id) => {
                self.metadata.apply(&Command::ForgetTopic { id })?;
                ControlAnswer::ForgetTopic
            }
        };
        Ok(answer)
    }

    fn commit(&self, name: String, planned: Result<Command, ControllerError>) -> TopicResult {
        let done = planned.and_then(|command| self.metadata.apply(&command));
        let (id, error, message) = match done {
            Ok(
                Outcome::TopicCreated(id)
                | Outcome::TopicDeleted(id)
                | Outcome::TopicAltered(id)
                | Outcome::PartitionsCreated(id),
            ) => (id, ErrorCode::None, String::new()),
            Ok(other) => unreachable!("a topic was meant: {other:?}"),
            Err(error) => (
                TopicId::default(),
                ErrorCode::from(&error),
                error.to_string(),
            ),
        };
        TopicResult {
            name,
            id,
            error,
            message,
        }
    }
}

/// The offsets topic in few partitions and small segments, so that it is compacted while there is
/// somebody to see it.
fn in_small(command: Command) -> Command {
    let Command::CreateTopic {
        id,
        name,
        mut configs,
        mut assignments,
    } = command
    else {
        unreachable!("a topic is to be created");
    };
    assignments.truncate(2);
    configs.retain(|(setting, _)| setting != "segment.bytes");
    let settings = [
        ("segment.bytes", "65536"),
        ("min.cleanable.dirty.ratio", "0.1"),
        ("max.compaction.lag.ms", "5000"),
        ("delete.retention.ms", "1000"),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
    configs.extend(settings);
    Command::CreateTopic {
        id,
        name,
        configs,
        assignments,
    }
}

/// The control plane, shared by the shards of one run.
#[derive(Clone)]
pub struct Plane(pub Rc<SimControl>);

impl ControlPlane for Plane {
    fn image(&self) -> Arc<MetadataImage> {
        Arc::clone(&self.0.image.borrow())
    }

    fn image_index(&self) -> u64 {
        self.0.image.borrow().index
    }

    fn submit(
        &self,
        request: ControlRequest,
        answer: Box<dyn FnOnce(ControlReply) + Send>,
    ) -> Result<(), Overloaded> {
        let control = Rc::clone(&self.0);
        self.0.io.spawn(TaskClass::Foreground, async move {
            let most = u64::try_from(LONGEST_COMMIT.as_nanos()).expect("short");
            let commit = Duration::from_nanos(control.io.random_u64() % most);
            control.io.sleep(commit).await;
            let reply: Result<ControlAnswer, ControlError> = control.serve(request);
            // Durable from here on; a cut now loses only the answer.
            control.io.sleep(commit / 2).await;
            control.image.replace(control.metadata.image());
            for lane in &control.lanes {
                let _ = lane.control.try_send(ControlMessage::Refresh(None));
            }
            answer(reply);
        });
        Ok(())
    }
}
