//! Makes batches out of records.

use crate::{
    batch::{
        Attributes, BATCH_HEADER_SIZE, BatchHeader, Compression, compression::SectionCompressor,
        place, varint,
    },
    ids::{LeaderEpoch, Offset, ProducerEpoch, ProducerId},
    limits::MAX_UNCOMPRESSED_BATCH_SIZE,
};

/// The headers of a record that has none.
pub const NO_HEADERS: &[(&str, Option<&[u8]>)] = &[];

/// Why a record can't join the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// The uncompressed records would pass the limit.
    #[error("a batch of {size} bytes is larger than the limit of {MAX_UNCOMPRESSED_BATCH_SIZE}")]
    TooLarge {
        /// Bytes of the batch with that record.
        size: usize,
    },
    /// The distance between two timestamps passes 64 bits.
    #[error("timestamp {timestamp_ms} is too far from the batch's first, {base_timestamp_ms}")]
    TimestampOutOfRange {
        /// The record's.
        timestamp_ms: i64,
        /// The batch's first.
        base_timestamp_ms: i64,
    },
}

/// Collects records; [`finish`](Self::finish) gives the batch and leaves an empty builder.
pub struct BatchBuilder {
    /// Room for the header, then the uncompressed records.
    bytes: Vec<u8>,
    record_count: u32,
    base_timestamp_ms: i64,
    max_timestamp_ms: i64,
    compressor: SectionCompressor,
}

impl std::fmt::Debug for BatchBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BatchBuilder")
            .field("record_count", &self.record_count)
            .field("size", &self.size())
            .finish_non_exhaustive()
    }
}

impl Default for BatchBuilder {
    fn default() -> Self {
        Self::with_capacity(0)
    }
}

impl BatchBuilder {
    /// An empty builder.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty builder with room for a batch of `size` bytes.
    #[must_use]
    pub fn with_capacity(size: usize) -> Self {
        let mut bytes = Vec::with_capacity(size.max(BATCH_HEADER_SIZE));
        bytes.resize(BATCH_HEADER_SIZE, 0);
        Self {
            bytes,
            record_count: 0,
            base_timestamp_ms: -1,
            max_timestamp_ms: -1,
            compressor: SectionCompressor::default(),
        }
    }

    /// Adds a record. Its headers keep their order and repeated keys; [`NO_HEADERS`] is none.
    ///
    /// # Errors
    /// [`BuildError`]; the batch is as before then.
    pub fn push<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(K, Option<V>)],
    ) -> Result<(), BuildError> {
        let base_timestamp_ms = match self.record_count {
            0 => timestamp_ms,
            _ => self.base_timestamp_ms,
        };
        let timestamp_delta =
            timestamp_ms
                .checked_sub(base_timestamp_ms)
                .ok_or(BuildError::TimestampOutOfRange {
                    timestamp_ms,
                    base_timestamp_ms,
                })?;
        let offset_delta = i64::from(self.record_count);
        let body_size = 1
            + varint::size(timestamp_delta)
            + varint::size(offset_delta)
            + bytes_size(key)
            + bytes_size(value)
            + headers_size(headers);
        let size = self.bytes.len() + varint::size(signed(body_size)) + body_size;
        if size > MAX_UNCOMPRESSED_BATCH_SIZE {
            return Err(BuildError::TooLarge { size });
        }
        self.bytes.reserve(size - self.bytes.len());
        varint::write(&mut self.bytes, signed(body_size));
        self.bytes.push(0);
        varint::write(&mut self.bytes, timestamp_delta);
        varint::write(&mut self.bytes, offset_delta);
        write_bytes(&mut self.bytes, key);
        write_bytes(&mut self.bytes, value);
        varint::write(&mut self.bytes, signed(headers.len()));
        for (key, value) in headers {
            write_bytes(&mut self.bytes, Some(key.as_ref()));
            write_bytes(&mut self.bytes, value.as_ref().map(AsRef::as_ref));
        }
        debug_assert_eq!(self.bytes.len(), size);
        if self.record_count == 0 {
            self.base_timestamp_ms = timestamp_ms;
            self.max_timestamp_ms = timestamp_ms;
        }
        self.max_timestamp_ms = self.max_timestamp_ms.max(timestamp_ms);
        self.record_count += 1;
        Ok(())
    }

    /// How many records there are.
    #[must_use]
    pub fn record_count(&self) -> u32 {
        self.record_count
    }

    /// No record yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.record_count == 0
    }

    /// Bytes of the batch if it is not compressed.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The most bytes that a record adds to a batch.
    #[must_use]
    pub fn max_record_size<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(K, Option<V>)],
    ) -> usize {
        // Length and offset delta take at most 5 bytes, the timestamp delta 10, attributes 1.
        21 + bytes_size(key) + bytes_size(value) + headers_size(headers)
    }

    /// The batch, with base offset 0 and no leader epoch; `producer` is an idempotent producer's
    /// id, epoch and the sequence of the first record. The builder is empty afterwards.
    ///
    /// # Panics
    /// If there is no record.
    pub fn finish(
        &mut self,
        producer: Option<(ProducerId, ProducerEpoch, i32)>,
        compression: Compression,
    ) -> Vec<u8> {
        self.finish_with(producer, Attributes::new(compression))
    }

    /// The same with all attributes. Log append time is given with
    /// [`set_append_time`](crate::batch::set_append_time) instead, which keeps the records' own.
    ///
    /// # Panics
    /// If there is no record.
    pub fn finish_with(
        &mut self,
        producer: Option<(ProducerId, ProducerEpoch, i32)>,
        attributes: Attributes,
    ) -> Vec<u8> {
        assert!(!self.is_empty(), "a batch has at least one record");
        let mut batch = match attributes.compression() {
            Compression::None => {
                let capacity = self.bytes.capacity();
                std::mem::replace(&mut self.bytes, Vec::with_capacity(capacity))
            }
            codec => {
                let section = &self.bytes[BATCH_HEADER_SIZE..];
                let mut batch = Vec::with_capacity(BATCH_HEADER_SIZE + section.len() / 2);
                batch.resize(BATCH_HEADER_SIZE, 0);
                self.compressor.compress(codec, section, &mut batch);
                batch
            }
        };
        let header = self.header(batch.len(), producer, attributes);
        batch[..BATCH_HEADER_SIZE].copy_from_slice(&header.encode());
        place::write_crc(&mut batch);
        self.clear();
        batch
    }

    /// Drops all records and keeps the room.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.resize(BATCH_HEADER_SIZE, 0);
        self.record_count = 0;
        self.base_timestamp_ms = -1;
        self.max_timestamp_ms = -1;
    }

    fn header(
        &self,
        size: usize,
        producer: Option<(ProducerId, ProducerEpoch, i32)>,
        attributes: Attributes,
    ) -> BatchHeader {
        let (producer_id, producer_epoch, base_sequence) =
            producer.unwrap_or((ProducerId::NONE, ProducerEpoch(-1), -1));
        BatchHeader {
            base_offset: Offset::ZERO,
            size: u32::try_from(size).expect("the limit keeps batches far below 4 GiB"),
            leader_epoch: LeaderEpoch::UNKNOWN,
            crc: 0,
            attributes,
            last_offset_delta: self.record_count - 1,
            base_timestamp_ms: self.base_timestamp_ms,
            max_timestamp_ms: self.max_timestamp_ms,
            producer_id,
            producer_epoch,
            base_sequence,
            record_count: self.record_count,
        }
    }
}

fn signed(size: usize) -> i64 {
    i64::try_from(size).expect("sizes in memory fit 63 bits")
}

/// Bytes of a nullable field with its length.
fn bytes_size(bytes: Option<&[u8]>) -> usize {
    match bytes {
        Some(bytes) => varint::size(signed(bytes.len())) + bytes.len(),
        None => 1,
    }
}

fn headers_size<K: AsRef<[u8]>, V: AsRef<[u8]>>(headers: &[(K, Option<V>)]) -> usize {
    let mut size = varint::size(signed(headers.len()));
    for (key, value) in headers {
        size += bytes_size(Some(key.as_ref())) + bytes_size(value.as_ref().map(AsRef::as_ref));
    }
    size
}

fn write_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            varint::write(out, signed(bytes.len()));
            out.extend_from_slice(bytes);
        }
        None => varint::write(out, -1),
    }
}
