//! Looking at a stopped broker's files: what `log dump` and `log verify` print. Reads only, with
//! plain blocking files, and believes nothing that its checksum does not cover. It judges as a recovery
//! does (`storage::recovery`), and changes nothing.

// Benchmarks see the crate from outside.
#[doc(hidden)]
pub mod bench;
mod chunks;
mod findings;
mod journal;
mod places;

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use millstream_protocol::{Offset, TopicPartition};

use self::places::read_whole;
pub(super) use self::{
    chunks::Places,
    places::{partition_of, read_up_to, segments},
};
pub use self::{
    findings::{Finding, Summary, Verdict},
    journal::{JournalDamage, Journals},
    places::partition_dirs,
};
pub use super::format::{
    checkpoint::CheckpointV1,
    chunk::{CHUNK_HEADER_SIZE, ChunkHeader, NotAChunk},
    segment::SegmentHeader,
};
pub use super::journal::TornFrame;
use super::{
    format::{
        names,
        segment::{NotASegment, SEGMENT_HEADER_SIZE},
    },
    incarnations::Incarnations,
    journal::Tail,
    limits::MAX_ENVELOPE_SIZE,
    run,
    slots::{self, NotASlot, Slots},
};
use crate::io::BLOCK_SIZE;

/// Goes through one partition's files, then through what the journals add to them, and shows what is there.
///
/// # Errors
/// The system's; what is wrong with the log is in the [`Verdict`].
pub fn inspect(
    dir: &Path,
    journals: &Journals,
    visit: &mut dyn FnMut(&Finding<'_>),
) -> io::Result<Summary> {
    if !dir.exists() {
        // All there is of it is in a journal.
        let mut walk = Walk::new(None, visit);
        walk.summary.id = partition_of(dir);
        return Ok(walk.finish(dir, journals));
    }
    let mut walk = Walk::begin(dir, visit)?;
    let bases = segments(dir)?;
    walk.summary.segment_count = bases.len() as u64;
    if let (None, Some(first)) = (&walk.checkpoint, bases.first()) {
        walk.start_at(dir, *first)?;
    }
    let mut missing = walk.missing(&bases).into_iter().peekable();
    for base in bases {
        while let Some(gone) = missing.next_if(|gone| *gone < base) {
            walk.stop_at_missing(dir, gone);
        }
        walk.segment(&names::segment_path(dir, base), base)?;
    }
    missing.for_each(|gone| walk.stop_at_missing(dir, gone));
    Ok(walk.finish(dir, journals))
}

/// The first place where the log does not go on.
struct Bad {
    path: PathBuf,
    position: u64,
    reason: String,
    /// The largest offset that a later chunk names as durable, and where it says so.
    proof: Option<(Offset, String)>,
    /// Something is written there.
    dirty: bool,
}

struct Walk<'a> {
    visit: &'a mut dyn FnMut(&Finding<'_>),
    summary: Summary,
    checkpoint: Option<CheckpointV1>,
    incarnations: Incarnations,
    /// Offset that comes next, once a segment was begun.
    next: Option<Offset>,
    bad: Option<Bad>,
    /// A checkpoint, if there are some and none can be read.
    unreadable: Option<PathBuf>,
    /// The first file of a format that is not known.
    newer: Option<NewerFile>,
}

/// A file of a newer broker, and its format's version.
type NewerFile = (PathBuf, u16);

/// The checkpoints of a log.
pub(super) struct ReadSlots {
    pub slots: Slots,
    newer: Option<NewerFile>,
}

/// Reads and shows both slots of a log's checkpoint.
pub(super) fn read_slots(
    dir: &Path,
    id: Option<TopicPartition>,
    visit: &mut dyn FnMut(&Finding<'_>),
) -> io::Result<ReadSlots> {
    let mut read = ReadSlots {
        slots: Slots::default(),
        newer: None,
    };
    for slot in 0..2 {
        let path = names::checkpoint_path(dir, slot);
        let bytes = match read_whole(&path, MAX_ENVELOPE_SIZE) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            bytes => bytes?,
        };
        let decoded = slots::decode(&bytes, id);
        let state = match &decoded {
            Ok((sequence, checkpoint)) => Ok((*sequence, checkpoint)),
            Err(error) => Err(error.to_string()),
        };
        visit(&Finding::Checkpoint { path: &path, state });
        if let Err(NotASlot::Version(version)) = decoded {
            read.newer.get_or_insert((path, version));
        }
        read.slots.add(dir, slot, decoded);
    }
    Ok(read)
}

impl<'a> Walk<'a> {
    fn begin(dir: &Path, visit: &'a mut dyn FnMut(&Finding<'_>)) -> io::Result<Self> {
        let id = partition_of(dir);
        let read = read_slots(dir, id, visit)?;
        let lost = read.slots.lost();
        let mut walk = Self::new(read.slots.newest.map(|(_, checkpoint)| checkpoint), visit);
        walk.summary.id = id;
        walk.newer = read.newer;
        walk.unreadable = lost.then(|| names::checkpoint_path(dir, 1));
        Ok(walk)
    }

    fn new(checkpoint: Option<CheckpointV1>, visit: &'a mut dyn FnMut(&Finding<'_>)) -> Self {
        let lives = checkpoint.as_ref();
        let lives = lives.and_then(|found| Incarnations::from_entries(&found.incarnations));
        let log_start = Offset(checkpoint.as_ref().map_or(0, |found| found.log_start));
        Self {
            visit,
            summary: Summary {
                id: None,
                log_start,
                log_end: log_start,
                segment_count: 0,
                chunk_count: 0,
                batch_count: 0,
                batch_bytes: 0,
                journal_batch_count: 0,
                verdict: Verdict::Good,
            },
            checkpoint,
            incarnations: lives.unwrap_or_else(|| Incarnations::first(Offset::ZERO, 1)),
            next: None,
            bad: None,
            unreadable: None,
            newer: None,
        }
    }

    /// Segments that the checkpoint names and that have no file, ascending.
    fn missing(&self, bases: &[Offset]) -> Vec<Offset> {
        let named = self.checkpoint.iter().flat_map(|found| &found.rolled);
        let named = named.map(|segment| Offset(segment.base));
        let mut missing: Vec<_> = named.filter(|base| !bases.contains(base)).collect();
        missing.sort_unstable();
        missing
    }

    fn stop_at_missing(&mut self, dir: &Path, base: Offset) {
        let path = names::segment_path(dir, base);
        self.stop(&path, 0, "the file is missing".to_owned(), true);
    }

    /// There is no checkpoint: the log begins with its first file, and its life is that of the first chunk.
    fn start_at(&mut self, dir: &Path, first: Offset) -> io::Result<()> {
        let file = File::open(names::segment_path(dir, first))?;
        let mut block = [0; BLOCK_SIZE];
        let read = read_up_to(&file, &mut block, SEGMENT_HEADER_SIZE)?;
        let life = ChunkHeader::peek(&block[..read]).map_or(1, |chunk| chunk.incarnation);
        self.incarnations = Incarnations::first(first, life);
        self.summary.log_start = first;
        self.summary.log_end = first;
        Ok(())
    }

    fn segment(&mut self, path: &Path, base: Offset) -> io::Result<()> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        let mut block = [0; BLOCK_SIZE];
        let read = read_up_to(&file, &mut block, 0)?;
        let decoded = SegmentHeader::decode(&block[..read]);
        let ours = |header: &SegmentHeader| {
            header.base == base && self.summary.id.is_none_or(|id| id == header.id)
        };
        if let Err(NotASegment::Version(version)) = decoded {
            self.newer.get_or_insert((path.to_owned(), version));
        }
        let header = match decoded {
            Ok(header) if ours(&header) => Ok(header),
            Ok(_) => Err("it belongs to another log".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        (self.visit)(&Finding::Segment {
            path,
            size,
            header: header.clone(),
        });
        let follows = self.next.is_none_or(|next| next == base);
        match header {
            Err(reason) => self.stop(path, 0, reason, true),
            Ok(_) if !follows => {
                let reason = "the segment does not follow the one before".to_owned();
                self.stop(path, 0, reason, true);
            }
            Ok(header) => {
                self.summary.id = Some(header.id);
                if self.next == Some(base) {
                    // The one before ended there, whatever is left in its file.
                    self.bad = None;
                }
                self.next = Some(base);
            }
        }
        self.chunks(path, &file)
    }

    fn chunks(&mut self, path: &Path, file: &File) -> io::Result<()> {
        let mut places = Places::of(file);
        while let Some(found) = places.read()? {
            let position = places.position();
            match found {
                Ok(header) if self.chunk(path, position, &header, places.bytes()) => {
                    places.pass(&header);
                    continue;
                }
                Ok(_) => {}
                Err(error) => {
                    let blank = error == NotAChunk::Blank;
                    self.stop(path, position, error.to_string(), !blank);
                    if error == NotAChunk::Unknown
                        && let Some(version) = places.newer()?
                    {
                        self.newer.get_or_insert((path.to_owned(), version));
                    }
                }
            }
            places.pass_block();
        }
        self.stop(path, places.position(), "the file ends".to_owned(), false);
        Ok(())
    }

    /// Takes a valid chunk into account; false if it is no part of the log.
    fn chunk(&mut self, path: &Path, position: u64, header: &ChunkHeader, bytes: &[u8]) -> bool {
        let until = self
            .incarnations
            .admit(header.incarnation, header.base, header.next);
        let ours = self.summary.id == Some(header.id);
        let follows = self.bad.is_none() && self.next == Some(header.base);
        let Some(until) = until.filter(|_| ours && follows) else {
            self.prove(header, path, position);
            self.stop(
                path,
                position,
                "the chunk is no part of the log".to_owned(),
                true,
            );
            return false;
        };
        let payload = &bytes[CHUNK_HEADER_SIZE..CHUNK_HEADER_SIZE + header.payload_size as usize];
        if !run::batches_fill(payload, header.base, header.next) {
            let reason = "the chunk's batches do not fill it".to_owned();
            self.stop(path, position, reason, true);
            return false;
        }
        for (batch, range) in run::batches(payload) {
            if batch.next_offset() <= until {
                self.summary.batch_count += 1;
                self.summary.batch_bytes += range.len() as u64;
            }
        }
        self.summary.chunk_count += 1;
        self.summary.log_end = until.max(self.summary.log_start);
        self.next = Some(until);
        (self.visit)(&Finding::Chunk {
            path,
            position,
            header,
            payload,
            until,
        });
        true
    }

    /// A later chunk may say that the bad place was good.
    fn prove(&mut self, header: &ChunkHeader, path: &Path, position: u64) {
        let current = header.incarnation == self.incarnations.current();
        let ours = self.summary.id == Some(header.id);
        if let Some(bad) = &mut self.bad
            && current
            && ours
            && bad
                .proof
                .as_ref()
                .is_none_or(|(most, _)| *most < header.flushed)
        {
            let (path, flushed) = (path.display(), header.flushed);
            let proof = format!("{path} at {position} names offset {flushed} as durable");
            bad.proof = Some((flushed, proof));
        }
    }

    /// The log goes no further; only the first such place counts, and whether anything follows.
    fn stop(&mut self, path: &Path, position: u64, reason: String, dirty: bool) {
        match &mut self.bad {
            Some(bad) => bad.dirty |= dirty,
            None => {
                (self.visit)(&Finding::Stop {
                    path,
                    position,
                    reason: reason.clone(),
                });
                self.bad = Some(Bad {
                    path: path.to_owned(),
                    position,
                    reason,
                    proof: None,
                    dirty,
                });
            }
        }
    }

    /// What the journals add; nothing of it counts where the segments are damaged.
    fn tail(&self, journals: &Journals, end: Offset) -> Tail {
        let none = Tail {
            entries: Vec::new(),
            end,
            stale: false,
            proof: None,
        };
        let Some(id) = self.summary.id else {
            return none;
        };
        journals.tail(id, end, &self.lives(id, journals))
    }

    /// Without a checkpoint a log has had one life, which its first chunk names, or else the journal.
    fn lives(&self, id: TopicPartition, journals: &Journals) -> Incarnations {
        let unknown = self.checkpoint.is_none() && self.summary.chunk_count == 0;
        let life = journals.first_life(id).filter(|_| unknown);
        let only = life.map(|life| Incarnations::first(self.summary.log_start, life));
        only.unwrap_or_else(|| self.incarnations.clone())
    }

    /// What a journal had beyond `end`, and lost.
    fn lost_in_journal(&self, journals: &Journals, end: Offset) -> Option<Verdict> {
        let id = self.summary.id?;
        let lost = journals.lost_beyond(id, end, &self.lives(id, journals))?;
        Some(Verdict::Damaged {
            below: end,
            path: lost.path.clone(),
            position: lost.position,
            reason: lost.reason(),
        })
    }

    fn add_tail(&mut self, tail: &Tail) {
        for entry in &tail.entries {
            self.summary.batch_count += u64::from(entry.batch_count);
            self.summary.journal_batch_count += u64::from(entry.batch_count);
            self.summary.batch_bytes += entry.batches.len() as u64;
            self.summary.log_end = entry.next.max(self.summary.log_start);
            (self.visit)(&Finding::Journaled {
                header: &entry.header,
                payload: &entry.batches,
                until: entry.next,
            });
        }
    }

    fn finish(mut self, dir: &Path, journals: &Journals) -> Summary {
        // Where nothing but the journal follows a checkpoint, it may begin a segment that is not there yet.
        let at_its_start = self.checkpoint.as_ref().map(|found| &found.position);
        let at_its_start = at_its_start.filter(|from| from.position <= SEGMENT_HEADER_SIZE);
        let from = self.next.or(at_its_start.map(|from| Offset(from.next)));
        let below = from.unwrap_or(self.summary.log_start);
        self.summary.log_end = self.summary.log_end.max(below);
        let tail = self.tail(journals, below);
        let end = tail.end.max(below);
        let floor = self.checkpoint.as_ref().map_or(Offset::ZERO, |found| {
            Offset(found.flushed.max(found.position.next)).max(self.incarnations.current_start())
        });
        let by_checkpoint =
            (end < floor).then(|| format!("the checkpoint names offset {floor} as durable"));
        let lost = self.lost_in_journal(journals, end);
        let bad = self.bad.take();
        let proof = bad.as_ref().and_then(|bad| bad.proof.clone());
        let proof = proof.filter(|(flushed, _)| *flushed > end);
        let proof = proof.map(|(_, proof)| proof);
        if let Some((path, version)) = self.newer {
            self.summary.verdict = Verdict::NewerFormat { path, version };
            return self.summary;
        }
        if let Some(path) = self.unreadable {
            self.summary.verdict = Verdict::Damaged {
                below: self.summary.log_start,
                path,
                position: 0,
                reason: "neither checkpoint can be read".to_owned(),
            };
            return self.summary;
        }
        self.summary.verdict = match (proof.or(by_checkpoint), bad) {
            (Some(proof), bad) => {
                let bad = bad.as_ref();
                let reason = bad.map_or("segments are missing", |bad| &bad.reason);
                Verdict::Damaged {
                    below,
                    path: bad.map_or(dir, |bad| &bad.path).to_owned(),
                    position: bad.map_or(0, |bad| bad.position),
                    reason: format!("{reason}, but {proof}"),
                }
            }
            (None, bad) => {
                self.add_tail(&tail);
                match (lost, bad.is_some_and(|bad| bad.dirty) || tail.stale) {
                    (Some(lost), _) => lost,
                    (None, true) => Verdict::TornTail { end },
                    (None, false) => Verdict::Good,
                }
            }
        };
        self.summary
    }
}
