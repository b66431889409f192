//! The fixed 61 bytes that begin a batch, checked as far as they can be without the rest.

use crate::{
    batch::{Attributes, BatchError, Compression, MIN_RECORD_SIZE},
    ids::{LeaderEpoch, Offset, ProducerEpoch, ProducerId},
    limits::MAX_UNCOMPRESSED_BATCH_SIZE,
};

/// Bytes of a batch before its records.
pub const BATCH_HEADER_SIZE: usize = 61;
/// The version of the format.
pub const MAGIC: i8 = 2;

/// Bytes that the batch length field does not count: base offset and the field itself.
const BEFORE_LENGTH: u32 = 12;
const _: () = assert!(BATCH_HEADER_SIZE == at::RECORDS);

/// Where each field lies.
pub(super) mod at {
    pub const BASE_OFFSET: usize = 0;
    pub const LENGTH: usize = 8;
    pub const LEADER_EPOCH: usize = 12;
    pub const MAGIC: usize = 16;
    pub const CRC: usize = 17;
    pub const ATTRIBUTES: usize = 21;
    pub const LAST_OFFSET_DELTA: usize = 23;
    pub const BASE_TIMESTAMP: usize = 27;
    pub const MAX_TIMESTAMP: usize = 35;
    pub const PRODUCER_ID: usize = 43;
    pub const PRODUCER_EPOCH: usize = 51;
    pub const BASE_SEQUENCE: usize = 53;
    pub const RECORD_COUNT: usize = 57;
    pub const RECORDS: usize = 61;
}

/// A batch's header. What it says about itself is consistent: sizes and counts are in range and no
/// offset overflows; whether the CRC is right is known only to [`Batches::checked`](crate::batch::Batches::checked).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Bytes of the whole batch, this header included.
    pub size: u32,
    /// Epoch of the leader that appended it, -1 before that.
    pub leader_epoch: LeaderEpoch,
    /// CRC-32C of everything from the attributes on.
    pub crc: u32,
    /// Compression and the rest.
    pub attributes: Attributes,
    /// Distance from the first offset to the last one; below 2^31.
    pub last_offset_delta: u32,
    /// What the records' timestamps are relative to.
    pub base_timestamp_ms: i64,
    /// Largest timestamp of the records, or the time of the append.
    pub max_timestamp_ms: i64,
    /// The idempotent producer, or [`ProducerId::NONE`].
    pub producer_id: ProducerId,
    /// Its epoch, or -1.
    pub producer_epoch: ProducerEpoch,
    /// Sequence of the first record, or -1.
    pub base_sequence: i32,
    /// How many records; at most `last_offset_delta + 1`, less where compaction left holes.
    pub record_count: u32,
}

impl BatchHeader {
    /// Reads the header at the start of `bytes`, which need not hold the whole batch.
    ///
    /// # Errors
    /// [`BatchError`] if there are fewer than [`BATCH_HEADER_SIZE`] bytes or fields contradict
    /// each other.
    pub fn decode(bytes: &[u8]) -> Result<Self, BatchError> {
        let Some(header) = bytes.first_chunk::<BATCH_HEADER_SIZE>() else {
            return Err(BatchError::Truncated {
                needed: BATCH_HEADER_SIZE,
                left: bytes.len(),
            });
        };
        let magic = i8::from_be_bytes([header[at::MAGIC]]);
        if magic != MAGIC {
            return Err(BatchError::UnsupportedMagic(magic));
        }
        let length = i32::from_be_bytes(field(header, at::LENGTH));
        let size = u32::try_from(length)
            .ok()
            .map(|length| length + BEFORE_LENGTH)
            .filter(|size| *size as usize >= BATCH_HEADER_SIZE)
            .ok_or(BatchError::InvalidLength(length))?;
        let base_offset = i64::from_be_bytes(field(header, at::BASE_OFFSET));
        let (last_offset_delta, record_count) = counts(header, base_offset)?;
        let attributes = Attributes::from_bits(u16::from_be_bytes(field(header, at::ATTRIBUTES)))?;
        check_room(attributes, size, record_count)?;
        Ok(Self {
            base_offset: Offset(base_offset),
            size,
            leader_epoch: LeaderEpoch(i32::from_be_bytes(field(header, at::LEADER_EPOCH))),
            crc: u32::from_be_bytes(field(header, at::CRC)),
            attributes,
            last_offset_delta,
            base_timestamp_ms: i64::from_be_bytes(field(header, at::BASE_TIMESTAMP)),
            max_timestamp_ms: i64::from_be_bytes(field(header, at::MAX_TIMESTAMP)),
            producer_id: ProducerId(i64::from_be_bytes(field(header, at::PRODUCER_ID))),
            producer_epoch: ProducerEpoch(i16::from_be_bytes(field(header, at::PRODUCER_EPOCH))),
            base_sequence: i32::from_be_bytes(field(header, at::BASE_SEQUENCE)),
            record_count,
        })
    }

    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; BATCH_HEADER_SIZE] {
        let mut bytes = [0; BATCH_HEADER_SIZE];
        let length = self.size - BEFORE_LENGTH;
        put(
            &mut bytes,
            at::BASE_OFFSET,
            self.base_offset.0.to_be_bytes(),
        );
        put(&mut bytes, at::LENGTH, length.to_be_bytes());
        put(
            &mut bytes,
            at::LEADER_EPOCH,
            self.leader_epoch.0.to_be_bytes(),
        );
        put(&mut bytes, at::MAGIC, MAGIC.to_be_bytes());
        put(&mut bytes, at::CRC, self.crc.to_be_bytes());
        put(
            &mut bytes,
            at::ATTRIBUTES,
            self.attributes.bits().to_be_bytes(),
        );
        put(
            &mut bytes,
            at::LAST_OFFSET_DELTA,
            self.last_offset_delta.to_be_bytes(),
        );
        put(
            &mut bytes,
            at::BASE_TIMESTAMP,
            self.base_timestamp_ms.to_be_bytes(),
        );
        put(
            &mut bytes,
            at::MAX_TIMESTAMP,
            self.max_timestamp_ms.to_be_bytes(),
        );
        put(
            &mut bytes,
            at::PRODUCER_ID,
            self.producer_id.0.to_be_bytes(),
        );
        put(
            &mut bytes,
            at::PRODUCER_EPOCH,
            self.producer_epoch.0.to_be_bytes(),
        );
        put(
            &mut bytes,
            at::BASE_SEQUENCE,
            self.base_sequence.to_be_bytes(),
        );
        put(
            &mut bytes,
            at::RECORD_COUNT,
            self.record_count.to_be_bytes(),
        );
        bytes
    }

    /// Offset of the last record.
    #[must_use]
    pub fn last_offset(&self) -> Offset {
        Offset(self.base_offset.0 + i64::from(self.last_offset_delta))
    }

    /// The offset that follows the batch.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        Offset(self.last_offset().0 + 1)
    }

    /// Sequence of the last record, or -1. Sequences wrap from 2^31 - 1 to 0 (KIP-98).
    #[must_use]
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 {
            return -1;
        }
        let delta = i32::from_be_bytes(self.last_offset_delta.to_be_bytes());
        self.base_sequence.wrapping_add(delta) & i32::MAX
    }

    /// The batch comes from an idempotent producer.
    #[must_use]
    pub fn has_producer(&self) -> bool {
        self.producer_id.0 >= 0
    }
}

/// The counts are in range, agree with each other, and no offset passes the largest there is.
fn counts(header: &[u8; BATCH_HEADER_SIZE], base_offset: i64) -> Result<(u32, u32), BatchError> {
    let last_offset_delta = i32::from_be_bytes(field(header, at::LAST_OFFSET_DELTA));
    let record_count = i32::from_be_bytes(field(header, at::RECORD_COUNT));
    let offsets_fit = base_offset >= 0
        && base_offset
            .checked_add(i64::from(last_offset_delta))
            .is_some_and(|last| last < i64::MAX);
    match (
        u32::try_from(last_offset_delta),
        u32::try_from(record_count),
    ) {
        (Ok(_), _) if !offsets_fit => Err(BatchError::InvalidOffsets {
            base_offset,
            last_offset_delta,
        }),
        (Ok(delta), Ok(count)) if count <= delta + 1 => Ok((delta, count)),
        _ => Err(BatchError::InvalidRecordCount {
            record_count,
            last_offset_delta,
        }),
    }
}

/// There is room for as many records, before they are looked at: a few bytes that claim two
/// thousand million records would use up offsets, and memory of readers that believe them.
fn check_room(attributes: Attributes, size: u32, record_count: u32) -> Result<(), BatchError> {
    let room = match attributes.compression() {
        Compression::None => size as usize - BATCH_HEADER_SIZE,
        _ => MAX_UNCOMPRESSED_BATCH_SIZE,
    };
    if record_count as usize > room / MIN_RECORD_SIZE {
        return Err(BatchError::TooManyRecords { record_count, size });
    }
    Ok(())
}

fn field<const N: usize>(header: &[u8; BATCH_HEADER_SIZE], at: usize) -> [u8; N] {
    std::array::from_fn(|i| header[at + i])
}

fn put<const N: usize>(header: &mut [u8; BATCH_HEADER_SIZE], at: usize, bytes: [u8; N]) {
    header[at..at + N].copy_from_slice(&bytes);
}
