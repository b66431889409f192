//! The producer: batches, retries, and an acknowledgement per record.
//!
//! [`Producer::send`] appends to the machine directly, under a mutex that is never held across an
//! await or an encoding; the driver, one task per producer, is woken once per batch, not per record.

mod builder;
pub(crate) mod delivery;
mod driver;
pub(crate) mod linger;
pub(crate) mod machine;
pub(crate) mod partitioner;
mod record;

use std::{
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use millstream_protocol::batch::Compression;
use tokio::sync::Notify;

pub use builder::ProducerBuilder;
pub use delivery::Delivery;
pub use linger::Linger;
pub use partitioner::{
    Consistent, ConsistentRandom, Murmur2, PartitionChoice, Partitioner, RecordView, RoundRobin,
    TopicPartitions,
};
pub use record::{Delivered, ProducerRecord, TrySendError};

use self::{
    delivery::BatchOutcome,
    machine::{Action, Config, Event, Machine, Refusal},
};
use crate::{
    client::Client,
    clock::wall_time_ms,
    error::{ProduceError, RequestError},
};

/// Pause between two attempts to look a topic up while the broker can't be reached.
const LOOKUP_PAUSE: Duration = Duration::from_millis(200);

/// Sends records. Cheap to clone; clones share batches, buffer and connections. Dropping the last
/// clone ends the producer: what is not delivered by then fails, with a warning in the log.
#[derive(Clone, Debug)]
pub struct Producer {
    handle: Arc<Handle>,
}

/// Ends the producer when the last clone is dropped; the drivers hold only the cores.
#[derive(Debug)]
struct Handle {
    core: Arc<Core>,
    /// Begins with the first delayed record. They have batches, requests, sequences and a buffer of their
    /// own, so that neither waits for the other.
    delayed: OnceLock<Arc<Core>>,
    config: Config,
    runtime: tokio::runtime::Handle,
}

#[derive(Debug)]
struct Core {
    client: Client,
    /// Its records are delayed.
    is_delayed: bool,
    compression: Compression,
    request_timeout: Duration,
    delivery_timeout: Duration,
    state: Mutex<State>,
    /// Wakes the driver.
    wake: Notify,
    /// Rung whenever batches have settled.
    settled: Notify,
}

#[derive(Debug)]
struct State {
    machine: Machine<BatchOutcome>,
    /// Decided, not yet done; the driver's to do.
    actions: Vec<Action<BatchOutcome>>,
    /// Batches that have settled and whose handles do not know it yet.
    settling: usize,
    failed_batches: u64,
    last_failure: Option<ProduceError>,
    /// No handle is left.
    dropped: bool,
}

impl Producer {
    fn start(
        client: Client,
        config: Config,
        compression: Compression,
        request_timeout: Duration,
    ) -> Self {
        let core = Core::new(client, config.clone(), compression, request_timeout, false);
        let core = Arc::new(core);
        tokio::spawn(driver::drive(Arc::clone(&core)));
        Self {
            handle: Arc::new(Handle {
                core,
                delayed: OnceLock::new(),
                config,
                runtime: tokio::runtime::Handle::current(),
            }),
        }
    }

    /// Puts a record into its batch, waiting for room in the buffer and, once per topic, for
    /// metadata. The record is taken when this returns; a future dropped earlier took nothing.
    ///
    /// # Errors
    /// [`ProduceError`] if the record can't be taken: unknown topic or partition, too large, closed.
    pub async fn send(&self, record: ProducerRecord) -> Result<Delivery, ProduceError> {
        // A loop of sends that never has to wait must let the driver run now and then.
        tokio::task::coop::consume_budget().await;
        let core = self.handle.core_of(&record);
        let timestamp_ms = record.timestamp_ms.unwrap_or_else(wall_time_ms);
        loop {
            match core.append(&record, timestamp_ms) {
                Ok(delivery) => return Ok(delivery),
                Err(Refusal::UnknownTopic) => core.learn_topic(&record.topic).await?,
                Err(Refusal::Full) => {
                    let mut settled = pin!(core.settled.notified());
                    settled.as_mut().enable();
                    // Room that came before we listened would not ring again.
                    match core.append(&record, timestamp_ms) {
                        Ok(delivery) => return Ok(delivery),
                        Err(Refusal::Full) => settled.await,
                        Err(_other) => {}
                    }
                }
                Err(refusal) => return Err(refused(&record, refusal)),
            }
        }
    }

    /// Puts a record into its batch if that needs no waiting.
    ///
    /// # Errors
    /// [`TrySendError`] gives the record back where it may be taken later.
    #[expect(
        clippy::result_large_err,
        reason = "the record itself comes back, by value"
    )]
    pub fn try_send(&self, record: ProducerRecord) -> Result<Delivery, TrySendError> {
        let timestamp_ms = record.timestamp_ms.unwrap_or_else(wall_time_ms);
        match self.handle.core_of(&record).append(&record, timestamp_ms) {
            Ok(delivery) => Ok(delivery),
            Err(Refusal::Full) => Err(TrySendError::Full(record)),
            Err(Refusal::UnknownTopic) => Err(TrySendError::UnknownTopic(record)),
            Err(refusal) => Err(TrySendError::Refused(refused(&record, refusal))),
        }
    }

    /// Sends what is buffered without lingering and waits until every record sent before this call
    /// is delivered or has failed; its [`Delivery`] tells which.
    ///
    /// # Errors
    /// An error of a record that failed meanwhile.
    pub async fn flush(&self) -> Result<(), ProduceError> {
        self.settle_all(|| Event::FlushWanted).await
    }

    /// Flushes and ends; later sends fail. Dropping the last clone instead loses what is unsent, with
    /// a warning.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub async fn close(&self) -> Result<(), ProduceError> {
        self.settle_all(|| Event::Closed).await
    }

    async fn settle_all(&self, event: fn() -> Event) -> Result<(), ProduceError> {
        let settled = self.handle.core.settle_all(event()).await;
        match self.handle.delayed.get() {
            Some(delayed) => settled.and(delayed.settle_all(event()).await),
            None => settled,
        }
    }
}

impl Core {
    fn new(
        client: Client,
        config: Config,
        compression: Compression,
        request_timeout: Duration,
        is_delayed: bool,
    ) -> Self {
        Self {
            client,
            is_delayed,
            compression,
            request_timeout,
            delivery_timeout: config.delivery_timeout,
            state: Mutex::new(State {
                machine: Machine::new(config),
                actions: Vec::new(),
                settling: 0,
                failed_batches: 0,
                last_failure: None,
                dropped: false,
            }),
            wake: Notify::new(),
            settled: Notify::new(),
        }
    }

    /// Applies `event`, then waits for every batch begun before it.
    async fn settle_all(&self, event: Event) -> Result<(), ProduceError> {
        let core = self;
        let (mark, failed_before) = {
            let state = core.state();
            (state.machine.flush_mark(), state.failed_batches)
        };
        core.apply(event);
        loop {
            let mut settled = pin!(core.settled.notified());
            settled.as_mut().enable();
            {
                let state = core.state();
                if state.settling == 0 && state.machine.is_settled_before(mark) {
                    return match &state.last_failure {
                        Some(error) if state.failed_batches > failed_before => Err(error.clone()),
                        _ => Ok(()),
                    };
                }
            }
            settled.await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, record: &ProducerRecord, timestamp_ms: i64) -> Result<Delivery, Refusal> {
        let clock = self.client.shared.clock;
        let now = || clock.now();
        let appended = self.state().machine.append(now, record, timestamp_ms);
        match &appended {
            Ok(appended) if !appended.wake => {}
            Ok(_) | Err(Refusal::Full) => self.wake.notify_one(),
            Err(_) => {}
        }
        let appended = appended?;
        let delivery = Delivery::new(appended.handle, appended.index, timestamp_ms);
        Ok(delivery.delayed(self.is_delayed))
    }

    /// Tells the machine, and the driver to do what follows.
    fn apply(&self, event: Event) {
        let now = self.client.shared.clock.now();
        self.state().apply(now, event);
        self.wake.notify_one();
    }

    /// Looks a topic up, for as long as a record may wait to be delivered.
    async fn learn_topic(&self, name: &str) -> Result<(), RequestError> {
        let clock = self.client.shared.clock;
        let give_up_at = clock.now() + self.delivery_timeout;
        loop {
            match self.client.shared.metadata.topic(name).await {
                Ok(topic) => {
                    self.apply(Event::TopicLearned(topic));
                    return Ok(());
                }
                Err(error) if error.is_retriable() && clock.now() < give_up_at => {
                    tokio::time::sleep(LOOKUP_PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl State {
    fn apply(&mut self, now: Duration, event: Event) {
        let before = self.actions.len();
        self.machine.apply(now, event, &mut self.actions);
        let settle = |action: &&Action<BatchOutcome>| matches!(action, Action::Settle { .. });
        self.settling += self.actions[before..].iter().filter(settle).count();
    }
}

impl Handle {
    /// Who sends a record.
    fn core_of(&self, record: &ProducerRecord) -> &Arc<Core> {
        if !record.is_delayed {
            return &self.core;
        }
        self.delayed.get_or_init(|| {
            let (client, config) = (self.core.client.clone(), self.config.clone());
            let (compression, timeout) = (self.core.compression, self.core.request_timeout);
            let core = Arc::new(Core::new(client, config, compression, timeout, true));
            self.runtime.spawn(driver::drive(Arc::clone(&core)));
            core
        })
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.core.abandon();
        if let Some(delayed) = self.delayed.get() {
            delayed.abandon();
        }
    }
}

impl Core {
    /// No handle is left.
    fn abandon(&self) {
        let mut state = self.state();
        state.dropped = true;
        let unsettled = state.machine.unsettled_records();
        if unsettled > 0 {
            tracing::warn!(
                records = unsettled,
                "a producer was dropped with records undelivered; call close() before"
            );
        }
        drop(state);
        self.wake.notify_one();
    }
}

fn refused(record: &ProducerRecord, refusal: Refusal) -> ProduceError {
    match refusal {
        Refusal::UnknownPartition { partition, count } => RequestError::UnknownPartition {
            topic: Arc::clone(&record.topic),
            partition,
            count,
        }
        .into(),
        Refusal::TooLarge {
            size,
            limit,
            setting,
        } => ProduceError::RecordTooLarge {
            size,
            limit,
            setting,
        },
        Refusal::NegativeTimestamp => {
            ProduceError::InvalidRecord("its timestamp is negative; use milliseconds since 1970")
        }
        Refusal::UnknownTopic => RequestError::UnknownTopic(Arc::clone(&record.topic)).into(),
        Refusal::Closed | Refusal::Full => ProduceError::Closed,
    }
}
