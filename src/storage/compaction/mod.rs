//! Compaction: of the records of a key the last one stays. See `docs/compaction.md`.
//!
//! A pass notes the newest offset of each key in the *dirty* part of the closed segments, as far as its
//! memory goes, then goes through the segments from the first on and writes them anew without what is
//! superseded. Each that it wrote carries a mark of how far it is *clean*, so a pass that ends early, for
//! want of memory or by a crash, is taken up where it ended: the oldest segments are done first, and a
//! segment is never marked before those below it.
//!
//! | file | what it does |
//! |---|---|
//! | `keys` | the newest offset of each key, in bounded memory |
//! | `retain` | what stays of a batch |
//! | `output` | which chunks that makes |
//! | `source` | reads a segment |
//! | `rewrite` | writes a segment anew and puts it in place |
//! | `pace` | how fast |

mod keys;
mod output;
mod pace;
mod retain;
mod rewrite;
mod source;

use std::{collections::BTreeSet, sync::Arc};

use millstream_protocol::Offset;

pub use self::pace::Pace;
use self::{
    keys::KeyMap,
    retain::{Rules, Tally, note_keys},
    source::Source,
};
use super::{
    Log, LogError,
    format::{
        names,
        segment::{CompactionMark, SegmentHeader},
    },
    incarnations::Incarnations,
    run,
    segments::{Compacted, Segment},
};
use crate::io::{BLOCK_SIZE, Buffer, DiskFile, Io, TaskClass};

/// What a pass is told.
#[derive(Clone, Debug, Default)]
pub struct CompactionOptions {
    /// A tombstone stays this long after its segment became clean, in milliseconds.
    pub delete_retention_ms: i64,
    /// What was appended less than so many milliseconds ago stays as it is.
    pub min_lag_ms: i64,
    /// Memory for keys, in bytes.
    pub memory: usize,
    /// Base offsets of batches that idempotent producers are remembered by.
    pub remembered: BTreeSet<Offset>,
}

/// What a pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactionReport {
    /// Segments that were written anew.
    pub segments: u64,
    /// Bytes they took before, and now.
    pub bytes_before: u64,
    /// See `bytes_before`.
    pub bytes_after: u64,
    /// Records that went.
    pub removed_records: u64,
    /// Batches that nobody can read; they stayed as they are.
    pub unreadable_batches: u64,
    /// There is more to do: the keys did not all fit.
    pub more: bool,
}

/// Why a pass ended early.
enum Interrupted {
    /// The log closes, is being cut, or failed.
    Stopped,
    /// Something could not be done.
    Failed(LogError),
}

impl From<LogError> for Interrupted {
    fn from(error: LogError) -> Self {
        Self::Failed(error)
    }
}

/// A pass on its way.
struct Pass<'a> {
    options: &'a CompactionOptions,
    pace: &'a Pace,
    incarnations: Incarnations,
    /// A truncation since ends the pass.
    generation: u64,
    now_ms: i64,
}

impl<I: Io> Log<I> {
    /// Goes once through the closed segments. One pass at a time; one that is asked for meanwhile does
    /// nothing. It ends early, without an error, when the log closes or is cut.
    ///
    /// # Errors
    /// [`LogError`]; every segment is then as it was, or replaced as a whole.
    pub async fn compact(
        &self,
        options: CompactionOptions,
        pace: &std::rc::Rc<Pace>,
    ) -> Result<CompactionReport, LogError> {
        if self.compacting.replace(true) {
            return Ok(CompactionReport::default());
        }
        let (this, pace) = (self.this(), std::rc::Rc::clone(pace));
        self.in_task(TaskClass::Background, async move {
            let mut report = CompactionReport::default();
            let done = this.compact_once(&options, &pace, &mut report).await;
            this.compacting.set(false);
            this.changed.raise();
            if this.state.borrow().writable().is_ok() {
                // Whoever makes checkpoints hears that there is a reason for one.
                this.pump();
            }
            match done {
                Ok(()) | Err(Interrupted::Stopped) => Ok(report),
                Err(Interrupted::Failed(error)) => Err(error),
            }
        })
        .await
    }

    /// Reads what compaction noted in closed segments, so that [`Log::stats`] tells it.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn know_compaction(&self) -> Result<(), LogError> {
        for base in self.closed_segments(|segment| segment.compacted == Compacted::Unknown) {
            let this = self.this();
            let read = async move { this.read_mark(base).await };
            self.in_task(TaskClass::Background, read).await?;
        }
        Ok(())
    }

    fn closed_segments(&self, which: impl Fn(&Segment) -> bool) -> Vec<Offset> {
        let state = self.state.borrow();
        let last = state.segments.last().map(|segment| segment.base);
        let closed = state.segments.0.values();
        let closed = closed.filter(|segment| Some(segment.base) != last && which(segment));
        closed.map(|segment| segment.base).collect()
    }

    async fn read_mark(&self, base: Offset) -> Result<(), LogError> {
        let path = names::segment_path(&self.dir, base);
        let era = self.state.borrow().reading.era();
        let read = match self.file(base).await {
            Ok(file) => file.read_at(0, BLOCK_SIZE).await,
            Err(error) => Err(error),
        };
        let block = read.map_err(|error| LogError::Io {
            operation: "reading",
            path,
            error: Arc::new(error),
        })?;
        // A first block that cannot be read is nothing to this: chunks are verified on their own.
        let header = SegmentHeader::decode(block.bytes()).ok();
        let mark = header.and_then(|header| header.compaction);
        let state = &mut *self.state.borrow_mut();
        if state.reading.era() != era {
            return Ok(());
        }
        let began = mark.and_then(|mark| state.incarnations.begun_after(mark.incarnation));
        if let Some(segment) = state.segments.0.get_mut(&base) {
            segment.compacted = mark.map_or(Compacted::Never, |mark| {
                // What a later life appended here was not there when the mark was made.
                let clean_end = began.map_or(mark.clean_end, |began| began.min(mark.clean_end));
                Compacted::Marked(CompactionMark { clean_end, ..mark })
            });
        }
        Ok(())
    }

    async fn compact_once(
        &self,
        options: &CompactionOptions,
        pace: &Pace,
        report: &mut CompactionReport,
    ) -> Result<(), Interrupted> {
        self.know_compaction().await?;
        let pass = {
            let state = self.state.borrow();
            Pass {
                options,
                pace,
                incarnations: state.incarnations.clone(),
                generation: state.reading.generation,
                now_ms: self.storage.io.wall_ms(),
            }
        };
        self.check(&pass)?;
        let segments = self.compactable(&pass);
        let Some(dirty_from) = first_dirty(&segments) else {
            return Ok(());
        };
        let has_work = |segment: &Segment| {
            segment.next > dirty_from || due_tombstones(segment, &pass).is_some()
        };
        if !segments.iter().any(has_work) {
            return Ok(());
        }
        let (keys, clean_end) = self.read_keys(&segments, dirty_from, &pass).await?;
        report.more = segments.last().is_some_and(|last| clean_end < last.next);
        self.forget_older_checkpoint(&pass).await?;
        for segment in segments.iter().filter(|it| it.base < clean_end) {
            self.compact_segment(segment, &keys, dirty_from, clean_end, &pass, report)
                .await?;
        }
        Ok(())
    }

    /// The closed segments that a pass may replace, from the first on: all they hold is durable, no
    /// recovery begins in them, and they are old enough.
    fn compactable(&self, pass: &Pass<'_>) -> Vec<Segment> {
        let state = self.state.borrow();
        let Some(tail) = state.appender.tail() else {
            return Vec::new();
        };
        let durable = state.appender.durable().next;
        let recovery = Offset(state.checkpoint_position.segment);
        let in_use = state.appender.segments_in_use();
        let youngest = pass.now_ms.saturating_sub(pass.options.min_lag_ms);
        let ready = |segment: &&Segment| {
            segment.base < tail.base.min(recovery)
                && segment.next <= durable
                && segment.file_size == segment.end
                && !in_use.contains(&segment.base)
                && !state.rolled.contains(&segment.base)
                && segment.last_append_ms <= youngest
        };
        let segments = state.segments.0.values();
        segments.take_while(ready).cloned().collect()
    }

    /// Notes the keys of the dirty part. Gives the offset up to which there was room for them.
    async fn read_keys(
        &self,
        segments: &[Segment],
        dirty_from: Offset,
        pass: &Pass<'_>,
    ) -> Result<(KeyMap, Offset), Interrupted> {
        let io = &self.storage.io;
        let seed = (io.random_u64(), io.random_u64());
        let mut keys = KeyMap::new(pass.options.memory, seed);
        for segment in segments.iter().filter(|it| it.next > dirty_from) {
            let mut source = Source::open(self, segment.base).await?;
            while let Some(part) = source.next(&pass.incarnations).await? {
                self.spend(pass, part.size()).await?;
                for (_, view, payload) in part.chunks() {
                    for (header, at) in run::batches(payload) {
                        if header.next_offset() <= dirty_from || header.next_offset() > view.next {
                            continue;
                        }
                        let full = note_keys(&mut keys, &header, &payload[at], dirty_from);
                        if let Some(full) = full {
                            return Ok((keys, full));
                        }
                        io.yield_if_needed().await;
                    }
                }
            }
        }
        let end = segments.last().map_or(dirty_from, |last| last.next);
        Ok((keys, end))
    }

    async fn compact_segment(
        &self,
        segment: &Segment,
        keys: &KeyMap,
        dirty_from: Offset,
        clean_end: Offset,
        pass: &Pass<'_>,
        report: &mut CompactionReport,
    ) -> Result<(), Interrupted> {
        let old_mark = mark_of(segment);
        let due = due_tombstones(segment, pass);
        let rules = Rules {
            keys,
            tombstones_below: due.map_or(Offset::ZERO, |mark| mark.clean_end),
            remembered: &pass.options.remembered,
        };
        let was_clean = segment.next <= dirty_from;
        if was_clean {
            if keys.is_empty() && due.is_none() {
                return Ok(());
            }
            let tally = self.look_through(segment.base, &rules, pass).await?;
            if tally.removed_records == 0 {
                return Ok(());
            }
        }
        let clean_since_ms = match old_mark {
            Some(mark) if was_clean => mark.clean_since_ms,
            _ => pass.now_ms,
        };
        let mark_of = |tally: &Tally| CompactionMark {
            clean_end: clean_end.min(segment.next),
            clean_since_ms,
            tombstones: tally.tombstones,
            incarnation: pass.incarnations.current(),
        };
        let (tally, size) = self.rewrite(segment.base, &rules, mark_of, pass).await?;
        report.segments += 1;
        report.bytes_before += segment.end;
        report.bytes_after += size;
        report.removed_records += tally.removed_records;
        report.unreadable_batches += tally.unreadable_batches;
        Ok(())
    }

    /// The older slot may have a recovery begin in a segment that is about to be replaced.
    async fn forget_older_checkpoint(&self, pass: &Pass<'_>) -> Result<(), Interrupted> {
        let _held = self.slots.hold().await;
        self.check(pass)?;
        let checkpoint = self.present_checkpoint().await?;
        self.write_checkpoint(&checkpoint, true).await?;
        Ok(())
    }

    async fn spend(&self, pass: &Pass<'_>, bytes: usize) -> Result<(), Interrupted> {
        pass.pace.spend(&self.storage.io, bytes).await;
        self.check(pass)
    }

    /// Nothing stands against going on.
    fn check(&self, pass: &Pass<'_>) -> Result<(), Interrupted> {
        let state = self.state.borrow();
        let cut = state.cutting || state.reading.generation != pass.generation;
        if cut || state.changeable().is_err() {
            return Err(Interrupted::Stopped);
        }
        Ok(())
    }
}

fn mark_of(segment: &Segment) -> Option<CompactionMark> {
    match segment.compacted {
        Compacted::Unknown | Compacted::Never => None,
        Compacted::Marked(mark) => Some(mark),
    }
}

/// The mark of a segment whose tombstones have been kept for long enough.
fn due_tombstones(segment: &Segment, pass: &Pass<'_>) -> Option<CompactionMark> {
    mark_of(segment).filter(|mark| {
        let kept_for_ms = pass.now_ms.saturating_sub(mark.clean_since_ms);
        mark.tombstones > 0 && kept_for_ms >= pass.options.delete_retention_ms
    })
}

/// Everything below is clean; `None` without segments.
fn first_dirty(segments: &[Segment]) -> Option<Offset> {
    let last = segments.last()?;
    let clean_end = |segment: &Segment| mark_of(segment).map_or(segment.base, |it| it.clean_end);
    let dirty = segments.iter().find(|it| clean_end(it) < it.next);
    Some(dirty.map_or(last.next, |it| clean_end(it).max(it.base)))
}
