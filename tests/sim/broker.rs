//! The broker: its shards as tasks of one node of the simulation, started, stopped and cut.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    rc::Rc,
    sync::{Arc, mpsc},
    time::Duration,
};

use millstream::{
    io::{
        Clock as _, TaskClass, Tasks as _,
        sim::{CrashPolicy, SimDetached, SimDisk, SimIo},
    },
    shard::{
        BrokerFacts, ControlMessage, Peer, Shard, ShardConfig, inboxes,
        metrics::{Counter, ShardCounters},
    },
    storage::{Replay, StorageConfig},
};
use millstream_protocol::ShardId;

use crate::{
    control::{Metadata, Plane, SimControl},
    history::{Recorder, What},
};

/// The broker's node.
pub const BROKER: u32 = 1;
/// The clients' node.
pub const CLIENTS: u32 = 2;

/// Looks at what std channels and other nodes did.
const LOOK_EVERY: Duration = Duration::from_micros(500);
/// Longer than any start or stop takes on a disk that works.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where the broker listens.
pub fn address() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 7400).into()
}

/// How much a shard may use: little, so that limits are met.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub memory: usize,
    pub cache_size: usize,
    pub unflushed_limit: usize,
    pub open_files: usize,
}

/// Something that a shard has in use.
pub struct InUse {
    pub what: &'static str,
    pub used: u64,
    pub limit: u64,
}

impl Limits {
    /// What a shard has in use, and may have.
    pub fn in_use(&self, counters: &ShardCounters) -> [InUse; 5] {
        let of = |what, used: &Counter, limit: usize| InUse {
            what,
            used: used.value(),
            limit: limit as u64,
        };
        [
            of(
                "receive buffers",
                &counters.receive_buffer_bytes,
                self.memory / 4,
            ),
            of("replies", &counters.reply_bytes, self.memory / 8),
            of("cache", &counters.cached_bytes, self.cache_size),
            // What comes while there is room is taken whole.
            of(
                "unflushed",
                &counters.unflushed_bytes,
                self.unflushed_limit + ONE_REQUEST,
            ),
            of(
                "open files",
                &counters.open_files,
                self.open_files + FILES_IN_USE,
            ),
        ]
    }
}

/// Largest produce of the simulated clients, about.
const ONE_REQUEST: usize = 256 << 10;
/// Files that are being read or written beside those that are kept open.
const FILES_IN_USE: usize = 64;

/// The counters of the shards that run, for who watches over several runs.
pub type Watched = Rc<RefCell<Vec<Arc<ShardCounters>>>>;

/// One broker, its disk and its metadata log, over all its runs.
pub struct Broker {
    io: SimIo,
    disk: SimDisk,
    metadata: Metadata,
    limits: Limits,
    run: Option<Run>,
    watched: Watched,
    /// Segments that compaction wrote in the runs before this one.
    compacted_segments: u64,
    may_refuse: bool,
    recorder: Recorder,
}

struct Run {
    peers: Vec<Peer<SimDetached>>,
    facts: Arc<BrokerFacts>,
    ready: Rc<Cell<bool>>,
    ended: Rc<Cell<u32>>,
}

impl Broker {
    /// A broker that does not run yet.
    pub fn new(io: &SimIo, limits: Limits, recorder: &Recorder) -> Self {
        Self {
            io: io.clone(),
            disk: SimDisk::new(),
            metadata: Metadata::new(),
            limits,
            run: None,
            watched: Watched::default(),
            compacted_segments: 0,
            may_refuse: false,
            recorder: recorder.clone(),
        }
    }

    pub fn disk(&self) -> &SimDisk {
        &self.disk
    }

    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    pub fn counters(&self) -> &[Arc<ShardCounters>] {
        &self.run.as_ref().expect("the broker runs").facts.counters
    }

    /// The counters of whichever run there is.
    pub fn watch(&self) -> Watched {
        Rc::clone(&self.watched)
    }

    /// Segments that compaction has written anew so far.
    pub fn compacted_segments(&self) -> u64 {
        let now = self.watched.borrow();
        let now = now.iter().map(|shard| shard.compacted_segments.value());
        self.compacted_segments + now.sum::<u64>()
    }

    /// Nothing runs any more.
    fn ended(&mut self) {
        self.compacted_segments = self.compacted_segments();
        self.watched.borrow_mut().clear();
        self.run = None;
    }

    /// A start may refuse what it finds, from here on.
    pub fn may_refuse(&mut self, may: bool) {
        self.may_refuse = may;
    }

    /// Starts it; [`Broker::ready`] waits until it listens.
    pub fn start(&mut self, shard_count: u32) {
        assert!(self.run.is_none(), "it runs already");
        let node = self.io.node(BROKER, &self.disk);
        let (peers, inboxes): (Vec<_>, Vec<_>) = (0..shard_count).map(|_| inboxes()).unzip();
        let control = SimControl::start(node.clone(), self.metadata.clone(), peers.clone());
        let facts = Arc::new(BrokerFacts {
            data_dir: "/data".to_owned(),
            direct_io: true,
            max_connections: 1000,
            memory: (self.limits.memory * shard_count as usize) as u64,
            counters: (0..shard_count).map(|_| Arc::default()).collect(),
        });
        // How many have loaded, and the partitions that could not take what the journals hold.
        let loaded = Rc::new(RefCell::new((0_usize, BTreeSet::new())));
        let ended = Rc::new(Cell::new(0));
        let configs = (0..shard_count).map(|number| self.config(number, shard_count, &facts));
        let starts: Vec<_> = configs.zip(inboxes).collect();
        let ready = Rc::new(Cell::new(false));
        let (io, all, is_ready) = (node.clone(), peers.clone(), Rc::clone(&ready));
        let shards_ended = Rc::clone(&ended);
        let (may_refuse, recorder) = (self.may_refuse, self.recorder.clone());
        node.spawn(TaskClass::Foreground, async move {
            let replay = match Replay::read(&io, "/data".as_ref()).await {
                Err(error) if may_refuse => return recorder.say(format!("refused: {error}")),
                Err(error) => {
                    recorder.note(What::Unexplained(format!("refused: {error}")));
                    panic!("the journals can be read: {error}");
                }
                Ok(replay) => replay,
            };
            for (config, inbox) in starts {
                let plane = Rc::new(Plane(Rc::clone(&control)));
                let replay = Arc::clone(&replay);
                let shard = Shard::new(io.clone(), config, plane, all.clone(), replay);
                let (loaded, ended) = (Rc::clone(&loaded), Rc::clone(&shards_ended));
                io.spawn(TaskClass::Foreground, async move {
                    let untaken = shard.load().await;
                    {
                        let (count, all_untaken) = &mut *loaded.borrow_mut();
                        *count += 1;
                        all_untaken.extend(untaken);
                    }
                    shard.run(inbox).await;
                    ended.set(ended.get() + 1);
                });
            }
            while loaded.borrow().0 < all.len() {
                io.sleep(LOOK_EVERY).await;
            }
            let untaken = loaded.take().1;
            let removed = replay.remove(&io, "/data".as_ref(), &untaken).await;
            removed.expect("journals can be removed");
            listen(io, all, is_ready).await;
        });
        self.watched.borrow_mut().clone_from(&facts.counters);
        self.run = Some(Run {
            peers,
            facts,
            ready,
            ended,
        });
    }

    fn config(&self, number: u32, shard_count: u32, facts: &Arc<BrokerFacts>) -> ShardConfig {
        ShardConfig {
            id: ShardId(number),
            shard_count,
            memory: self.limits.memory,
            storage: StorageConfig {
                first_life: 1 << 40,
                data_dir: "/data".into(),
                cache_size: self.limits.cache_size,
                unflushed_limit: self.limits.unflushed_limit,
                open_files: self.limits.open_files,
                // Small, so that files are used again.
                journal_file_size: 160 << 10,
                journal_size_max: 640 << 10,
                prepared_size: 0,
                prepared_file_size: 128 << 10,
            },
            advertised: None,
            group_offsets_retention_ms: 1 << 40,
            broker: Arc::clone(facts),
        }
    }

    /// Waits until it listens.
    pub async fn ready(&self) {
        let ready = Rc::clone(&self.run.as_ref().expect("it was started").ready);
        within(&self.io, "the broker's start", || ready.get()).await;
    }

    /// The power goes: the process and everything unsynced, as the policy has it.
    pub fn cut_power(&mut self, policy: CrashPolicy) {
        let node = self.io.node(BROKER, &self.disk);
        // First, or what the process says as it is taken apart would still be heard.
        node.sim_net().reset_connections(BROKER);
        node.kill();
        self.ended();
        self.disk.crash(policy);
    }

    /// Stops it as a signal would: everything accepted is durable, nothing needs recovery.
    pub async fn stop(&mut self) {
        self.ready().await;
        let run = self.run.as_ref().expect("it runs");
        let count = u32::try_from(run.peers.len()).expect("few shards");
        let (done, all_done) = mpsc::channel();
        for peer in &run.peers {
            let sent = peer.control.try_send(ControlMessage::Stop(done.clone()));
            assert!(sent.is_ok(), "the control lane has room");
        }
        within(&self.io, "the broker's stop", || run.ended.get() == count).await;
        assert_eq!(all_done.try_iter().count(), count as usize);
        // Whatever tasks are left end with the process.
        let node = self.io.node(BROKER, &self.disk);
        node.sim_net().reset_connections(BROKER);
        node.kill();
        self.ended();
    }
}

async fn listen(io: SimIo, peers: Vec<Peer<SimDetached>>, ready: Rc<Cell<bool>>) {
    for peer in &peers {
        let (send, listening) = mpsc::channel();
        let sent = peer
            .control
            .try_send(ControlMessage::Listen(address(), send));
        assert!(sent.is_ok(), "the control lane has room");
        let bound = loop {
            match listening.try_recv() {
                Ok(bound) => break bound,
                Err(_) => io.sleep(LOOK_EVERY).await,
            }
        };
        assert_eq!(bound.expect("the address is free"), address());
    }
    ready.set(true);
}

/// Waits for something that must happen.
pub async fn within(io: &SimIo, what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = io.now() + PATIENCE;
    while !happened() {
        assert!(io.now() < deadline, "{what} takes longer than {PATIENCE:?}");
        io.sleep(LOOK_EVERY).await;
    }
}
