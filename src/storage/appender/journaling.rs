//! The journal's part in an appender: what is handed to it, and what it makes durable.
//!
//! Entries of a chunk follow each other from its start, so a size says what the journal holds of it.

use millstream_protocol::Offset;

use super::{Append, Appender, OpenChunk, Stage};
use crate::{
    io::Buffer,
    storage::{
        format::chunk::{CHUNK_HEADER_SIZE, ChunkHeader},
        limits::{DIRECT_SIZE, REJOURNAL_SIZE, WRITE_BEHIND_SIZE},
    },
};

/// How much of a chunk, from its start, is in the journal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Journaled {
    /// Bytes of batches that were handed to frames, and the offset after them.
    pub(super) handed_size: usize,
    pub(super) handed_next: Offset,
    /// The same of what frames that are durable hold.
    pub(super) durable_size: usize,
    pub(super) durable_next: Offset,
    /// The first frame that holds some of it.
    pub(super) frame: Option<u64>,
    /// All of it goes into the journal once more.
    pub(super) again: bool,
    /// The frame that holds all of it once more, and is not durable yet.
    pub(super) replacement: Option<u64>,
}

impl Journaled {
    pub(super) fn nothing(base: Offset) -> Self {
        Self {
            handed_size: 0,
            handed_next: base,
            durable_size: 0,
            durable_next: base,
            frame: None,
            again: false,
            replacement: None,
        }
    }
}

/// Batches on their way into the journal.
pub(in crate::storage) struct Entry<'a> {
    /// Number of the chunk they belong to.
    pub chunk: u64,
    /// What the entry says about itself.
    pub header: ChunkHeader,
    pub payload: &'a [u8],
    /// Bytes of the chunk, from its start, that are in the journal once this is.
    pub through_size: usize,
}

/// What the next journal entry says about its batches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    pub(super) max_timestamp_ms: i64,
    pub(super) batch_count: u32,
    pub(super) append_time_ms: i64,
}

impl Pending {
    pub(super) const NOTHING: Self = Self {
        max_timestamp_ms: i64::MIN,
        batch_count: 0,
        append_time_ms: 0,
    };

    pub(super) fn add(&mut self, append: &Append<'_>) {
        self.append_time_ms = self.append_time_ms.max(append.now_ms);
        self.max_timestamp_ms = self.max_timestamp_ms.max(append.max_timestamp_ms);
        self.batch_count += append.batch_count;
    }
}

impl<B: Buffer> OpenChunk<B> {
    fn pending_size(&self) -> usize {
        self.size - self.journaled.handed_size
    }
}

impl<B: Buffer> Appender<B> {
    /// Bytes that were appended and are neither in the journal nor on their way.
    pub fn pending_size(&self) -> usize {
        self.open.as_ref().map_or(0, OpenChunk::pending_size)
    }

    /// There is something for the journal, and so little that it belongs there.
    pub fn wants_journal(&self) -> bool {
        (1..DIRECT_SIZE).contains(&self.pending_size())
    }

    /// It was to go into the journal once more, and has not yet.
    pub fn leaves_journal(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.journaled.again)
    }

    /// What waits for the journal, which frame `frame` takes. The caller copies it before anything else
    /// happens to the log.
    pub fn hand_over(&mut self, frame: u64) -> Option<Entry<'_>> {
        let chunk = self.front + self.chunks.len() as u64;
        let flushed = self.acknowledged;
        let open = self.open.as_mut().filter(|open| open.pending_size() > 0)?;
        let from = CHUNK_HEADER_SIZE + open.journaled.handed_size;
        let pending = std::mem::replace(&mut open.pending, Pending::NOTHING);
        let header = ChunkHeader {
            payload_size: u32::try_from(open.pending_size()).expect("a chunk is below 4 GiB"),
            id: self.id,
            epoch: open.epoch,
            incarnation: open.incarnation,
            base: open.journaled.handed_next,
            next: open.next,
            flushed: flushed.min(open.journaled.handed_next),
            append_time_ms: pending.append_time_ms,
            max_timestamp_ms: pending.max_timestamp_ms,
            batch_count: pending.batch_count,
            flags: 0,
        };
        open.journaled.handed_size = open.size;
        open.journaled.handed_next = open.next;
        if std::mem::take(&mut open.journaled.again) {
            open.journaled.replacement = Some(frame);
        } else {
            open.journaled.frame.get_or_insert(frame);
        }
        Some(Entry {
            chunk,
            header,
            payload: &open.buffer.bytes()[from..CHUNK_HEADER_SIZE + open.size],
            through_size: open.size,
        })
    }

    /// Closes the open chunk for the segment if it is large enough and the journal was handed all of it.
    pub fn seal_for_write_behind(&mut self) {
        let large =
            |open: &OpenChunk<B>| open.size >= WRITE_BEHIND_SIZE && open.pending_size() == 0;
        if self.open.as_ref().is_some_and(large) {
            self.seal_open();
        }
    }

    /// A frame is durable that holds a chunk up to so many bytes and up to `next`. Gives the bytes of
    /// batches that are durable now and were not before.
    pub fn journaled(
        &mut self,
        frame: u64,
        chunk: u64,
        through_size: usize,
        next: Offset,
    ) -> usize {
        let Some(at) = chunk.checked_sub(self.front) else {
            // Its segment was flushed before.
            return 0;
        };
        let at = usize::try_from(at).expect("an index");
        let is_open = at == self.chunks.len();
        let journaled = match (self.chunks.get_mut(at), &mut self.open) {
            (Some(chunk), _) if chunk.stage == Stage::Durable => return 0,
            (Some(chunk), _) => &mut chunk.journaled,
            (None, Some(open)) if is_open => &mut open.journaled,
            (None, _) => return 0,
        };
        if journaled.replacement == Some(frame) {
            journaled.frame = journaled.replacement.take();
        }
        let before = journaled.durable_size;
        if through_size <= before {
            return 0;
        }
        journaled.durable_size = through_size;
        journaled.durable_next = next;
        self.acknowledge();
        through_size - before
    }

    /// Moves the acknowledged end: over what segments hold durably without a gap, then over what the journal
    /// holds. A chunk that is durable behind one that only the journal holds does not count: a recovery
    /// goes through the segments first, and stops at the gap.
    pub(super) fn acknowledge(&mut self) {
        let mut end = self.acknowledged.max(self.durable.next);
        let from = self.chunks.partition_point(|chunk| chunk.next <= end);
        for chunk in self.chunks.range(from..) {
            end = end.max(chunk.journaled.durable_next);
            if chunk.journaled.durable_next < chunk.next {
                self.acknowledged = end;
                return;
            }
        }
        if let Some(open) = &self.open {
            end = end.max(open.journaled.durable_next);
        }
        self.acknowledged = end;
    }

    /// Bytes of batches that have no place in a segment yet, and when the first of them was appended.
    pub fn unplaced(&self) -> (usize, Option<i64>) {
        let sealed = self.chunks.iter().filter(|chunk| chunk.place.is_none());
        let first = sealed
            .clone()
            .next()
            .map(|chunk| chunk.run.chunks[0].append_time_ms);
        let open = self.open.as_ref();
        let size = sealed.map(|chunk| chunk.payload_size).sum::<usize>();
        (
            size + open.map_or(0, |open| open.size),
            first.or_else(|| open.map(|open| open.first_append_ms)),
        )
    }

    /// The first frame of the journal that holds something no segment holds durably.
    pub fn first_frame(&self) -> Option<u64> {
        if self.pinned.is_some() {
            return self.pinned;
        }
        let chunks = self.chunks.iter();
        let mut undone = chunks.filter(|chunk| chunk.stage != Stage::Durable);
        let first = undone.find_map(|chunk| chunk.journaled.frame);
        first.or_else(|| self.open.as_ref()?.journaled.frame)
    }

    /// Puts what little there is into the journal once more, so that older frames are not needed for it;
    /// false if it is too much, or on its way to a segment already.
    pub fn journal_again(&mut self) -> bool {
        let Some(open) = self.open.as_mut().filter(|_| self.chunks.is_empty()) else {
            return false;
        };
        let in_flight = open.journaled.handed_size > open.journaled.durable_size;
        if open.size > REJOURNAL_SIZE || in_flight {
            return false;
        }
        open.pending = Pending {
            max_timestamp_ms: open.max_timestamp_ms,
            batch_count: open.batch_count,
            append_time_ms: open.append_time_ms,
        };
        open.journaled = Journaled {
            handed_size: 0,
            handed_next: open.base,
            again: true,
            ..open.journaled
        };
        true
    }
}
