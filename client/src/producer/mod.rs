//! The producer: batches, retries, and an acknowledgement per record.

mod delivery;
mod record;

use std::time::Duration;

pub use delivery::Delivery;
pub use record::{Delivered, ProducerRecord, TrySendError};

use crate::{
    client::Client,
    error::{ProduceError, RequestError},
};

/// How a batch's records are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// RFC 1952.
    Gzip,
    /// Snappy, in xerial framing.
    Snappy,
    /// LZ4 frames.
    Lz4,
    /// Zstandard.
    Zstd,
}

/// Settings of a [`Producer`]; made by [`Client::producer`].
#[derive(Clone, Debug)]
pub struct ProducerBuilder {
    client: Client,
    linger: Duration,
    batch_size: usize,
    compression: Compression,
    idempotent: bool,
    buffer_memory: usize,
    max_in_flight: usize,
    delivery_timeout: Duration,
    request_timeout: Duration,
}

/// Sends records. Cheap to clone; clones share batches, buffer and connections.
#[derive(Clone, Debug)]
pub struct Producer {}

impl ProducerBuilder {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            linger: Duration::ZERO,
            batch_size: 64 << 10,
            compression: Compression::None,
            idempotent: true,
            buffer_memory: 32 << 20,
            max_in_flight: 5,
            delivery_timeout: Duration::from_secs(120),
            request_timeout: Duration::from_secs(30),
        }
    }

    /// How long a batch waits for company. 0 by default: records are batched by what gathers while
    /// earlier requests are in flight.
    #[must_use]
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
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

    /// Most requests in flight per broker shard. 5 by default, and at most when idempotent: it is
    /// how many batches the broker can recognise.
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

    /// How long one request may take before it is tried again. 30 s by default.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// Starts the producer.
    ///
    /// # Errors
    /// [`RequestError::Configuration`] if a setting makes no sense.
    pub async fn build(self) -> Result<Producer, RequestError> {
        Ok(Producer {})
    }
}

impl Producer {
    /// Puts a record into its batch, waiting for room in the buffer and, once per topic, for
    /// metadata. The record is taken when this returns; a future dropped earlier took nothing.
    ///
    /// # Errors
    /// [`ProduceError`] if the record can't be taken: unknown topic or partition, too large, closed.
    pub async fn send(&self, record: ProducerRecord) -> Result<Delivery, ProduceError> {
        drop(record);
        Err(ProduceError::Closed)
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
        drop(record);
        Err(TrySendError::Refused(ProduceError::Closed))
    }

    /// Sends what is buffered without lingering and waits until every record sent before this call
    /// is delivered or has failed; its [`Delivery`] tells which.
    ///
    /// # Errors
    /// The error of the first record that failed meanwhile.
    pub async fn flush(&self) -> Result<(), ProduceError> {
        Err(ProduceError::Closed)
    }

    /// Flushes and ends; later sends fail. Dropping the last clone instead loses what is unsent, with
    /// a warning.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub async fn close(&self) -> Result<(), ProduceError> {
        Err(ProduceError::Closed)
    }
}
