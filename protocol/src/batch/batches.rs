//! Back-to-back batches, split and checked in one pass.

use crate::batch::{BATCH_HEADER_SIZE, BatchError, BatchHeader, TimestampType, crc32c, header::at};

/// Iterates over batches that lie back to back. Ends after the first error.
#[derive(Clone, Debug)]
pub struct Batches<'a> {
    left: &'a [u8],
    trust: Trust,
}

#[derive(Clone, Copy, Debug)]
enum Trust {
    /// Our own bytes, verified before: headers only.
    Trusted,
    /// Headers and checksums.
    Checked,
    /// Headers, checksums, and the rules for what a producer may send.
    Produced { max_batch_size: u32 },
}

impl<'a> Batches<'a> {
    /// Checks size, magic, counts and attributes, not the CRC: for bytes that were verified
    /// before.
    #[must_use]
    pub fn trusted(bytes: &'a [u8]) -> Self {
        Self {
            left: bytes,
            trust: Trust::Trusted,
        }
    }

    /// Checks also the CRC: for bytes from a peer or a disk.
    #[must_use]
    pub fn checked(bytes: &'a [u8]) -> Self {
        Self {
            left: bytes,
            trust: Trust::Checked,
        }
    }

    /// Checks all that a leader must before it appends: also that each batch is within
    /// `max_batch_size` bytes, has records at dense offsets, is no control batch or part of a
    /// transaction, and that its producer id, epoch and sequence agree (KIP-98).
    #[must_use]
    pub fn produced(bytes: &'a [u8], max_batch_size: u32) -> Self {
        Self {
            left: bytes,
            trust: Trust::Produced { max_batch_size },
        }
    }

    fn split(&mut self) -> Result<(BatchHeader, &'a [u8]), BatchError> {
        let header = BatchHeader::decode(self.left)?;
        // The cheap rules first: no checksum over bytes that are refused anyway.
        if let Trust::Produced { max_batch_size } = self.trust {
            check_rules(&header, max_batch_size)?;
        }
        let (batch, left) =
            self.left
                .split_at_checked(header.size as usize)
                .ok_or(BatchError::Truncated {
                    needed: header.size as usize,
                    left: self.left.len(),
                })?;
        match self.trust {
            Trust::Trusted => {}
            Trust::Checked | Trust::Produced { .. } => check_crc(&header, batch)?,
        }
        self.left = left;
        Ok((header, batch))
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<(BatchHeader, &'a [u8]), BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left.is_empty() {
            return None;
        }
        let batch = self.split();
        if batch.is_err() {
            self.left = &[];
        }
        Some(batch)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left.len().div_ceil(BATCH_HEADER_SIZE)))
    }
}

impl std::iter::FusedIterator for Batches<'_> {}

fn check_crc(header: &BatchHeader, batch: &[u8]) -> Result<(), BatchError> {
    let computed = crc32c(&batch[at::ATTRIBUTES..]);
    if computed == header.crc {
        Ok(())
    } else {
        Err(BatchError::ChecksumMismatch {
            stored: header.crc,
            computed,
        })
    }
}

/// The rules for a batch from a producer, as far as its header can break them.
fn check_rules(header: &BatchHeader, max_batch_size: u32) -> Result<(), BatchError> {
    if header.size > max_batch_size {
        return Err(BatchError::TooLarge {
            size: header.size,
            limit: max_batch_size,
        });
    }
    if header.record_count == 0 {
        return Err(BatchError::Empty);
    }
    if header.record_count != header.last_offset_delta + 1 {
        return Err(BatchError::InvalidRecordCount {
            record_count: i32::try_from(header.record_count).unwrap_or(i32::MAX),
            last_offset_delta: i32::try_from(header.last_offset_delta).unwrap_or(i32::MAX),
        });
    }
    if header.attributes.is_control() {
        return Err(BatchError::ControlBatch);
    }
    if header.attributes.is_transactional() {
        return Err(BatchError::TransactionalBatch);
    }
    if header.attributes.has_delete_horizon() {
        return Err(BatchError::UnknownAttributes(header.attributes.bits()));
    }
    if header.attributes.timestamp_type() == TimestampType::LogAppendTime {
        return Err(BatchError::AppendTimeFromProducer);
    }
    // -1 is Kafka's "no timestamp".
    if header.max_timestamp_ms < -1 {
        return Err(BatchError::InvalidMaxTimestamp(header.max_timestamp_ms));
    }
    check_producer(header)
}

/// Either there is no producer id and nothing that belongs to one, or there are all three.
fn check_producer(header: &BatchHeader) -> Result<(), BatchError> {
    let id = header.producer_id.0;
    let epoch = header.producer_epoch.0;
    let agree = match id {
        -1 => epoch == -1 && header.base_sequence == -1,
        _ => id >= 0 && epoch >= 0 && header.base_sequence >= 0,
    };
    if agree {
        Ok(())
    } else {
        Err(BatchError::InvalidProducerState {
            producer_id: id,
            producer_epoch: epoch,
            base_sequence: header.base_sequence,
        })
    }
}
