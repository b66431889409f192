//! Taking back what was appended and cannot be written: on a full disk it is refused rather than kept waiting.
//!
//! Only what has gone nowhere is taken back. What was written to a segment, or handed to a frame of the
//! journal, may be found by the next start though nobody was told of it, so its offsets are never given to
//! other records; with it stays all that was appended before it.

use millstream_protocol::Offset;

use super::{Appender, OpenChunk, Pending, Stage, TailChunk};
use crate::{
    io::Buffer,
    storage::{format::chunk::CHUNK_HEADER_SIZE, run},
};

impl<B: Buffer> OpenChunk<B> {
    /// Forgets what the journal was not handed; false if that cannot be told apart.
    fn keep_handed(&mut self) -> bool {
        let journaled = &self.journaled;
        if journaled.again || journaled.handed_size < journaled.durable_size {
            return false;
        }
        self.size = journaled.handed_size;
        self.next = journaled.handed_next;
        self.pending = Pending::NOTHING;
        self.batch_count = 0;
        self.max_timestamp_ms = i64::MIN;
        let payload = &self.buffer.bytes()[CHUNK_HEADER_SIZE..CHUNK_HEADER_SIZE + self.size];
        for (batch, _) in run::batches(payload) {
            self.batch_count += 1;
            self.max_timestamp_ms = self.max_timestamp_ms.max(batch.max_timestamp_ms);
        }
        true
    }
}

impl<B: Buffer> Appender<B> {
    /// Takes back what went nowhere, from the end on and not below `floor`, which somebody was told of. Gives
    /// its size in bytes; the log ends before it then.
    pub fn take_back(&mut self, floor: Offset) -> usize {
        let mut size = 0;
        if let Some(open) = &mut self.open {
            let whole = open.size;
            let kept_next = open.journaled.handed_next;
            if kept_next < floor || !open.keep_handed() {
                return 0;
            }
            size += whole - open.size;
            self.log_end = open.next;
            if open.size > 0 {
                return size;
            }
            self.open = None;
        }
        let untouched = |chunk: &TailChunk<B>| {
            let journaled = &chunk.journaled;
            let handed = journaled.handed_size.max(journaled.durable_size);
            chunk.stage == Stage::Sealed && chunk.payload_size > 0 && handed == 0
        };
        while let Some(chunk) = self.chunks.back()
            && untouched(chunk)
            && chunk.base >= floor
        {
            size += chunk.payload_size;
            self.log_end = chunk.base;
            self.chunks.pop_back();
        }
        assert!(self.log_end >= self.acknowledged && self.log_end >= self.durable.next);
        self.flush_wanted = self.flush_wanted.min(self.log_end);
        let end = self.front + self.chunks.len() as u64;
        self.boundaries
            .retain(|boundary| boundary.place.is_some() || boundary.number < end);
        size
    }
}
