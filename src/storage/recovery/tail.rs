//! The verdict on the end of a log, and what is done about it.

use millstream_protocol::Offset;

use super::{
    Found, Recovery, failed,
    scan::{Scan, Stop},
    search::Beyond,
};
use crate::{
    io::{DiskFile, Io, OpenMode},
    storage::{
        Damage, LogError,
        checkpoints::{NO_CHECKPOINT, remove_segment_files, slot_path, write_slot},
        format::{checkpoint::CheckpointV1, names, segment::SEGMENT_HEADER_SIZE},
        segments::Segment,
    },
};

impl<I: Io> Recovery<'_, I> {
    pub(super) async fn conclude(&self, mut scan: Scan) -> Result<Found, LogError> {
        let beyond = self.search(&scan).await?;
        if self.storage.checks.flushed_marks
            && let Some(damage) = self.judge(&scan, &beyond)
        {
            return Ok(self.found(scan, Some(damage)));
        }
        let lost = self.lost_in_journal(&scan);
        let no_header = scan.stop == Stop::NoSegment && self.listed.contains(&scan.end.segment);
        if lost.is_some() && (beyond.dirty || no_header) {
            // Nothing can be appended there without a new life, after which nobody would know of the loss.
            let damage = lost.map(|lost| Damage {
                below: scan.end.next,
                ..lost
            });
            return Ok(self.found(scan, damage));
        }
        self.make_durable(&scan).await?;
        self.remove_leftovers(&scan).await?;
        let mut report = self.report(&scan);
        // What lies in the journal beyond a loss does not follow, and is no older life's for that.
        let dirty = beyond.dirty || scan.tail.stale && lost.is_none();
        if dirty || no_header {
            self.cut(&mut scan).await?;
            let end = scan.log_end();
            report = Some(match report {
                Some(report) => format!("{report}, cut a torn tail at offset {end}"),
                None => format!("cut a torn tail at offset {end}"),
            });
        }
        let mut found = self.found(scan, None);
        found.recovered.report = report;
        found.lost = lost;
        Ok(found)
    }

    /// A journal had more of the log than can be read there now, and its segments do not have it either.
    fn lost_in_journal(&self, scan: &Scan) -> Option<Damage> {
        let replay = self.storage.replay.borrow();
        let end = scan.log_end();
        let lost = replay.lost_beyond(self.id, end, &scan.start.incarnations)?;
        Some(Damage {
            below: end,
            acknowledged: lost.header.next.max(scan.tail.proof.unwrap_or_default()),
            path: lost.path.clone(),
            position: lost.position,
            reason: lost.reason(),
        })
    }

    /// Was more durable once than is good now?
    fn judge(&self, scan: &Scan, beyond: &Beyond) -> Option<Damage> {
        let below = scan.end.next;
        let what = match scan.stop {
            Stop::NoSegment => "the segment has no valid first block".to_owned(),
            Stop::EndOfFile => "the segment ends there".to_owned(),
            Stop::Chunk(reason) => reason.to_string(),
        };
        let (acknowledged, proof) = if scan.log_end() < scan.start.floor {
            let floor = scan.start.floor;
            let proof = format!("the last checkpoint names offset {floor} as durable");
            (floor, proof)
        } else if let Some((flushed, segment, position)) = beyond.proof {
            let proof = format!(
                "a later chunk, at position {position} of segment {segment}, names offset \
                 {flushed} as durable"
            );
            (flushed, proof)
        } else {
            let flushed = scan.tail.proof?;
            if self.lost_in_journal(scan).is_some() {
                // It is the journal that does not have what it should: what it has before that is served.
                return None;
            }
            let proof = format!("a frame of the journal names offset {flushed} as durable");
            (flushed, proof)
        };
        // The next segment would have been read if it could be told to be this log's.
        let next =
            Some(below).filter(|next| *next != scan.end.segment && self.listed.contains(next));
        let (segment, position, what) = match next {
            Some(next) => (next, 0, "the segment has no valid first block".to_owned()),
            None => (scan.end.segment, scan.end.position, what),
        };
        Some(Damage {
            below,
            acknowledged: acknowledged.max(Offset(below.0 + 1)),
            path: names::segment_path(self.dir, segment),
            position,
            reason: format!("{what}, but {proof}"),
        })
    }

    /// Flushes what was read, the checkpoint too, and their names: the last process may have been
    /// killed before it came to it, and what is believed now must not be gone after a power cut.
    async fn make_durable(&self, scan: &Scan) -> Result<(), LogError> {
        let start = &scan.start;
        let nothing_new = start.clean && scan.chunk_count == 0;
        let segments = scan.visited.iter().filter(|_| !nothing_new);
        let segments = segments.map(|base| names::segment_path(self.dir, *base));
        let slot = start.checkpoint.iter();
        let slot = slot.map(|_| slot_path(self.dir, start.sequence));
        for path in segments.chain(slot) {
            let opened = self.io.open(&path, OpenMode::Write).await;
            let file = opened.map_err(failed("opening", &path))?;
            file.sync_data().await.map_err(failed("flushing", &path))?;
        }
        let mut dir = Some(self.dir);
        while let Some(path) = dir {
            let synced = self.io.sync_dir(path).await;
            synced.map_err(failed("flushing", path))?;
            // With a checkpoint the names above are durable already.
            let done = scan.start.checkpoint.is_some() || path == self.storage.config.data_dir;
            dir = path.parent().filter(|_| !done);
        }
        Ok(())
    }

    /// Segments below the first one were about to be removed when the last process ended.
    async fn remove_leftovers(&self, scan: &Scan) -> Result<(), LogError> {
        let first = scan.segments.0.keys().next().copied();
        let first = first.unwrap_or(scan.end.segment);
        let below = self.listed.iter().filter(|base| **base < first);
        let alone = |base: &&Offset| !self.listed.contains(base);
        for base in below.chain(self.indexes.iter().filter(alone)) {
            let removed = remove_segment_files(self.io, self.dir, *base).await;
            removed.map_err(failed("removing", &names::segment_path(self.dir, *base)))?;
        }
        for base in &self.compacting {
            // It never came to take the segment's place.
            let path = names::compacting_path(self.dir, *base);
            let removed = self.io.remove_file(&path).await;
            removed.map_err(failed("removing", &path))?;
        }
        if self.spare {
            let path = names::spare_path(self.dir);
            let removed = self.io.remove_file(&path).await;
            removed.map_err(failed("removing", &path))?;
        }
        Ok(())
    }

    /// Begins a new life at the end, durably; only then is anything cut.
    async fn cut(&self, scan: &mut Scan) -> Result<(), LogError> {
        // What the journals add is older than that life, and keeps its number.
        let life = scan.log_end();
        scan.start.incarnations.begin(life);
        let mut checkpoint = match scan.start.checkpoint.take() {
            Some(checkpoint) => checkpoint,
            None => self.origin(scan),
        };
        checkpoint.clean = false;
        checkpoint.flushed = life.0;
        checkpoint.incarnations = scan.start.incarnations.entries();
        for _ in 0..2 {
            let sequence = scan.start.sequence + 1;
            let written = write_slot(self.io, self.dir, &checkpoint, sequence).await;
            written.map_err(failed("writing the checkpoint", self.dir))?;
            scan.start.sequence = sequence;
        }
        scan.start.checkpoint_position = checkpoint.position;
        scan.start.clean = false;
        self.cut_files(scan).await
    }

    async fn cut_files(&self, scan: &mut Scan) -> Result<(), LogError> {
        let end = scan.end;
        let keeps = scan.segments.0.contains_key(&end.segment) && scan.stop != Stop::NoSegment;
        let beyond = self
            .listed
            .iter()
            .filter(|base| **base > end.segment || **base == end.segment && !keeps);
        for base in beyond {
            let removed = remove_segment_files(self.io, self.dir, *base).await;
            removed.map_err(failed("removing", &names::segment_path(self.dir, *base)))?;
        }
        if keeps {
            let path = names::segment_path(self.dir, end.segment);
            let opened = self.io.open(&path, OpenMode::Write).await;
            let file = opened.map_err(failed("opening", &path))?;
            let cut = file.truncate(end.position).await;
            cut.map_err(failed("truncating", &path))?;
            file.sync_data().await.map_err(failed("flushing", &path))?;
            let segment = scan.segments.0.get_mut(&end.segment);
            segment.expect("a segment that was read").file_size = end.position;
        } else {
            scan.segments.0.remove(&end.segment);
        }
        let synced = self.io.sync_dir(self.dir).await;
        synced.map_err(failed("flushing", self.dir))
    }

    /// A checkpoint from which the whole log is read.
    fn origin(&self, scan: &Scan) -> CheckpointV1 {
        let from = scan.start.from;
        debug_assert_eq!(scan.start.sequence, NO_CHECKPOINT);
        CheckpointV1 {
            topic: *self.id.topic.0.as_bytes(),
            partition: self.id.partition.0,
            log_start: scan.start.log_start.0,
            position: crate::storage::appender::Position {
                position: SEGMENT_HEADER_SIZE,
                ..from
            }
            .into(),
            active: Segment::empty(from.segment, 0).summary(),
            ..CheckpointV1::default()
        }
    }

    fn report(&self, scan: &Scan) -> Option<String> {
        let from_segments = self.report_segments(scan);
        let Some(first) = scan.tail.entries.first() else {
            return from_segments;
        };
        let count = scan.tail.end.0 - first.first.0;
        let from_journal = format!("took {} from the journal", records(count));
        Some(match from_segments {
            Some(report) => format!("{report}, {from_journal}"),
            None => from_journal,
        })
    }

    fn report_segments(&self, scan: &Scan) -> Option<String> {
        if scan.chunk_count == 0 || scan.start.clean && scan.record_count == 0 {
            return None;
        }
        let first: Offset = scan.start.from.next;
        Some(format!(
            "verified {} ({} KiB) from offset {first} on",
            records(scan.record_count),
            scan.bytes / 1024,
        ))
    }
}

fn records(count: i64) -> String {
    match count {
        1 => "1 record".to_owned(),
        _ => format!("{count} records"),
    }
}
