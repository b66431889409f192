//! What a log knows of its segments without reading them, and the sparse index of each.

use std::collections::BTreeMap;

use millstream_protocol::Offset;

use super::{
    SegmentStats,
    appender::{Placed, Position},
    format::{
        checkpoint::SegmentV1,
        index::IndexEntryV1,
        segment::{CompactionMark, SEGMENT_HEADER_SIZE},
    },
    limits::INDEX_INTERVAL,
};

/// Every so many bytes, where a chunk begins. Ascending in offset, position and timestamp.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Index(pub Vec<IndexEntryV1>);

impl Index {
    fn add(&mut self, offset: Offset, position: u64, max_timestamp_before_ms: i64) {
        let due = |last: &IndexEntryV1| position >= last.position + INDEX_INTERVAL;
        if self.0.last().is_none_or(due) {
            self.0.push(IndexEntryV1 {
                offset: offset.0,
                position,
                max_timestamp_before_ms,
            });
        }
    }

    /// A chunk that begins at or before `offset`, as near as is known.
    pub fn find(&self, offset: Offset) -> Option<IndexEntryV1> {
        let after = self.0.partition_point(|entry| entry.offset <= offset.0);
        after.checked_sub(1).map(|at| self.0[at])
    }

    /// A chunk before which all timestamps are smaller.
    pub fn find_time(&self, timestamp_ms: i64) -> Option<IndexEntryV1> {
        let smaller = |entry: &IndexEntryV1| entry.max_timestamp_before_ms < timestamp_ms;
        let after = self.0.partition_point(smaller);
        after.checked_sub(1).map(|at| self.0[at])
    }

    /// The last chunk that is known to begin at `position` or before it.
    fn before(&self, position: u64) -> Option<IndexEntryV1> {
        let after = self.0.partition_point(|entry| entry.position <= position);
        after.checked_sub(1).map(|at| self.0[at])
    }

    /// The first chunk that is known to begin behind `position`.
    fn after(&self, position: u64) -> Option<IndexEntryV1> {
        let after = self.0.partition_point(|entry| entry.position <= position);
        self.0.get(after).copied()
    }

    fn cut(&mut self, position: u64) {
        self.0.retain(|entry| entry.position < position);
    }
}

/// What compaction made of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Compacted {
    /// Its first block was not looked at yet.
    #[default]
    Unknown,
    /// Nothing.
    Never,
    /// This.
    Marked(CompactionMark),
}

/// One segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// Its first offset.
    pub base: Offset,
    /// The offset after its last record.
    pub next: Offset,
    /// Where its last chunk ends, in bytes from the start of the file.
    pub end: u64,
    /// Size of its file, space allocated ahead included.
    pub file_size: u64,
    /// Largest record timestamp in it, or `i64::MIN`.
    pub max_timestamp_ms: i64,
    /// Wall clock of its first append, or 0 without one.
    pub first_append_ms: i64,
    /// Latest wall clock at an append, or 0 without one.
    pub last_append_ms: i64,
    /// Loaded when a reader needs it; always there for what was written or scanned by this process.
    pub index: Option<Index>,
    /// What compaction made of it.
    pub compacted: Compacted,
}

impl Segment {
    /// Nothing in it yet.
    pub fn empty(base: Offset, file_size: u64) -> Self {
        Self {
            base,
            next: base,
            end: SEGMENT_HEADER_SIZE,
            file_size,
            max_timestamp_ms: i64::MIN,
            first_append_ms: 0,
            last_append_ms: 0,
            index: Some(Index::default()),
            compacted: Compacted::Unknown,
        }
    }

    /// From a checkpoint.
    pub fn restored(summary: &SegmentV1, file_size: u64, index: Option<Index>) -> Self {
        Self {
            base: Offset(summary.base),
            next: Offset(summary.next),
            end: summary.end,
            file_size,
            max_timestamp_ms: summary.max_timestamp_ms,
            first_append_ms: summary.first_append_ms,
            last_append_ms: summary.last_append_ms,
            index,
            compacted: Compacted::Unknown,
        }
    }

    /// For a checkpoint.
    pub fn summary(&self) -> SegmentV1 {
        SegmentV1 {
            base: self.base.0,
            next: self.next.0,
            end: self.end,
            max_timestamp_ms: self.max_timestamp_ms,
            first_append_ms: self.first_append_ms,
            last_append_ms: self.last_append_ms,
        }
    }

    /// A chunk follows.
    pub fn add(&mut self, placed: &Placed) {
        assert_eq!(placed.position, self.end, "chunks follow each other");
        self.end = placed.end;
        if placed.base == placed.next {
            return;
        }
        if let Some(index) = &mut self.index {
            index.add(placed.base, placed.position, self.max_timestamp_ms);
        }
        self.next = placed.next;
        self.max_timestamp_ms = self.max_timestamp_ms.max(placed.max_timestamp_ms);
        // The clock may have been set back meanwhile: what was appended before is no older for it.
        self.last_append_ms = self.last_append_ms.max(placed.append_time_ms);
        if self.first_append_ms == 0 {
            self.first_append_ms = placed.append_time_ms;
        }
    }

    /// Forgets what lies from a position on. Timestamps stay as upper bounds.
    pub fn cut(&mut self, end: Position) {
        self.end = end.position;
        self.next = end.next;
        self.file_size = self.file_size.min(end.position);
        self.compacted = Compacted::Unknown;
        if let Some(index) = &mut self.index {
            index.cut(end.position);
        }
        if self.next == self.base {
            *self = Self {
                index: Some(Index::default()),
                end: end.position,
                ..Self::empty(self.base, self.file_size)
            };
        }
    }

    /// Where the chunk that holds `offset` can be looked for; needs the index.
    pub fn place_of(&self, offset: Offset) -> (Offset, u64) {
        let entry = self.index.as_ref().and_then(|index| index.find(offset));
        entry.map_or((self.base, SEGMENT_HEADER_SIZE), |entry| {
            (Offset(entry.offset), entry.position)
        })
    }

    /// Bytes to read from `position` on for a window of so many, and the offset of what comes after
    /// them if that is known: reads that end where a chunk begins need not wait for each other.
    pub fn cut_read(&self, position: u64, window: usize) -> (usize, Option<Offset>) {
        let end = position + window as u64;
        if end >= self.end {
            return (window, Some(self.next));
        }
        let next = self.index.as_ref().and_then(|index| {
            let within = index.before(end).filter(|entry| entry.position > position);
            // A chunk that is larger than the window is read whole.
            within.or_else(|| index.after(position))
        });
        match next {
            Some(entry) => {
                let size = usize::try_from(entry.position - position).unwrap_or(window);
                (size, Some(Offset(entry.offset)))
            }
            None => (window, None),
        }
    }

    /// For the log's owner.
    pub fn stats(&self) -> SegmentStats {
        SegmentStats {
            base_offset: self.base,
            next_offset: self.next,
            size: self.end,
            max_timestamp_ms: self.max_timestamp_ms,
            first_append_ms: self.first_append_ms,
            last_append_ms: self.last_append_ms,
            compaction: match self.compacted {
                Compacted::Unknown | Compacted::Never => None,
                Compacted::Marked(mark) => Some(mark),
            },
        }
    }
}

/// All segments of a log, by base offset.
#[derive(Clone, Debug, Default)]
pub(super) struct Segments(pub BTreeMap<Offset, Segment>);

impl Segments {
    /// The segment that an offset lies in, or would.
    pub fn holding(&self, offset: Offset) -> Option<&Segment> {
        let mut below = self.0.range(..=offset);
        below.next_back().map(|(_, segment)| segment)
    }

    /// A chunk was placed.
    pub fn placed(&mut self, placed: &Placed) {
        let segment = self
            .0
            .get_mut(&placed.segment)
            .expect("a segment of the log");
        segment.add(placed);
    }

    /// The newest segment.
    pub fn last(&self) -> Option<&Segment> {
        self.0.values().next_back()
    }

    /// Segments that hold nothing at or above `log_start` and lie before segment `keep`.
    pub fn below(&self, log_start: Offset, keep: Offset) -> Vec<Offset> {
        let bases: Vec<Offset> = self.0.keys().copied().collect();
        let pairs = bases.windows(2);
        let whole = |pair: &&[Offset]| pair[1] <= log_start && pair[0] < keep;
        pairs.take_while(whole).map(|pair| pair[0]).collect()
    }
}

#[cfg(test)]
mod tests {
    use millstream_protocol::LeaderEpoch;

    use super::*;

    fn placed(position: u64, end: u64, base: i64, next: i64, max_timestamp_ms: i64) -> Placed {
        Placed {
            segment: Offset(0),
            position,
            end,
            base: Offset(base),
            next: Offset(next),
            epoch: LeaderEpoch(0),
            max_timestamp_ms,
            append_time_ms: 1,
        }
    }

    #[test]
    fn the_index_is_sparse_and_finds_by_offset_and_time() {
        let mut segment = Segment::empty(Offset(0), 0);
        segment.add(&placed(4096, 8192, 0, 10, 100));
        segment.add(&placed(8192, 80_000, 10, 20, 50));
        segment.add(&placed(80_000, 90_000, 20, 30, 300));
        segment.add(&placed(90_000, 94_096, 30, 30, i64::MIN));
        let index = segment.index.as_ref().unwrap();
        assert_eq!(index.0.len(), 2);
        assert_eq!(index.find(Offset(19)).unwrap().position, 4096);
        assert_eq!(index.find(Offset(20)).unwrap().position, 80_000);
        assert_eq!(index.find_time(100).unwrap().position, 4096);
        assert_eq!(index.find_time(101).unwrap().position, 80_000);
        assert_eq!((segment.next, segment.end), (Offset(30), 94_096));
        assert_eq!(segment.max_timestamp_ms, 300);
    }

    #[test]
    fn a_read_ends_where_a_chunk_is_known_to_begin() {
        let mut segment = Segment::empty(Offset(0), 0);
        segment.add(&placed(4096, 80_000, 0, 10, 1));
        segment.add(&placed(80_000, 84_000, 10, 20, 2));
        segment.add(&placed(84_000, 160_000, 20, 30, 3));
        segment.add(&placed(160_000, 240_000, 30, 40, 4));
        let known = |size, until| (size, Some(Offset(until)));
        assert_eq!(segment.cut_read(4096, 100_000), known(75_904, 10));
        assert_eq!(segment.cut_read(80_000, 80_000), known(80_000, 30));
        // None begins within the window: up to the next one, or a large chunk would be read twice.
        assert_eq!(segment.cut_read(80_000, 70_000), known(80_000, 30));
        assert_eq!(segment.cut_read(160_000, 100_000), known(100_000, 40));
        segment.index = None;
        assert_eq!(segment.cut_read(4096, 100_000), (100_000, None));
    }

    #[test]
    fn only_whole_segments_below_the_start_go() {
        let mut segments = Segments::default();
        for base in [0, 10, 20] {
            segments
                .0
                .insert(Offset(base), Segment::empty(Offset(base), 0));
        }
        let all = Offset(i64::MAX);
        assert_eq!(segments.below(Offset(9), all), vec![]);
        assert_eq!(segments.below(Offset(10), all), vec![Offset(0)]);
        assert_eq!(segments.below(Offset(99), all), vec![Offset(0), Offset(10)]);
        assert_eq!(segments.below(Offset(99), Offset(10)), vec![Offset(0)]);
    }
}
