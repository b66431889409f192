//! The ends of a log: cutting it, closing it, removing it.

use std::{io, sync::Arc};

use millstream_protocol::Offset;

use super::{
    Log, LogError, ReadError,
    appender::{Position, TailSegment},
    format::{names, segment::SEGMENT_HEADER_SIZE},
    run,
    wait::until,
};
use crate::io::{Buffer, DiskFile, Io};

impl<I: Io> Log<I> {
    pub(super) async fn cut(&self, end: Offset) -> Result<Offset, LogError> {
        {
            let state = self.state.borrow();
            state.writable()?;
            state.check_range(end)?;
        }
        self.flush_through(self.log_end()).await?;
        let _held = self.slots.hold().await;
        self.state.borrow_mut().cutting = true;
        let result = self.cut_alone(end).await;
        self.state.borrow_mut().cutting = false;
        self.pump();
        result
    }

    /// Nothing is appended, sealed or stored in a checkpoint meanwhile.
    async fn cut_alone(&self, end: Offset) -> Result<Offset, LogError> {
        self.until_idle().await?;
        if end >= self.log_end() {
            return Ok(self.log_end());
        }
        let position = self.find_cut(end).await.map_err(LogError::from)?;
        let mut checkpoint = self.present_checkpoint().await?;
        let present = Position::from(checkpoint.position);
        if present.next > position.next {
            // The snapshot knows of records that are about to go.
            checkpoint = self.origin_checkpoint();
        } else if (present.segment, present.position) > (position.segment, position.position) {
            let state = self.state.borrow();
            checkpoint = self.checkpoint_at(&state, position, checkpoint.snapshot, false);
        }
        let mut lives = self.state.borrow().incarnations.clone();
        lives.begin(position.next);
        let below = position.next.0.min(checkpoint.position.next);
        checkpoint.incarnations = lives.entries();
        checkpoint.epochs.retain(|(_, start)| *start < below);
        checkpoint.flushed = position.next.0;
        checkpoint.log_start = checkpoint.log_start.min(position.next.0);
        // Both: an older slot would take the old life's chunks for data.
        let before = self.state.borrow().checkpoint_sequence;
        if let Err(error) = self.write_checkpoint(&checkpoint, true).await {
            if self.state.borrow().checkpoint_sequence > before {
                // The new life is on disk: what this one would append could not be found again.
                let full = io::ErrorKind::StorageFull.into();
                self.fail("truncating", &self.dir, full);
            }
            return Err(error);
        }
        let removed = self.forget_from(position, lives);
        self.cut_files(position, &removed).await?;
        Ok(position.next)
    }

    /// Where the log ends when `end` is its end: after the chunk that holds the record before it.
    async fn find_cut(&self, end: Offset) -> Result<Position, ReadError> {
        let first = self.state.borrow().segments.0.keys().next().copied();
        let first = first.ok_or(ReadError::Closed)?;
        if end <= first {
            return Ok(Position {
                segment: first,
                position: SEGMENT_HEADER_SIZE,
                next: first,
            });
        }
        let last = Offset(end.0 - 1);
        let (segment, at, loaded) = self.locate(last).await?;
        let run = &loaded.run;
        let chunk = run.chunks.iter().find(|chunk| last < chunk.next);
        let chunk = chunk.expect("the run holds the record");
        let payload = &run.buffer.bytes()[chunk.payload.clone()];
        let mut batches = run::batches(payload).map(|(header, _)| header);
        let next = batches.find(|header| header.next_offset() > end);
        let next = next.map_or(end, |header| header.base_offset.min(end));
        let chunk_start = chunk.placed(segment, at).position;
        Ok(Position {
            segment,
            position: if next <= chunk.base {
                chunk_start
            } else {
                at + chunk.end as u64
            },
            next: next.max(chunk.base),
        })
    }

    /// The cut is durable: memory follows. Gives the segments that are gone.
    fn forget_from(
        &self,
        position: Position,
        lives: super::incarnations::Incarnations,
    ) -> Vec<Offset> {
        self.storage
            .cache
            .borrow_mut()
            .forget(self.key, position.next);
        let state = &mut *self.state.borrow_mut();
        let after = Offset(position.segment.0 + 1);
        let removed = state.segments.0.split_off(&after);
        let kept = state.segments.0.get_mut(&position.segment);
        kept.expect("the cut lies in a segment").cut(position);
        state.epochs.retain(|(_, start)| *start < position.next);
        state.log_start = state.log_start.min(position.next);
        state.persisted = state.persisted.min(position.next);
        state.reading.forget();
        state.rolled.retain(|base| *base < position.segment);
        state.incarnations = lives;
        let tail = TailSegment {
            base: position.segment,
            position: position.position,
            allocated: position.position,
            first_append_ms: state.segments.0[&position.segment].first_append_ms,
        };
        let incarnation = state.incarnations.current();
        state.appender.restart(incarnation, position, Some(tail));
        removed.into_keys().collect()
    }

    async fn cut_files(&self, position: Position, removed: &[Offset]) -> Result<(), LogError> {
        let index = names::index_path(&self.dir, position.segment);
        match self.storage.io.remove_file(&index).await {
            // It would be refused anyway: it names another end.
            Ok(()) | Err(_) => {}
        }
        self.remove_segments(removed).await?;
        let cut = match self.file(position.segment).await {
            Ok(file) => match file.truncate(position.position).await {
                Ok(()) => file.sync_data().await,
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        if let Err(error) = cut {
            let path = names::segment_path(&self.dir, position.segment);
            self.fail("truncating", &path, error);
        }
        self.state.borrow().stuck().map_or(Ok(()), Err)
    }

    /// Waits until no work is left.
    async fn until_idle(&self) -> Result<(), LogError> {
        self.schedule();
        until(&self.changed, || {
            let state = self.state.borrow();
            if state.appender.is_idle() && self.running.get() == 0 {
                return Some(Ok(()));
            }
            state.stuck().map(Err)
        })
        .await
    }

    pub(super) async fn shut(&self, snapshot: Vec<u8>) -> Result<(), LogError> {
        let result = self.settle(snapshot).await;
        let still = || self.running.get() == 0 && !self.compacting.get();
        self.changed.wait_until(still).await;
        self.drop_spare().await;
        let files = self.storage.files.borrow_mut().take_log(self.key);
        for file in files {
            // Everything that matters was flushed; nobody could do anything about it either.
            let _ = file.close().await;
        }
        self.storage
            .cache
            .borrow_mut()
            .forget(self.key, Offset(i64::MIN));
        result
    }

    /// Everything flushed, sealed and stored in a checkpoint.
    async fn settle(&self, snapshot: Vec<u8>) -> Result<(), LogError> {
        {
            let state = self.state.borrow();
            if state.damage.is_some() || state.segments.0.is_empty() && state.appender.is_idle() {
                return Ok(());
            }
            if state.clean && state.appender.is_idle() {
                return Ok(());
            }
        }
        self.flush_through(self.log_end()).await?;
        let held = self.slots.hold().await;
        self.until_idle().await?;
        let io = &self.storage.io;
        let sealed = {
            let state = &mut *self.state.borrow_mut();
            state.flush_due = true;
            state.appender.seal_log(io.wall_ms())
        };
        if sealed {
            self.until_idle().await?;
        }
        let checkpoint = {
            let state = self.state.borrow();
            let position = state.appender.durable();
            self.checkpoint_at(&state, position, Some(snapshot), true)
        };
        self.release_allocation().await;
        let written = self.write_checkpoint(&checkpoint, false).await;
        drop(held);
        written
    }

    /// Gives back what was allocated ahead.
    async fn release_allocation(&self) {
        let tail = self.state.borrow().appender.tail();
        let Some(tail) = tail else {
            return;
        };
        // A failure costs space, and the next recovery a longer look.
        if let Ok(file) = self.file(tail.base).await
            && file.truncate(tail.position).await.is_ok()
            && let Some(segment) = self.state.borrow_mut().segments.0.get_mut(&tail.base)
        {
            segment.file_size = tail.position;
        }
    }

    pub(super) async fn erase(&self) -> Result<(), LogError> {
        let abandoned = {
            let state = &mut *self.state.borrow_mut();
            let failed = state.failed.replace(LogError::Closed);
            if failed.is_some() {
                0
            } else {
                state.appender.abandon()
            }
        };
        self.storage.free_room(abandoned);
        self.storage.journal.notify();
        self.changed.raise();
        let still = || self.running.get() == 0 && !self.compacting.get();
        self.changed.wait_until(still).await;
        let _held = self.slots.hold().await;
        self.storage.files.borrow_mut().forget_log(self.key);
        self.storage
            .cache
            .borrow_mut()
            .forget(self.key, Offset(i64::MIN));
        self.state.borrow_mut().segments.0.clear();
        self.erase_files().await.map_err(|error| LogError::Io {
            operation: "removing",
            path: self.dir.clone(),
            error: Arc::new(error),
        })
    }

    /// Segments first: without a checkpoint what is left would not be believed, without a segment
    /// nothing is left.
    async fn erase_files(&self) -> io::Result<()> {
        let io = &self.storage.io;
        let mut files = match io.read_dir(&self.dir).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            files => files?,
        };
        files.sort_by_key(|path| {
            matches!(names::file_kind(path), Some(names::FileKind::Checkpoint(_)))
        });
        for path in files {
            io.remove_file(&path).await?;
        }
        io.remove_dir(&self.dir).await?;
        if let Some(topic) = self.dir.parent() {
            io.sync_dir(topic).await?;
            // The last partition takes the topic's directory along; the others leave it.
            if io.remove_dir(topic).await.is_ok()
                && let Some(topics) = topic.parent()
            {
                io.sync_dir(topics).await?;
            }
        }
        Ok(())
    }
}

impl From<ReadError> for LogError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::OutOfRange {
                offset,
                log_start,
                log_end,
            } => Self::OutOfRange {
                offset,
                log_start,
                log_end,
            },
            ReadError::Damaged {
                path,
                position,
                reason,
                ..
            } => Self::Io {
                operation: "reading",
                path,
                error: Arc::new(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("{reason} at position {position}"),
                )),
            },
            ReadError::Io { path, error } => Self::Io {
                operation: "reading",
                path,
                error,
            },
            ReadError::Closed => Self::Closed,
        }
    }
}
