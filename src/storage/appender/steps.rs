//! What the appender wants done next, and what it learns from what was done.

use std::{collections::BTreeSet, rc::Rc};

use millstream_protocol::Offset;

use super::{
    super::{
        LogOptions,
        format::segment::SEGMENT_HEADER_SIZE,
        limits::{
            ALLOCATION_GROWTH, FIRST_ALLOCATION, GATHER_SIZE, MAX_ALLOCATION, MAX_WRITES_IN_FLIGHT,
            MIN_SEGMENT_SIZE, SPARE_WITHIN_MS, ZERO_FILL_FROM,
        },
    },
    Appender, FlushNeed, Lane, Placed, Position, Progress, Stage, Step, TailChunk, TailSegment,
};
use crate::io::Buffer;

impl<B: Buffer> Appender<B> {
    /// What to do next, if anything; ask again until there is nothing.
    pub fn next_step(
        &mut self,
        options: &LogOptions,
        now_ms: i64,
        lane: Lane,
        flush: FlushNeed,
    ) -> Option<Step<B>> {
        self.next_write(options, now_ms, lane)
            .or_else(|| self.next_flush(flush))
            .or_else(|| self.next_preparation(options))
    }

    fn next_write(&mut self, options: &LogOptions, now_ms: i64, lane: Lane) -> Option<Step<B>> {
        // While a segment is made nothing may get into the one before, whatever would fit by now.
        if self.in_flight >= MAX_WRITES_IN_FLIGHT || self.creating {
            return None;
        }
        let sealed = self
            .chunks
            .partition_point(|chunk| chunk.stage != Stage::Sealed);
        let (base, size, disk_size) = match (self.chunks.get(sealed), &self.open) {
            (Some(chunk), _) => (chunk.base, chunk.payload_size, chunk.disk_size),
            (None, Some(open))
                if lane == Lane::Direct && (self.in_flight == 0 || open.size >= GATHER_SIZE) =>
            {
                (open.base, open.size, open.disk_size())
            }
            (None, _) => return None,
        };
        let disk_size = disk_size as u64;
        let tail = match self.tail {
            // A sealing chunk stays where it is: it has no record that a segment could begin with.
            Some(tail) if size == 0 || !rolls(&tail, base, disk_size, options, now_ms) => tail,
            _ => return self.create(base, disk_size, options),
        };
        if tail.position + disk_size > tail.allocated {
            return self.allocate(&tail, disk_size, options);
        }
        if sealed == self.chunks.len() {
            self.seal_open();
        }
        Some(self.place(sealed))
    }

    fn place(&mut self, at: usize) -> Step<B> {
        let tail = self.tail.as_mut().expect("a chunk is placed in a segment");
        let chunk = &mut self.chunks[at];
        let view = &chunk.run.chunks[0];
        let position = tail.position;
        tail.position += chunk.disk_size as u64;
        if tail.first_append_ms == 0 && chunk.base < chunk.next {
            tail.first_append_ms = view.append_time_ms;
        }
        chunk.stage = Stage::Writing;
        chunk.place = Some((tail.base, position));
        self.in_flight += 1;
        self.placed.push(Placed {
            segment: tail.base,
            position,
            end: tail.position,
            base: chunk.base,
            next: chunk.next,
            epoch: view.epoch,
            max_timestamp_ms: view.max_timestamp_ms,
            append_time_ms: view.append_time_ms,
        });
        Step::Write {
            number: self.front + at as u64,
            segment: tail.base,
            position,
            run: Rc::clone(&chunk.run),
        }
    }

    fn create(&mut self, base: Offset, room: u64, options: &LogOptions) -> Option<Step<B>> {
        if self.preparing {
            return None;
        }
        self.preparing = true;
        self.creating = true;
        // The writer waits for it, and a large one is filled with zeros: so not all that it will need.
        let wanted = self.next_allocation.min(ZERO_FILL_FROM);
        let size = wanted
            .min(segment_size(options))
            .max(SEGMENT_HEADER_SIZE + room);
        Some(Step::Create { base, size })
    }

    /// The segment that is appended to, if it has records and the first of them is as old as that.
    pub fn old_tail(&self, options: &LogOptions, now_ms: i64) -> Option<TailSegment> {
        let old =
            |tail: &TailSegment| tail.base < self.durable.next && is_old(tail, options, now_ms);
        self.tail.filter(old)
    }

    /// Ends the segment that is appended to although nothing comes, so that it can go when its time has come.
    /// Only when idle.
    pub fn roll(&mut self) -> Step<B> {
        assert!(
            self.is_idle(),
            "what waits would roll the segment by itself"
        );
        self.preparing = true;
        self.creating = true;
        self.rolling = true;
        Step::Create {
            base: self.durable.next,
            size: SEGMENT_HEADER_SIZE,
        }
    }

    /// Counts on nothing that was allocated ahead any more: gives the segment and where it may be cut, after
    /// which [`Appender::trimmed`] wants to be called. Only when idle.
    pub fn trim(&mut self) -> Option<(Offset, u64)> {
        assert!(self.is_idle(), "what waits would want space");
        let tail = self.tail.as_mut()?;
        // What comes meanwhile waits, and then asks for space.
        tail.allocated = tail.position;
        self.preparing = true;
        self.next_allocation = FIRST_ALLOCATION;
        Some((tail.base, tail.position))
    }

    /// What was allocated ahead is gone.
    pub fn trimmed(&mut self) {
        assert!(self.preparing);
        self.preparing = false;
        self.wants_space = false;
    }

    fn allocate(&mut self, tail: &TailSegment, room: u64, options: &LogOptions) -> Option<Step<B>> {
        if self.preparing {
            self.wants_space |= room > 0;
            return None;
        }
        self.preparing = true;
        let needed = tail.position + room;
        // A segment is rolled before it grows beyond its size, so more would be wasted.
        let wanted = (tail.allocated + self.next_allocation).min(segment_size(options));
        Some(Step::Allocate {
            segment: tail.base,
            size: wanted.max(needed),
        })
    }

    fn next_flush(&mut self, need: FlushNeed) -> Option<Step<B>> {
        let covered = |chunk: &TailChunk<B>| chunk.journaled.durable_next >= chunk.next;
        let written = |chunk: &TailChunk<B>| chunk.stage == Stage::Written;
        let needed = match need {
            FlushNeed::Nothing => false,
            FlushNeed::Acknowledgement => {
                // One that the journal covers holds up those behind it that it does not.
                let waits = |chunk: &TailChunk<B>| !covered(chunk) || chunk.payload_size == 0;
                self.chunks.iter().any(written) && self.chunks.iter().any(waits)
            }
            FlushNeed::Everything => true,
        };
        if self.flushing || !needed {
            return None;
        }
        let mut segments = BTreeSet::new();
        for chunk in &mut self.chunks {
            if chunk.stage == Stage::Written {
                // What completes from here on is not covered, though it may be on disk by chance.
                chunk.stage = Stage::Flushing;
                segments.extend(chunk.place.map(|(segment, _)| segment));
            }
        }
        self.flushing = !segments.is_empty();
        self.flushing.then_some(Step::Flush { segments })
    }

    /// Allocates before the writer runs into the end, once it used half of what there is: so what is
    /// allocated stays in proportion to what is written. Not beyond the size of a segment.
    fn next_preparation(&mut self, options: &LogOptions) -> Option<Step<B>> {
        let tail = self.tail?;
        let left = tail.allocated.saturating_sub(tail.position);
        let ahead = MAX_ALLOCATION.min(tail.allocated) / 2;
        if self.chunks.is_empty() || left >= ahead || tail.allocated >= segment_size(options) {
            return None;
        }
        self.allocate(&tail, 0, options)
    }

    /// How large the next segment is to begin, in bytes, if it should be made by now: half of this one is
    /// full, and that took little time.
    pub fn spare_wanted(&self, options: &LogOptions, now_ms: i64) -> Option<u64> {
        let tail = self.tail?;
        let size = MAX_ALLOCATION.min(segment_size(options));
        let grown = self.next_allocation >= size && tail.position >= segment_size(options) / 2;
        let age_ms = now_ms.saturating_sub(tail.first_append_ms);
        let fast = tail.first_append_ms > 0 && age_ms < SPARE_WITHIN_MS;
        let written = !self.chunks.is_empty() && !self.creating;
        (grown && fast && written).then_some(size)
    }

    /// A segment was made, and `size` bytes of it allocated.
    pub fn created(&mut self, base: Offset, size: u64) {
        assert!(self.preparing);
        self.preparing = false;
        self.creating = false;
        if std::mem::take(&mut self.rolling) {
            // A recovery may start there, and needs nothing before it any more.
            self.durable = Position {
                segment: base,
                position: SEGMENT_HEADER_SIZE,
                next: base,
            };
        } else {
            self.grow();
        }
        self.tail = Some(TailSegment {
            base,
            position: SEGMENT_HEADER_SIZE,
            allocated: size,
            first_append_ms: 0,
        });
    }

    /// A segment was allocated up to `size`.
    pub fn allocated(&mut self, segment: Offset, size: u64) {
        assert!(self.preparing);
        self.preparing = false;
        self.wants_space = false;
        self.grow();
        if let Some(tail) = self.tail.as_mut().filter(|tail| tail.base == segment) {
            tail.allocated = tail.allocated.max(size);
        }
    }

    /// The writer stands at the end of what is allocated, and waits for more.
    pub fn wants_space(&self) -> bool {
        self.wants_space
    }

    fn grow(&mut self) {
        self.next_allocation = MAX_ALLOCATION.min(self.next_allocation * ALLOCATION_GROWTH);
    }

    /// A preparation was refused; it will be asked for again.
    pub fn refused(&mut self) {
        assert!(self.preparing);
        self.preparing = false;
        self.wants_space = false;
        self.creating = false;
        self.rolling = false;
    }

    /// A write completed.
    pub fn written(&mut self, number: u64) {
        let at = usize::try_from(number - self.front).expect("an index");
        let chunk = &mut self.chunks[at];
        assert_eq!(chunk.stage, Stage::Writing, "a write completes once");
        chunk.stage = Stage::Written;
        self.in_flight -= 1;
    }

    /// The flush completed: what it covers is durable, and the contiguous prefix leaves.
    pub fn flushed(&mut self) -> Progress {
        assert!(self.flushing);
        self.flushing = false;
        for chunk in &mut self.chunks {
            if chunk.stage == Stage::Flushing {
                chunk.stage = Stage::Durable;
            }
        }
        let mut progress = Progress::default();
        let durable = |chunk: &&TailChunk<B>| chunk.stage == Stage::Durable;
        let durable = self.chunks.iter().take_while(durable).count();
        for chunk in self.chunks.drain(..durable) {
            let (segment, position) = chunk.place.expect("what is durable has a place");
            self.durable = Position {
                segment,
                position: position + chunk.disk_size as u64,
                next: chunk.next,
            };
            for boundary in &mut self.boundaries {
                if boundary.number == self.front {
                    boundary.place = Some(self.durable);
                }
            }
            self.front += 1;
            progress.payload_size += chunk.payload_size - chunk.journaled.durable_size;
        }
        self.acknowledge();
        progress
    }
}

fn segment_size(options: &LogOptions) -> u64 {
    options.segment_size.max(MIN_SEGMENT_SIZE)
}

/// The next chunk, which begins with offset `next`, goes to a new segment.
fn rolls(
    tail: &TailSegment,
    next: Offset,
    disk_size: u64,
    options: &LogOptions,
    now_ms: i64,
) -> bool {
    // One with a sealing chunk alone is empty too: the new one would have its name.
    let empty = tail.base == next;
    let full = tail.position + disk_size > segment_size(options);
    !empty && (full || is_old(tail, options, now_ms))
}

fn is_old(tail: &TailSegment, options: &LogOptions, now_ms: i64) -> bool {
    tail.first_append_ms > 0
        && now_ms.saturating_sub(tail.first_append_ms) >= options.segment_roll_ms
}
