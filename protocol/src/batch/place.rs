//! What may be written into a finished batch: offsets and epoch for nothing, since they lie
//! outside the CRC; append time and producer state for one more checksum.
//!
//! These take batches that were checked before, so a batch that is too short is a bug and panics.

use crate::{
    batch::{BatchError, BatchHeader, Batches, TimestampType, crc32c, header::at},
    ids::{LeaderEpoch, Offset, ProducerEpoch, ProducerId},
};

/// Writes the offset of a batch's first record and the epoch of the leader that appends it.
///
/// # Panics
/// If `batch` is shorter than a batch header.
pub fn place(batch: &mut [u8], base_offset: Offset, leader_epoch: LeaderEpoch) {
    write(batch, at::BASE_OFFSET, base_offset.0.to_be_bytes());
    write(batch, at::LEADER_EPOCH, leader_epoch.0.to_be_bytes());
}

/// Places back-to-back batches one after the other from `first` on, and returns the offset that
/// follows the last.
///
/// # Errors
/// [`BatchError`] if the bytes are no batches or offsets overflow; those before the bad one are
/// placed by then.
pub fn place_all(
    batches: &mut [u8],
    first: Offset,
    leader_epoch: LeaderEpoch,
) -> Result<Offset, BatchError> {
    let mut next = first;
    let mut left = batches;
    while let Some(batch) = Batches::trusted(left).next() {
        let size = batch?.0.size as usize;
        let (batch, rest) = left.split_at_mut(size);
        place(batch, next, leader_epoch);
        next = BatchHeader::decode(batch)?.next_offset();
        left = rest;
    }
    Ok(next)
}

/// Gives every record of the batch the time of its append (`message.timestamp.type =
/// LogAppendTime`) and computes the CRC again.
///
/// # Errors
/// [`BatchError`] if the bytes are no batch.
pub fn set_append_time(batch: &mut [u8], append_time_ms: i64) -> Result<(), BatchError> {
    let header = BatchHeader::decode(batch)?;
    let attributes = header
        .attributes
        .with_timestamp_type(TimestampType::LogAppendTime);
    write(batch, at::ATTRIBUTES, attributes.bits().to_be_bytes());
    write(batch, at::MAX_TIMESTAMP, append_time_ms.to_be_bytes());
    write_crc(batch);
    Ok(())
}

/// Gives a finished batch another producer id, epoch and base sequence, and computes the CRC
/// again: what a producer does with unsent batches after its identity changed.
///
/// # Panics
/// If `batch` is shorter than a batch header.
pub fn set_producer(
    batch: &mut [u8],
    producer_id: ProducerId,
    producer_epoch: ProducerEpoch,
    base_sequence: i32,
) {
    write(batch, at::PRODUCER_ID, producer_id.0.to_be_bytes());
    write(batch, at::PRODUCER_EPOCH, producer_epoch.0.to_be_bytes());
    write(batch, at::BASE_SEQUENCE, base_sequence.to_be_bytes());
    write_crc(batch);
}

/// Computes the CRC of a whole batch and writes it.
pub(super) fn write_crc(batch: &mut [u8]) {
    let crc = crc32c(&batch[at::ATTRIBUTES..]);
    write(batch, at::CRC, crc.to_be_bytes());
}

fn write<const N: usize>(batch: &mut [u8], at: usize, bytes: [u8; N]) {
    batch[at..at + N].copy_from_slice(&bytes);
}
