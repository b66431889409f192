//! A run: verified chunks that follow each other, in one buffer. What was just written is a run of
//! one; a read from disk gives as many as lie whole in it.

use std::{cell::Cell, ops::Range, rc::Rc};

use millstream_protocol::{
    LeaderEpoch, Offset, TopicPartition,
    batch::{BATCH_HEADER_SIZE, BatchHeader},
};

use super::{
    appender::Placed,
    format::chunk::{CHUNK_HEADER_SIZE, ChunkHeader, NotAChunk},
    incarnations::Incarnations,
};
use crate::io::Buffer;

/// One chunk's records within a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ChunkView {
    /// Offset of its first record.
    pub base: Offset,
    /// Offset after its last record that is still part of the log.
    pub next: Offset,
    /// Leader epoch of its records.
    pub epoch: LeaderEpoch,
    /// Largest timestamp in it.
    pub max_timestamp_ms: i64,
    /// When it was appended.
    pub append_time_ms: i64,
    /// Everything below was durable when it was written.
    pub flushed: Offset,
    /// Its batches, in the buffer.
    pub payload: Range<usize>,
    /// Where it ends in the buffer, padding included.
    pub end: usize,
}

impl ChunkView {
    /// The view of a chunk that begins at `at` in its buffer and counts up to `next`.
    pub fn new(header: &ChunkHeader, at: usize, next: Offset) -> Self {
        let payload = at + CHUNK_HEADER_SIZE;
        Self {
            base: header.base,
            next,
            epoch: header.epoch,
            max_timestamp_ms: header.max_timestamp_ms,
            append_time_ms: header.append_time_ms,
            flushed: header.flushed,
            payload: payload..payload + header.payload_size as usize,
            end: at + header.disk_size(),
        }
    }

    /// Where the chunk lies, for a buffer that was read at `position` of a segment.
    pub fn placed(&self, segment: Offset, position: u64) -> Placed {
        Placed {
            segment,
            position: position + (self.payload.start - CHUNK_HEADER_SIZE) as u64,
            end: position + self.end as u64,
            base: self.base,
            next: self.next,
            epoch: self.epoch,
            max_timestamp_ms: self.max_timestamp_ms,
            append_time_ms: self.append_time_ms,
        }
    }
}

/// What a reader of chunks expects to find.
pub(super) struct Expected<'a> {
    /// Whose log this is.
    pub id: TopicPartition,
    /// Its lives.
    pub incarnations: &'a Incarnations,
    /// Offset of the next record.
    pub next: Offset,
}

/// Why a run ends where it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RunEnd {
    /// The bytes end inside a chunk that takes so many bytes, as far as its header can be believed.
    Needs(usize),
    /// No chunk of this log comes next.
    NoChunk(NoChunk),
}

/// Why the next bytes are not the log's next chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoChunk {
    #[error(transparent)]
    Bytes(#[from] NotAChunk),
    #[error("the chunk belongs to another partition")]
    Foreign,
    #[error("the chunk was cut off by a truncation")]
    Stale,
    #[error("the chunk does not follow the one before")]
    Gap,
    #[error("the chunk's batches do not fill it")]
    Batches,
}

/// Reads the chunks at the start of `bytes`.
pub(super) fn parse(bytes: &[u8], expected: &mut Expected<'_>) -> (Vec<ChunkView>, RunEnd) {
    let mut chunks = Vec::new();
    let mut at = 0;
    loop {
        match parse_one(&bytes[at..], at, expected) {
            Ok(view) => {
                at = view.end;
                expected.next = view.next;
                chunks.push(view);
            }
            Err(NoChunk::Bytes(NotAChunk::Incomplete { needed })) => {
                return (chunks, RunEnd::Needs(needed));
            }
            Err(reason) => return (chunks, RunEnd::NoChunk(reason)),
        }
    }
}

fn parse_one(bytes: &[u8], at: usize, expected: &Expected<'_>) -> Result<ChunkView, NoChunk> {
    // The cheap checks come first: they keep a stale header from asking for more bytes.
    let header = ChunkHeader::peek(bytes)?;
    if header.id != expected.id {
        return Err(NoChunk::Foreign);
    }
    if header.base != expected.next {
        return Err(NoChunk::Gap);
    }
    let admitted = expected
        .incarnations
        .admit(header.incarnation, header.base, header.next)
        .ok_or(NoChunk::Stale)?;
    ChunkHeader::verified(bytes)?;
    let view = ChunkView::new(&header, at, admitted);
    let payload = &bytes[CHUNK_HEADER_SIZE..CHUNK_HEADER_SIZE + header.payload_size as usize];
    if batches_fill(payload, header.base, header.next) {
        Ok(view)
    } else {
        Err(NoChunk::Batches)
    }
}

/// The batches lie back to back, from one offset to the other.
pub(super) fn batches_fill(payload: &[u8], base: Offset, next: Offset) -> bool {
    let mut expected = base;
    let mut at = 0;
    while at < payload.len() {
        let Ok(header) = BatchHeader::decode(&payload[at..]) else {
            return false;
        };
        at += header.size as usize;
        if header.base_offset < expected {
            return false;
        }
        expected = header.next_offset();
    }
    at == payload.len() && expected == next
}

/// Goes over the batches of a verified payload: each with its place in it.
pub(super) fn batches(payload: &[u8]) -> impl Iterator<Item = (BatchHeader, Range<usize>)> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        if payload.len() - at < BATCH_HEADER_SIZE {
            return None;
        }
        let header = BatchHeader::decode(&payload[at..]).expect("the payload was verified");
        let range = at..at + header.size as usize;
        at = range.end;
        Some((header, range))
    })
}

/// Verified chunks in one buffer.
pub(super) struct Run<B> {
    /// The bytes.
    pub buffer: Rc<B>,
    /// The chunks that hold records, ascending; never empty.
    pub chunks: Vec<ChunkView>,
    /// Set where a reader goes in order, to the bytes it reads at once: the first to take from it has
    /// the next ones read.
    pub window: Cell<Option<usize>>,
}

impl<B: Buffer> Run<B> {
    /// Chunks of one buffer.
    ///
    /// # Panics
    /// If there is none.
    pub fn new(buffer: B, chunks: Vec<ChunkView>, window: Option<usize>) -> Self {
        assert!(!chunks.is_empty());
        Self {
            buffer: Rc::new(buffer),
            chunks,
            window: Cell::new(window),
        }
    }

    /// One chunk of a buffer that holds others as well.
    pub fn shared(buffer: Rc<B>, chunk: ChunkView) -> Self {
        Self {
            buffer,
            chunks: vec![chunk],
            window: Cell::new(None),
        }
    }

    /// Its first offset.
    pub fn base(&self) -> Offset {
        self.chunks[0].base
    }

    /// The offset after its last record.
    pub fn next(&self) -> Offset {
        self.chunks[self.chunks.len() - 1].next
    }

    /// Appends to `out` the batches from the one that holds `from` up to `up_to`, at most
    /// `max_bytes` of them, but at least one if `out` is empty. Gives the offset after the last one
    /// taken, and their size in bytes.
    pub fn take(
        &self,
        from: Offset,
        up_to: Offset,
        max_bytes: usize,
        out: &mut Vec<super::Slice<B>>,
    ) -> (Offset, usize) {
        let first = self.chunks.partition_point(|chunk| chunk.next <= from);
        let first_of_all = out.is_empty();
        let mut taken = 0;
        let mut next = from;
        for chunk in &self.chunks[first..] {
            let before = taken;
            let end = up_to.min(chunk.next);
            let payload = &self.buffer.bytes()[chunk.payload.clone()];
            let mut range: Option<Range<usize>> = None;
            let mut full = false;
            for (header, at) in batches(payload) {
                if header.next_offset() <= next {
                    continue;
                }
                full = !(first_of_all && taken == 0) && taken + at.len() > max_bytes;
                if full || header.next_offset() > end {
                    break;
                }
                taken += at.len();
                next = header.next_offset();
                range = Some(range.map_or(at.start, |range| range.start)..at.end);
            }
            if let Some(range) = range {
                let start = chunk.payload.start;
                let range = start + range.start..start + range.end;
                out.push(super::Slice::new(Rc::clone(&self.buffer), range));
            }
            if full || taken == before || next < chunk.next {
                break;
            }
        }
        (next, taken)
    }
}
