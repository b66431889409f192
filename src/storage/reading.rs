//! What a log remembers of its readers: who goes through it in order, and which reads are under way.

use std::rc::Rc;

use millstream_protocol::Offset;

use super::{
    limits::{FIRST_READ_SIZE, MAX_READ_STREAMS},
    segments::Segment,
};
use crate::io::Signal;

/// What a log remembers of its readers.
#[derive(Default)]
pub(super) struct Reading {
    /// Readers that go through the log in order: the newest last.
    streams: Vec<ReadStream>,
    /// Reads under way.
    loading: Vec<Loading>,
    /// Segments whose index is on its way.
    indexing: Vec<(Offset, Rc<Signal>)>,
    /// Rises with each truncation: what was read before it is not kept.
    pub generation: u64,
    /// Segments that compaction replaced.
    replaced: u64,
}

/// A read under way: whoever wants what it will bring waits for it.
struct Loading {
    plan: Plan,
    done: Rc<Signal>,
}

/// A reader that goes in order.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReadStream {
    /// Offset that comes next.
    pub next: Offset,
    /// Its segment.
    pub segment: Offset,
    /// Where it lies there.
    pub position: u64,
    /// Size of the last read.
    pub window: usize,
}

/// A read to be done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// Offset that is wanted.
    pub at: Offset,
    /// Segment to read.
    pub segment: Offset,
    /// Where in it.
    pub position: u64,
    /// Offset of the chunk that begins at `position`.
    pub base: Offset,
    /// Bytes to read: up to where a chunk begins, if the index tells.
    pub size: usize,
    /// Offset that comes after them, if it is known before they are read.
    pub until: Option<Offset>,
    /// Bytes that a reader of this kind reads at once.
    pub window: usize,
    /// Whether it belongs to a reader that goes in order.
    pub in_order: bool,
    /// Of the files that it was made for: see [`Reading::era`].
    pub era: u64,
}

impl Plan {
    /// A read of `segment` from a chunk on, for one who wants `at`; `last` is the size of the read
    /// before it, of a reader in order, and `size_max` what it may be at most now.
    pub fn new(
        at: Offset,
        segment: &Segment,
        chunk: (Offset, u64),
        (last, size_max): (Option<usize>, usize),
        era: u64,
    ) -> Self {
        let (base, position) = chunk;
        let window = last.map_or(FIRST_READ_SIZE, |last| last * 2).min(size_max);
        let (size, until) = segment.cut_read(position, window);
        Self {
            at,
            segment: segment.base,
            position,
            base,
            size,
            until,
            window,
            in_order: last.is_some(),
            era,
        }
    }

    fn brings(&self, other: &Self) -> bool {
        let bytes = self.position..self.position + self.size as u64;
        self.at <= other.at && self.segment == other.segment && bytes.contains(&other.position)
    }
}

impl Reading {
    /// The reader that comes to `at` next.
    pub fn stream_at(&self, at: Offset) -> Option<ReadStream> {
        self.streams
            .iter()
            .find(|stream| stream.next == at)
            .copied()
    }

    /// A reader got so far.
    pub fn remember(&mut self, stream: ReadStream) {
        if self.streams.len() >= MAX_READ_STREAMS {
            self.streams.remove(0);
        }
        self.streams.push(stream);
    }

    /// The read under way that somebody wants for the same offset, and what is raised at its end.
    pub fn under_way_for(&self, at: Offset) -> Option<(Plan, Rc<Signal>)> {
        let found = self.loading.iter().find(|loading| loading.plan.at == at)?;
        Some((found.plan, Rc::clone(&found.done)))
    }

    /// A read under way that brings what `plan` wants: what is raised at its end.
    pub fn under_way_with(&self, plan: &Plan) -> Option<Rc<Signal>> {
        let mut loading = self.loading.iter();
        let found = loading.find(|loading| loading.plan.brings(plan))?;
        Some(Rc::clone(&found.done))
    }

    /// A read begins. Its end is told by [`Reading::end`].
    pub fn begin(&mut self, plan: Plan) -> Rc<Signal> {
        let done = Rc::new(Signal::default());
        self.streams.retain(|stream| stream.next != plan.at);
        self.loading.push(Loading {
            plan,
            done: Rc::clone(&done),
        });
        done
    }

    /// A read is over.
    pub fn end(&mut self, done: &Rc<Signal>) {
        self.loading.retain(|other| !Rc::ptr_eq(&other.done, done));
        done.raise();
    }

    /// What is raised when the index of a segment, which is on its way, has come or could not.
    pub fn index_under_way(&self, segment: Offset) -> Option<Rc<Signal>> {
        let found = self.indexing.iter().find(|(base, _)| *base == segment)?;
        Some(Rc::clone(&found.1))
    }

    /// An index begins to be loaded. Its end is told by [`Reading::end_index`].
    pub fn begin_index(&mut self, segment: Offset) {
        self.indexing.push((segment, Rc::default()));
    }

    /// An index has come or could not.
    pub fn end_index(&mut self, segment: Offset) {
        let ended = self.indexing.extract_if(.., |(base, _)| *base == segment);
        for (_, done) in ended {
            done.raise();
        }
    }

    /// Positions in segments that were learnt in one era mean nothing in the next.
    pub fn era(&self) -> u64 {
        self.generation + self.replaced
    }

    /// Compaction replaced a segment by another.
    pub fn replace(&mut self) {
        self.streams.clear();
        self.replaced += 1;
    }

    /// The log was truncated.
    pub fn forget(&mut self) {
        self.streams.clear();
        self.generation += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_double_up_to_what_is_allowed_now() {
        let window = |last, size_max| {
            let segment = Segment::empty(Offset(0), 0);
            let plan = Plan::new(Offset(0), &segment, (Offset(0), 4096), (last, size_max), 0);
            (plan.window, plan.in_order)
        };
        assert_eq!(window(None, 4 << 20), (FIRST_READ_SIZE, false));
        assert_eq!(window(Some(1 << 20), 4 << 20), (2 << 20, true));
        assert_eq!(window(Some(4 << 20), 4 << 20), (4 << 20, true));
        // Something is appended.
        assert_eq!(window(Some(4 << 20), 512 << 10), (512 << 10, true));
        assert_eq!(window(Some(512 << 10), 4 << 20), (1 << 20, true));
    }
}
