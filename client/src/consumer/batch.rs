//! [`ConsumerBatch`]: a batch as it came, and its records.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use millstream_protocol::{
    Offset, PartitionIndex, TopicPartition,
    batch::{BATCH_HEADER_SIZE, BatchError, BatchHeader, Batches, DecodedBatch, Record, Records},
    headers::{self, TTL},
};

use super::record::ConsumerRecord;
use crate::{clock::wall_time_ms, error::ConsumeError};

/// The records of one batch, undecoded: cheaper than single records where a consumer counts, copies
/// or filters. Its bytes are a slice of the reply they came in.
#[derive(Clone, Debug)]
pub struct ConsumerBatch {
    pub(super) topic: Arc<str>,
    pub(super) at: TopicPartition,
    pub(super) header: BatchHeader,
    pub(super) bytes: Bytes,
    /// Records below are not wanted: a fetch gets the whole batch that holds its offset.
    pub(super) from: Offset,
    /// Nor are those that are older than this, in milliseconds: the topic's `ttl.ms`.
    pub(super) ttl_ms: Option<i64>,
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
        self.at.partition
    }

    /// Topic and partition by their ids, for simulations.
    #[doc(hidden)]
    #[must_use]
    pub fn place(&self) -> TopicPartition {
        self.at
    }

    /// The batch's header: offsets, timestamps, compression, producer.
    #[must_use]
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// How many records there are, those before the position included.
    #[must_use]
    pub fn record_count(&self) -> usize {
        self.header.record_count as usize
    }

    /// Bytes of the batch as it came.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The batch as it came, in Kafka's format.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Checks and decompresses the batch, and gives its records from the position on.
    ///
    /// # Errors
    /// [`ConsumeError::Corrupt`] if it is damaged.
    pub fn records(&self) -> Result<Vec<ConsumerRecord>, ConsumeError> {
        let mut records = Vec::with_capacity(self.record_count());
        self.append_to(&mut records)?;
        Ok(records)
    }

    /// Checks and decompresses the batch, and shows each record from the position on in place,
    /// without as much as a reference count: the cheapest way to read.
    ///
    /// # Errors
    /// [`ConsumeError::Corrupt`] if it is damaged; records before the damage have been shown.
    pub fn for_each(&self, mut show: impl FnMut(Record<'_>)) -> Result<(), ConsumeError> {
        let batch = self.open().map_err(|error| self.corrupt(error))?;
        let mut now_ms = None;
        for record in batch.records() {
            let record = record.map_err(|error| self.corrupt(error))?;
            if record.offset >= self.from && self.is_live(&record, &mut now_ms) {
                show(record);
            }
        }
        Ok(())
    }

    /// As [`records`](Self::records), behind what is there; all of them or none.
    pub(super) fn append_to(&self, records: &mut Vec<ConsumerRecord>) -> Result<(), ConsumeError> {
        let before = records.len();
        self.read_into(records).map_err(|error| {
            records.truncate(before);
            self.corrupt(error)
        })
    }

    fn open(&self) -> Result<DecodedBatch<'_>, BatchError> {
        for batch in Batches::checked(&self.bytes) {
            batch?;
        }
        DecodedBatch::open(&self.bytes)
    }

    fn read_into(&self, records: &mut Vec<ConsumerRecord>) -> Result<(), BatchError> {
        let (header, section) = self.open()?.into_parts();
        // One shared buffer for all slices: the reply's, or the decompressed section's.
        let section = match section {
            Cow::Borrowed(_) => self.bytes.slice(BATCH_HEADER_SIZE..),
            Cow::Owned(section) => Bytes::from(section),
        };
        records.reserve(header.record_count as usize);
        let mut now_ms = None;
        for record in Records::new(&header, &section)? {
            let record = record?;
            if record.offset < self.from || !self.is_live(&record, &mut now_ms) {
                continue;
            }
            records.push(ConsumerRecord {
                topic: Arc::clone(&self.topic),
                partition: self.at.partition,
                offset: record.offset,
                timestamp_ms: record.timestamp_ms,
                key: record.key.map(|key| section.slice_ref(key)),
                value: record.value.map(|value| section.slice_ref(value)),
                headers: headers_of(&record, &section),
            });
        }
        Ok(())
    }

    /// Within its time to live, its topic's and its own. The clock is read when it is needed, and once.
    fn is_live(&self, record: &Record<'_>, now_ms: &mut Option<i64>) -> bool {
        let mut own = record.headers;
        let own = own.find(|(name, _)| *name == TTL.as_bytes());
        let own = own.and_then(|(_, value)| headers::number(value));
        let ttl_ms = match (self.ttl_ms, own) {
            (Some(topics), Some(own)) => topics.min(own),
            (Some(ttl_ms), None) | (None, Some(ttl_ms)) => ttl_ms,
            (None, None) => return true,
        };
        let now_ms = *now_ms.get_or_insert_with(wall_time_ms);
        record.timestamp_ms >= now_ms.saturating_sub(ttl_ms)
    }

    fn corrupt(&self, error: BatchError) -> ConsumeError {
        ConsumeError::Corrupt {
            topic: Arc::clone(&self.topic),
            partition: self.at.partition,
            offset: self.header.base_offset,
            reason: error.to_string().into(),
        }
    }
}

/// Header names are UTF-8 by convention; what is not shows replacement characters.
fn headers_of(record: &Record<'_>, section: &Bytes) -> Vec<(String, Option<Bytes>)> {
    let headers = record.headers.map(|(name, value)| {
        let name = String::from_utf8_lossy(name).into_owned();
        (name, value.map(|value| section.slice_ref(value)))
    });
    headers.collect()
}
