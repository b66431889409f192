//! Why bytes are no record batch, or not one that may be appended.

use crate::{
    batch::{BATCH_HEADER_SIZE, Compression, MAGIC},
    error_code::ErrorCode,
};

/// What is wrong with a record batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The bytes end inside a batch.
    #[error("the bytes end inside a record batch: {needed} needed, {left} left")]
    Truncated {
        /// Bytes the batch takes.
        needed: usize,
        /// Bytes there are.
        left: usize,
    },
    /// The length field can't be that of a batch.
    #[error(
        "batch length {0} is negative or less than a batch header of {BATCH_HEADER_SIZE} bytes"
    )]
    InvalidLength(i32),
    /// The batch is larger than is allowed here.
    #[error(
        "record batch of {size} bytes is larger than the limit of {limit}: send smaller batches or raise max.batch.bytes"
    )]
    TooLarge {
        /// Bytes of the whole batch.
        size: u32,
        /// The most that is allowed.
        limit: u32,
    },
    /// Another version of the format.
    #[error("record batch of magic {0}; only magic {MAGIC} is supported")]
    UnsupportedMagic(i8),
    /// The bytes were damaged on their way.
    #[error("record batch checksum {computed:#010x} does not match the stored {stored:#010x}")]
    ChecksumMismatch {
        /// What the batch says.
        stored: u32,
        /// What its bytes give.
        computed: u32,
    },
    /// The base offset is negative, or the last offset passes the largest there is.
    #[error("base offset {base_offset} with last offset delta {last_offset_delta} is out of range")]
    InvalidOffsets {
        /// First offset of the batch.
        base_offset: i64,
        /// Distance to its last one.
        last_offset_delta: i32,
    },
    /// The number of records contradicts the offsets.
    #[error("record count {record_count} contradicts last offset delta {last_offset_delta}")]
    InvalidRecordCount {
        /// How many records the batch says it has.
        record_count: i32,
        /// Distance from its first offset to its last one.
        last_offset_delta: i32,
    },
    /// The batch is too small for the records it claims, so that its count may be trusted for
    /// allocation.
    #[error("a record batch of {size} bytes can't hold {record_count} records")]
    TooManyRecords {
        /// How many records the batch says it has.
        record_count: u32,
        /// Bytes of the whole batch.
        size: u32,
    },
    /// A compression that does not exist.
    #[error("compression type {0} is unknown")]
    UnknownCompression(u8),
    /// Attribute bits that have no meaning yet.
    #[error("attributes {0:#06x} have bits set that are not defined")]
    UnknownAttributes(u16),
    /// Nothing to append.
    #[error("a produced batch has no records")]
    Empty,
    /// Control batches are the broker's to write.
    #[error("a producer may not write control batches")]
    ControlBatch,
    /// Transactions do not exist yet.
    #[error("transactional batches are not supported")]
    TransactionalBatch,
    /// The timestamp type is the topic's to choose.
    #[error("a producer may not set the timestamp type to log append time")]
    AppendTimeFromProducer,
    /// The largest timestamp is below -1 ("none").
    #[error("max timestamp {0} is below -1")]
    InvalidMaxTimestamp(i64),
    /// Producer id, epoch and sequence contradict each other (KIP-98).
    #[error(
        "producer id {producer_id}, epoch {producer_epoch} and base sequence {base_sequence} contradict each other"
    )]
    InvalidProducerState {
        /// The id, -1 for none.
        producer_id: i64,
        /// The epoch, -1 for none.
        producer_epoch: i16,
        /// The sequence of the first record, -1 for none.
        base_sequence: i32,
    },
    /// The records section can't be decompressed.
    #[error("the records section is not valid {0}")]
    Decompression(Compression),
    /// The records section would become too large.
    #[error("the records section decompresses to more than {limit} bytes")]
    UncompressedTooLarge {
        /// The most it may become.
        limit: usize,
    },
    /// A compacted topic needs a key on every record.
    #[error(
        "record {index} has no key: a compacted topic (cleanup.policy=compact) takes none such"
    )]
    NoKey {
        /// Which record of the batch, from 0.
        index: u32,
    },
    /// A record's fields do not fit its length, or a varint is too long.
    #[error("record {index} is malformed: {reason}")]
    InvalidRecord {
        /// Which record of the batch, from 0.
        index: u32,
        /// What does not fit.
        reason: &'static str,
    },
}

impl BatchError {
    /// What a broker answers a producer that sent such bytes.
    #[must_use]
    pub fn error_code(&self) -> ErrorCode {
        match self {
            Self::ChecksumMismatch { .. } => ErrorCode::CorruptBatch,
            Self::TooLarge { .. } | Self::UncompressedTooLarge { .. } => ErrorCode::BatchTooLarge,
            Self::InvalidMaxTimestamp(_) | Self::AppendTimeFromProducer => {
                ErrorCode::InvalidTimestamp
            }
            Self::NoKey { .. } => ErrorCode::KeyRequired,
            Self::Truncated { .. }
            | Self::InvalidLength(_)
            | Self::UnsupportedMagic(_)
            | Self::InvalidOffsets { .. }
            | Self::InvalidRecordCount { .. }
            | Self::TooManyRecords { .. }
            | Self::UnknownCompression(_)
            | Self::UnknownAttributes(_)
            | Self::Empty
            | Self::ControlBatch
            | Self::TransactionalBatch
            | Self::InvalidProducerState { .. }
            | Self::Decompression(_)
            | Self::InvalidRecord { .. } => ErrorCode::InvalidBatch,
        }
    }
}
