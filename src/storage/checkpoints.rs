//! Checkpoints of an open log: where a recovery starts, how far the log's start has moved.
//!
//! Two slots are written in turn, so that a torn one leaves the other. Both are written when losing
//! the newer one must not bring back what it took away: at the first checkpoint, a truncation, and
//! before segments are removed.

use std::{path::Path, sync::Arc};

use millstream_protocol::Offset;

use super::{
    Log, LogError,
    appender::Position,
    format::{
        checkpoint::{CheckpointV1, PositionV1},
        names,
        segment::SEGMENT_HEADER_SIZE,
    },
    segments::Segment,
    wait::until,
    whole_file,
};
use crate::io::{Buffer, Disk, Io};

/// An end of the log that a checkpoint is to be made for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Boundary {
    ticket: u64,
    /// A truncation since makes it obsolete.
    generation: u64,
}

/// Sequence before the first checkpoint; slots hold the ones with their parity.
pub(super) const NO_CHECKPOINT: u64 = 1;

impl<I: Io> Log<I> {
    /// Seals what was appended so far and has it flushed; the ticket asks where it ends.
    pub(super) fn mark_boundary(&self) -> Result<Boundary, LogError> {
        let boundary = {
            let state = &mut *self.state.borrow_mut();
            state.writable()?;
            state.next_ticket += 1;
            state.appender.mark_boundary(state.next_ticket);
            state.flush_through = state.appender.log_end();
            Boundary {
                ticket: state.next_ticket,
                generation: state.reading.generation,
            }
        };
        self.schedule();
        Ok(boundary)
    }

    pub(super) async fn store_checkpoint(
        &self,
        boundary: Boundary,
        snapshot: Vec<u8>,
    ) -> Result<bool, LogError> {
        let Boundary { ticket, generation } = boundary;
        let position = until(&self.changed, || {
            let state = &mut *self.state.borrow_mut();
            if state.reading.generation != generation {
                return Some(Ok(None));
            }
            let place = state.appender.take_boundary(ticket);
            let place = place.map(|place| Ok(Some(place)));
            place.or_else(|| {
                let stuck = state.stuck()?;
                // Nobody will ask again.
                state.appender.forget_boundary(ticket);
                Some(Err(stuck))
            })
        });
        let Some(position) = position.await? else {
            return Ok(false);
        };
        let _held = self.slots.hold().await;
        let checkpoint = {
            let state = self.state.borrow();
            let newer = Position::from(state.checkpoint_position);
            // A truncation or another checkpoint came between.
            let obsolete = state.reading.generation != generation || newer.next > position.next;
            if obsolete || state.segments.0.is_empty() {
                return Ok(false);
            }
            self.checkpoint_at(&state, position, Some(snapshot), false)
        };
        self.write_checkpoint(&checkpoint, false).await?;
        self.remove_unneeded().await?;
        Ok(true)
    }

    /// What a checkpoint at `position` says.
    pub(super) fn checkpoint_at<B: Buffer>(
        &self,
        state: &super::log::State<B>,
        position: Position,
        snapshot: Option<Vec<u8>>,
        clean: bool,
    ) -> CheckpointV1 {
        let empty = Segment::empty(position.segment, 0);
        let active = state.segments.0.get(&position.segment).unwrap_or(&empty);
        let entries = active.index.iter().flat_map(|index| &index.0);
        let before = state.segments.0.range(..position.segment);
        let epochs = state.epochs.iter();
        let epochs = epochs.filter(|(_, start)| *start < position.next);
        CheckpointV1 {
            clean,
            position: position.into(),
            epochs: epochs.map(|(epoch, start)| (epoch.0, start.0)).collect(),
            rolled: before.map(|(_, segment)| segment.summary()).collect(),
            active: super::format::checkpoint::SegmentV1 {
                next: position.next.0,
                end: position.position,
                ..active.summary()
            },
            index: entries
                .filter(|entry| entry.position < position.position)
                .copied()
                .collect(),
            snapshot,
            ..self.checkpoint_frame(state)
        }
    }

    /// The parts that do not depend on a position.
    fn checkpoint_frame<B: Buffer>(&self, state: &super::log::State<B>) -> CheckpointV1 {
        CheckpointV1 {
            topic: *self.id.topic.0.as_bytes(),
            partition: self.id.partition.0,
            log_start: state.log_start.0,
            flushed: state.appender.durable().next.0,
            incarnations: state.incarnations.entries(),
            ..CheckpointV1::default()
        }
    }

    /// The checkpoint on disk with the present log start and lives; where there is none, one that
    /// has a recovery go through the whole log. The slots are held.
    pub(super) async fn present_checkpoint(&self) -> Result<CheckpointV1, LogError> {
        let sequence = self.state.borrow().checkpoint_sequence;
        if sequence == NO_CHECKPOINT {
            return Ok(self.origin_checkpoint());
        }
        let path = slot_path(&self.dir, sequence);
        let bytes = whole_file::read(&self.storage.io, &path).await;
        let stored = bytes.and_then(|bytes| {
            let decoded = CheckpointV1::decode(&bytes);
            decoded.map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error))
        });
        let (_, stored) = stored.map_err(|error| LogError::Io {
            operation: "reading",
            path,
            error: Arc::new(error),
        })?;
        Ok(CheckpointV1 {
            clean: false,
            position: stored.position,
            epochs: stored.epochs,
            rolled: stored.rolled,
            active: stored.active,
            index: stored.index,
            snapshot: stored.snapshot,
            ..self.checkpoint_frame(&self.state.borrow())
        })
    }

    /// A recovery from it goes through the whole log.
    pub(super) fn origin_checkpoint(&self) -> CheckpointV1 {
        let state = self.state.borrow();
        let first = state.segments.0.keys().next().copied();
        let base = first.unwrap_or(state.log_start);
        let position = Position {
            segment: base,
            position: SEGMENT_HEADER_SIZE,
            next: base,
        };
        CheckpointV1 {
            position: position.into(),
            active: Segment::empty(base, 0).summary(),
            ..self.checkpoint_frame(&state)
        }
    }

    /// Writes the older slot, then perhaps the other one too. The slots are held.
    pub(super) async fn write_checkpoint(
        &self,
        checkpoint: &CheckpointV1,
        both: bool,
    ) -> Result<(), LogError> {
        let first = self.state.borrow().checkpoint_sequence == NO_CHECKPOINT;
        let copies = if both || first { 2 } else { 1 };
        for _ in 0..copies {
            let sequence = self.state.borrow().checkpoint_sequence + 1;
            let path = slot_path(&self.dir, sequence);
            let written = write_slot(&self.storage.io, &self.dir, checkpoint, sequence).await;
            if let Err(error) = written {
                if error.kind() == std::io::ErrorKind::StorageFull {
                    return Err(LogError::DiskFull { path });
                }
                self.fail("writing", &path, error);
                let failed = self.state.borrow().failed.clone();
                return Err(failed.expect("it just failed"));
            }
            let state = &mut *self.state.borrow_mut();
            state.checkpoint_sequence = sequence;
            state.checkpoint_position = checkpoint.position;
            state.clean = checkpoint.clean;
        }
        Ok(())
    }

    pub(super) async fn move_log_start(&self, offset: Offset) -> Result<(), LogError> {
        {
            let state = self.state.borrow();
            // On a full disk above all: this is what makes room.
            state.changeable()?;
            state.check_range(offset)?;
        }
        self.flush_through(offset).await?;
        let _held = self.slots.hold().await;
        if offset <= self.log_start() {
            return Ok(());
        }
        let mut checkpoint = self.present_checkpoint().await?;
        checkpoint.log_start = offset.0;
        let keep = Offset(checkpoint.position.segment);
        let removes = !self.state.borrow().segments.below(offset, keep).is_empty();
        self.write_checkpoint(&checkpoint, removes).await?;
        {
            let state = &mut *self.state.borrow_mut();
            state.log_start = offset;
            let all = state.segments.below(offset, Offset(i64::MAX));
            // What a recovery still needs goes with the next checkpoint.
            state.checkpoint_wanted |= all.last().is_some_and(|last| *last >= keep);
        }
        self.remove_unneeded().await?;
        self.pump();
        Ok(())
    }

    /// Removes segments that lie below the log's start and that no recovery needs. The slots are
    /// held, and both say so already or the one that does not lists them no more.
    async fn remove_unneeded(&self) -> Result<(), LogError> {
        let bases = {
            let state = self.state.borrow();
            let keep = Offset(state.checkpoint_position.segment);
            state.segments.below(state.log_start, keep)
        };
        if bases.is_empty() {
            return Ok(());
        }
        let (first, lives) = {
            let state = self.state.borrow();
            let mut kept = state.segments.0.keys().skip(bases.len());
            let first = kept.next().copied().unwrap_or(state.log_start);
            let mut lives = state.incarnations.clone();
            lives.forget_below(first);
            (first, lives)
        };
        // The older slot may still name them: it must not outlive them.
        let mut next = self.present_checkpoint().await?;
        next.rolled.retain(|segment| segment.base >= first.0);
        next.incarnations = lives.entries();
        self.write_checkpoint(&next, true).await?;
        {
            let state = &mut *self.state.borrow_mut();
            state.segments.0.retain(|base, _| *base >= first);
            state.incarnations = lives;
            let log_start = state.log_start;
            let older = |pair: &[_]| matches!(pair, [_, (_, start)] if *start <= log_start);
            while state.epochs.get(..2).is_some_and(older) {
                state.epochs.remove(0);
            }
        }
        self.remove_segments(&bases).await
    }

    /// Removes segments' files, durably.
    pub(super) async fn remove_segments(&self, bases: &[Offset]) -> Result<(), LogError> {
        for base in bases {
            self.storage.files.borrow_mut().forget(self.key, *base);
            let removed = remove_segment_files(&self.storage.io, &self.dir, *base).await;
            removed.map_err(|error| self.io_error("removing", *base, error))?;
        }
        let synced = self.storage.io.sync_dir(&self.dir).await;
        let first = bases.first().copied().unwrap_or_default();
        synced.map_err(|error| self.io_error("removing", first, error))
    }

    fn io_error(&self, operation: &'static str, base: Offset, error: std::io::Error) -> LogError {
        LogError::Io {
            operation,
            path: names::segment_path(&self.dir, base),
            error: Arc::new(error),
        }
    }
}

/// Where the checkpoint with this sequence lies.
pub(super) fn slot_path(dir: &Path, sequence: u64) -> std::path::PathBuf {
    names::checkpoint_path(dir, usize::from(!sequence.is_multiple_of(2)))
}

/// Writes one slot, durably.
pub(super) async fn write_slot<D: Disk>(
    disk: &D,
    dir: &Path,
    checkpoint: &CheckpointV1,
    sequence: u64,
) -> std::io::Result<()> {
    let bytes = checkpoint.encode(sequence);
    if whole_file::write(disk, &slot_path(dir, sequence), &bytes).await? {
        disk.sync_dir(dir).await?;
    }
    Ok(())
}

/// Removes a segment and its index, if they are there. Not durable before the directory is synced.
pub(super) async fn remove_segment_files<D: Disk>(
    disk: &D,
    dir: &Path,
    base: Offset,
) -> std::io::Result<()> {
    for path in [names::segment_path(dir, base), names::index_path(dir, base)] {
        match disk.remove_file(&path).await {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            removed => removed?,
        }
    }
    Ok(())
}

impl From<PositionV1> for Position {
    fn from(position: PositionV1) -> Self {
        Self {
            segment: Offset(position.segment),
            position: position.position,
            next: Offset(position.next),
        }
    }
}

impl From<Position> for PositionV1 {
    fn from(position: Position) -> Self {
        Self {
            segment: position.segment.0,
            position: position.position,
            next: position.next.0,
        }
    }
}
