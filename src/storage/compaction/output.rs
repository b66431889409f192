//! Chunks of what compaction leaves. Pure: it takes batches and says which chunks they make.
//!
//! Source chunks of one leader epoch and one life of the log are a *group*. The chunks written for a
//! group cover exactly its offsets, so that epochs and lives still begin where they began; where nothing
//! is left at its end, a batch without records says so.

use millstream_protocol::{
    LeaderEpoch, Offset, TopicPartition,
    batch::{BatchHeader, gap},
};

use crate::storage::{format::chunk::ChunkHeader, limits::COMPACTED_PAYLOAD_SIZE};

/// A chunk to be written.
pub(super) struct OutputChunk {
    pub header: ChunkHeader,
    pub payload: Vec<u8>,
}

/// What the chunks of a group have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub epoch: LeaderEpoch,
    pub incarnation: u64,
}

/// Collects batches into chunks.
pub(super) struct Output {
    id: TopicPartition,
    group: Option<Group>,
    /// Where the chunk that is being filled begins, and how far it goes by now.
    base: Offset,
    covered: Offset,
    payload: Vec<u8>,
    batch_count: u32,
    max_timestamp_ms: i64,
    append_time_ms: i64,
}

impl Output {
    /// Nothing yet, from `base` on.
    pub fn new(id: TopicPartition, base: Offset) -> Self {
        Self {
            id,
            group: None,
            base,
            covered: base,
            payload: Vec::new(),
            batch_count: 0,
            max_timestamp_ms: i64::MIN,
            append_time_ms: 0,
        }
    }

    /// Source chunks of `group` follow, from `at` on; what came before goes up to there.
    pub fn begin(&mut self, group: Group, at: Offset, chunks: &mut Vec<OutputChunk>) {
        if self.group != Some(group) {
            self.finish(at, chunks);
            self.group = Some(group);
        }
    }

    /// The source chunk that follows was appended then.
    pub fn appended_at(&mut self, append_time_ms: i64) {
        self.append_time_ms = self.append_time_ms.max(append_time_ms);
    }

    /// A batch that stays.
    pub fn push(&mut self, batch: &[u8], chunks: &mut Vec<OutputChunk>) {
        let header = BatchHeader::decode(batch).expect("a batch that was read or made");
        assert!(header.base_offset >= self.covered, "order never changes");
        if self.payload.len() + batch.len() > COMPACTED_PAYLOAD_SIZE {
            self.seal(chunks);
        }
        self.payload.extend_from_slice(batch);
        self.batch_count += 1;
        self.max_timestamp_ms = self.max_timestamp_ms.max(header.max_timestamp_ms);
        self.covered = header.next_offset();
    }

    /// Nothing more comes below `end`.
    pub fn finish(&mut self, end: Offset, chunks: &mut Vec<OutputChunk>) {
        let Some(group) = self.group else {
            return;
        };
        assert!(self.covered <= end);
        while self.covered < end {
            let filler = gap(self.covered, end, group.epoch);
            self.push(&filler, chunks);
        }
        self.seal(chunks);
    }

    fn seal(&mut self, chunks: &mut Vec<OutputChunk>) {
        if self.payload.is_empty() {
            return;
        }
        let group = self.group.expect("a batch comes after its group began");
        let payload = std::mem::take(&mut self.payload);
        let header = ChunkHeader {
            payload_size: u32::try_from(payload.len()).expect("a chunk is below 4 GiB"),
            id: self.id,
            epoch: group.epoch,
            incarnation: group.incarnation,
            base: self.base,
            next: self.covered,
            // Only what is durable is compacted.
            flushed: self.base,
            append_time_ms: self.append_time_ms,
            max_timestamp_ms: self.max_timestamp_ms,
            batch_count: self.batch_count,
            flags: 0,
        };
        self.base = self.covered;
        self.batch_count = 0;
        self.max_timestamp_ms = i64::MIN;
        chunks.push(OutputChunk { header, payload });
    }
}

#[cfg(test)]
mod tests {
    use millstream_protocol::{
        PartitionIndex, TopicId,
        batch::{BatchBuilder, Compression, NO_HEADERS, place},
    };

    use super::*;
    use crate::storage::run;

    fn batch(base: i64, size: usize) -> Vec<u8> {
        let mut builder = BatchBuilder::new();
        let value = vec![b'x'; size];
        let pushed = builder.push(base, Some(b"k"), Some(&value), NO_HEADERS);
        pushed.unwrap();
        let mut bytes = builder.finish(None, Compression::None);
        place(&mut bytes, Offset(base), LeaderEpoch(1));
        bytes
    }

    fn group(epoch: i32, incarnation: u64) -> Group {
        Group {
            epoch: LeaderEpoch(epoch),
            incarnation,
        }
    }

    fn output() -> Output {
        let id = TopicPartition {
            topic: TopicId::default(),
            partition: PartitionIndex(0),
        };
        Output::new(id, Offset(0))
    }

    fn spans(chunks: &[OutputChunk]) -> Vec<(i64, i64, i32, u64)> {
        for chunk in chunks {
            let header = &chunk.header;
            assert!(run::batches_fill(&chunk.payload, header.base, header.next));
            let (batches, size) = (header.batch_count as usize, header.payload_size as usize);
            assert_eq!(run::batches(&chunk.payload).count(), batches);
            assert_eq!(chunk.payload.len(), size);
        }
        let spans = chunks.iter().map(|chunk| {
            let header = &chunk.header;
            (
                header.base.0,
                header.next.0,
                header.epoch.0,
                header.incarnation,
            )
        });
        spans.collect()
    }

    #[test]
    fn chunks_cover_their_group_whatever_is_left_of_it() {
        let mut output = output();
        let mut chunks = Vec::new();
        output.begin(group(1, 1), Offset(0), &mut chunks);
        output.push(&batch(3, 10), &mut chunks);
        output.begin(group(1, 1), Offset(8), &mut chunks);
        output.push(&batch(9, 10), &mut chunks);
        // Of the next one nothing is left, and it ends in a gap.
        output.begin(group(2, 1), Offset(12), &mut chunks);
        output.begin(group(2, 4), Offset(20), &mut chunks);
        output.push(&batch(20, 10), &mut chunks);
        output.finish(Offset(21), &mut chunks);
        assert_eq!(
            spans(&chunks),
            [(0, 12, 1, 1), (12, 20, 2, 1), (20, 21, 2, 4)]
        );
    }

    #[test]
    fn a_chunk_has_a_size() {
        let mut output = output();
        let mut chunks = Vec::new();
        output.begin(group(1, 1), Offset(0), &mut chunks);
        for base in 0..6 {
            output.push(&batch(base * 2, COMPACTED_PAYLOAD_SIZE / 3), &mut chunks);
        }
        output.push(&batch(50, 2 * COMPACTED_PAYLOAD_SIZE), &mut chunks);
        output.finish(Offset(60), &mut chunks);
        let ends = spans(&chunks).into_iter().map(|span| span.1);
        assert_eq!(ends.collect::<Vec<_>>(), [3, 7, 11, 51, 60]);
    }

    #[test]
    fn a_chunk_is_as_young_as_the_youngest_of_what_it_came_from() {
        let mut output = output();
        let mut chunks = Vec::new();
        output.begin(group(1, 1), Offset(0), &mut chunks);
        output.appended_at(100);
        output.push(&batch(0, 10), &mut chunks);
        output.appended_at(200);
        output.finish(Offset(5), &mut chunks);
        assert_eq!(chunks[0].header.append_time_ms, 200);
        assert_eq!(chunks[0].header.flushed, Offset(0));
    }
}
