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
/// Version of a segment that compaction wrote: it has more fields.
pub const COMPACTED_SEGMENT_VERSION: u16 = 2;

const FIELDS_SIZE: usize = 52;
const COMPACTED_FIELDS_SIZE: usize = 84;
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
    /// What compaction made of it, if it did.
    pub compaction: Option<CompactionMark>,
}

/// What compaction notes in a segment that it wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactionMark {
    /// Of records below, none is left here or in any segment before that a later one of them, or of
    /// those up to here, has the key of.
    pub clean_end: Offset,
    /// When all of the segment first was so, in milliseconds since 1970: tombstones count from it.
    pub clean_since_ms: i64,
    /// How many tombstones are in it.
    pub tombstones: u64,
    /// The life of the log at that time: what a later one appended here is not clean.
    pub incarnation: u64,
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
        let (version, size) = match self.compaction {
            None => (SEGMENT_VERSION, FIELDS_SIZE),
            Some(_) => (COMPACTED_SEGMENT_VERSION, COMPACTED_FIELDS_SIZE),
        };
        block[4..6].copy_from_slice(&version.to_le_bytes());
        block[16..32].copy_from_slice(self.id.topic.0.as_bytes());
        block[32..36].copy_from_slice(&self.id.partition.0.to_le_bytes());
        block[36..44].copy_from_slice(&self.base.0.to_le_bytes());
        block[44..52].copy_from_slice(&self.created_ms.to_le_bytes());
        if let Some(mark) = &self.compaction {
            block[52..60].copy_from_slice(&mark.clean_end.0.to_le_bytes());
            block[60..68].copy_from_slice(&mark.clean_since_ms.to_le_bytes());
            block[68..76].copy_from_slice(&mark.tombstones.to_le_bytes());
            block[76..84].copy_from_slice(&mark.incarnation.to_le_bytes());
        }
        let crc = crc32c(&block[CRC_COVERS_FROM..size]);
        block[CRC_AT..CRC_COVERS_FROM].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads and verifies the block.
    ///
    /// # Errors
    /// [`NotASegment`].
    pub fn decode(block: &[u8]) -> Result<Self, NotASegment> {
        if block.len() < COMPACTED_FIELDS_SIZE || block[0..4] != SEGMENT_MAGIC {
            return Err(NotASegment::Damaged);
        }
        // The fields before the checksum stay where they are in every version.
        let version = u16::from_le_bytes(field(block, 4));
        let size = match version {
            SEGMENT_VERSION => FIELDS_SIZE,
            COMPACTED_SEGMENT_VERSION => COMPACTED_FIELDS_SIZE,
            0 => return Err(NotASegment::Damaged),
            _ => return Err(NotASegment::Version(version)),
        };
        let crc = u32::from_le_bytes(field(block, CRC_AT));
        if crc32c(&block[CRC_COVERS_FROM..size]) != crc {
            return Err(NotASegment::Damaged);
        }
        let mark = || CompactionMark {
            clean_end: Offset(i64::from_le_bytes(field(block, 52))),
            clean_since_ms: i64::from_le_bytes(field(block, 60)),
            tombstones: u64::from_le_bytes(field(block, 68)),
            incarnation: u64::from_le_bytes(field(block, 76)),
        };
        Ok(Self {
            id: TopicPartition {
                topic: TopicId(Uuid::from_bytes(field(block, 16))),
                partition: PartitionIndex(u32::from_le_bytes(field(block, 32))),
            },
            base: Offset(i64::from_le_bytes(field(block, 36))),
            created_ms: i64::from_le_bytes(field(block, 44)),
            compaction: (version == COMPACTED_SEGMENT_VERSION).then(mark),
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
            compaction: None,
        };
        let mut block = vec![0xff; BLOCK_SIZE];
        let mark = CompactionMark {
            clean_end: Offset(30),
            clean_since_ms: 5,
            tombstones: 6,
            incarnation: 7,
        };
        let compacted = SegmentHeader {
            compaction: Some(mark),
            ..header
        };
        compacted.encode(&mut block);
        assert_eq!(SegmentHeader::decode(&block), Ok(compacted));
        block[83] ^= 1;
        assert_eq!(SegmentHeader::decode(&block), Err(NotASegment::Damaged));
        header.encode(&mut block);
        assert_eq!(SegmentHeader::decode(&block), Ok(header));
        block[40] ^= 1;
        assert_eq!(SegmentHeader::decode(&block), Err(NotASegment::Damaged));
        block[4] = 9;
        assert_eq!(SegmentHeader::decode(&block), Err(NotASegment::Version(9)));
    }
}
