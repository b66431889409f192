//! The writing side: segments are made under another name and put in place whole, what is damaged gets a
//! second name first, and checkpoints come last.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use millstream_protocol::{
    Offset,
    batch::{BatchHeader, gap},
};
use uuid::Uuid;

use super::{
    LogRepair,
    chain::Element,
    survey::{Piece, Source},
};
use crate::{
    io::{BLOCK_SIZE, align_up},
    storage::{
        appender::Position,
        checkpoints::slot_path,
        format::{
            checkpoint::CheckpointV1,
            chunk::{CHUNK_HEADER_SIZE, ChunkHeader},
            names,
            segment::{SEGMENT_HEADER_SIZE, SegmentHeader},
        },
        run,
        segments::Segment,
    },
};

impl LogRepair {
    pub(super) fn execute(&self, data_dir: &Path, now_ms: i64) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let above = self.dir.ancestors().take_while(|dir| *dir != data_dir);
        above.chain([data_dir]).try_for_each(sync_dir)?;
        self.set_aside
            .iter()
            .try_for_each(|path| keep_aside(path))?;
        sync_dir(&self.dir)?;
        for (base, elements) in &self.chain.made {
            self.make_segment(*base, elements, now_ms)?;
            sync_dir(&self.dir)?;
        }
        for base in &self.unused {
            fs::remove_file(names::segment_path(&self.dir, *base))?;
        }
        sync_dir(&self.dir)?;
        self.write_checkpoints()
    }

    fn make_segment(&self, base: Offset, elements: &[Element], now_ms: i64) -> io::Result<()> {
        let path = names::segment_path(&self.dir, base);
        let making = path.with_extension("repairing");
        let mut out = File::create(&making)?;
        let mut block = vec![0; BLOCK_SIZE];
        let header = SegmentHeader {
            id: self.id,
            base,
            created_ms: now_ms,
            compaction: None,
        };
        header.encode(&mut block);
        out.write_all(&block)?;
        let mut at = base;
        for element in elements {
            let chunk = match element {
                Element::Batches(piece, next) => self.chunk_of(piece, at, *next)?,
                Element::Hole(piece, next) => self.hole(piece.as_ref(), at, *next, now_ms),
            };
            out.write_all(&chunk)?;
            at = element.next();
        }
        out.sync_all()?;
        fs::rename(making, path)
    }

    /// The batches of a piece from one offset up to another, as a chunk with its padding.
    fn chunk_of(&self, piece: &Piece, first: Offset, next: Offset) -> io::Result<Vec<u8>> {
        let batches = match &piece.source {
            Source::Journal(batches) => batches.clone(),
            Source::Segment(base, position) => {
                let file = File::open(names::segment_path(&self.dir, *base))?;
                let mut batches = vec![0; piece.header.payload_size as usize];
                file.read_exact_at(&mut batches, position + CHUNK_HEADER_SIZE as u64)?;
                batches
            }
        };
        if !run::batches_fill(&batches, piece.header.base, piece.header.next) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it changed while it was read",
            ));
        }
        let mut payload = Vec::new();
        let mut at = first;
        for (header, range) in run::batches(&batches) {
            if header.base_offset >= at && header.next_offset() <= next {
                payload.extend_from_slice(&batches[range]);
                at = header.next_offset();
            }
        }
        cover(&mut payload, at, next, &piece.header);
        let header = ChunkHeader {
            base: first,
            next,
            flushed: first.min(piece.header.flushed),
            ..piece.header
        };
        Ok(sealed(header, &payload))
    }

    /// A chunk that says that nothing is left, after `before`.
    fn hole(
        &self,
        before: Option<&ChunkHeader>,
        first: Offset,
        next: Offset,
        now_ms: i64,
    ) -> Vec<u8> {
        let header = ChunkHeader {
            payload_size: 0,
            id: self.id,
            epoch: before.map(|header| header.epoch).unwrap_or_default(),
            incarnation: self.lives.life_at(first),
            base: first,
            next,
            flushed: first,
            append_time_ms: before.map_or(now_ms, |header| header.append_time_ms),
            max_timestamp_ms: -1,
            batch_count: 0,
            flags: 0,
        };
        let mut payload = Vec::new();
        cover(&mut payload, first, next, &header);
        sealed(header, &payload)
    }

    /// Both, one after the other: the log is read from its start, and a new life begins at its end.
    fn write_checkpoints(&self) -> io::Result<()> {
        let kept = self.chain.kept.keys();
        let first = kept.chain(self.chain.made.keys()).min();
        let first = first.copied().unwrap_or(self.chain.end);
        let mut lives = self.lives.clone();
        lives.begin(self.chain.end);
        let from = Position {
            segment: first,
            position: SEGMENT_HEADER_SIZE,
            next: first,
        };
        let checkpoint = CheckpointV1 {
            topic: *self.id.topic.0.as_bytes(),
            partition: self.id.partition.0,
            log_start: self.log_start.0,
            flushed: self.chain.end.0,
            position: from.into(),
            incarnations: lives.entries(),
            active: Segment::empty(first, 0).summary(),
            ..CheckpointV1::default()
        };
        for sequence in [self.sequence + 1, self.sequence + 2] {
            let path = slot_path(&self.dir, sequence);
            // Under another name first: the file that is there may be set aside, and is not to change.
            let making = self.dir.join("checkpoint.repairing");
            let mut file = File::create(&making)?;
            file.write_all(&checkpoint.encode(sequence))?;
            file.sync_all()?;
            fs::rename(making, path)?;
            sync_dir(&self.dir)?;
        }
        Ok(())
    }
}

/// Batches without records from one offset up to another.
fn cover(payload: &mut Vec<u8>, mut at: Offset, next: Offset, header: &ChunkHeader) {
    while at < next {
        let filler = gap(at, next, header.epoch);
        at = BatchHeader::decode(&filler)
            .expect("just made")
            .next_offset();
        payload.extend_from_slice(&filler);
    }
}

fn sealed(header: ChunkHeader, payload: &[u8]) -> Vec<u8> {
    let header = ChunkHeader {
        payload_size: u32::try_from(payload.len()).expect("a chunk is below 4 GiB"),
        batch_count: u32::try_from(run::batches(payload).count()).expect("few"),
        ..header
    };
    let mut chunk = vec![0; CHUNK_HEADER_SIZE];
    chunk.extend_from_slice(payload);
    header.seal(&mut chunk);
    chunk.resize(align_up(chunk.len()), 0);
    chunk
}

/// Gives a file a second name that nothing looks at, if it has none.
pub(super) fn keep_aside(path: &Path) -> io::Result<()> {
    let inode = fs::metadata(path)?.ino();
    for number in 0.. {
        let aside = aside_name(path, number);
        match fs::metadata(&aside) {
            Ok(other) if other.ino() == inode => break,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::hard_link(path, aside)?;
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The name under which a file is set aside; there may be several of one name.
fn aside_name(path: &Path, number: u32) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(match number {
        0 => ".damaged".to_owned(),
        _ => format!(".{number}.damaged"),
    });
    path.with_file_name(name)
}

/// Removes a journal as the broker does: a mark says so first, and goes last.
pub(super) fn remove_journal(data_dir: &Path, journal: Uuid, files: &[PathBuf]) -> io::Result<()> {
    let dir = &names::journal_dir(data_dir);
    let mark = names::removal_path(data_dir, journal);
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&mark)?;
    sync_dir(dir)?;
    files.iter().try_for_each(fs::remove_file)?;
    sync_dir(dir)?;
    fs::remove_file(mark)?;
    sync_dir(dir)
}

pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
