//! Indexes of rolled segments: written when a segment is rolled, read when a reader needs one,
//! built again when the file is missing or not to be believed.

use std::{io, sync::Arc};

use millstream_protocol::Offset;

use super::{
    Log, ReadError,
    format::{
        index::{IndexEntryV1, IndexV1},
        names,
        segment::SEGMENT_HEADER_SIZE,
    },
    limits::{INDEX_INTERVAL, SCAN_READ_SIZE},
    reader::over,
    run::{self, Expected, RunEnd},
    segments::{Index, Segment},
    whole_file,
};
use crate::io::{BLOCK_SIZE, Buffer, DiskFile, Io, TaskClass, align_up};

impl<I: Io> Log<I> {
    /// A rolled segment is all durable: gives back what was allocated ahead, and writes its index.
    pub(super) async fn finish_segment(&self, base: Offset) {
        let end = {
            let state = self.state.borrow();
            let rolled = state.appender.tail().is_some_and(|tail| tail.base > base);
            match state.segments.0.get(&base) {
                Some(segment) if rolled && segment.file_size > segment.end => segment.end,
                _ => return,
            }
        };
        // Neither is needed for anything to be right: a failure costs space or time.
        let cut = match self.file(base).await {
            Ok(file) => file.truncate(end).await,
            Err(error) => Err(error),
        };
        if cut.is_ok()
            && let Some(segment) = self.state.borrow_mut().segments.0.get_mut(&base)
        {
            segment.file_size = end;
        }
        let index = {
            let state = self.state.borrow();
            let segment = state.segments.0.get(&base);
            segment.and_then(|segment| self.archived_index(segment))
        };
        if let Some(index) = index {
            self.write_index(&index).await;
            if !self.is_present(&index) {
                // Whoever removed the segment came too early for this.
                let path = names::index_path(&self.dir, base);
                let _ = self.storage.io.remove_file(&path).await;
            }
        }
    }

    async fn write_index(&self, index: &IndexV1) {
        let path = names::index_path(&self.dir, Offset(index.base));
        let _ = whole_file::write(&self.storage.io, &path, &index.encode()).await;
    }

    /// The segment that an index is of is still there, and ends where it did.
    fn is_present(&self, index: &IndexV1) -> bool {
        let state = self.state.borrow();
        let segment = state.segments.0.get(&Offset(index.base));
        segment.is_some_and(|segment| segment.end == index.end)
    }

    /// Writes an index that was built, and keeps no reader waiting for it. Whoever removes, cuts or
    /// replaces segments holds the slots: then it is left out.
    fn keep_index(&self, index: IndexV1) {
        let Some(held) = self.slots.try_hold() else {
            return;
        };
        if self.state.borrow().closing || !self.is_present(&index) {
            return;
        }
        let this = self.this();
        self.running.set(self.running.get() + 1);
        self.storage.io.spawn(TaskClass::Background, async move {
            this.write_index(&index).await;
            drop(held);
            this.task_done();
        });
    }

    pub(super) fn archived_index(&self, segment: &Segment) -> Option<IndexV1> {
        Some(IndexV1 {
            topic: *self.id.topic.0.as_bytes(),
            partition: self.id.partition.0,
            base: segment.base.0,
            end: segment.end,
            entries: segment.index.as_ref()?.0.clone(),
        })
    }

    /// Has a segment's index in memory. Readers who want the same one wait for the first of them.
    pub(super) async fn ensure_index(&self, base: Offset) -> Result<(), ReadError> {
        loop {
            let under_way = {
                let state = &mut *self.state.borrow_mut();
                match state.segments.0.get(&base) {
                    Some(segment) if segment.index.is_none() => {}
                    _ => return Ok(()),
                }
                let under_way = state.reading.index_under_way(base);
                if under_way.is_none() {
                    state.reading.begin_index(base);
                }
                under_way
            };
            let Some(done) = under_way else { break };
            over(done).await;
        }
        let this = self.this();
        self.in_task(TaskClass::CatchUp, async move {
            let loaded = this.load_index(base).await;
            this.state.borrow_mut().reading.end_index(base);
            loaded
        })
        .await
    }

    async fn load_index(&self, base: Offset) -> Result<(), ReadError> {
        let (end, era) = {
            let state = self.state.borrow();
            match state.segments.0.get(&base) {
                Some(segment) => (segment.end, state.reading.era()),
                None => return Ok(()),
            }
        };
        let index = match self.read_index(base, end).await {
            Some(index) => index,
            None => {
                let built = self.build_index(base, end).await;
                let built = built.map_err(|error| self.unless_removed(base, error))?;
                let archived = (built.end == end).then(|| self.archived_index(&built));
                if self.state.borrow().reading.era() == era
                    && let Some(archived) = archived.flatten()
                {
                    self.keep_index(archived);
                }
                built.index.unwrap_or_default()
            }
        };
        let state = &mut *self.state.borrow_mut();
        if state.reading.era() == era
            && let Some(segment) = state.segments.0.get_mut(&base)
        {
            segment.index = Some(index);
        }
        Ok(())
    }

    async fn read_index(&self, base: Offset, end: u64) -> Option<Index> {
        let path = names::index_path(&self.dir, base);
        let entries = usize::try_from(end / INDEX_INTERVAL + 1).ok()?;
        // What is read, and what is made of it.
        let size = 2 * align_up(entries * size_of::<IndexEntryV1>() + BLOCK_SIZE);
        let _charge = self.storage.reading.take(size).await;
        let bytes = whole_file::read(&self.storage.io, &path).await.ok()?;
        let index = IndexV1::decode(&bytes).ok()?;
        let ours = index.topic == *self.id.topic.0.as_bytes()
            && index.partition == self.id.partition.0
            && index.base == base.0
            && index.end == end;
        let ascending = index
            .entries
            .windows(2)
            .all(|pair| pair[0].offset < pair[1].offset && pair[0].position < pair[1].position);
        (ours && ascending).then_some(Index(index.entries))
    }

    /// Reads the whole segment; what is damaged in it stays out, and its readers will be told.
    async fn build_index(&self, base: Offset, end: u64) -> Result<Segment, ReadError> {
        let path = names::segment_path(&self.dir, base);
        let failed = |error: io::Error| ReadError::Io {
            path: path.clone(),
            error: Arc::new(error),
        };
        let file = self.file(base).await.map_err(failed)?;
        let mut segment = Segment::empty(base, end);
        let (mut position, mut next, mut size) = (SEGMENT_HEADER_SIZE, base, SCAN_READ_SIZE);
        while position < end {
            let _charge = self.storage.reading.take(size).await;
            let buffer = file.read_at(position, size).await.map_err(failed)?;
            let (chunks, run_end) = {
                let state = self.state.borrow();
                let mut expected = Expected {
                    id: self.id,
                    incarnations: &state.incarnations,
                    next,
                };
                run::parse(buffer.bytes(), &mut expected)
            };
            for chunk in &chunks {
                segment.add(&chunk.placed(base, position));
                next = chunk.next;
            }
            position = segment.end;
            match run_end {
                RunEnd::Needs(needed) if chunks.is_empty() && size < needed => size = needed,
                RunEnd::Needs(_) if !chunks.is_empty() => size = SCAN_READ_SIZE,
                RunEnd::Needs(_) | RunEnd::NoChunk(_) => break,
            }
        }
        Ok(segment)
    }
}
