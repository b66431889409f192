//! Opening a log after whatever happened to it: find the newest checkpoint, read on from there, and
//! tell a torn tail, which is cut, from damage to acknowledged data, which never is.
//!
//! | what follows the last good chunk | means |
//! |---|---|
//! | zeros, or the end of the file | a clean end |
//! | the next segment begins at that offset | go on there |
//! | the checkpoint, or any later chunk of this life, says more was durable | damage: read-only |
//! | a journal had more, durably, and cannot give it any more | damage: read-only |
//! | anything else | a torn tail: a new life begins, durably, then the rest is cut |
//!
//! What was read is flushed before it counts as durable: the last process may have died between its
//! write and its flush. Running a recovery again on what it left finds the same log.

mod compacted;
mod scan;
mod search;
mod start;
mod tail;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use millstream_protocol::{LeaderEpoch, Offset, TopicPartition};

use self::{scan::Scan, start::Start};
use super::{
    Damage, LogError, LogOptions, Recovered, RecoveryObserver, ShardStorage,
    appender::{Appender, Position, TailSegment},
    format::checkpoint::PositionV1,
    incarnations::Incarnations,
    journal::ReplayedEntry,
    log::State,
    reading::Reading,
    segments::Segments,
};
use crate::io::{Disk, Io, Monotonic};

/// What a recovery found, for the log to go on with.
pub(super) struct Found {
    pub recovered: Recovered,
    /// Where the log goes on.
    end: Position,
    tail: Option<TailSegment>,
    segments: Segments,
    incarnations: Incarnations,
    epochs: Vec<(LeaderEpoch, Offset)>,
    checkpoint_position: PositionV1,
    checkpoint_sequence: u64,
    /// Durable end that some chunk or checkpoint names.
    marked: Offset,
    clean: bool,
    scanned_bytes: u64,
    dir_ready: bool,
    /// What only a journal holds: it follows the end.
    pub replayed: Vec<ReplayedEntry>,
    /// What a journal had and lost: the log goes on up to there, what is replayed too, but no further.
    pub lost: Option<Damage>,
}

impl Found {
    pub fn into_state<I: Io>(
        self,
        io: &I,
        id: TopicPartition,
        options: LogOptions,
    ) -> State<<I as Disk>::Buffer> {
        let incarnation = self.incarnations.current();
        let io = io.clone();
        let make = move |size| io.buffer(size);
        let last = self.segments.last().map(|segment| segment.base);
        let rolled = self.segments.0.values();
        let rolled = rolled.filter(|segment| {
            // The last process did not come to give back what it had allocated ahead.
            Some(segment.base) != last && segment.file_size > segment.end
        });
        State {
            options,
            log_start: self.recovered.log_start,
            rolled: rolled.map(|segment| segment.base).collect(),
            appender: Appender::new(id, incarnation, self.end, self.marked, self.tail, make),
            segments: self.segments,
            incarnations: self.incarnations,
            epochs: self.epochs,
            failed: None,
            damage: self.recovered.damage,
            closing: false,
            cutting: false,
            disk_full: None,
            dir_ready: self.dir_ready,
            persisted: self.recovered.log_end,
            flush_due: false,
            flush_through: Offset::ZERO,
            flush_timer: false,
            in_journal_queue: false,
            seal_timer: false,
            last_append: Monotonic::default(),
            appended_since_checkpoint: self.scanned_bytes,
            checkpoint_wanted: false,
            checkpoint_position: self.checkpoint_position,
            checkpoint_sequence: self.checkpoint_sequence,
            clean: self.clean,
            next_ticket: 0,
            reading: Reading::default(),
        }
    }
}

/// One recovery.
struct Recovery<'a, I: Io> {
    io: &'a I,
    storage: &'a ShardStorage<I>,
    id: TopicPartition,
    dir: &'a Path,
    /// Base offsets of the segment files there are, ascending.
    listed: Vec<Offset>,
    /// The same of index files.
    indexes: Vec<Offset>,
    /// The same of what compaction was writing.
    compacting: Vec<Offset>,
    /// A segment was made ahead.
    spare: bool,
}

/// Recovers the log in `dir`.
pub(super) async fn recover<I: Io>(
    storage: &ShardStorage<I>,
    id: TopicPartition,
    dir: &Path,
    observer: &mut dyn RecoveryObserver,
) -> Result<Found, LogError> {
    let journaled = storage.replay.borrow().holds(id);
    let listing = match start::list(&storage.io, dir).await? {
        Some(listing) => listing,
        None if journaled => {
            let made = storage.io.create_dir_all(dir).await;
            made.map_err(failed("making", dir))?;
            start::Listing::default()
        }
        None => return Ok(empty(storage.config.first_life)),
    };
    let recovery = Recovery {
        io: &storage.io,
        storage,
        id,
        dir,
        listed: listing.segments.clone(),
        indexes: listing.indexes.clone(),
        compacting: listing.compacting.clone(),
        spare: listing.spare,
    };
    let start = recovery.start(&listing).await?;
    let blank = start.damage.is_none() && start.is_blank() && recovery.listed.is_empty();
    if blank && !journaled {
        // That the directory is there does not say that its name is durable.
        return Ok(empty(storage.config.first_life));
    }
    let start = if storage.checks.incarnations {
        start
    } else {
        let incarnations = start.incarnations.clone().unchecked();
        Start {
            incarnations,
            ..start
        }
    };
    if let Some(damage) = start.damage.clone() {
        // What cannot even be started from is left exactly as it is.
        feed_snapshot(&start, observer);
        return Ok(recovery.found(Scan::nothing(start), Some(damage)));
    }
    let start = if feed_snapshot(&start, observer) {
        start
    } else {
        let whole = recovery.whole(start);
        feed_snapshot(&whole, observer);
        whole
    };
    let mut scan = recovery.scan(start, observer).await?;
    recovery.add_tail(&mut scan, observer);
    recovery.conclude(scan).await
}

/// A log without files.
fn empty(life: u64) -> Found {
    let end = Position {
        segment: Offset::ZERO,
        position: super::format::segment::SEGMENT_HEADER_SIZE,
        next: Offset::ZERO,
    };
    Found {
        recovered: Recovered {
            log_start: Offset::ZERO,
            log_end: Offset::ZERO,
            epochs: Vec::new(),
            damage: None,
            report: None,
        },
        end,
        tail: None,
        segments: Segments::default(),
        incarnations: Incarnations::first(Offset::ZERO, life),
        epochs: Vec::new(),
        checkpoint_position: end.into(),
        checkpoint_sequence: super::checkpoints::NO_CHECKPOINT,
        marked: Offset::ZERO,
        clean: false,
        scanned_bytes: 0,
        dir_ready: false,
        replayed: Vec::new(),
        lost: None,
    }
}

/// False if the observer cannot use the snapshot.
fn feed_snapshot(start: &Start, observer: &mut dyn RecoveryObserver) -> bool {
    let empty = start.snapshot.is_none();
    let bytes = start.snapshot.as_deref().unwrap_or_default();
    // An empty one means that there is none, which every observer can start from.
    observer.snapshot(bytes).is_ok() || empty
}

impl<I: Io> Recovery<'_, I> {
    /// What the log goes on with.
    fn found(&self, scan: Scan, damage: Option<Damage>) -> Found {
        let start = scan.start;
        let replayed = if damage.is_some() {
            Vec::new()
        } else {
            scan.tail.entries
        };
        let mut end = scan.end;
        if replayed.is_empty() {
            // Nothing below the log's start is ever read, damaged or not.
            end.next = end.next.max(start.log_start);
        }
        let log_end = replayed.last().map_or(end.next, |entry| entry.next);
        let last = scan.segments.last();
        let tail = last.map(|segment| TailSegment {
            base: segment.base,
            position: segment.end,
            allocated: segment.file_size,
            first_append_ms: segment.first_append_ms,
        });
        Found {
            recovered: Recovered {
                log_start: start.log_start,
                log_end,
                epochs: scan.epochs.clone(),
                damage,
                report: None,
            },
            end,
            tail,
            segments: scan.segments,
            incarnations: start.incarnations,
            epochs: scan.epochs,
            checkpoint_position: start.checkpoint_position,
            checkpoint_sequence: start.sequence,
            marked: scan.marked,
            clean: start.clean && scan.chunk_count == 0,
            scanned_bytes: scan.bytes,
            dir_ready: true,
            replayed,
            lost: None,
        }
    }
}

/// Something could not be done that changes nothing.
fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LogError {
    let path: PathBuf = path.to_owned();
    move |error| LogError::Io {
        operation,
        path,
        error: Arc::new(error),
    }
}
