//! The machine that turns appends into chunks, writes and flushes, and knows what is durable.
//!
//! It does nothing itself: [`Appender::next_step`] says what to do, the writer does it and reports
//! back. Chunks pass through these stages, and leave from the front only, so that the durable end
//! moves over a contiguous prefix whatever order the disk works in:
//!
//! ```text
//! open -> Sealed -> Writing -> Written -> Flushing -> Durable -> gone
//! ```

mod journaling;
mod refusal;
mod steps;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, VecDeque},
    rc::Rc,
};

use millstream_protocol::{LeaderEpoch, Offset, TopicPartition};

use self::journaling::{Journaled, Pending};
use super::{
    format::chunk::{CHUNK_HEADER_SIZE, ChunkHeader},
    limits::{FIRST_ALLOCATION, MAX_CHUNK_SIZE, MIN_CHUNK_CAPACITY},
    run::{self, ChunkView, Run},
};
use crate::io::{Buffer, align_up};

/// Where a chunk ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// Base offset of the segment.
    pub segment: Offset,
    /// Bytes from the start of its file.
    pub position: u64,
    /// Offset of the record that comes there.
    pub next: Offset,
}

/// What to do next.
pub(super) enum Step<B> {
    /// Write a chunk, then call [`Appender::written`] with the number.
    Write {
        number: u64,
        segment: Offset,
        position: u64,
        run: Rc<Run<B>>,
    },
    /// Flush these segments, then call [`Appender::flushed`].
    Flush { segments: BTreeSet<Offset> },
    /// Make a segment, then call [`Appender::created`].
    Create { base: Offset, size: u64 },
    /// Allocate up to `size`, then call [`Appender::allocated`].
    Allocate { segment: Offset, size: u64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Sealed,
    Writing,
    Written,
    Flushing,
    Durable,
}

/// A chunk on its way to disk.
pub(super) struct TailChunk<B> {
    stage: Stage,
    /// Base offset of its segment and its place there, once it has one.
    place: Option<(Offset, u64)>,
    /// Its offsets; equal in a sealing chunk.
    pub base: Offset,
    pub next: Offset,
    /// Its records, for readers too. A sealing chunk is a run as well, though no reader sees it.
    pub run: Rc<Run<B>>,
    /// Bytes of batches.
    payload_size: usize,
    /// Bytes on disk.
    disk_size: usize,
    journaled: Journaled,
}

/// Which way an open chunk goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// To the segment, at once.
    Direct,
    /// To the journal; to the segment when there is enough of it.
    Journal,
}

/// Which chunks that were written want a flush of their segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlushNeed {
    /// None: a buffered log, not due.
    Nothing,
    /// Those that the journal does not cover.
    Acknowledgement,
    /// All.
    Everything,
}

struct OpenChunk<B> {
    buffer: B,
    size: usize,
    base: Offset,
    next: Offset,
    epoch: LeaderEpoch,
    /// Wall clock of its first append, and the latest of all.
    first_append_ms: i64,
    append_time_ms: i64,
    max_timestamp_ms: i64,
    batch_count: u32,
    /// The life of the log that its offsets belong to.
    incarnation: u64,
    journaled: Journaled,
    /// Of what was appended since the last hand-over to the journal.
    pending: Pending,
}

impl<B: Buffer> OpenChunk<B> {
    fn disk_size(&self) -> usize {
        align_up(CHUNK_HEADER_SIZE + self.size)
    }

    /// Moves to a larger buffer if so many bytes more do not fit.
    fn make_room(&mut self, size: usize, make: &dyn Fn(usize) -> B) {
        let used = CHUNK_HEADER_SIZE + self.size;
        let capacity = self.buffer.bytes().len();
        if used + size <= capacity {
            return;
        }
        let doubled = MAX_CHUNK_SIZE.min(capacity * 2);
        let mut larger = make(doubled.max(align_up(used + size)));
        larger.bytes_mut()[..used].copy_from_slice(&self.buffer.bytes()[..used]);
        self.buffer = larger;
    }
}

/// The segment that is appended to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TailSegment {
    /// Its base offset.
    pub base: Offset,
    /// Where the next chunk goes.
    pub position: u64,
    /// Writes below do not extend the file.
    pub allocated: u64,
    /// Wall clock of its first append, or 0 without one.
    pub first_append_ms: i64,
}

/// A chunk got its place: for the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub segment: Offset,
    pub position: u64,
    pub end: u64,
    pub base: Offset,
    pub next: Offset,
    pub epoch: LeaderEpoch,
    pub max_timestamp_ms: i64,
    pub append_time_ms: i64,
}

/// A batch of appends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Append<'a> {
    pub batches: &'a [u8],
    pub first: Offset,
    pub next: Offset,
    pub epoch: LeaderEpoch,
    pub max_timestamp_ms: i64,
    pub batch_count: u32,
    pub now_ms: i64,
    /// The life that the offsets belong to, if it is not the present one.
    pub incarnation: Option<u64>,
}

/// What is durable now that was not before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Bytes of batches that became durable.
    pub payload_size: usize,
}

/// The tail of one log. See the module.
pub(super) struct Appender<B> {
    id: TopicPartition,
    /// Gives a buffer of a size.
    make: Box<dyn Fn(usize) -> B>,
    pub incarnation: u64,
    log_end: Offset,
    durable: Position,
    /// Everything below is durable, in the segments or in the journal.
    acknowledged: Offset,
    /// Everything below wants to be flushed to segments, whoever waits for it.
    flush_wanted: Offset,
    /// The log failed while the journal held this frame and later ones for it.
    pinned: Option<u64>,
    open: Option<OpenChunk<B>>,
    chunks: VecDeque<TailChunk<B>>,
    /// Number of the first one in `chunks`.
    front: u64,
    in_flight: usize,
    flushing: bool,
    preparing: bool,
    /// What is being prepared is a segment.
    creating: bool,
    wants_space: bool,
    /// The segment that is being made has no chunk waiting for it.
    rolling: bool,
    tail: Option<TailSegment>,
    next_allocation: u64,
    /// Of the next open chunk's buffer: what the last one came to.
    capacity: usize,
    /// Durable end that is on disk in some chunk's header.
    marked: Offset,
    placed: Vec<Placed>,
    /// Chunk ends that someone wants to know the place of: see [`Appender::mark_boundary`].
    boundaries: VecDeque<Boundary>,
}

struct Boundary {
    /// Number of the last chunk before it.
    number: u64,
    ticket: u64,
    place: Option<Position>,
}

impl<B: Buffer> Appender<B> {
    /// A tail that continues at `durable`, in `tail` if there is a segment already.
    pub fn new(
        id: TopicPartition,
        incarnation: u64,
        durable: Position,
        marked: Offset,
        tail: Option<TailSegment>,
        make: impl Fn(usize) -> B + 'static,
    ) -> Self {
        Self {
            id,
            make: Box::new(make),
            incarnation,
            log_end: durable.next,
            durable,
            acknowledged: durable.next,
            flush_wanted: Offset::ZERO,
            pinned: None,
            open: None,
            chunks: VecDeque::new(),
            front: 0,
            in_flight: 0,
            flushing: false,
            preparing: false,
            creating: false,
            wants_space: false,
            rolling: false,
            tail,
            next_allocation: FIRST_ALLOCATION,
            capacity: MIN_CHUNK_CAPACITY,
            marked,
            placed: Vec::new(),
            boundaries: VecDeque::new(),
        }
    }

    /// Next offset to append.
    pub fn log_end(&self) -> Offset {
        self.log_end
    }

    /// Everything below is durable in segments, and this is where it ends there.
    pub fn durable(&self) -> Position {
        self.durable
    }

    /// Everything below is durable, in segments or in the journal.
    pub fn acknowledged(&self) -> Offset {
        self.acknowledged
    }

    /// Everything below wants to be flushed to segments.
    pub fn flush_wanted(&self) -> Offset {
        self.flush_wanted
    }

    /// The segment that is appended to.
    pub fn tail(&self) -> Option<TailSegment> {
        self.tail
    }

    /// Nothing waits to be written or flushed.
    pub fn is_idle(&self) -> bool {
        self.open.is_none() && self.chunks.is_empty() && !self.preparing && !self.flushing
    }

    /// Bytes of batches not durable yet.
    pub fn unflushed(&self) -> usize {
        let open = self.open.as_ref();
        let open = open.map_or(0, |open| open.size - open.journaled.durable_size);
        let chunks = self.chunks.iter();
        let chunks = chunks.map(|chunk| chunk.payload_size - chunk.journaled.durable_size);
        open + chunks.sum::<usize>()
    }

    /// Segments that hold chunks on their way.
    pub fn segments_in_use(&self) -> BTreeSet<Offset> {
        let places = self.chunks.iter().filter_map(|chunk| chunk.place);
        places.map(|(segment, _)| segment).collect()
    }

    /// Takes batches into memory.
    pub fn append(&mut self, append: &Append<'_>) {
        assert_eq!(append.first, self.log_end, "appends follow each other");
        assert!(append.first < append.next && append.batch_count > 0);
        debug_assert!(run::batches_fill(append.batches, append.first, append.next));
        let size = append.batches.len();
        let incarnation = append.incarnation.unwrap_or(self.incarnation);
        let joins = |open: &OpenChunk<B>| {
            let together = CHUNK_HEADER_SIZE + open.size + size;
            let same = (open.epoch, open.incarnation) == (append.epoch, incarnation);
            same && together <= MAX_CHUNK_SIZE
        };
        if self.open.as_ref().is_some_and(|open| !joins(open)) {
            self.seal_open();
        }
        if let Some(open) = &mut self.open {
            open.make_room(size, &self.make);
        }
        let capacity = self.capacity.max(align_up(CHUNK_HEADER_SIZE + size));
        let open = self.open.get_or_insert_with(|| OpenChunk {
            buffer: (self.make)(capacity),
            size: 0,
            base: append.first,
            next: append.first,
            epoch: append.epoch,
            first_append_ms: append.now_ms,
            append_time_ms: append.now_ms,
            max_timestamp_ms: i64::MIN,
            batch_count: 0,
            incarnation,
            journaled: Journaled::nothing(append.first),
            pending: Pending::NOTHING,
        });
        let at = CHUNK_HEADER_SIZE + open.size;
        open.buffer.bytes_mut()[at..at + size].copy_from_slice(append.batches);
        open.size += size;
        open.next = append.next;
        // A chunk may be open for long: by its first batch retention would let the last one go too soon.
        open.append_time_ms = open.append_time_ms.max(append.now_ms);
        open.max_timestamp_ms = open.max_timestamp_ms.max(append.max_timestamp_ms);
        open.batch_count += append.batch_count;
        open.pending.add(append);
        self.log_end = append.next;
    }

    /// Closes the open chunk, so that it can be read and written; false if there is none.
    pub fn seal_open(&mut self) -> bool {
        let Some(open) = self.open.take() else {
            return false;
        };
        let header = ChunkHeader {
            payload_size: u32::try_from(open.size).expect("a chunk is below 4 GiB"),
            id: self.id,
            epoch: open.epoch,
            incarnation: open.incarnation,
            base: open.base,
            next: open.next,
            flushed: self.acknowledged.min(open.base),
            append_time_ms: open.append_time_ms,
            max_timestamp_ms: open.max_timestamp_ms,
            batch_count: open.batch_count,
            flags: 0,
        };
        if open.journaled.again {
            // It cannot go into the journal once more now, and is to leave an older part of it.
            self.flush_wanted = self.flush_wanted.max(open.next);
        }
        let used = open.disk_size();
        self.capacity = used
            .next_power_of_two()
            .clamp(MIN_CHUNK_CAPACITY, MAX_CHUNK_SIZE);
        let mut buffer = open.buffer;
        if buffer.bytes().len() / 4 > used {
            // The buffer lives on in the cache, where room that is not used would be lost.
            let mut smaller = (self.make)(used);
            smaller.bytes_mut().copy_from_slice(&buffer.bytes()[..used]);
            buffer = smaller;
        }
        self.push(header, buffer, open.journaled);
        true
    }

    /// Closes the open chunk if it holds anything below `offset`.
    pub fn seal_below(&mut self, offset: Offset) {
        if self.open.as_ref().is_some_and(|open| open.base < offset) {
            self.seal_open();
        }
    }

    /// No chunk on disk says yet how far the log is durable.
    pub fn wants_seal(&self) -> bool {
        self.marked < self.durable.next
    }

    /// Queues a chunk that carries nothing but the durable end, if no chunk on disk says it yet.
    /// Only when idle.
    pub fn seal_log(&mut self, now_ms: i64) -> bool {
        if !self.is_idle() || self.tail.is_none() || !self.wants_seal() {
            return false;
        }
        let header = ChunkHeader {
            payload_size: 0,
            id: self.id,
            epoch: LeaderEpoch::UNKNOWN,
            incarnation: self.incarnation,
            base: self.log_end,
            next: self.log_end,
            flushed: self.durable.next,
            append_time_ms: now_ms,
            max_timestamp_ms: i64::MIN,
            batch_count: 0,
            flags: 0,
        };
        let buffer = (self.make)(align_up(CHUNK_HEADER_SIZE));
        self.push(header, buffer, Journaled::nothing(self.log_end));
        true
    }

    fn push(&mut self, header: ChunkHeader, mut buffer: B, journaled: Journaled) {
        let end = CHUNK_HEADER_SIZE + header.payload_size as usize;
        let disk_size = header.disk_size();
        buffer.shorten(disk_size);
        let bytes = buffer.bytes_mut();
        header.seal(&mut bytes[..end]);
        bytes[end..].fill(0);
        self.marked = self.marked.max(header.flushed.min(self.durable.next));
        self.chunks.push_back(TailChunk {
            stage: Stage::Sealed,
            place: None,
            base: header.base,
            next: header.next,
            run: Rc::new(Run::new(
                buffer,
                vec![ChunkView::new(&header, 0, header.next)],
                None,
            )),
            payload_size: header.payload_size as usize,
            disk_size,
            journaled,
        });
    }

    /// The open chunk holds `offset`: it must be sealed before it can be read.
    pub fn is_open_at(&self, offset: Offset) -> bool {
        self.open.as_ref().is_some_and(|open| open.base <= offset)
    }

    /// The chunk that holds `offset`, if it is not known to be durable in a segment yet.
    pub fn find(&self, offset: Offset) -> Option<Rc<Run<B>>> {
        let at = self.chunks.partition_point(|chunk| chunk.next <= offset);
        let chunk = self.chunks.get(at)?;
        (chunk.base <= offset && offset < chunk.next).then(|| Rc::clone(&chunk.run))
    }

    /// Seals what was appended so far and gives a ticket to ask where it ends.
    pub fn mark_boundary(&mut self, ticket: u64) {
        self.seal_open();
        let chunks = self.chunks.len() as u64;
        self.boundaries.push_back(Boundary {
            number: (self.front + chunks).wrapping_sub(1),
            ticket,
            place: (chunks == 0).then_some(self.durable),
        });
    }

    /// Where a marked boundary lies, once all before it is durable.
    pub fn take_boundary(&mut self, ticket: u64) -> Option<Position> {
        let at = self.boundaries.iter().position(|b| b.ticket == ticket)?;
        let place = self.boundaries[at].place?;
        self.boundaries.remove(at);
        Some(place)
    }

    /// Nobody wants to know about a boundary any more.
    pub fn forget_boundary(&mut self, ticket: u64) {
        self.boundaries.retain(|boundary| boundary.ticket != ticket);
    }

    /// Chunks that got a place since the last call.
    pub fn take_placed(&mut self) -> Vec<Placed> {
        std::mem::take(&mut self.placed)
    }

    /// Continues elsewhere, after a truncation. Only when idle.
    pub fn restart(&mut self, incarnation: u64, durable: Position, tail: Option<TailSegment>) {
        assert!(self.is_idle(), "a truncation waits for the writer");
        self.incarnation = incarnation;
        self.log_end = durable.next;
        self.durable = durable;
        self.acknowledged = durable.next;
        self.flush_wanted = Offset::ZERO;
        self.marked = self.marked.min(durable.next);
        self.boundaries.clear();
        self.tail = tail;
    }

    /// The log failed: forgets what was not durable. Gives its size in bytes.
    pub fn abandon(&mut self) -> usize {
        let size = self.unflushed();
        // The journal keeps what it made durable: the next start finds it there.
        self.pinned = self.first_frame();
        self.open = None;
        self.boundaries.clear();
        size
    }
}
