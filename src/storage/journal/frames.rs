//! The frames in a file of a journal, as far as they can be told. Pure.
//!
//! | what is intact | what is made of the frame |
//! |---|---|
//! | all of it | *whole*: everything in it counts |
//! | all but one byte of its directory | whole: two checksums say which byte it was, and it is put right ([`correction`](super::correction)) |
//! | its directory | *spoiled*: entries count whose own checksum holds; of the others it is known whose they were |
//! | its entries, up to the next frame | whole: only its header is damaged, and nothing is lost |
//! | less | nobody can tell whose records were in it |

use std::path::PathBuf;

use millstream_protocol::TopicPartition;
use uuid::Uuid;

use super::{correction::corrected, torn::Doubtful};
use crate::{
    io::{BLOCK_SIZE, align_up},
    storage::format::{
        chunk::{CHUNK_HEADER_SIZE, ChunkHeader},
        journal::{FRAME_HEADER_SIZE, FRAME_MAGIC, FrameHeader, JOURNAL_HEADER_SIZE, entry_size},
    },
};

/// One file as it was found.
pub(super) struct FoundFile {
    pub path: PathBuf,
    /// Ascending by number; what the file held before it was used again is left out.
    pub frames: Vec<FoundFrame>,
    /// The largest number that one of them names as durable.
    pub flushed: u64,
    /// What only looks like a frame, in no order.
    pub doubtful: Vec<Doubtful>,
    corrections_tried: u32,
}

/// Frames of one file that are tried to be put right: each takes time by its size.
const MAX_CORRECTIONS: u32 = 8;

/// A frame that was found.
pub(super) struct FoundFrame {
    pub header: FrameHeader,
    /// Where it begins in its file.
    pub position: u64,
    /// Header and entries.
    pub bytes: Vec<u8>,
    /// Only its directory is intact.
    pub spoiled: bool,
}

impl FoundFrame {
    /// What of it is damaged: entries whose own checksum does not hold. None if all of it is intact.
    pub fn damaged_entries(&self) -> impl Iterator<Item = (ChunkHeader, usize)> + '_ {
        let entries = self.entries().filter(|_| self.spoiled);
        entries.filter(|(_, at)| ChunkHeader::verified_unpadded(&self.bytes[*at..]).is_err())
    }

    /// Where the next one begins.
    pub fn end(&self) -> u64 {
        self.position + self.header.disk_size() as u64
    }

    /// The headers of its entries, with their places in it. A frame that was written so that they do not fit
    /// ends before.
    pub fn entries(&self) -> impl Iterator<Item = (ChunkHeader, usize)> + '_ {
        let mut at = FRAME_HEADER_SIZE;
        (0..self.header.entry_count).map_while(move |_| {
            let entry = ChunkHeader::peek(self.bytes.get(at..)?).ok()?;
            let place = at;
            at += entry_size(entry.payload_size as usize);
            let end = place + CHUNK_HEADER_SIZE + entry.payload_size as usize;
            (end <= self.bytes.len()).then_some((entry, place))
        })
    }
}

/// Finds the frames of journal `journal` in what follows a file's header.
pub(super) fn parse_file(path: PathBuf, journal: Uuid, bytes: &[u8]) -> FoundFile {
    let mut found = FoundFile {
        path,
        frames: Vec::new(),
        flushed: 0,
        doubtful: Vec::new(),
        corrections_tried: 0,
    };
    // A frame without a readable header, if that is what comes behind the last one.
    let mut headless: Option<(usize, FrameHeader)> = None;
    let (mut at, mut behind) = (0, 0);
    while at < bytes.len() {
        let Some((header, spoiled, frame)) = found.frame_at(&bytes[at..], journal) else {
            found.doubt(FrameHeader::peek(&bytes[at..]), at, bytes, journal);
            if at == behind {
                // Nowhere else: entries that begin in the middle of a frame are not all there was.
                headless = entries_without_header(&bytes[at..], journal).map(|header| (at, header));
            }
            at += BLOCK_SIZE;
            continue;
        };
        if let Some((begin, headless)) = headless.take()
            && begin + headless.disk_size() == at
            && let Some(sequence) = found.number_before(&header)
        {
            let headless = FrameHeader {
                sequence,
                ..headless
            };
            let frame = bytes[begin..begin + headless.size as usize].to_vec();
            found.add(headless, begin, frame, false);
        }
        found.add(header, at, frame, spoiled);
        at += header.disk_size();
        behind = at;
    }
    if let Some((begin, headless)) = headless {
        let unnumbered = FrameHeader {
            sequence: 0,
            ..headless
        };
        found.doubt(Some(unnumbered), begin, bytes, journal);
    }
    found
}

impl FoundFile {
    /// Notes a header that cannot be believed.
    fn doubt(&mut self, header: Option<FrameHeader>, at: usize, bytes: &[u8], journal: Uuid) {
        if let Some(header) = header.filter(|header| header.journal == journal) {
            self.doubtful.push(Doubtful {
                frame: Some(header.sequence).filter(|sequence| *sequence > 0),
                position: JOURNAL_HEADER_SIZE + at as u64,
                logs: intact_entries(&bytes[at..], header.entry_count),
            });
        }
    }

    /// The number of the frame between the newest one so far and the one that follows, if it can be but one.
    fn number_before(&self, next: &FrameHeader) -> Option<u64> {
        let number = next.sequence.checked_sub(1).filter(|number| *number > 0)?;
        let newest = self
            .frames
            .last()
            .map_or(number - 1, |newest| newest.header.sequence);
        (newest == number - 1).then_some(number)
    }

    /// The frame that begins there, and whether it is spoiled.
    fn frame_at(&mut self, bytes: &[u8], journal: Uuid) -> Option<(FrameHeader, bool, Vec<u8>)> {
        if let Some((header, spoiled)) = frame_at(bytes, journal) {
            return Some((header, spoiled, bytes[..header.size as usize].to_vec()));
        }
        if !bytes.starts_with(&FRAME_MAGIC) || self.corrections_tried == MAX_CORRECTIONS {
            return None;
        }
        self.corrections_tried += 1;
        let frame = corrected(bytes, journal)?;
        Some((FrameHeader::verified(&frame)?, false, frame))
    }

    fn add(&mut self, header: FrameHeader, at: usize, bytes: Vec<u8>, spoiled: bool) {
        let newest = self.frames.last().map(|last| last.header.sequence);
        if newest.is_some_and(|newest| newest >= header.sequence) {
            // It was there before the file was used again.
            return;
        }
        self.flushed = self.flushed.max(header.flushed);
        self.frames.push(FoundFrame {
            header,
            position: JOURNAL_HEADER_SIZE + at as u64,
            bytes,
            spoiled,
        });
    }
}

/// Whose entries follow a header, as far as their own checksums hold.
fn intact_entries(bytes: &[u8], entry_count: u32) -> Vec<TopicPartition> {
    let mut at = FRAME_HEADER_SIZE;
    let entries = (0..entry_count).map_while(|_| {
        let entry = ChunkHeader::verified_unpadded(bytes.get(at..)?).ok()?;
        at += entry_size(entry.payload_size as usize);
        Some(entry.id)
    });
    entries.collect()
}

/// The frame that begins there, and whether it is spoiled.
fn frame_at(bytes: &[u8], journal: Uuid) -> Option<(FrameHeader, bool)> {
    let whole = bytes
        .starts_with(&FRAME_MAGIC)
        .then(|| FrameHeader::verified(bytes));
    match whole.flatten() {
        Some(header) => (header.journal == journal).then_some((header, false)),
        None => FrameHeader::of_directory(bytes, journal).map(|header| (header, true)),
    }
}

/// Entries that begin where those of a frame would, each with a checksum that holds, up to the padding. Which
/// frame it is, the one behind it says; this one is believed only if that one follows at once.
fn entries_without_header(bytes: &[u8], journal: Uuid) -> Option<FrameHeader> {
    let mut at = FRAME_HEADER_SIZE;
    let mut entry_count = 0;
    while let Some(Ok(entry)) = bytes.get(at..).map(ChunkHeader::verified_unpadded) {
        at += entry_size(entry.payload_size as usize);
        entry_count += 1;
    }
    let padding = bytes.get(at..align_up(at))?;
    let blank = padding.iter().all(|byte| *byte == 0);
    (blank && (entry_count > 0 || FrameHeader::may_be_empty(bytes))).then(|| FrameHeader {
        size: u32::try_from(at).expect("a file of a journal is below 4 GiB"),
        journal,
        sequence: 0,
        flushed: 0,
        oldest: 0,
        entry_count,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use millstream_protocol::{LeaderEpoch, Offset, PartitionIndex, TopicId};

    use super::*;

    pub const ENTRY_SIZE: usize = 512;

    /// Each block has an entry where a frame's first one would be.
    pub fn frame(journal: Uuid, sequence: u64, entry_count: u32) -> Vec<u8> {
        let size = FRAME_HEADER_SIZE + ENTRY_SIZE * entry_count as usize;
        let mut bytes = vec![0; size];
        for number in 0..entry_count {
            let at = FRAME_HEADER_SIZE + ENTRY_SIZE * number as usize;
            let entry = ChunkHeader {
                payload_size: u32::try_from(ENTRY_SIZE - CHUNK_HEADER_SIZE).unwrap(),
                id: TopicPartition {
                    topic: TopicId(Uuid::from_u128(1)),
                    partition: PartitionIndex(number),
                },
                epoch: LeaderEpoch(0),
                incarnation: 1,
                base: Offset(0),
                next: Offset(1),
                flushed: Offset(0),
                append_time_ms: 1,
                max_timestamp_ms: 1,
                batch_count: 1,
                flags: 0,
            };
            entry.seal(&mut bytes[at..at + ENTRY_SIZE]);
        }
        let header = FrameHeader {
            size: u32::try_from(size).unwrap(),
            journal,
            sequence,
            flushed: sequence - 1,
            oldest: 1,
            entry_count,
        };
        header.seal(&mut bytes);
        bytes.resize(align_up(size), 0);
        bytes
    }

    fn found(bytes: &[u8], journal: Uuid) -> Vec<(u64, u32)> {
        let file = parse_file("j".into(), journal, bytes);
        let frames = file.frames.iter();
        frames
            .map(|frame| (frame.header.sequence, frame.header.entry_count))
            .collect()
    }

    #[test]
    fn a_frame_that_lost_its_beginning_is_not_whole_from_its_middle_on() {
        let journal = Uuid::from_u128(7);
        let frames = [1, 2, 3].map(|number| frame(journal, number, 30));
        let good = frames.concat();
        assert_eq!(found(&good, journal), [(1, 30), (2, 30), (3, 30)]);
        let second = frames[0].len();
        // The header alone: all entries are there.
        let mut damaged = good.clone();
        damaged[second + 8] ^= 1;
        assert_eq!(found(&damaged, journal), [(1, 30), (2, 30), (3, 30)]);
        // One byte of the header of its first entry, which the directory's checksum covers; then two.
        let mut damaged = good.clone();
        damaged[second + FRAME_HEADER_SIZE + 12] ^= 1;
        assert_eq!(found(&damaged, journal), [(1, 30), (2, 30), (3, 30)]);
        damaged[second + FRAME_HEADER_SIZE + 20] ^= 1;
        assert_eq!(found(&damaged, journal), [(1, 30), (3, 30)]);
        // Its first block.
        let mut damaged = good;
        damaged[second..second + BLOCK_SIZE].fill(0);
        assert_eq!(found(&damaged, journal), [(1, 30), (3, 30)]);
        // The same at the beginning of a file.
        assert_eq!(found(&damaged[second..], journal), [(3, 30)]);
    }
}
