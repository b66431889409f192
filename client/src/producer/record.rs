//! A record on its way to a topic, and what came of it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use millstream_protocol::{
    Offset, PartitionIndex,
    headers::{DELAY_ID, DELIVER_AFTER, DELIVER_AT, TTL},
};

/// One record to send. Without a partition, the producer's partitioner chooses it: by default the key
/// does, as with Kafka's Java client, and without a key records stick to one partition per batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerRecord {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: Option<PartitionIndex>,
    pub(crate) timestamp_ms: Option<i64>,
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
    pub(crate) headers: Vec<(String, Option<Bytes>)>,
    /// It is not to be delivered at once.
    pub(crate) is_delayed: bool,
}

impl ProducerRecord {
    /// An empty record for a topic: no key, and no value (a tombstone). Pass an `Arc<str>` to save
    /// an allocation per record.
    #[must_use]
    pub fn to(topic: impl Into<Arc<str>>) -> Self {
        Self {
            topic: topic.into(),
            partition: None,
            timestamp_ms: None,
            key: None,
            value: None,
            headers: Vec::new(),
            is_delayed: false,
        }
    }

    /// Sets the key.
    #[must_use]
    pub fn key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sets the value.
    #[must_use]
    pub fn value(mut self, value: impl Into<Bytes>) -> Self {
        self.value = Some(value.into());
        self
    }

    /// Adds a header; names may repeat, and a value may be absent.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: Option<Bytes>) -> Self {
        self.headers.push((name.into(), value));
        self
    }

    /// Chooses the partition.
    #[must_use]
    pub fn partition(mut self, partition: PartitionIndex) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Sets the time, in milliseconds since 1970; the time of `send` otherwise.
    #[must_use]
    pub fn timestamp_ms(mut self, timestamp_ms: i64) -> Self {
        self.timestamp_ms = Some(timestamp_ms);
        self
    }

    /// Has it delivered at a time, in milliseconds since 1970: it is accepted durably, and nobody sees it
    /// before. A time that has passed delivers at once; one beyond the topic's horizon is refused.
    #[must_use]
    pub fn deliver_at(mut self, timestamp_ms: i64) -> Self {
        self.delay(DELIVER_AT, timestamp_ms.max(0).to_string());
        self
    }

    /// Has it delivered so long after the broker has accepted it, on the broker's clock.
    #[must_use]
    pub fn deliver_after(mut self, delay: Duration) -> Self {
        self.delay(DELIVER_AFTER, delay.as_millis().to_string());
        self
    }

    /// Names a delayed record, within its partition: while it waits, another of this name takes its place,
    /// and [`Admin::cancel_delayed`](crate::Admin::cancel_delayed) takes it back.
    #[must_use]
    pub fn delay_id(mut self, id: impl Into<String>) -> Self {
        self.headers.retain(|(name, _)| name != DELAY_ID);
        let id: String = id.into();
        self.headers.push((DELAY_ID.to_owned(), Some(id.into())));
        self
    }

    /// Has readers leave the record out when its timestamp is older than this; a topic's `ttl.ms` counts too.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.headers.retain(|(name, _)| name != TTL);
        let ttl = ttl.as_millis().to_string();
        self.headers.push((TTL.to_owned(), Some(ttl.into())));
        self
    }

    fn delay(&mut self, header: &str, value: String) {
        let is_due = |name: &str| name == DELIVER_AT || name == DELIVER_AFTER;
        self.headers.retain(|(name, _)| !is_due(name));
        self.headers.push((header.to_owned(), Some(value.into())));
        self.is_delayed = true;
    }
}

/// Where a record is, durable as its topic promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// The partition.
    pub partition: PartitionIndex,
    /// Its offset. -1 if the broker only knows that it has the record: a retry of a batch that is
    /// older than what the broker remembers. -1 for a delayed record, which gets one when it is delivered.
    pub offset: Offset,
    /// For a delayed record: what the broker calls it within its partition, if it remembers.
    pub delay_id: Option<Offset>,
    /// Its timestamp in milliseconds since 1970: the record's, or the time of the append where the
    /// topic says so.
    pub timestamp_ms: i64,
}

/// Why [`try_send`](super::Producer::try_send) did not take a record.
#[derive(Debug, thiserror::Error)]
pub enum TrySendError {
    /// The buffer is full: the record comes back. Wait for deliveries, or use `send`.
    #[error("the producer's buffer is full; wait for deliveries or raise buffer_memory")]
    Full(ProducerRecord),
    /// The topic is not known yet: the record comes back. Use `send`, which looks it up.
    #[error("the topic has not been looked up yet; send one record with `send` first")]
    UnknownTopic(ProducerRecord),
    /// The record can't be sent at all.
    #[error(transparent)]
    Refused(#[from] crate::ProduceError),
}
