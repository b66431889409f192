//! Everything that can be read of a log: the good chunks of its segments, the good entries of the journals,
//! and how far it is known to have gone.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    path::{Path, PathBuf},
};

use millstream_protocol::{Offset, TopicPartition};

use super::{RepairError, chain::Chain};
use crate::{
    io::BLOCK_SIZE,
    storage::{
        checkpoints::NO_CHECKPOINT,
        format::{
            chunk::{CHUNK_HEADER_SIZE, ChunkHeader, NotAChunk},
            names,
            segment::{SEGMENT_HEADER_SIZE, SegmentHeader},
        },
        incarnations::Incarnations,
        inspect::{Journals, Places, read_slots, read_up_to, segments},
        run,
    },
};

/// See the module.
pub(super) struct Survey {
    pub dir: PathBuf,
    pub id: TopicPartition,
    pub log_start: Offset,
    /// Where its first file begins, or began.
    pub origin: Offset,
    /// Everything below was durable once.
    pub known_end: Offset,
    pub lives: Incarnations,
    /// Of the newest checkpoint that can be read.
    pub sequence: u64,
    pub segments: BTreeMap<Offset, SurveyedSegment>,
    /// Good chunks and entries that hold records, by their first offset.
    pub pieces: BTreeMap<Offset, Vec<Piece>>,
    /// Checkpoints that cannot be read.
    bad_slots: Vec<PathBuf>,
}

/// A segment's file.
pub(super) struct SurveyedSegment {
    /// Its chunks follow each other from its first offset up to this one; its first offset if not even its
    /// first block is good.
    pub good_to: Offset,
    /// There is something in it that is no good chunk.
    dirty: bool,
}

/// Records that can be read.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub header: ChunkHeader,
    /// Those from here on were cut.
    pub until: Offset,
    pub source: Source,
}

/// Where they are.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// In a segment, at a position.
    Segment(Offset, u64),
    /// In a journal: the batches themselves.
    Journal(Vec<u8>),
}

impl Survey {
    pub fn read(dir: &Path, id: TopicPartition, journals: &Journals) -> Result<Self, RepairError> {
        let bases = if dir.exists() {
            segments(dir)?
        } else {
            Vec::new()
        };
        let slots = read_slots(dir, Some(id), &mut |_| {})?.slots;
        let sequence = slots.newest.as_ref().map_or(NO_CHECKPOINT, |found| found.0);
        let checkpoint = slots.newest.map(|(_, checkpoint)| checkpoint);
        let mut chunks = Vec::new();
        for base in &bases {
            let (good, dirty) = good_chunks(&names::segment_path(dir, *base), id)?;
            chunks.push((*base, good, dirty));
        }
        let entries: Vec<_> = journals.entries(id).collect();
        let lives = checkpoint.as_ref();
        let lives = lives.and_then(|found| Incarnations::from_entries(&found.incarnations));
        let first = bases.first().copied().unwrap_or_default();
        let lives = lives.unwrap_or_else(|| {
            let chunks = chunks.iter().flat_map(|(_, chunks, _)| chunks);
            let headers = chunks.map(|(_, header)| header);
            lives_of(
                first,
                headers.chain(entries.iter().map(|(header, _)| header)),
            )
        });
        let begins = checkpoint.as_ref().map(|found| {
            let rolled = found.rolled.first();
            Offset(rolled.map_or(found.position.segment, |segment| segment.base))
        });
        let mut survey = Self {
            dir: dir.to_owned(),
            id,
            log_start: checkpoint
                .as_ref()
                .map_or(first, |found| Offset(found.log_start)),
            origin: begins.unwrap_or(first),
            known_end: lives.current_start(),
            lives,
            sequence,
            segments: BTreeMap::new(),
            pieces: BTreeMap::new(),
            bad_slots: slots.bad,
        };
        if let Some(found) = &checkpoint {
            survey.knows(Offset(found.flushed.max(found.position.next)));
        }
        for (base, chunks, dirty) in chunks {
            survey.add_segment(base, &chunks, dirty)?;
        }
        for (header, batches) in entries {
            if !run::batches_fill(batches, header.base, header.next) {
                continue;
            }
            survey.add(&header, Source::Journal(batches.to_vec()));
        }
        for spoiled in journals.spoiled(id) {
            let header = &spoiled.header;
            let next = survey
                .lives
                .admit(header.incarnation, header.base, header.next);
            survey.knows(next.unwrap_or_default());
        }
        Ok(survey)
    }

    fn knows(&mut self, end: Offset) {
        self.known_end = self.known_end.max(end);
    }

    fn add(&mut self, header: &ChunkHeader, source: Source) {
        let lives = &self.lives;
        let Some(until) = lives.admit(header.incarnation, header.base, header.next) else {
            return;
        };
        if header.incarnation == lives.current() {
            self.knows(header.flushed);
        }
        if header.base < until {
            let piece = Piece {
                header: *header,
                until,
                source,
            };
            self.pieces.entry(header.base).or_default().push(piece);
        }
    }

    fn add_segment(
        &mut self,
        base: Offset,
        chunks: &[(u64, ChunkHeader)],
        dirty: bool,
    ) -> io::Result<()> {
        let path = names::segment_path(&self.dir, base);
        let mut block = [0; BLOCK_SIZE];
        let read = read_up_to(&File::open(path)?, &mut block, 0)?;
        let header = SegmentHeader::decode(&block[..read]);
        let mut follows = header.is_ok_and(|header| header.id == self.id && header.base == base);
        let mut good_to = base;
        let mut end = SEGMENT_HEADER_SIZE;
        for (position, header) in chunks {
            let lives = &self.lives;
            let until = lives.admit(header.incarnation, header.base, header.next);
            follows &= *position == end && header.base == good_to && until.is_some();
            if let Some(until) = until.filter(|_| follows) {
                good_to = until;
                end = position + header.disk_size() as u64;
            }
            self.add(header, Source::Segment(base, *position));
        }
        let segment = SurveyedSegment { good_to, dirty };
        self.segments.insert(base, segment);
        Ok(())
    }

    /// Files that are set aside: those that are no part of the log any more, or are only in part.
    pub fn set_aside(&self, chain: &Chain) -> Vec<PathBuf> {
        let bad = |(base, segment): &(&Offset, &SurveyedSegment)| match chain.kept.get(base) {
            Some(end) => segment.dirty && chain.made.contains_key(end),
            None => true,
        };
        let bases = self.segments.iter().filter(bad);
        let paths = bases.map(|(base, _)| names::segment_path(&self.dir, *base));
        paths.chain(self.bad_slots.iter().cloned()).collect()
    }

    /// Segments that are no part of the log any more, and whose names no other takes.
    pub fn unused(&self, chain: &Chain) -> Vec<Offset> {
        let used = |base: &Offset| chain.kept.contains_key(base) || chain.made.contains_key(base);
        let bases = self.segments.keys().copied();
        bases.filter(|base| !used(base)).collect()
    }
}

/// The lives of a log as its chunks tell them, where no checkpoint does: each begins where its first one lies.
fn lives_of<'a>(first: Offset, headers: impl Iterator<Item = &'a ChunkHeader>) -> Incarnations {
    let mut lives: Vec<(i64, u64)> = Vec::new();
    for header in headers {
        let newer = lives.last().is_none_or(|last| last.1 < header.incarnation);
        if newer {
            let base = if lives.is_empty() { first } else { header.base };
            lives.retain(|(start, _)| *start < base.0);
            lives.push((base.0, header.incarnation));
        }
    }
    Incarnations::from_entries(&lives).unwrap_or_else(|| Incarnations::first(first, 1))
}

/// The good chunks of a log in a file, wherever they lie, with their positions; and whether there is anything
/// else.
fn good_chunks(
    path: &Path,
    id: TopicPartition,
) -> Result<(Vec<(u64, ChunkHeader)>, bool), RepairError> {
    let file = File::open(path)?;
    let mut chunks = Vec::new();
    let mut dirty = false;
    let mut places = Places::of(&file);
    while let Some(found) = places.read()? {
        if let Ok(header) = found
            && header.id == id
            && batches_of(&header, places.bytes()).is_some()
        {
            chunks.push((places.position(), header));
            places.pass(&header);
            continue;
        }
        dirty |= found != Err(NotAChunk::Blank);
        places.pass_block();
    }
    Ok((chunks, dirty))
}

/// The batches of a chunk that its checksum covers, if they fill it.
fn batches_of<'a>(header: &ChunkHeader, chunk: &'a [u8]) -> Option<&'a [u8]> {
    let batches = &chunk[CHUNK_HEADER_SIZE..CHUNK_HEADER_SIZE + header.payload_size as usize];
    run::batches_fill(batches, header.base, header.next).then_some(batches)
}
