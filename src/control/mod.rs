//! The control plane: one thread that changes the metadata, and the image of it that shards read.
//!
//! Requests queue, are committed to the metadata log together, applied by the pure `controller`,
//! shown as a new image, and only then answered. A sole voter elects itself at every start, in a
//! new term. Nothing here touches record bytes, and a stall here never stalls a shard.

mod batch;
mod committer;
mod data_dir;
mod metadata_log;
mod redb_log;
mod request;
mod worker;

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod tests;

use std::{
    fmt, io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use millstream_protocol::{BrokerId, ClusterId};
use tokio::sync::mpsc;
use uuid::Uuid;

pub use data_dir::{DATA_FORMAT, DataDir, DataDirError, check_format};
pub use metadata_log::{FEATURE_LEVEL, Identity, MetadataLog, MetadataLogError, Stored, Vote};
pub use redb_log::RedbLog;
pub use request::{ControlAnswer, ControlError, ControlReply, ControlRequest, Overloaded};

use crate::{
    controller::{
        Command, Controller, MetadataImage, Seat,
        format::{Entry, FormatError, decode_snapshot},
    },
    types::TopicConfig,
};
use batch::ProducerIds;
use committer::Committer;
use worker::{Message, Worker};

/// Requests that may wait for the control thread.
const QUEUE_CAPACITY: usize = 1024;

/// Called on the control thread with each new image.
pub type ImageListener = Box<dyn Fn(&Arc<MetadataImage>) + Send>;

/// Why the control plane does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The metadata log.
    #[error(transparent)]
    Log(#[from] MetadataLogError),
    /// The snapshot in it.
    #[error("the snapshot in the metadata log cannot be read")]
    Snapshot(#[from] FormatError),
    /// No thread can be had.
    #[error("cannot start the control thread: {0}")]
    Thread(io::Error),
}

/// What shards see of the control plane.
struct Shared {
    image: Mutex<Arc<MetadataImage>>,
    /// Index of that image, so that a shard looks before it locks.
    index: AtomicU64,
    failed: AtomicBool,
    listeners: Mutex<Vec<ImageListener>>,
}

impl Shared {
    fn publish(&self, image: MetadataImage) {
        let image = Arc::new(image);
        *self.image.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&image);
        self.index.store(image.index, Ordering::Release);
        for listener in self
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
        {
            listener(&image);
        }
    }

    fn set_failed(&self) {
        self.failed.store(true, Ordering::Release);
    }
}

/// The way to the control plane. Clones share it.
#[derive(Clone)]
pub struct Control {
    shared: Arc<Shared>,
    inbox: mpsc::Sender<Message>,
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control")
            .field("image_index", &self.image_index())
            .finish_non_exhaustive()
    }
}

impl Control {
    /// The newest image. Holds a lock for as long as a pointer takes to copy.
    #[must_use]
    pub fn image(&self) -> Arc<MetadataImage> {
        Arc::clone(
            &self
                .shared
                .image
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// Index of the newest image: an atomic load, to see whether a kept one is still the newest.
    #[must_use]
    pub fn image_index(&self) -> u64 {
        self.shared.index.load(Ordering::Acquire)
    }

    /// Whether changes can be made: the metadata log has not failed.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        !self.shared.failed.load(Ordering::Acquire)
    }

    /// Queues a request and never blocks. `reply` runs on the control thread, when [`Control::image`]
    /// shows what the request changed; it must only pass the answer on.
    ///
    /// # Errors
    /// The queue is full, or the control thread has ended; `reply` is dropped.
    pub fn submit(
        &self,
        request: ControlRequest,
        reply: impl FnOnce(ControlReply) + Send + 'static,
    ) -> Result<(), Overloaded> {
        let message = Message::Request(request, Box::new(reply));
        self.inbox.try_send(message).map_err(|_| Overloaded)
    }

    /// Calls `listener` with every later image, on the control thread, before replies that depend
    /// on it. Take [`Control::image`] after registering, so that none falls between.
    pub fn on_image(&self, listener: ImageListener) {
        self.shared
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(listener);
    }
}

/// The threads behind a [`Control`].
#[derive(Debug)]
pub struct ControlThreads {
    inbox: mpsc::Sender<Message>,
    control: thread::JoinHandle<()>,
    committer: thread::JoinHandle<()>,
}

impl ControlThreads {
    /// Serves what is queued, refuses what comes later, closes the log and waits for its end.
    pub fn stop(self) {
        // Room appears as the thread works through its queue; an error means that it has ended.
        let _ = self.inbox.blocking_send(Message::Stop);
        self.control
            .join()
            .expect("the control thread does not panic");
        self.committer
            .join()
            .expect("the commit thread does not panic");
    }
}

/// Who this broker is if the data directory is new.
#[must_use]
pub fn fresh_identity() -> Identity {
    Identity {
        cluster_id: ClusterId(Uuid::new_v4()),
        broker_id: BrokerId(0),
        directory_id: Uuid::new_v4(),
        feature_level: FEATURE_LEVEL,
    }
}

/// Starts the control plane over the metadata log of a data directory.
///
/// # Errors
/// The log cannot be read or written, in which case it is left as it was.
pub fn start(
    dir: &DataDir,
    topic_defaults: TopicConfig,
) -> Result<(Control, ControlThreads), StartError> {
    let log = RedbLog::open(dir, fresh_identity())?;
    dir.make_topics()?;
    start_over(log, topic_defaults)
}

/// Starts the control plane over any log: reads it, takes the next term, registers this start.
///
/// # Errors
/// The log cannot be read or written.
pub fn start_over(
    mut log: impl MetadataLog,
    topic_defaults: TopicConfig,
) -> Result<(Control, ControlThreads), StartError> {
    let stored = log.load()?;
    let broker_id = stored.identity.broker_id;
    let seat = Seat {
        cluster_id: stored.identity.cluster_id,
        broker_id,
        topic_defaults,
    };
    let mut controller = match &stored.snapshot {
        Some(bytes) => decode_snapshot(bytes, seat)?,
        None => Controller::new(seat),
    };
    let snapshot_index = controller.index();
    for entry in &stored.entries {
        // A refusal was a refusal then, too: its request was answered so.
        let _ = controller.apply(entry.index, entry.term, &entry.command);
    }
    let term = stored.vote.term + 1;
    log.save_vote(Vote {
        term,
        voted_for: broker_id,
    })?;
    let command = Command::BrokerStarted {
        broker: broker_id,
        incarnation: Uuid::new_v4(),
    };
    let entry = Entry {
        term,
        index: controller.index() + 1,
        command,
    };
    log.append(std::slice::from_ref(&entry))?;
    let started = controller.apply(entry.index, entry.term, &entry.command);
    started.expect("a broker may always start");

    let image = Arc::new(controller.image());
    let shared = Arc::new(Shared {
        index: AtomicU64::new(image.index),
        image: Mutex::new(image),
        failed: AtomicBool::new(false),
        listeners: Mutex::default(),
    });
    let (committer, committer_thread) = Committer::spawn(log).map_err(StartError::Thread)?;
    let worker = Worker {
        controller,
        term,
        committer,
        shared: Arc::clone(&shared),
        producer_ids: ProducerIds::default(),
        snapshot_index,
        failed: None,
    };
    let (inbox, receiver) = mpsc::channel(QUEUE_CAPACITY);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(StartError::Thread)?;
    let control = thread::Builder::new()
        .name("control".to_owned())
        .spawn(move || runtime.block_on(worker.run(receiver)))
        .map_err(StartError::Thread)?;
    let threads = ControlThreads {
        inbox: inbox.clone(),
        control,
        committer: committer_thread,
    };
    Ok((Control { shared, inbox }, threads))
}
