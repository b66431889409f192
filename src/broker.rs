//! The broker: its shards, started and stopped together.

use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    path::PathBuf,
    rc::Rc,
    sync::{Arc, mpsc},
    time::Duration,
};

use millstream_protocol::{ShardId, TopicPartition};

use crate::{
    control::Control,
    io::uring::{ShardOptions, ShardThread, UringDetached, UringIo, spawn_shard},
    shard::{
        BrokerFacts, ControlMessage, Peer, Shard, ShardConfig, ShardInboxes, inboxes,
        metrics::ShardCounters,
    },
    storage::{
        LogError, Replay, StorageConfig,
        limits::{JOURNAL_FILE_SIZE, MAX_JOURNAL_SIZE, PREPARED_FILE_SIZE},
        remove_prepared,
    },
};

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerProtocol {
    /// Millstream's own, without encryption.
    Native,
}

/// How clients of a listener say who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// They do not: every session is anonymous.
    None,
}

/// An address to serve clients on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSettings {
    /// For logs.
    pub name: String,
    /// What it speaks.
    pub protocol: ListenerProtocol,
    /// Where it listens; port 0 lets the system choose.
    pub address: SocketAddr,
    /// What clients are told to connect to; none means the address they used, which works through
    /// port forwards and containers.
    pub advertised: Option<(String, u16)>,
    /// Who clients are.
    pub authentication: Authentication,
}

/// What a broker is told at its start.
#[derive(Clone, Debug)]
pub struct BrokerSettings {
    /// Everything it keeps.
    pub data_dir: PathBuf,
    /// Number of the first life of every log there.
    pub first_life: u64,
    /// Where it serves clients; today exactly one.
    pub listeners: Vec<ListenerSettings>,
    /// One shard each: the core to pin it to, or none.
    pub shard_cpus: Vec<Option<usize>>,
    /// Memory for all shards, in bytes.
    pub memory: u64,
    /// Space that is filled with zeros in quiet moments, for logs that are written fast, in bytes.
    pub prepared_space: u64,
    /// Use direct I/O where the file system allows it.
    pub direct_io: bool,
    /// Busy-wait for so long before sleeping; for hosts that serve nothing else.
    pub spin: Option<Duration>,
    /// Files that may be open at once, of all shards.
    pub open_files: usize,
    /// Client connections that may be open at once, of all shards.
    pub max_connections: u64,
    /// Offsets of a consumer group without members are kept so long, in milliseconds.
    pub group_offsets_retention_ms: i64,
}

/// Why a broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A shard's executor could not be made.
    #[error("shard {0} could not be started")]
    Shard(u32, #[source] io::Error),
    /// A shard ended while it opened its partitions; its thread has said why.
    #[error("shard {0} ended while it started")]
    ShardEnded(u32),
    /// What the journals hold cannot be told, and it may have been acknowledged.
    #[error("the journal cannot be read")]
    Journal(#[source] LogError),
    /// What was replayed is still there.
    #[error("the journal of the last run cannot be removed")]
    JournalRemoval(#[source] io::Error),
    /// The address is taken or not ours.
    #[error("cannot listen on {0}")]
    Listen(SocketAddr, #[source] io::Error),
}

/// The shards did not close in time; what was acknowledged is durable all the same.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} shards did not close within the deadline")]
pub struct NotClosed(pub usize);

/// A running broker.
pub struct Broker {
    peers: Vec<Peer<UringDetached>>,
    threads: Vec<ShardThread<()>>,
    facts: Arc<BrokerFacts>,
    addresses: Vec<SocketAddr>,
}

/// What the first files of all journals take together at most, in bytes, unless there are more shards than mebibytes.
const FRESH_JOURNALS_SIZE: u64 = 128 << 20;

/// Share of a shard's memory that its cache may take, in parts of 32; connections take the rest.
const CACHE_PARTS: usize = 15;

impl Broker {
    /// Starts the shards, opens every partition, then listens. Clients are served when it returns.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(settings: &BrokerSettings, control: &Control) -> Result<Self, StartError> {
        let shard_count = settings.shard_cpus.len();
        let facts = Arc::new(BrokerFacts {
            data_dir: settings.data_dir.display().to_string(),
            direct_io: settings.direct_io,
            memory: settings.memory,
            max_connections: settings.max_connections,
            counters: (0..shard_count)
                .map(|_| Arc::new(ShardCounters::default()))
                .collect(),
        });
        let (peers, inboxes): (Vec<_>, Vec<_>) = (0..shard_count).map(|_| inboxes()).unzip();
        // The lanes first, then the image: none falls between.
        let lanes = peers.clone();
        control.on_image(Box::new(move |_| {
            for peer in &lanes {
                // A full lane has a refresh in it, which will see this image too.
                let _ = peer.control.try_send(ControlMessage::Refresh(None));
            }
        }));
        let mut broker = Self {
            peers,
            threads: Vec::new(),
            facts,
            addresses: Vec::new(),
        };
        let replay = read_journals(settings)?;
        tell_torn(&replay, control);
        let (loaded, all_loaded) = mpsc::channel();
        for (index, inbox) in inboxes.into_iter().enumerate() {
            let loaded = loaded.clone();
            broker.spawn(settings, control, index, inbox, Arc::clone(&replay), loaded)?;
        }
        drop(loaded);
        let mut untaken = BTreeSet::new();
        for missing in 0..shard_count {
            let number = u32::try_from(missing).unwrap_or(u32::MAX);
            let left = all_loaded.recv();
            untaken.extend(left.map_err(|_| StartError::ShardEnded(number))?);
        }
        if !replay.is_empty() {
            remove_journals(settings, &replay, untaken)?;
        }
        broker.listen(settings)?;
        Ok(broker)
    }

    fn spawn(
        &mut self,
        settings: &BrokerSettings,
        control: &Control,
        index: usize,
        inbox: ShardInboxes<UringDetached>,
        replay: Arc<Replay>,
        loaded: mpsc::Sender<BTreeSet<TopicPartition>>,
    ) -> Result<(), StartError> {
        let number = u32::try_from(index).unwrap_or(u32::MAX);
        let config = shard_config(settings, &self.facts, number);
        let options = ShardOptions {
            spin: settings.spin,
            direct: settings.direct_io,
        };
        let control = control.clone();
        let peers = self.peers.clone();
        let main = move |io: UringIo| async move {
            let shard = Shard::new(io, config, Rc::new(control), peers, replay);
            let _ = loaded.send(shard.load().await);
            shard.run(inbox).await;
        };
        let thread = spawn_shard(index, settings.shard_cpus[index], &options, main)
            .map_err(|error| StartError::Shard(number, error))?;
        self.threads.push(thread);
        Ok(())
    }

    /// Every shard listens on the same addresses. The first one settles a port that was left open.
    fn listen(&mut self, settings: &BrokerSettings) -> Result<(), StartError> {
        for listener in &settings.listeners {
            let mut address = listener.address;
            for peer in &self.peers {
                let (send, listening) = mpsc::channel();
                let sent = peer.control.try_send(ControlMessage::Listen(address, send));
                assert!(sent.is_ok(), "a lane has room at the start");
                address = listening
                    .recv()
                    .unwrap_or_else(|_| Err(io::Error::other("the shard ended")))
                    .map_err(|error| StartError::Listen(address, error))?;
            }
            self.addresses.push(address);
        }
        Ok(())
    }

    /// Addresses it listens on.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Counters of each shard.
    #[must_use]
    pub fn counters(&self) -> &[Arc<ShardCounters>] {
        &self.facts.counters
    }

    /// Takes nothing new, answers what it has, makes everything durable, closes. The control plane
    /// must still be there.
    ///
    /// # Errors
    /// [`NotClosed`] if that takes longer than `deadline`; the threads are left behind.
    pub fn stop(self, deadline: Duration) -> Result<(), NotClosed> {
        let (closed, all_closed) = mpsc::channel();
        for peer in &self.peers {
            // A lane that is full belongs to a shard that has stopped working.
            let _ = peer.control.try_send(ControlMessage::Stop(closed.clone()));
        }
        drop(closed);
        let mut missing = self.threads.len();
        let mut left = deadline;
        let step = Duration::from_millis(10).min(deadline);
        while missing > 0 && !left.is_zero() {
            match all_closed.recv_timeout(step) {
                Ok(()) => missing -= 1,
                Err(mpsc::RecvTimeoutError::Timeout) => left = left.saturating_sub(step),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
        }
        if missing > 0 {
            return Err(NotClosed(missing));
        }
        for thread in self.threads {
            thread.join();
        }
        Ok(())
    }
}

/// Runs something short on a shard of its own.
fn run_once<F, Fut>(settings: &BrokerSettings, main: F) -> Result<Fut::Output, StartError>
where
    F: FnOnce(UringIo) -> Fut + Send + 'static,
    Fut: Future + 'static,
    Fut::Output: Send + 'static,
{
    let options = ShardOptions {
        spin: None,
        direct: settings.direct_io,
    };
    let thread =
        spawn_shard(0, None, &options, main).map_err(|error| StartError::Shard(0, error))?;
    Ok(thread.join())
}

/// What the journals of the last process hold; its shards may have been others.
fn read_journals(settings: &BrokerSettings) -> Result<Arc<Replay>, StartError> {
    let data_dir = settings.data_dir.clone();
    let read = run_once(settings, |io| async move {
        remove_prepared(&io, &data_dir).await?;
        Replay::read(&io, &data_dir).await
    })?;
    read.map_err(StartError::Journal)
}

/// What is cut of them was never proven durable, but nobody should learn of it by missing records.
fn tell_torn(replay: &Replay, control: &Control) {
    let image = control.image();
    for torn in replay.torn() {
        let name_of = |id: TopicPartition| match image.topic(id.topic) {
            Some(topic) => format!("{}/{}", topic.name, id.partition),
            None => format!("{id}, of a deleted topic"),
        };
        tracing::warn!("{}", torn.told(name_of));
    }
}

/// Removes them before anything new is appended, which could contradict what they hold.
fn remove_journals(
    settings: &BrokerSettings,
    replay: &Arc<Replay>,
    untaken: BTreeSet<TopicPartition>,
) -> Result<(), StartError> {
    let (replay, data_dir) = (Arc::clone(replay), settings.data_dir.clone());
    let removed = run_once(settings, |io| async move {
        replay.remove(&io, &data_dir, &untaken).await
    })?;
    removed.map_err(StartError::JournalRemoval)
}

/// A fresh broker takes little disk, however many shards it has.
fn journal_file_size(shard_count: usize) -> u64 {
    let part = FRESH_JOURNALS_SIZE / shard_count.max(1) as u64;
    let mebibyte = 1 << 20;
    (part / mebibyte * mebibyte).clamp(mebibyte, JOURNAL_FILE_SIZE)
}

fn shard_config(settings: &BrokerSettings, facts: &Arc<BrokerFacts>, number: u32) -> ShardConfig {
    let shard_count = settings.shard_cpus.len();
    let memory = usize::try_from(settings.memory).unwrap_or(usize::MAX) / shard_count;
    ShardConfig {
        id: ShardId(number),
        shard_count: u32::try_from(shard_count).unwrap_or(u32::MAX),
        memory,
        storage: StorageConfig {
            data_dir: settings.data_dir.clone(),
            first_life: settings.first_life,
            cache_size: memory / 32 * CACHE_PARTS,
            unflushed_limit: memory / 8,
            open_files: settings.open_files / shard_count,
            journal_file_size: journal_file_size(shard_count),
            // What is only in the journal is in memory as well.
            journal_size_max: MAX_JOURNAL_SIZE.min(memory as u64 / 8),
            prepared_size: settings.prepared_space / shard_count as u64,
            prepared_file_size: PREPARED_FILE_SIZE,
        },
        advertised: settings
            .listeners
            .first()
            .and_then(|listener| listener.advertised.clone()),
        group_offsets_retention_ms: settings.group_offsets_retention_ms,
        broker: Arc::clone(facts),
    }
}
