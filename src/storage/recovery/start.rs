//! Where a recovery starts: what files there are, and what the newest valid checkpoint says.

use std::{io, path::Path};

use millstream_protocol::{LeaderEpoch, Offset};

use super::{Recovery, failed};
use crate::{
    io::{Disk, DiskFile, Io, OpenMode},
    storage::{
        Damage, LogError,
        appender::Position,
        checkpoints::NO_CHECKPOINT,
        format::{
            checkpoint::{CheckpointV1, PositionV1},
            names::{self, FileKind},
            segment::SEGMENT_HEADER_SIZE,
        },
        incarnations::Incarnations,
        segments::{Index, Segment, Segments},
        slots::{self, NotASlot, Slots},
        whole_file,
    },
};

/// The files of a partition.
#[derive(Default)]
pub(super) struct Listing {
    pub segments: Vec<Offset>,
    pub indexes: Vec<Offset>,
    pub compacting: Vec<Offset>,
    pub spare: bool,
    pub slots: [bool; 2],
}

/// Lists a partition's directory; `None` if there is none.
pub(super) async fn list<D: Disk>(disk: &D, dir: &Path) -> Result<Option<Listing>, LogError> {
    let paths = match disk.read_dir(dir).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        paths => paths.map_err(failed("listing", dir))?,
    };
    let mut listing = Listing {
        segments: Vec::new(),
        indexes: Vec::new(),
        compacting: Vec::new(),
        spare: false,
        slots: [false; 2],
    };
    for kind in paths.iter().filter_map(|path| names::file_kind(path)) {
        match kind {
            FileKind::Segment(base) => listing.segments.push(base),
            FileKind::Checkpoint(slot) => listing.slots[slot] = true,
            FileKind::Index(base) => listing.indexes.push(base),
            FileKind::Compacting(base) => listing.compacting.push(base),
            FileKind::Spare => listing.spare = true,
        }
    }
    listing.segments.sort_unstable();
    Ok(Some(listing))
}

/// What is known before a chunk is read.
pub(super) struct Start {
    pub log_start: Offset,
    /// Everything below was durable, whatever is found.
    pub floor: Offset,
    /// Where to read from.
    pub from: Position,
    pub incarnations: Incarnations,
    pub epochs: Vec<(LeaderEpoch, Offset)>,
    /// The segments up to where reading starts.
    pub segments: Segments,
    pub snapshot: Option<Vec<u8>>,
    pub checkpoint: Option<CheckpointV1>,
    pub checkpoint_position: PositionV1,
    pub sequence: u64,
    pub clean: bool,
    /// Durable end that the checkpoint names.
    pub marked: Offset,
    /// There is no believing what is there.
    pub damage: Option<Damage>,
}

impl Start {
    /// Without a checkpoint: all there is, from the first segment on.
    fn origin(first: Offset, life: u64) -> Self {
        let from = Position {
            segment: first,
            position: SEGMENT_HEADER_SIZE,
            next: first,
        };
        Self {
            log_start: first,
            floor: first,
            from,
            incarnations: Incarnations::first(first, life),
            epochs: Vec::new(),
            segments: Segments::default(),
            snapshot: None,
            checkpoint: None,
            checkpoint_position: from.into(),
            sequence: NO_CHECKPOINT,
            clean: false,
            marked: Offset::ZERO,
            damage: None,
        }
    }

    /// There is no checkpoint.
    pub fn is_blank(&self) -> bool {
        self.checkpoint.is_none()
    }
}

impl<I: Io> Recovery<'_, I> {
    pub(super) async fn start(&self, listing: &Listing) -> Result<Start, LogError> {
        let mut slots = Slots::default();
        for slot in (0..2).filter(|slot| listing.slots[*slot]) {
            let path = names::checkpoint_path(self.dir, slot);
            let bytes = whole_file::read(self.io, &path).await;
            let bytes = bytes.map_err(failed("reading", &path))?;
            let found = slots::decode(&bytes, Some(self.id));
            if let Err(NotASlot::Version(version)) = found {
                return Err(LogError::NewerFormat { path, version });
            }
            slots.add(self.dir, slot, found);
        }
        let first = listing.segments.first().copied().unwrap_or_default();
        let lost = slots.lost();
        match slots.newest {
            Some((sequence, checkpoint)) => self.restore(sequence, checkpoint).await,
            None if lost => {
                let mut start = Start::origin(first, self.storage.config.first_life);
                let path = names::checkpoint_path(self.dir, 1);
                start.damage = Some(damage(first, &path, "neither checkpoint can be read"));
                Ok(start)
            }
            None => Ok(Start::origin(first, self.storage.config.first_life)),
        }
    }

    async fn restore(&self, sequence: u64, checkpoint: CheckpointV1) -> Result<Start, LogError> {
        let from = Position::from(checkpoint.position);
        let incarnations = Incarnations::from_entries(&checkpoint.incarnations)
            .expect("checked when the slot was read");
        let log_start = Offset(checkpoint.log_start);
        let flushed = Offset(checkpoint.flushed);
        let epochs = checkpoint.epochs.iter();
        let epochs = epochs.map(|(epoch, start)| (LeaderEpoch(*epoch), Offset(*start)));
        let floor = [flushed, from.next, incarnations.current_start(), log_start];
        let mut start = Start {
            log_start,
            floor: floor.into_iter().max().expect("an array of four"),
            from,
            epochs: epochs.collect(),
            segments: Segments::default(),
            snapshot: checkpoint.snapshot.clone(),
            checkpoint_position: checkpoint.position,
            sequence,
            clean: checkpoint.clean,
            marked: flushed,
            damage: None,
            incarnations,
            checkpoint: None,
        };
        for summary in &checkpoint.rolled {
            let base = Offset(summary.base);
            let size = self.segment_size(base).await?;
            let lives = &start.incarnations;
            let mut restored = Segment::restored(summary, size, None);
            if size != summary.end
                && let Some(segment) = self.compacted_since(summary, size, lives).await?
            {
                restored = segment;
            }
            let needed = restored.end;
            if !self.restore_segment(&mut start, restored, needed) {
                return Ok(start);
            }
        }
        let at_its_start = from.position <= SEGMENT_HEADER_SIZE;
        if !at_its_start || self.listed.contains(&from.segment) {
            let index = Some(Index(checkpoint.index.clone()));
            let size = self.segment_size(from.segment).await?;
            let needed = if at_its_start { 0 } else { from.position };
            let segment = Segment::restored(&checkpoint.active, size, index);
            if !self.restore_segment(&mut start, segment, needed) {
                return Ok(start);
            }
        }
        start.checkpoint = Some(checkpoint);
        Ok(start)
    }

    /// Size of a segment's file, 0 if there is none.
    async fn segment_size(&self, base: Offset) -> Result<u64, LogError> {
        if !self.listed.contains(&base) {
            return Ok(0);
        }
        self.file_size(&names::segment_path(self.dir, base)).await
    }

    /// Adds a segment that the checkpoint names, if its file is there and long enough; else that is
    /// damage, and false.
    fn restore_segment(&self, start: &mut Start, segment: Segment, needed: u64) -> bool {
        let base = segment.base;
        if segment.file_size < needed || !self.listed.contains(&base) {
            let path = names::segment_path(self.dir, base);
            let reason = "the file is shorter than its last checkpoint says, or missing";
            start.damage = Some(damage(base, &path, reason));
            start.from = Position {
                segment: base,
                position: SEGMENT_HEADER_SIZE,
                next: base,
            };
            return false;
        }
        start.segments.0.insert(base, segment);
        true
    }

    pub(super) async fn file_size(&self, path: &Path) -> Result<u64, LogError> {
        let opened = self.io.open(path, OpenMode::Read).await;
        let file = opened.map_err(failed("opening", path))?;
        let size = file.size().await.map_err(failed("measuring", path))?;
        file.close().await.map_err(failed("closing", path))?;
        Ok(size)
    }

    /// The same, but read from the first segment on: for a snapshot that cannot be used.
    pub(super) fn whole(&self, start: Start) -> Start {
        let first = start.segments.0.keys().next().copied();
        let first = first.unwrap_or(start.from.segment);
        Start {
            from: Position {
                segment: first,
                position: SEGMENT_HEADER_SIZE,
                next: first,
            },
            epochs: Vec::new(),
            segments: Segments::default(),
            snapshot: None,
            clean: false,
            ..start
        }
    }
}

fn damage(below: Offset, path: &Path, reason: &str) -> Damage {
    Damage {
        // Where it ended cannot be told; a record at least is missing.
        acknowledged: Offset(below.0 + 1),
        below,
        path: path.to_owned(),
        position: 0,
        reason: reason.to_owned(),
    }
}
