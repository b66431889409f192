//! A shard: one executor, the partitions it owns, its connections, and its inbox. Shells only; the
//! partition and session machines decide.

pub mod mailbox;
pub mod metrics;
pub mod partition;

mod alter;
mod catalog;
mod cleaner;
mod clock;
pub mod delay;
mod fetch;
mod groups;
mod live;
mod metadata;
mod offsets;
mod plane;
mod produce;
mod router;
mod upkeep;

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    pin::pin,
    rc::Rc,
    sync::Arc,
};

use futures_util::future::select;
use millstream_protocol::{
    BrokerId, ErrorCode, ShardId, TopicPartition, limits,
    messages::{ANY_SHARD, Api, ApiVersions, HandshakeRequest, HandshakeResponse},
};

use crate::{
    controller::MetadataImage,
    io::{Budget, Io, Listener as _, Net, Permit, Signal, TaskClass},
    net::{Adopted, Buffers, ReceiveError, ReplyTo, Service, Welcome, accept_loop, serve_adopted},
    session::Request,
    storage::{Replay, ShardStorage, StorageConfig},
};

use self::{
    catalog::Slot,
    groups::Groups,
    metrics::ShardCounters,
    produce::When,
    router::{Message, Missing, owner_of},
};
pub use self::{
    partition::PartitionShell,
    plane::ControlPlane,
    produce::Produced,
    router::{ControlMessage, Peer, ShardInboxes, inboxes},
};

/// The broker's version, as told in handshakes.
pub const BROKER_VERSION: &str = env!("CARGO_PKG_VERSION");

/// The cluster's feature level; rises when every broker knows a new format.
pub const FEATURE_LEVEL: u16 = 1;

/// The part of a shard's memory that may be on its way to other shards at once.
const FORWARDING_PART: usize = 16;

/// What a shard is told at its start.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    /// Its number.
    pub id: ShardId,
    /// How many there are.
    pub shard_count: u32,
    /// Memory it may use, in bytes.
    pub memory: usize,
    /// Its storage.
    pub storage: StorageConfig,
    /// Host and port told to clients; none means the address they used.
    pub advertised: Option<(String, u16)>,
    /// Offsets of a consumer group without members are kept so long, in milliseconds.
    pub group_offsets_retention_ms: i64,
    /// What the broker as a whole knows of itself.
    pub broker: Arc<BrokerFacts>,
}

/// Facts of the broker that its shards tell clients.
#[derive(Clone, Debug)]
pub struct BrokerFacts {
    /// Data directory.
    pub data_dir: String,
    /// Direct I/O is in use.
    pub direct_io: bool,
    /// Memory budget of all shards, in bytes.
    pub memory: u64,
    /// Client connections that may be open at once: descriptors must be left for the logs.
    pub max_connections: u64,
    /// Counters of every shard.
    pub counters: Vec<Arc<ShardCounters>>,
}

/// One shard.
pub struct Shard<I: Io> {
    io: I,
    config: ShardConfig,
    control: Rc<dyn ControlPlane>,
    peers: Vec<Peer<<I as Net>::Detached>>,
    storage: Rc<ShardStorage<I>>,
    buffers: Rc<Buffers>,
    reply_budget: Rc<Budget>,
    /// Memory for record batches on their way to other shards.
    forwarding: Rc<Budget>,
    /// Memory of buffers that replies hold, beyond what they send of them.
    held: Rc<Budget>,
    /// Memory of fetches that wait for records.
    waiting: Rc<Budget>,
    sent_bytes: Rc<Cell<u64>>,
    partitions: RefCell<BTreeMap<TopicPartition, Slot<I>>>,
    image: RefCell<Arc<MetadataImage>>,
    /// Partitions being opened; raised when it falls.
    loading: Cell<usize>,
    loaded: Signal,
    /// At most so many partitions are opened or closed at once.
    opening: Rc<Budget>,
    /// On shard 0: which shards have removed their files of a deleted topic.
    files_gone: RefCell<BTreeMap<millstream_protocol::TopicId, u32>>,
    removing: RefCell<BTreeSet<millstream_protocol::TopicId>>,
    clock: clock::ClockWatch,
    disk_full: Cell<bool>,
    /// Raised when `disk_full` changes.
    disk_changed: Signal,
    connections: Cell<usize>,
    connections_ended: Signal,
    stop: Cell<bool>,
    stopping: Signal,
    /// The consumer groups that this shard coordinates.
    groups: Groups,
    started: crate::io::Monotonic,
}

impl<I: Io> Shard<I> {
    /// A shard with nothing opened yet; [`Shard::run`] starts it.
    #[must_use]
    pub fn new(
        io: I,
        config: ShardConfig,
        control: Rc<dyn ControlPlane>,
        peers: Vec<Peer<<I as Net>::Detached>>,
        replay: Arc<Replay>,
    ) -> Rc<Self> {
        assert_eq!(
            peers.len(),
            config.shard_count as usize,
            "a way to reach every shard"
        );
        let storage = ShardStorage::new(io.clone(), config.storage.clone(), replay);
        let image = RefCell::new(control.image());
        let started = io.now();
        Rc::new(Self {
            io,
            control,
            peers,
            storage,
            buffers: Buffers::new(config.memory / 4),
            reply_budget: Budget::new(config.memory / 8),
            forwarding: Budget::new(config.memory / FORWARDING_PART),
            held: Budget::new(config.memory / fetch::HELD_PART),
            waiting: Budget::new(config.memory / fetch::WAITING_PART),
            sent_bytes: Rc::default(),
            partitions: RefCell::default(),
            image,
            loading: Cell::new(0),
            loaded: Signal::default(),
            opening: Budget::new(catalog::OPEN_AT_ONCE),
            files_gone: RefCell::default(),
            removing: RefCell::default(),
            clock: clock::ClockWatch::default(),
            disk_full: Cell::new(false),
            disk_changed: Signal::default(),
            connections: Cell::new(0),
            connections_ended: Signal::default(),
            stop: Cell::new(false),
            stopping: Signal::default(),
            started,
            groups: Groups::new(config.memory, config.group_offsets_retention_ms),
            config,
        })
    }

    /// Opens the partitions that the metadata gives this shard. Gives those that could not take what the
    /// journals of the last process hold of them: they must stay.
    pub async fn load(self: &Rc<Self>) -> BTreeSet<TopicPartition> {
        self.measure_disk().await;
        self.storage.start().await;
        self.take_image(true);
        self.loaded.wait_until(|| self.loading.get() == 0).await;
        self.measure_disk().await;
        // Whoever asks as soon as the broker is ready must hear of partitions that failed.
        self.publish();
        self.storage.replayed()
    }

    async fn listen(self: &Rc<Self>, address: SocketAddr) -> io::Result<SocketAddr> {
        let listener = self.io.listen(address).await?;
        let address = listener.local_address()?;
        let accept = accept_loop(self.io.clone(), Rc::clone(self), listener);
        self.io.spawn(TaskClass::Foreground, accept);
        Ok(address)
    }

    /// Works until a stop is asked for and everything is closed.
    pub async fn run(self: &Rc<Self>, inboxes: ShardInboxes<<I as Net>::Detached>) {
        let ShardInboxes {
            mut data,
            mut control,
        } = inboxes;
        let shard = Rc::clone(self);
        self.io.spawn(TaskClass::Foreground, async move {
            while let Some(message) = data.receive().await {
                shard.take_message(message);
            }
        });
        let shard = Rc::clone(self);
        self.io
            .spawn(TaskClass::Background, async move { shard.upkeep().await });
        let shard = Rc::clone(self);
        self.io
            .spawn(TaskClass::Background, async move { shard.clean().await });
        let tend = Rc::clone(self).tend_groups();
        self.io.spawn(TaskClass::Foreground, tend);
        while let Some(message) = control.receive().await {
            match message {
                ControlMessage::Refresh(done) => self.refresh(done),
                ControlMessage::FilesGone(topic) => self.files_gone(topic),
                ControlMessage::Listen(address, listening) => {
                    let _ = listening.send(self.listen(address).await);
                }
                ControlMessage::Stop(done) => {
                    self.close_everything().await;
                    let _ = done.send(());
                    return;
                }
            }
        }
    }

    fn take_message(self: &Rc<Self>, message: Message<<I as Net>::Detached>) {
        match message {
            Message::Ask(op, reply) => self.do_op(op, reply),
            Message::Adopt(adopted) => {
                let shard = Rc::clone(self);
                self.io.spawn(TaskClass::Foreground, async move {
                    let io = shard.io.clone();
                    if let Err(error) = serve_adopted(io, shard, *adopted).await {
                        tracing::warn!(%error, "a connection could not be adopted");
                    }
                });
            }
        }
    }

    fn id(&self) -> ShardId {
        self.config.id
    }

    fn io(&self) -> &I {
        &self.io
    }

    fn broker_id(&self) -> BrokerId {
        self.image.borrow().broker_id
    }

    fn counters(&self) -> &ShardCounters {
        &self.config.broker.counters[self.config.id.0 as usize]
    }

    fn peer(&self, shard: ShardId) -> Option<&Peer<<I as Net>::Detached>> {
        self.peers.get(shard.0 as usize)
    }

    fn owner(&self, partition: TopicPartition) -> ShardId {
        owner_of(partition, self.config.shard_count)
    }

    fn owns(&self, partition: TopicPartition) -> bool {
        self.owner(partition) == self.config.id
    }

    fn is_stopping_now(&self) -> bool {
        self.stop.get()
    }

    fn stopping_signal(&self) -> &Signal {
        &self.stopping
    }

    fn disk_is_full(&self) -> bool {
        self.disk_full.get()
    }

    /// A partition that this shard owns and has open.
    fn partition(self: &Rc<Self>, id: TopicPartition) -> Result<Rc<PartitionShell<I>>, Missing> {
        if let Some(Slot::Open(shell)) = self.partitions.borrow().get(&id) {
            return Ok(Rc::clone(shell));
        }
        // The client may know newer metadata than this shard has taken.
        self.take_newer_image();
        match self.partitions.borrow().get(&id) {
            Some(Slot::Open(shell)) => Ok(Rc::clone(shell)),
            Some(Slot::Loading) => Err(Missing {
                error: ErrorCode::PartitionLoading,
                message: "the partition is being opened".to_owned(),
            }),
            Some(Slot::Failed(reason)) => Err(Missing {
                error: ErrorCode::PartitionOffline,
                message: reason.clone(),
            }),
            None => Err(self.missing(id)),
        }
    }

    fn missing(&self, id: TopicPartition) -> Missing {
        let image = self.image.borrow();
        let (error, message) = match image.topic(id.topic) {
            None => (
                ErrorCode::UnknownTopic,
                format!("there is no topic with id {}", id.topic),
            ),
            Some(topic) if topic.partition(id.partition).is_none() => {
                let (name, count) = (&topic.name, topic.partition_count());
                let partition = id.partition;
                let message =
                    format!("topic {name} has {count} partitions, no partition {partition}");
                (ErrorCode::UnknownPartition, message)
            }
            Some(_) => (
                ErrorCode::PartitionLoading,
                "the partition is being opened".to_owned(),
            ),
        };
        Missing { error, message }
    }

    fn handshake_response(&self) -> HandshakeResponse {
        let image = self.image.borrow();
        HandshakeResponse {
            cluster_id: image.cluster_id,
            broker_id: image.broker_id,
            shard: self.config.id,
            shard_count: self.config.shard_count,
            broker_version: BROKER_VERSION.to_owned(),
            feature_level: FEATURE_LEVEL,
            max_frame_size: limits::MAX_FRAME_SIZE,
            apis: Api::ALL
                .iter()
                .map(|api| ApiVersions {
                    api: *api as u16,
                    min: 0,
                    max: api.max_version(),
                })
                .collect(),
            ..HandshakeResponse::default()
        }
    }
}

impl<I: Io> Service<I> for Shard<I> {
    fn welcome(&self, request: &HandshakeRequest) -> Welcome {
        let wanted = request.wanted_shard;
        let elsewhere = wanted != self.config.id.0 && wanted < self.config.shard_count;
        if wanted != ANY_SHARD && elsewhere && !self.stop.get() {
            Welcome::Move(ShardId(wanted))
        } else {
            Welcome::Stay(self.welcome_here(request))
        }
    }

    fn welcome_here(&self, request: &HandshakeRequest) -> HandshakeResponse {
        let mut response = self.handshake_response();
        if request
            .cluster_id
            .is_some_and(|expected| expected != response.cluster_id)
        {
            response.error = ErrorCode::InvalidRequest;
            response.message = format!("this is cluster {}", response.cluster_id);
        }
        response
    }

    fn hand_over(
        &self,
        shard: ShardId,
        adopted: Box<Adopted<<I as Net>::Detached>>,
    ) -> Result<(), Box<Adopted<<I as Net>::Detached>>> {
        let Some(peer) = self.peer(shard) else {
            return Err(adopted);
        };
        match peer.data.try_send(Message::Adopt(adopted)) {
            Ok(()) => Ok(()),
            Err(mailbox::Refused(Message::Adopt(adopted))) => Err(adopted),
            Err(mailbox::Refused(Message::Ask(..))) => unreachable!("what was sent comes back"),
        }
    }

    fn serve(self: &Rc<Self>, request: Request, records: &mut [u8], reply_to: ReplyTo<I>) {
        let shard = Rc::clone(self);
        match request {
            Request::Produce(request) => self.produce(&request, records, When::Now, reply_to),
            Request::ProduceDelayed(request) => {
                self.produce(&request, records, When::Due, reply_to);
            }
            Request::ListDelayed(request) => {
                let task = shard.list_delayed(request.partitions, reply_to);
                self.io.spawn(TaskClass::Foreground, task);
            }
            Request::CancelDelayed(request) => {
                let task = shard.cancel_delayed(request.records, reply_to);
                self.io.spawn(TaskClass::Foreground, task);
            }
            Request::DescribeDelayed(request) => {
                let task = shard.describe_delayed(request.partitions, reply_to);
                self.io.spawn(TaskClass::Foreground, task);
            }
            Request::Fetch(request) => {
                self.io
                    .spawn(TaskClass::Foreground, shard.fetch(request, reply_to));
            }
            Request::Metadata(request) => self.metadata(&request, reply_to),
            Request::DescribeCluster(_) => {
                self.io
                    .spawn(TaskClass::Foreground, shard.describe_cluster(reply_to));
            }
            Request::ListOffsets(request) => {
                let task = shard.list_offsets(request.partitions, reply_to);
                self.io.spawn(TaskClass::Foreground, task);
            }
            Request::DeleteRecords(request) => {
                let task = shard.delete_records(request.partitions, reply_to);
                self.io.spawn(TaskClass::Foreground, task);
            }
            Request::DescribePartitions(request) => {
                let task = shard.describe_partitions(request.partitions, reply_to);
                self.io.spawn(TaskClass::Foreground, task);
            }
            Request::CreateTopics(request) => {
                let task = shard.create_topics(request, reply_to);
                self.io.spawn(TaskClass::Foreground, task);
            }
            Request::DeleteTopics(request) => {
                let task = shard.delete_topics(request, reply_to);
                self.io.spawn(TaskClass::Foreground, task);
            }
            Request::AlterTopic(request) => {
                let task = shard.alter_topic(request, reply_to);
                self.io.spawn(TaskClass::Foreground, task);
            }
            Request::CreatePartitions(request) => {
                let task = shard.create_partitions(request, reply_to);
                self.io.spawn(TaskClass::Foreground, task);
            }
            Request::InitProducerId(request) => {
                let task = shard.init_producer_id(request, reply_to);
                self.io.spawn(TaskClass::Foreground, task);
            }
            request @ (Request::GroupHeartbeat(_)
            | Request::OffsetCommit(_)
            | Request::OffsetFetch(_)
            | Request::ListGroups(_)
            | Request::DescribeGroups(_)
            | Request::DeleteGroups(_)) => self.serve_groups(request, reply_to),
        }
    }

    async fn room(&self) {
        // On a full disk nothing moves: the produce is to be refused, not to wait.
        let full = pin!(self.disk_changed.wait_until(|| self.disk_is_full()));
        select(full, pin!(self.storage.room())).await;
    }

    async fn admit(&self, request: &Request, records_size: usize) -> Option<Permit> {
        // What goes to other shards waits for their disks, not for ours.
        match request {
            Request::Produce(request) | Request::ProduceDelayed(request)
                if !self.owns_all(request) =>
            {
                let size = records_size + produce::bookkeeping_size(request.partitions.len());
                Some(self.forwarding.take(size).await)
            }
            _ => None,
        }
    }

    fn buffers(&self) -> &Rc<Buffers> {
        &self.buffers
    }

    fn replies(&self) -> &Rc<Budget> {
        &self.reply_budget
    }

    fn sent_bytes(&self) -> Rc<Cell<u64>> {
        Rc::clone(&self.sent_bytes)
    }

    fn received(&self, bytes: usize) {
        self.counters().received_bytes.add(bytes as u64);
        self.counters().requests.add(1);
    }

    fn closed(&self, peer: Option<SocketAddr>, reason: &ReceiveError) {
        let peer = peer.map_or_else(|| "unknown".to_owned(), |peer| peer.to_string());
        match reason {
            ReceiveError::Closed | ReceiveError::Ended | ReceiveError::Stopping => {
                tracing::debug!(%peer, %reason, "connection ended");
            }
            // A client that ends without reading all, as `consume | head` does, is no trouble.
            ReceiveError::Io(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
                ) =>
            {
                tracing::debug!(%peer, %reason, "connection ended");
            }
            _ => tracing::warn!(%peer, %reason, "connection closed"),
        }
    }

    fn may_accept(&self, peer: SocketAddr) -> bool {
        let facts = &self.config.broker;
        let open: u64 = facts.counters.iter().map(|c| c.connections.value()).sum();
        let may = open < facts.max_connections;
        if !may {
            let limit = facts.max_connections;
            tracing::warn!(%peer, limit, "connection refused: raise the limit on open files to allow more");
        }
        may
    }

    fn accept_failed(&self, error: &io::Error) {
        tracing::warn!(
            %error,
            "a connection could not be accepted; if descriptors ran out, raise the limit on open files"
        );
    }

    fn connections_changed(&self, by: isize) {
        self.connections
            .set(self.connections.get().saturating_add_signed(by));
        self.counters()
            .connections
            .set(self.connections.get() as u64);
        self.connections_ended.raise();
    }

    fn stopping(&self) -> &Signal {
        &self.stopping
    }

    fn is_stopping(&self) -> bool {
        self.stop.get()
    }
}
