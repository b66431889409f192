//! The consumer: reads assigned partitions ahead of the caller.

mod record;

use std::{sync::Arc, time::Duration};

use futures_core::Stream;
use millstream_protocol::{Offset, PartitionIndex};

pub use record::{ConsumerRecord, OutOfRangePolicy, StartAt, TruncationPolicy};

use crate::{client::Client, error::ConsumeError};

/// Settings of a [`Consumer`]; made by [`Client::consumer`].
#[derive(Clone, Debug)]
pub struct ConsumerBuilder {
    client: Client,
    prefetch_bytes: usize,
    fetch_bytes: usize,
    max_wait: Duration,
    max_poll_records: usize,
    out_of_range: OutOfRangePolicy,
    truncation: TruncationPolicy,
}

/// Reads partitions. Records of one partition come in offset order; between partitions there is
/// none.
#[derive(Debug)]
pub struct Consumer {}

/// The records of one batch, undecoded: cheaper than single records where a consumer counts, copies
/// or filters.
#[derive(Clone, Debug)]
pub struct ConsumerBatch {
    topic: Arc<str>,
    partition: PartitionIndex,
}

impl ConsumerBuilder {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            prefetch_bytes: 32 << 20,
            fetch_bytes: 4 << 20,
            max_wait: Duration::from_millis(500),
            max_poll_records: 1000,
            out_of_range: OutOfRangePolicy::Error,
            truncation: TruncationPolicy::Error,
        }
    }

    /// Most bytes read ahead of the caller, over all partitions. 32 MiB by default; one batch that
    /// is larger is read all the same.
    #[must_use]
    pub fn prefetch_bytes(mut self, bytes: usize) -> Self {
        self.prefetch_bytes = bytes;
        self
    }

    /// Most bytes asked of one partition at once. 4 MiB by default.
    #[must_use]
    pub fn fetch_bytes(mut self, bytes: usize) -> Self {
        self.fetch_bytes = bytes;
        self
    }

    /// How long the broker may hold a request while there is nothing new. 500 ms by default; new
    /// records are sent at once all the same.
    #[must_use]
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = wait;
        self
    }

    /// About how many records [`Consumer::poll`] returns at most: it returns whole batches, at least
    /// one. 1000 by default.
    #[must_use]
    pub fn max_poll_records(mut self, count: usize) -> Self {
        self.max_poll_records = count;
        self
    }

    /// What to do at an offset that the log does not hold. An error by default.
    #[must_use]
    pub fn out_of_range(mut self, policy: OutOfRangePolicy) -> Self {
        self.out_of_range = policy;
        self
    }

    /// What to do when records that were read have been cut from the log. An error by default.
    #[must_use]
    pub fn truncation(mut self, policy: TruncationPolicy) -> Self {
        self.truncation = policy;
        self
    }

    /// Starts a consumer with nothing assigned.
    #[must_use]
    pub fn build(self) -> Consumer {
        Consumer {}
    }
}

impl Consumer {
    /// Starts reading a partition, or moves it if it is assigned already.
    ///
    /// # Errors
    /// [`ConsumeError`] if topic or partition do not exist, or the broker can't be asked.
    pub async fn assign(
        &mut self,
        topic: &str,
        partition: PartitionIndex,
        start: StartAt,
    ) -> Result<(), ConsumeError> {
        Ok(())
    }

    /// Stops reading a partition.
    pub fn unassign(&mut self, topic: &str, partition: PartitionIndex) {}

    /// What is assigned.
    #[must_use]
    pub fn assignment(&self) -> Vec<(Arc<str>, PartitionIndex)> {
        Vec::new()
    }

    /// Moves an assigned partition; what was read ahead is dropped.
    ///
    /// # Errors
    /// [`ConsumeError`] if it is not assigned, or the broker can't be asked.
    pub async fn seek(
        &mut self,
        topic: &str,
        partition: PartitionIndex,
        to: StartAt,
    ) -> Result<(), ConsumeError> {
        Ok(())
    }

    /// Records of one or more batches; waits up to `timeout` for the first, then returns nothing.
    /// Cancel-safe: a dropped future took nothing.
    ///
    /// # Errors
    /// [`ConsumeError`] once for each obstacle; the other partitions go on.
    pub async fn poll(&mut self, timeout: Duration) -> Result<Vec<ConsumerRecord>, ConsumeError> {
        Ok(Vec::new())
    }

    /// As [`poll`](Self::poll), with whole batches, undecoded.
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    pub async fn poll_batches(
        &mut self,
        timeout: Duration,
    ) -> Result<Vec<ConsumerBatch>, ConsumeError> {
        Ok(Vec::new())
    }

    /// Offset of the next record that `poll` will return of this partition.
    #[must_use]
    pub fn position(&self, topic: &str, partition: PartitionIndex) -> Option<Offset> {
        None
    }

    /// End of what consumers may see, as of the last reply; none before the first.
    #[must_use]
    pub fn high_watermark(&self, topic: &str, partition: PartitionIndex) -> Option<Offset> {
        None
    }

    /// Whether every assigned partition was read up to its high watermark, as of the last replies.
    #[must_use]
    pub fn at_end(&self) -> bool {
        true
    }

    /// All records as a stream, without end.
    pub fn into_stream(self) -> impl Stream<Item = Result<ConsumerRecord, ConsumeError>> + Send {
        futures_util::stream::empty()
    }
}

impl ConsumerBatch {
    /// The topic.
    #[must_use]
    pub fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    /// The partition.
    #[must_use]
    pub fn partition(&self) -> PartitionIndex {
        self.partition
    }

    /// How many records there are, those before the position included.
    #[must_use]
    pub fn record_count(&self) -> usize {
        0
    }

    /// Bytes of the batch as it came.
    #[must_use]
    pub fn size(&self) -> usize {
        0
    }

    /// Checks and decompresses the batch, and gives its records from the position on.
    ///
    /// # Errors
    /// [`ConsumeError::Corrupt`] if it is damaged.
    pub fn records(&self) -> Result<Vec<ConsumerRecord>, ConsumeError> {
        Ok(Vec::new())
    }
}
