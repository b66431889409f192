//! The chunk: a header, batches back to back, zeros up to the block. See `docs/format/chunk.md`.

use millstream_protocol::{LeaderEpoch, Offset, PartitionIndex, TopicId, TopicPartition};
use uuid::Uuid;

use super::{crc32c, field};
use crate::{
    io::align_up,
    storage::limits::{MAX_NUMBER, MAX_OFFSET, MAX_PAYLOAD_SIZE},
};

/// Size of a chunk header in bytes; the payload follows at once.
pub const CHUNK_HEADER_SIZE: usize = 96;
/// First bytes of every chunk.
pub const CHUNK_MAGIC: [u8; 4] = *b"MSCK";
/// Version of the header described here.
pub const CHUNK_VERSION: u16 = 1;

const CRC_AT: usize = 8;
const CRC_COVERS_FROM: usize = 12;

/// What a chunk says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkHeader {
    /// Bytes of batches after the header; 0 in a sealing chunk.
    pub payload_size: u32,
    /// Whose log this is.
    pub id: TopicPartition,
    /// Leader epoch of every batch in it.
    pub epoch: LeaderEpoch,
    /// Which life of the log wrote it: rises with each truncation.
    pub incarnation: u64,
    /// Offset of its first record, or the log's end in a sealing chunk.
    pub base: Offset,
    /// Offset after its last record.
    pub next: Offset,
    /// Everything below was durable when this chunk was made.
    pub flushed: Offset,
    /// Latest wall clock at an append of what is in it, in milliseconds.
    pub append_time_ms: i64,
    /// Largest record timestamp in it; `i64::MIN` in a sealing chunk.
    pub max_timestamp_ms: i64,
    /// Number of batches in it.
    pub batch_count: u32,
    /// None is defined yet; a reader refuses those it does not know.
    pub flags: u32,
}

/// Why bytes are not a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAChunk {
    /// All zeros: nothing was written here yet.
    #[error("nothing is written there")]
    Blank,
    /// Another magic: something else, or the middle of a chunk.
    #[error("no chunk begins there")]
    Magic,
    /// A version, header size or flag that this broker does not know.
    #[error("the chunk has a version or flags that are not known")]
    Unknown,
    /// Impossible sizes or offsets.
    #[error("the chunk's header contradicts itself")]
    Header,
    /// More bytes are needed than there are.
    #[error("the chunk ends after the end of the file")]
    Incomplete {
        /// How many, from its start, padding included.
        needed: usize,
    },
    /// The checksum over header and payload does not hold.
    #[error("the chunk's checksum does not match")]
    Checksum,
}

impl ChunkHeader {
    /// Size of the chunk on disk: header, payload, padding.
    #[must_use]
    pub fn disk_size(&self) -> usize {
        align_up(CHUNK_HEADER_SIZE + self.payload_size as usize)
    }

    /// Fills in the header of a chunk whose payload is in place, checksum included.
    ///
    /// # Panics
    /// If `chunk` is not exactly header and payload, or the header contradicts itself.
    pub fn seal(&self, chunk: &mut [u8]) {
        assert_eq!(chunk.len(), CHUNK_HEADER_SIZE + self.payload_size as usize);
        assert!(
            self.is_consistent(),
            "a chunk that no reader would accept: {self:?}"
        );
        self.encode(&mut chunk[..CHUNK_HEADER_SIZE]);
        let crc = crc32c(&chunk[CRC_COVERS_FROM..]);
        chunk[CRC_AT..CRC_COVERS_FROM].copy_from_slice(&crc.to_le_bytes());
    }

    fn encode(&self, out: &mut [u8]) {
        let header_size = u16::try_from(CHUNK_HEADER_SIZE).expect("a small header");
        out[0..4].copy_from_slice(&CHUNK_MAGIC);
        out[4..6].copy_from_slice(&CHUNK_VERSION.to_le_bytes());
        out[6..8].copy_from_slice(&header_size.to_le_bytes());
        out[12..16].copy_from_slice(&self.payload_size.to_le_bytes());
        out[16..32].copy_from_slice(self.id.topic.0.as_bytes());
        out[32..36].copy_from_slice(&self.id.partition.0.to_le_bytes());
        out[36..40].copy_from_slice(&self.epoch.0.to_le_bytes());
        out[40..48].copy_from_slice(&self.incarnation.to_le_bytes());
        out[48..56].copy_from_slice(&self.base.0.to_le_bytes());
        out[56..64].copy_from_slice(&self.next.0.to_le_bytes());
        out[64..72].copy_from_slice(&self.flushed.0.to_le_bytes());
        out[72..80].copy_from_slice(&self.append_time_ms.to_le_bytes());
        out[80..88].copy_from_slice(&self.max_timestamp_ms.to_le_bytes());
        out[88..92].copy_from_slice(&self.batch_count.to_le_bytes());
        out[92..96].copy_from_slice(&self.flags.to_le_bytes());
    }

    /// Reads a header without believing it: the checksum needs the payload, see
    /// [`ChunkHeader::verified`].
    ///
    /// # Errors
    /// [`NotAChunk`].
    pub fn peek(bytes: &[u8]) -> Result<Self, NotAChunk> {
        if bytes.len() < CHUNK_HEADER_SIZE {
            return Err(NotAChunk::Incomplete {
                needed: align_up(CHUNK_HEADER_SIZE),
            });
        }
        if bytes[0..4] != CHUNK_MAGIC {
            let block = &bytes[..bytes.len().min(align_up(1))];
            let blank = block.iter().all(|byte| *byte == 0);
            return Err(if blank {
                NotAChunk::Blank
            } else {
                NotAChunk::Magic
            });
        }
        let header = Self {
            payload_size: u32::from_le_bytes(field(bytes, 12)),
            id: TopicPartition {
                topic: TopicId(Uuid::from_bytes(field(bytes, 16))),
                partition: PartitionIndex(u32::from_le_bytes(field(bytes, 32))),
            },
            epoch: LeaderEpoch(i32::from_le_bytes(field(bytes, 36))),
            incarnation: u64::from_le_bytes(field(bytes, 40)),
            base: Offset(i64::from_le_bytes(field(bytes, 48))),
            next: Offset(i64::from_le_bytes(field(bytes, 56))),
            flushed: Offset(i64::from_le_bytes(field(bytes, 64))),
            append_time_ms: i64::from_le_bytes(field(bytes, 72)),
            max_timestamp_ms: i64::from_le_bytes(field(bytes, 80)),
            batch_count: u32::from_le_bytes(field(bytes, 88)),
            flags: u32::from_le_bytes(field(bytes, 92)),
        };
        let version = u16::from_le_bytes(field(bytes, 4));
        let header_size = usize::from(u16::from_le_bytes(field(bytes, 6)));
        if version != CHUNK_VERSION || header_size != CHUNK_HEADER_SIZE || header.flags != 0 {
            return Err(NotAChunk::Unknown);
        }
        if header.is_consistent() {
            Ok(header)
        } else {
            Err(NotAChunk::Header)
        }
    }

    /// Reads and verifies the chunk at the start of `bytes`, which may go on behind it.
    ///
    /// # Errors
    /// [`NotAChunk`]; `Incomplete` says how many bytes it takes.
    pub fn verified(bytes: &[u8]) -> Result<Self, NotAChunk> {
        let header = Self::peek(bytes)?;
        if bytes.len() < header.disk_size() {
            return Err(NotAChunk::Incomplete {
                needed: header.disk_size(),
            });
        }
        Self::verified_unpadded(bytes)
    }

    /// The same for an entry of a journal's frame, which has no padding.
    ///
    /// # Errors
    /// [`NotAChunk`].
    pub fn verified_unpadded(bytes: &[u8]) -> Result<Self, NotAChunk> {
        let header = Self::peek(bytes)?;
        let end = CHUNK_HEADER_SIZE + header.payload_size as usize;
        if bytes.len() < end {
            return Err(NotAChunk::Incomplete { needed: end });
        }
        let crc = u32::from_le_bytes(field(bytes, CRC_AT));
        if crc32c(&bytes[CRC_COVERS_FROM..end]) == crc {
            Ok(header)
        } else {
            Err(NotAChunk::Checksum)
        }
    }

    /// The version of a chunk that a newer broker wrote: its checksum holds, and its version or its flags are not
    /// known. A known version with one wrong bit is damage.
    ///
    /// # Errors
    /// [`NotAChunk`]; `Incomplete` says how many bytes it takes.
    pub fn newer_version(bytes: &[u8]) -> Result<u16, NotAChunk> {
        let Err(NotAChunk::Unknown) = Self::peek(bytes) else {
            return Err(NotAChunk::Magic);
        };
        let version = u16::from_le_bytes(field(bytes, 4));
        let flags = u32::from_le_bytes(field(bytes, 92));
        let size = u32::from_le_bytes(field(bytes, 12)) as usize;
        if size > MAX_PAYLOAD_SIZE || flags == 0 && (version ^ CHUNK_VERSION).count_ones() < 2 {
            return Err(NotAChunk::Header);
        }
        let needed = CHUNK_HEADER_SIZE + size;
        let chunk = bytes
            .get(..needed)
            .ok_or(NotAChunk::Incomplete { needed })?;
        match crc32c(&chunk[CRC_COVERS_FROM..]) == u32::from_le_bytes(field(chunk, CRC_AT)) {
            true => Ok(version),
            false => Err(NotAChunk::Checksum),
        }
    }

    fn is_consistent(&self) -> bool {
        let empty = self.payload_size == 0;
        self.payload_size as usize <= MAX_PAYLOAD_SIZE
            && self.base.0 >= 0
            && self.next.0 <= MAX_OFFSET
            && self.flushed.0 >= 0
            && (1..=MAX_NUMBER).contains(&self.incarnation)
            && empty == (self.batch_count == 0)
            && empty == (self.base == self.next)
            && self.base <= self.next
            && self.flushed <= self.base
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn header(payload_size: u32) -> ChunkHeader {
        ChunkHeader {
            payload_size,
            id: TopicPartition {
                topic: TopicId(Uuid::from_u128(7)),
                partition: PartitionIndex(3),
            },
            epoch: LeaderEpoch(2),
            incarnation: 1,
            base: Offset(10),
            next: if payload_size == 0 {
                Offset(10)
            } else {
                Offset(12)
            },
            flushed: Offset(9),
            append_time_ms: 5,
            max_timestamp_ms: 6,
            batch_count: u32::from(payload_size > 0),
            flags: 0,
        }
    }

    fn chunk(payload: &[u8]) -> Vec<u8> {
        let header = header(u32::try_from(payload.len()).unwrap());
        let mut bytes = vec![0; CHUNK_HEADER_SIZE];
        bytes.extend_from_slice(payload);
        header.seal(&mut bytes);
        bytes.resize(header.disk_size(), 0);
        bytes
    }

    #[test]
    fn what_is_sealed_reads_back() {
        let bytes = chunk(b"hello");
        assert_eq!(ChunkHeader::verified(&bytes), Ok(header(5)));
        let seal = chunk(b"");
        assert_eq!(ChunkHeader::verified(&seal), Ok(header(0)));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let good = chunk(b"hello");
        for bit in 0..(CHUNK_HEADER_SIZE + 5) * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(ChunkHeader::verified(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_chunk_of_a_newer_broker_is_not_taken_for_damage() {
        let good = chunk(b"hello");
        assert_eq!(ChunkHeader::newer_version(&good), Err(NotAChunk::Magic));
        let mut newer = good.clone();
        newer[4] = 2;
        assert_eq!(ChunkHeader::newer_version(&newer), Ok(2));
        assert_eq!(
            ChunkHeader::newer_version(&newer[..100]),
            Err(NotAChunk::Incomplete { needed: 101 })
        );
        newer[20] ^= 1;
        assert_eq!(ChunkHeader::newer_version(&newer), Err(NotAChunk::Checksum));
        for bit in 0..16 {
            let mut damaged = good.clone();
            damaged[4 + bit / 8] ^= 1 << (bit % 8);
            let found = ChunkHeader::newer_version(&damaged);
            assert_eq!(found, Err(NotAChunk::Header), "bit {bit}");
        }
        let mut flags = good;
        flags[92] = 1;
        let crc = crc32c(&flags[CRC_COVERS_FROM..CHUNK_HEADER_SIZE + 5]);
        flags[CRC_AT..CRC_COVERS_FROM].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(ChunkHeader::newer_version(&flags), Ok(1));
    }

    #[test]
    fn a_chunk_cut_short_says_how_much_it_takes() {
        let good = chunk(&[1; 5000]);
        assert_eq!(
            ChunkHeader::verified(&good[..4096]),
            Err(NotAChunk::Incomplete { needed: 8192 })
        );
        assert_eq!(ChunkHeader::verified(&[0; 4096]), Err(NotAChunk::Blank));
        assert_eq!(ChunkHeader::verified(&good[4096..]), Err(NotAChunk::Magic));
    }
}
