//! The journal: files of a ring, and frames of what many logs appended. See `docs/format/journal.md`.
//!
//! A frame has two checksums: one over all of it, and one over its *directory*, which is its header and
//! those of its entries. Where only the first fails, the frame still says whose records were in it.

use uuid::Uuid;

use super::{
    chunk::{CHUNK_HEADER_SIZE, ChunkHeader},
    crc32c, field,
};
use crate::{
    io::{BLOCK_SIZE, align_up},
    storage::limits::MAX_NUMBER,
};

/// Size of a file's header: frames begin here.
pub const JOURNAL_HEADER_SIZE: u64 = BLOCK_SIZE as u64;
/// Size of a frame's header in bytes; its entries follow at once.
pub const FRAME_HEADER_SIZE: usize = 64;
/// First bytes of every journal file.
pub const JOURNAL_MAGIC: [u8; 4] = *b"MSJF";
/// First bytes of every frame.
pub const FRAME_MAGIC: [u8; 4] = *b"MSJR";
/// Version of both formats.
pub const JOURNAL_VERSION: u16 = 2;
/// Before it, frames had no checksum of their directory. Everything else is the same.
const VERSION_WITHOUT_DIRECTORY: u16 = 1;

const FILE_FIELDS_SIZE: usize = 32;
const CRC_AT: usize = 8;
/// A frame's checksum covers all of it from here on.
pub const CRC_COVERS_FROM: usize = 12;
const SIZE_AT: usize = 12;
const JOURNAL_AT: usize = 16;
const DIRECTORY_CRC_AT: usize = 60;
/// Entries begin on multiples of this.
const ENTRY_ALIGNMENT: usize = 8;

/// What an entry with so many bytes of batches takes in a frame.
#[must_use]
pub const fn entry_size(payload_size: usize) -> usize {
    (CHUNK_HEADER_SIZE + payload_size).next_multiple_of(ENTRY_ALIGNMENT)
}

/// Why bytes are not what was expected of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAJournal {
    /// Blank, torn or something else.
    #[error("blank or damaged")]
    Damaged,
    /// Written by a newer broker.
    #[error("format version {0} is not known")]
    Version(u16),
}

/// Writes the first block of a file of journal `id`.
///
/// # Panics
/// If `block` is not one block.
pub fn encode_file_header(id: Uuid, block: &mut [u8]) {
    assert_eq!(block.len(), BLOCK_SIZE);
    block.fill(0);
    block[0..4].copy_from_slice(&JOURNAL_MAGIC);
    block[4..6].copy_from_slice(&JOURNAL_VERSION.to_le_bytes());
    block[16..32].copy_from_slice(id.as_bytes());
    let crc = crc32c(&block[CRC_COVERS_FROM..FILE_FIELDS_SIZE]);
    block[CRC_AT..CRC_COVERS_FROM].copy_from_slice(&crc.to_le_bytes());
}

/// Whose journal a file belongs to, by its first block.
///
/// # Errors
/// [`NotAJournal`].
pub fn decode_file_header(block: &[u8]) -> Result<Uuid, NotAJournal> {
    if block.len() < FILE_FIELDS_SIZE || block[0..4] != JOURNAL_MAGIC {
        return Err(NotAJournal::Damaged);
    }
    // The fields before the checksum stay where they are in every version.
    let version = u16::from_le_bytes(field(block, 4));
    if version > JOURNAL_VERSION {
        return Err(NotAJournal::Version(version));
    }
    let crc = u32::from_le_bytes(field(block, CRC_AT));
    if crc32c(&block[CRC_COVERS_FROM..FILE_FIELDS_SIZE]) != crc {
        return Err(NotAJournal::Damaged);
    }
    Ok(Uuid::from_bytes(field(block, 16)))
}

/// What a frame says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Bytes of header and entries, without padding.
    pub size: u32,
    /// The journal it belongs to.
    pub journal: Uuid,
    /// Its number: one more than the frame's before it.
    pub sequence: u64,
    /// Every frame up to this one was durable when it was made.
    pub flushed: u64,
    /// Frames before this one are not needed any more.
    pub oldest: u64,
    /// Number of entries; none in a sealing frame.
    pub entry_count: u32,
}

impl FrameHeader {
    /// Size of the frame on disk: header, entries, padding.
    #[must_use]
    pub fn disk_size(&self) -> usize {
        align_up(self.size as usize)
    }

    /// Fills in the header of a frame whose entries are in place, checksums included.
    ///
    /// # Panics
    /// If `frame` is not exactly header and entries.
    pub fn seal(&self, frame: &mut [u8]) {
        assert_eq!(frame.len(), self.size as usize);
        let header_size = u16::try_from(FRAME_HEADER_SIZE).expect("a small header");
        frame[..FRAME_HEADER_SIZE].fill(0);
        frame[0..4].copy_from_slice(&FRAME_MAGIC);
        frame[4..6].copy_from_slice(&JOURNAL_VERSION.to_le_bytes());
        frame[6..8].copy_from_slice(&header_size.to_le_bytes());
        frame[12..16].copy_from_slice(&self.size.to_le_bytes());
        frame[16..32].copy_from_slice(self.journal.as_bytes());
        frame[32..40].copy_from_slice(&self.sequence.to_le_bytes());
        frame[40..48].copy_from_slice(&self.flushed.to_le_bytes());
        frame[48..56].copy_from_slice(&self.oldest.to_le_bytes());
        frame[56..60].copy_from_slice(&self.entry_count.to_le_bytes());
        if let Some(crc) = directory_crc(frame) {
            frame[DIRECTORY_CRC_AT..FRAME_HEADER_SIZE].copy_from_slice(&crc.to_le_bytes());
        }
        let crc = crc32c(&frame[CRC_COVERS_FROM..]);
        frame[CRC_AT..CRC_COVERS_FROM].copy_from_slice(&crc.to_le_bytes());
    }

    fn fields(bytes: &[u8]) -> Self {
        Self {
            size: u32::from_le_bytes(field(bytes, 12)),
            journal: Uuid::from_bytes(field(bytes, JOURNAL_AT)),
            sequence: u64::from_le_bytes(field(bytes, 32)),
            flushed: u64::from_le_bytes(field(bytes, 40)),
            oldest: u64::from_le_bytes(field(bytes, 48)),
            entry_count: u32::from_le_bytes(field(bytes, 56)),
        }
    }

    fn is_consistent(&self) -> bool {
        self.size as usize >= FRAME_HEADER_SIZE
            && self.sequence <= MAX_NUMBER
            && self.flushed < self.sequence
            && self.oldest <= self.sequence
    }

    /// Reads a header without believing it: the checksum needs the whole frame.
    #[must_use]
    pub fn peek(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < FRAME_HEADER_SIZE || bytes[0..4] != FRAME_MAGIC {
            return None;
        }
        let version = u16::from_le_bytes(field(bytes, 4));
        let header_size = usize::from(u16::from_le_bytes(field(bytes, 6)));
        let header = Self::fields(bytes);
        let known = (VERSION_WITHOUT_DIRECTORY..=JOURNAL_VERSION).contains(&version)
            && header_size == FRAME_HEADER_SIZE;
        (known && header.is_consistent()).then_some(header)
    }

    /// Reads and verifies the frame at the start of `bytes`, which may go on behind it.
    #[must_use]
    pub fn verified(bytes: &[u8]) -> Option<Self> {
        let header = Self::peek(bytes)?;
        let frame = bytes.get(..header.size as usize)?;
        let crc = u32::from_le_bytes(field(frame, CRC_AT));
        (crc32c(&frame[CRC_COVERS_FROM..]) == crc).then_some(header)
    }

    /// What a header that cannot be believed gives as the frame's size in bytes and as its checksum.
    #[must_use]
    pub fn claims(bytes: &[u8]) -> Option<(u32, u32)> {
        let bytes = bytes.get(..FRAME_HEADER_SIZE)?;
        let crc = u32::from_le_bytes(field(bytes, CRC_AT));
        Some((Self::fields(bytes).size, crc))
    }

    /// Gives a frame another size.
    pub fn set_size(frame: &mut [u8], size: u32) {
        frame[SIZE_AT..JOURNAL_AT].copy_from_slice(&size.to_le_bytes());
    }

    /// Something in a header that cannot be believed says that the frame has no entries. Either of its fields
    /// may be damaged, but hardly both.
    #[must_use]
    pub fn may_be_empty(bytes: &[u8]) -> bool {
        bytes.get(..FRAME_HEADER_SIZE).is_some_and(|bytes| {
            let header = Self::fields(bytes);
            let size = header.size as usize == FRAME_HEADER_SIZE;
            size || header.size != 0 && header.entry_count == 0
        })
    }

    /// Reads a frame of journal `journal` of which the directory alone is believed: what it says of itself
    /// and of its entries is so, but their batches may be damaged, and its first twelve bytes too.
    #[must_use]
    pub fn of_directory(bytes: &[u8], journal: Uuid) -> Option<Self> {
        let ours = bytes.get(JOURNAL_AT..FRAME_HEADER_SIZE)?;
        if !ours.starts_with(journal.as_bytes()) {
            return None;
        }
        let header = Self::fields(bytes);
        let crc = u32::from_le_bytes(field(bytes, DIRECTORY_CRC_AT));
        (header.is_consistent() && directory_crc(bytes) == Some(crc)).then_some(header)
    }
}

/// The checksum of a frame's header, up to the checksum's own place, and of the headers of its entries; `None`
/// if they do not fit.
fn directory_crc(frame: &[u8]) -> Option<u32> {
    let header = FrameHeader::fields(frame.get(..FRAME_HEADER_SIZE)?);
    let frame = frame.get(..header.size as usize)?;
    let mut directory = frame[CRC_COVERS_FROM..DIRECTORY_CRC_AT].to_vec();
    let mut at = FRAME_HEADER_SIZE;
    for _ in 0..header.entry_count {
        let entry = frame.get(at..at + CHUNK_HEADER_SIZE)?;
        directory.extend_from_slice(entry);
        at += entry_size(ChunkHeader::peek(entry).ok()?.payload_size as usize);
    }
    Some(crc32c(&directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(entries: &[u8]) -> (FrameHeader, Vec<u8>) {
        let header = FrameHeader {
            size: u32::try_from(FRAME_HEADER_SIZE + entries.len()).unwrap(),
            journal: Uuid::from_u128(7),
            sequence: 9,
            flushed: 8,
            oldest: 3,
            entry_count: 1,
        };
        let mut bytes = vec![0xff; FRAME_HEADER_SIZE];
        bytes.extend_from_slice(entries);
        header.seal(&mut bytes);
        (header, bytes)
    }

    #[test]
    fn what_is_sealed_reads_back_and_every_flipped_bit_is_noticed() {
        let (header, bytes) = frame(b"entries");
        assert_eq!(FrameHeader::verified(&bytes), Some(header));
        assert_eq!(FrameHeader::verified(&bytes[..bytes.len() - 1]), None);
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FrameHeader::verified(&bad), None, "bit {bit}");
        }
    }

    #[test]
    fn a_file_says_whose_it_is() {
        let mut block = vec![0xff; BLOCK_SIZE];
        encode_file_header(Uuid::from_u128(5), &mut block);
        assert_eq!(decode_file_header(&block), Ok(Uuid::from_u128(5)));
        block[20] ^= 1;
        assert_eq!(decode_file_header(&block), Err(NotAJournal::Damaged));
        block[4] = 3;
        assert_eq!(decode_file_header(&block), Err(NotAJournal::Version(3)));
    }

    #[test]
    fn the_directory_is_believed_where_only_records_are_damaged() {
        let journal = Uuid::from_u128(7);
        let chunk = ChunkHeader {
            payload_size: 5,
            id: millstream_protocol::TopicPartition {
                topic: millstream_protocol::TopicId(Uuid::from_u128(3)),
                partition: millstream_protocol::PartitionIndex(0),
            },
            epoch: millstream_protocol::LeaderEpoch(0),
            incarnation: 1,
            base: millstream_protocol::Offset(0),
            next: millstream_protocol::Offset(1),
            flushed: millstream_protocol::Offset(0),
            append_time_ms: 0,
            max_timestamp_ms: 0,
            batch_count: 1,
            flags: 0,
        };
        let mut entry = vec![7; CHUNK_HEADER_SIZE + 5];
        chunk.seal(&mut entry);
        let (header, good) = frame(&entry);
        assert_eq!(FrameHeader::of_directory(&good, journal), Some(header));
        assert_eq!(FrameHeader::of_directory(&good, Uuid::from_u128(8)), None);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let found = FrameHeader::of_directory(&bad, journal);
            let directory = (12..FRAME_HEADER_SIZE + CHUNK_HEADER_SIZE).contains(&(bit / 8));
            assert_eq!(found.is_none(), directory, "bit {bit}");
        }
    }

    #[test]
    fn entries_are_aligned() {
        assert_eq!(entry_size(0), 96);
        assert_eq!(entry_size(1), 104);
        assert_eq!(entry_size(8), 104);
    }
}
