//! The first block of a segment file. See `docs/format/segment.md`.

use millstream_protocol::{Offset, PartitionIndex, TopicId, TopicPartition};
use uuid::Uuid;

use super::{crc32c, field};
use crate::io::BLOCK_SIZE;

/// Size of the header: chunks begin here.
pub const SEGMENT_HEADER_SIZE: u64 = BLOCK_SIZE as u64;
/// First bytes of every segment.
pub const SEGMENT_MAGIC: [u8; 4] = *b"MSSG";
/// Version of the segment format.
pub const SEGMENT_VERSION: u16 = 1;

const FIELDS_SIZE: usize = 52;
const CRC_AT: usize = 8;
const CRC_COVERS_FROM: usize = 12;

/// What a segment says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Whose log this is.
    pub id: TopicPartition,
    /// The log's end when the segment was made: the offset its name carries.
    pub base: Offset,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: i64,
}

/// Why a block is not a segment's first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotASegment {
    /// Blank, torn or something else.
    #[error("the segment's first block is blank or damaged")]
    Damaged,
    /// Written by a newer broker.
    #[error("the segment has format version {0}, which is not known")]
    Version(u16),
}

impl SegmentHeader {
    /// Writes the block.
    ///
    /// # Panics
    /// If `block` is not one block.
    pub fn encode(&self, block: &mut [u8]) {
        assert_eq!(block.len(), BLOCK_SIZE);
        block.fill(0);
        block[0..4].copy_from_slice(&SEGMENT_MAGIC);
        block[4..6].copy_from_slice(&SEGMENT_VERSION.to_le_bytes());
        block[16..32].copy_from_slice(self.id.topic.0.as_bytes());
        block[32..36].copy_from_slice(&self.id.partition.0.to_le_bytes());
        block[36..44].copy_from_slice(&self.base.0.to_le_bytes());
        block[44..52].copy_from_slice(&self.created_ms.to_le_bytes());
        let crc = crc32c(&block[CRC_COVERS_FROM..FIELDS_SIZE]);
        block[CRC_AT..CRC_COVERS_FROM].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads and verifies the block.
    ///
    /// # Errors
    /// [`NotASegment`].
    pub fn decode(block: &[u8]) -> Result<Self, NotASegment> {
        if block.len() < FIELDS_SIZE || block[0..4] != SEGMENT_MAGIC {
            return Err(NotASegment::Damaged);
        }
        // The fields before the checksum stay where they are in every version.
        let version = u16::from_le_bytes(field(block, 4));
        if version > SEGMENT_VERSION {
            return Err(NotASegment::Version(version));
        }
        let crc = u32::from_le_bytes(field(block, CRC_AT));
        if version != SEGMENT_VERSION || crc32c(&block[CRC_COVERS_FROM..FIELDS_SIZE]) != crc {
            return Err(NotASegment::Damaged);
        }
        Ok(Self {
            id: TopicPartition {
                topic: TopicId(Uuid::from_bytes(field(block, 16))),
                partition: PartitionIndex(u32::from_le_bytes(field(block, 32))),
            },
            base: Offset(i64::from_le_bytes(field(block, 36))),
            created_ms: i64::from_le_bytes(field(block, 44)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_and_a_flip_is_noticed() {
        let header = SegmentHeader {
            id: TopicPartition {
                topic: TopicId(Uuid::from_u128(1)),
                partition: PartitionIndex(2),
            },
            base: Offset(3),
            created_ms: 4,
        };
        let mut block = vec![0xff; BLOCK_SIZE];
        header.encode(&mut block);
        assert_eq!(SegmentHeader::decode(&block), Ok(header));
        block[40] ^= 1;
        assert_eq!(SegmentHeader::decode(&block), Err(NotASegment::Damaged));
        block[4] = 9;
        assert_eq!(SegmentHeader::decode(&block), Err(NotASegment::Version(9)));
    }
}
