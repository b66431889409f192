//! The settings of a consumer.

use std::time::Duration;

use millstream_protocol::limits::MAX_FETCH_WAIT_MS;

use super::{
    Consumer,
    machine::Config,
    record::{OutOfRangePolicy, TruncationPolicy},
};
use crate::{client::Client, clock::jitter_seed, group::GroupConsumerBuilder};

/// Settings of a [`Consumer`]; made by [`Client::consumer`].
#[derive(Clone, Debug)]
pub struct ConsumerBuilder {
    client: Client,
    config: Config,
    max_poll_records: usize,
}

impl ConsumerBuilder {
    pub(crate) fn new(client: Client) -> Self {
        let config = Config {
            prefetch_bytes: 32 << 20,
            fetch_bytes: 4 << 20,
            max_wait_ms: 500,
            out_of_range: OutOfRangePolicy::Error,
            truncation: TruncationPolicy::Error,
            seed: jitter_seed(),
        };
        Self {
            client,
            config,
            max_poll_records: 1000,
        }
    }

    /// Makes it a member of a group, which shares the partitions of its topics.
    #[must_use]
    pub fn group_id(self, group: impl Into<String>) -> GroupConsumerBuilder {
        GroupConsumerBuilder::new(self.client.clone(), self, group.into())
    }

    /// Most bytes read ahead of the caller, over all partitions. 32 MiB by default. A batch that is
    /// larger is read all the same, and each broker shard may always bring 64 KiB.
    #[must_use]
    pub fn prefetch_bytes(mut self, bytes: usize) -> Self {
        self.config.prefetch_bytes = bytes.max(1);
        self
    }

    /// Most bytes asked of one partition at once. 4 MiB by default.
    #[must_use]
    pub fn fetch_bytes(mut self, bytes: usize) -> Self {
        self.config.fetch_bytes = bytes.max(1);
        self
    }

    /// How long the broker may hold a request while there is nothing new. 500 ms by default, 60 s at most; new
    /// records are sent at once all the same.
    #[must_use]
    pub fn max_wait(mut self, wait: Duration) -> Self {
        let wait_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
        self.config.max_wait_ms = wait_ms.min(MAX_FETCH_WAIT_MS);
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
        self.config.out_of_range = policy;
        self
    }

    /// What to do when records that were read have been cut from the log. An error by default.
    #[must_use]
    pub fn truncation(mut self, policy: TruncationPolicy) -> Self {
        self.config.truncation = policy;
        self
    }

    /// Starts a consumer with nothing assigned. Call it within a tokio runtime.
    #[must_use]
    pub fn build(self) -> Consumer {
        Consumer::start(self.client, self.config, self.max_poll_records)
    }
}
