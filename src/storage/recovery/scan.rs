//! Reading forward: chunk after chunk, segment after segment, as far as each follows the one before.

use millstream_protocol::{LeaderEpoch, Offset};

use super::{Recovery, failed, start::Start};
use crate::{
    io::{BLOCK_SIZE, Buffer, DiskFile, Io, OpenMode},
    storage::{
        LogError, RecoveryObserver,
        appender::Position,
        format::{
            chunk::NotAChunk,
            names,
            segment::{NotASegment, SEGMENT_HEADER_SIZE, SegmentHeader},
        },
        journal::Tail,
        limits::SCAN_READ_SIZE,
        run::{self, ChunkView, Expected, NoChunk, RunEnd},
        segments::{Segment, Segments},
    },
};

/// How far a recovery got.
pub(super) struct Scan {
    pub start: Start,
    pub segments: Segments,
    pub epochs: Vec<(LeaderEpoch, Offset)>,
    /// The first place that holds no chunk of the log.
    pub end: Position,
    /// Why not.
    pub stop: Stop,
    pub marked: Offset,
    /// Chunks read, their bytes, and the records in them.
    pub chunk_count: u64,
    pub bytes: u64,
    pub record_count: i64,
    /// Segments that were read.
    pub visited: Vec<Offset>,
    /// What the journals add.
    pub tail: Tail,
}

/// Why a scan ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The segment has no file, or a first block that says nothing.
    NoSegment,
    /// The file ends.
    EndOfFile,
    /// Something else than the next chunk.
    Chunk(NoChunk),
}

impl Scan {
    /// Of nothing at all.
    pub fn nothing(start: Start) -> Self {
        Self {
            segments: start.segments.clone(),
            epochs: start.epochs.clone(),
            end: start.from,
            stop: Stop::NoSegment,
            marked: start.marked,
            chunk_count: 0,
            bytes: 0,
            record_count: 0,
            visited: Vec::new(),
            tail: Tail {
                entries: Vec::new(),
                end: start.from.next,
                stale: false,
                proof: None,
            },
            start,
        }
    }

    /// Where the log ends, with what the journals add.
    pub fn log_end(&self) -> Offset {
        self.tail.end.max(self.end.next)
    }

    fn add(&mut self, chunk: &ChunkView, position: u64) {
        let segment = self.end.segment;
        let placed = chunk.placed(segment, position);
        let known = self.segments.0.get_mut(&segment);
        known.expect("the segment being read").add(&placed);
        self.chunk_count += 1;
        self.bytes += placed.end - placed.position;
        self.record_count += placed.next.0 - placed.base.0;
        self.marked = self.marked.max(chunk.flushed);
        self.end.position = placed.end;
        self.end.next = placed.next;
        if placed.base < placed.next {
            self.add_epoch(placed.epoch, placed.base);
        }
    }

    fn add_epoch(&mut self, epoch: LeaderEpoch, first: Offset) {
        if self.epochs.last().is_none_or(|(last, _)| *last < epoch) {
            self.epochs.push((epoch, first));
        }
    }
}

impl<I: Io> Recovery<'_, I> {
    /// Adds what the journals hold beyond the last good chunk.
    pub(super) fn add_tail(&self, scan: &mut Scan, observer: &mut dyn RecoveryObserver) {
        let replay = self.storage.replay.borrow();
        scan.tail = replay.tail(self.id, scan.end.next, &scan.start.incarnations);
        for entry in std::mem::take(&mut scan.tail.entries) {
            for (batch, range) in run::batches(&entry.batches) {
                let bytes = &entry.batches[range];
                observer.batch(&batch, bytes, entry.header.append_time_ms);
            }
            scan.add_epoch(entry.header.epoch, entry.first);
            scan.tail.entries.push(entry);
        }
    }

    /// Reads on from the start, through every segment that follows.
    pub(super) async fn scan(
        &self,
        start: Start,
        observer: &mut dyn RecoveryObserver,
    ) -> Result<Scan, LogError> {
        let mut scan = Scan::nothing(start);
        loop {
            self.scan_segment(&mut scan, observer).await?;
            let segment = scan.end.segment;
            let next = self.listed.iter().find(|base| **base > segment).copied();
            let Some(next) = next.filter(|next| *next == scan.end.next) else {
                return Ok(scan);
            };
            if !self.has_header(next).await? {
                return Ok(scan);
            }
            scan.end = Position {
                segment: next,
                position: SEGMENT_HEADER_SIZE,
                next,
            };
        }
    }

    /// The segment's first block says that it is this one.
    async fn has_header(&self, base: Offset) -> Result<bool, LogError> {
        let path = names::segment_path(self.dir, base);
        let opened = self.io.open(&path, OpenMode::Read).await;
        let file = opened.map_err(failed("opening", &path))?;
        let block = file.read_at(0, BLOCK_SIZE).await;
        let block = block.map_err(failed("reading", &path))?;
        match SegmentHeader::decode(block.bytes()) {
            Ok(header) => Ok(header.id == self.id && header.base == base),
            Err(NotASegment::Damaged) => Ok(false),
            Err(NotASegment::Version(version)) => Err(LogError::NewerFormat { path, version }),
        }
    }

    async fn scan_segment(
        &self,
        scan: &mut Scan,
        observer: &mut dyn RecoveryObserver,
    ) -> Result<(), LogError> {
        let base = scan.end.segment;
        if !self.listed.contains(&base) || !self.has_header(base).await? {
            scan.stop = Stop::NoSegment;
            if scan.end.position > SEGMENT_HEADER_SIZE {
                // The checkpoint knows of records in it: without the segment the log ends before them.
                scan.segments.0.remove(&base);
                scan.end = Position {
                    segment: base,
                    position: SEGMENT_HEADER_SIZE,
                    next: base,
                };
            }
            return Ok(());
        }
        let path = names::segment_path(self.dir, base);
        let opened = self.io.open(&path, OpenMode::Read).await;
        let file = opened.map_err(failed("opening", &path))?;
        let size = file.size().await.map_err(failed("measuring", &path))?;
        let known = scan.segments.0.entry(base);
        known.or_insert_with(|| Segment::empty(base, size));
        scan.visited.push(base);
        let mut read_size = SCAN_READ_SIZE;
        loop {
            let position = scan.end.position;
            if position >= size {
                scan.stop = Stop::EndOfFile;
                return Ok(());
            }
            let _charge = self.storage.reading.take(read_size).await;
            let buffer = file.read_at(position, read_size).await;
            let buffer = buffer.map_err(failed("reading", &path))?;
            let stop = feed(scan, self.id, buffer.bytes(), observer);
            let whole_file = position + read_size as u64 >= size;
            match stop {
                RunEnd::NoChunk(reason) => {
                    scan.stop = Stop::Chunk(reason);
                    return Ok(());
                }
                RunEnd::Needs(_) if scan.end.position > position => read_size = SCAN_READ_SIZE,
                RunEnd::Needs(needed) if !whole_file && needed > read_size => read_size = needed,
                RunEnd::Needs(needed) => {
                    let reason = NotAChunk::Incomplete { needed };
                    scan.stop = Stop::Chunk(NoChunk::Bytes(reason));
                    return Ok(());
                }
            }
            self.io.yield_if_needed().await;
        }
    }
}

/// Takes in the chunks of a buffer that was read at the scan's end.
fn feed(
    scan: &mut Scan,
    id: millstream_protocol::TopicPartition,
    bytes: &[u8],
    observer: &mut dyn RecoveryObserver,
) -> RunEnd {
    let position = scan.end.position;
    let mut expected = Expected {
        id,
        incarnations: &scan.start.incarnations,
        next: scan.end.next,
    };
    let (chunks, end) = run::parse(bytes, &mut expected);
    for chunk in &chunks {
        scan.add(chunk, position);
        let payload = &bytes[chunk.payload.clone()];
        for (header, range) in run::batches(payload) {
            if header.next_offset() <= chunk.next {
                observer.batch(&header, &payload[range], chunk.append_time_ms);
            }
        }
    }
    end
}
