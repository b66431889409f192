//! The settings of a producer.

use std::time::Duration;

use millstream_protocol::{
    batch::{BATCH_HEADER_SIZE, Compression},
    limits::MAX_BATCH_SIZE,
};

use super::{
    Linger, Producer,
    machine::{Config, MAX_IDEMPOTENT_IN_FLIGHT},
    partitioner::{Partitioner, Partitioning},
};
use crate::{client::Client, clock::jitter_seed, error::RequestError};

/// Most bytes of batches in one request, unless one alone is larger.
const MAX_REQUEST_SIZE: usize = 4 << 20;

/// Requests in flight per shard, unless set: enough to keep broker and disk busy.
const DEFAULT_IN_FLIGHT: usize = 64;

/// Settings of a [`Producer`]; made by [`Client::producer`].
#[derive(Clone, Debug)]
pub struct ProducerBuilder {
    client: Client,
    linger: Linger,
    batch_size: usize,
    compression: Compression,
    idempotent: bool,
    buffer_memory: usize,
    max_in_flight: usize,
    delivery_timeout: Duration,
    request_timeout: Duration,
    partitioning: Partitioning,
}

impl ProducerBuilder {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            request_timeout: client.shared.request_timeout,
            client,
            linger: Linger::default(),
            batch_size: 64 << 10,
            compression: Compression::None,
            idempotent: true,
            buffer_memory: 32 << 20,
            max_in_flight: DEFAULT_IN_FLIGHT,
            delivery_timeout: Duration::from_secs(120),
            partitioning: Partitioning::default(),
        }
    }

    /// Chooses the partitions of records that do not name one: each topic gets a clone.
    /// [`Murmur2`](super::Murmur2) by default, which agrees with Kafka's Java client.
    #[must_use]
    pub fn partitioner(mut self, partitioner: impl Partitioner + Clone + Sync + 'static) -> Self {
        self.partitioning = Partitioning::by(partitioner);
        self
    }

    /// How long a batch waits for company. 0 by default: records are batched by what gathers while
    /// earlier requests are in flight. [`Linger::Auto`] lets the traffic decide.
    #[must_use]
    pub fn linger(mut self, linger: impl Into<Linger>) -> Self {
        self.linger = linger.into();
        self
    }

    /// Bytes of records at which a batch is full, before compression. 64 KiB by default; one larger
    /// record makes a batch of its own.
    #[must_use]
    pub fn batch_size(mut self, bytes: usize) -> Self {
        self.batch_size = bytes;
        self
    }

    /// Compresses batches. None by default.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Whether the broker drops repeated batches, so that retries write a record once. On by
    /// default; without it a partition has one batch in flight, and a retry may write it twice.
    #[must_use]
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.idempotent = idempotent;
        self
    }

    /// Most bytes of unacknowledged records; `send` waits beyond. 32 MiB by default.
    #[must_use]
    pub fn buffer_memory(mut self, bytes: usize) -> Self {
        self.buffer_memory = bytes;
        self
    }

    /// Most requests in flight per broker shard: 64 by default, and no more than that when idempotent, for a
    /// partition has at most 64 batches in flight then: it is how many the broker can recognise. Beyond 16 only
    /// requests go that are large, of 32 KiB or more: small ones wait for each other and share one.
    #[must_use]
    pub fn max_in_flight(mut self, requests: usize) -> Self {
        self.max_in_flight = requests;
        self
    }

    /// How long after `send` a record may still be tried. 120 s by default.
    #[must_use]
    pub fn delivery_timeout(mut self, timeout: Duration) -> Self {
        self.delivery_timeout = timeout;
        self
    }

    /// How long one request may take before it is tried again. The client's by default (30 s).
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// Starts the producer. It asks for its identity, and for topics, when it first needs them.
    ///
    /// # Errors
    /// [`RequestError::Configuration`] if a setting makes no sense.
    #[expect(
        clippy::unused_async,
        reason = "starting may need the broker one day; callers await it"
    )]
    pub async fn build(self) -> Result<Producer, RequestError> {
        let config = self
            .config()
            .map_err(|reason| RequestError::Configuration(reason.into()))?;
        Ok(Producer::start(
            self.client,
            config,
            self.compression,
            self.request_timeout,
        ))
    }

    fn config(&self) -> Result<Config, &'static str> {
        if self.batch_size <= BATCH_HEADER_SIZE || self.batch_size > MAX_BATCH_SIZE as usize {
            return Err("batch_size must be more than 61 bytes and at most 64 MiB");
        }
        if self.buffer_memory < self.batch_size {
            return Err("buffer_memory must be at least batch_size");
        }
        if self.max_in_flight == 0 {
            return Err("max_in_flight must be at least 1");
        }
        if self.idempotent && self.max_in_flight > MAX_IDEMPOTENT_IN_FLIGHT {
            return Err("max_in_flight must be at most 64 for an idempotent producer");
        }
        if self.request_timeout.is_zero() || self.delivery_timeout.is_zero() {
            return Err("request_timeout and delivery_timeout must be more than 0");
        }
        Ok(Config {
            linger: self.linger,
            batch_size: self.batch_size,
            buffer_memory: self.buffer_memory,
            max_request_size: MAX_REQUEST_SIZE,
            max_in_flight: self.max_in_flight,
            idempotent: self.idempotent,
            delivery_timeout: self.delivery_timeout,
            partitioning: self.partitioning.clone(),
            seed: jitter_seed(),
        })
    }
}
