//! Reads: from the tail in memory, from the cache, and from disk with read-ahead. What comes from
//! disk is verified before anyone sees it, and shared through the cache.

use std::{rc::Rc, sync::Arc};

use millstream_protocol::Offset;

use super::{
    Log, ReadError, Slice,
    format::{names, segment::SEGMENT_HEADER_SIZE},
    limits::{ENOUGH_TO_RETURN, MAX_READ_SIZE, READ_SIZE_BESIDE_APPENDS},
    reading::{Plan, ReadStream, Reading},
    run::{self, Expected, Run, RunEnd},
    slice,
};
use crate::io::{BLOCK_SIZE, Buffer, Disk, DiskFile, Io, Permit, Signal, TaskClass};

/// Segment, position in it, and the run that begins there.
pub(super) type Located<I> = (Offset, u64, Loaded<I>);

/// A run that was read, charged until its reader has taken what it wants: the cache may have given it
/// up already.
pub(super) struct Loaded<I: Io> {
    pub run: Rc<Run<<I as Disk>::Buffer>>,
    position: u64,
    _charge: Option<Permit>,
}

impl<I: Io> Log<I> {
    pub(super) async fn read_batches(
        &self,
        from: Offset,
        up_to: Offset,
        max_bytes: usize,
    ) -> Result<(Vec<Slice<<I as Disk>::Buffer>>, Offset), ReadError> {
        let mut slices = Vec::new();
        let mut size = 0;
        let mut at = from;
        self.check_range(from)?;
        while at < up_to.min(self.log_end()) && (slices.is_empty() || size < max_bytes) {
            let loaded = match self.find_in_memory(at) {
                Some(run) => {
                    self.storage.count(|count| count.cache_hits += 1);
                    Loaded::from_memory(run)
                }
                None if size >= ENOUGH_TO_RETURN => break,
                None => {
                    // Others may push out of the cache meanwhile what these hold.
                    slice::copy_little(&mut slices);
                    match self.load(at).await {
                        Ok(Some(loaded)) => loaded,
                        Ok(None) => continue,
                        Err(error) if slices.is_empty() => return Err(error),
                        // Whoever reads on from there is told.
                        Err(_) => break,
                    }
                }
            };
            let run = &loaded.run;
            self.read_ahead(run);
            let up_to = up_to.min(self.log_end());
            let (next, taken) = run.take(at, up_to, max_bytes.saturating_sub(size), &mut slices);
            if taken == 0 {
                break;
            }
            size += taken;
            at = next;
        }
        slice::copy_little(&mut slices);
        Ok((slices, at))
    }

    fn check_range(&self, offset: Offset) -> Result<(), ReadError> {
        let state = self.state.borrow();
        let (log_start, log_end) = (state.log_start, state.appender.log_end());
        if log_start <= offset && offset <= log_end {
            return Ok(());
        }
        Err(ReadError::OutOfRange {
            offset,
            log_start,
            log_end,
        })
    }

    /// The run that holds `offset`, if no disk is needed for it.
    fn find_in_memory(&self, offset: Offset) -> Option<Rc<Run<<I as Disk>::Buffer>>> {
        let tail = self.state.borrow().appender.find(offset);
        let found = tail.or_else(|| self.storage.cache.borrow_mut().find(self.key, offset));
        if found.is_some() || !self.state.borrow().appender.is_open_at(offset) {
            return found;
        }
        // What the journal made durable is in the cache; it was pushed out, and is needed again.
        self.state.borrow_mut().appender.seal_open();
        self.schedule();
        self.state.borrow().appender.find(offset)
    }

    /// Reads the run that holds `at` from disk. `None` if another reader did: look again.
    async fn load(&self, at: Offset) -> Result<Option<Loaded<I>>, ReadError> {
        let this = self.this();
        self.in_task(
            TaskClass::CatchUp,
            async move { this.load_shared(at).await },
        )
        .await
    }

    async fn load_shared(&self, at: Offset) -> Result<Option<Loaded<I>>, ReadError> {
        self.check_range(at)?;
        let under_way = self.with_reading(|reading| reading.under_way_for(at));
        if let Some((_, done)) = under_way {
            over(done).await;
            return Ok(None);
        }
        let plan = self.plan(at, None).await;
        let plan = plan.map_err(|error| self.unless_trimmed(at, error))?;
        if let Some(done) = self.with_reading(|reading| reading.under_way_with(&plan)) {
            over(done).await;
            return Ok(None);
        }
        // It may have come meanwhile.
        if let Some(run) = self.find_in_memory(at) {
            return Ok(Some(Loaded::from_memory(run)));
        }
        let done = self.with_reading(|reading| reading.begin(plan));
        self.load_planned(plan, done, None).await
    }

    /// `None` if the file was replaced by another meanwhile: look again.
    async fn load_planned(
        &self,
        plan: Plan,
        done: Rc<Signal>,
        charge: Option<Permit>,
    ) -> Result<Option<Loaded<I>>, ReadError> {
        let result = self.load_run(plan, charge).await.map(Some);
        self.with_reading(|reading| reading.end(&done));
        let replaced = self.with_reading(|reading| reading.era() != plan.era);
        if result.is_err() && replaced {
            return Ok(None);
        }
        result
            .map_err(|error| self.unless_trimmed(plan.at, self.unless_removed(plan.segment, error)))
    }

    /// A trim may have taken the file away meanwhile, and that is no fault of the disk.
    fn unless_trimmed(&self, at: Offset, error: ReadError) -> ReadError {
        self.check_range(at).err().unwrap_or(error)
    }

    /// Nor is it that a segment is gone since its log was removed.
    pub(super) fn unless_removed(&self, segment: Offset, error: ReadError) -> ReadError {
        match self.state.borrow().segments.0.contains_key(&segment) {
            true => error,
            false => ReadError::Closed,
        }
    }

    fn with_reading<T>(&self, change: impl FnOnce(&mut Reading) -> T) -> T {
        change(&mut self.state.borrow_mut().reading)
    }

    /// Where to read what holds `at`; `ahead` is the size of the read before, of a reader that will
    /// come there in order.
    async fn plan(&self, at: Offset, ahead: Option<usize>) -> Result<Plan, ReadError> {
        let segment = self.segment_holding(at)?;
        let (era, stream) = self.with_reading(|reading| (reading.era(), reading.stream_at(at)));
        let known = match stream {
            Some(stream) if stream.segment == segment => Some((at, stream.position)),
            _ if at == segment => Some((at, SEGMENT_HEADER_SIZE)),
            _ => None,
        };
        if known.is_none() || ahead.is_some() {
            self.ensure_index(segment).await?;
        }
        let state = self.state.borrow();
        let segment = state.segments.0.get(&segment).ok_or(ReadError::Closed)?;
        let chunk = known.unwrap_or_else(|| segment.place_of(at));
        let last = ahead.or(stream.map(|stream| stream.window));
        let size_max = match self.storage.is_written() {
            true => READ_SIZE_BESIDE_APPENDS,
            false => MAX_READ_SIZE,
        };
        Ok(Plan::new(at, segment, chunk, (last, size_max), era))
    }

    fn segment_holding(&self, at: Offset) -> Result<Offset, ReadError> {
        let state = self.state.borrow();
        let segment = state.segments.holding(at);
        segment.map(|segment| segment.base).ok_or(ReadError::Closed)
    }

    /// The run that holds `at`, read from disk, with its segment and its position there. A cut at the
    /// log's start asks for the record below it, which no reader may see and which is still there.
    pub(super) async fn locate(&self, at: Offset) -> Result<Located<I>, ReadError> {
        let plan = self.plan(at, None).await?;
        let loaded = self.load_run(plan, None).await?;
        Ok((plan.segment, loaded.position, loaded))
    }

    /// Reads forward from the planned position to the run that holds the wanted offset; gives the
    /// run and where it begins. `charge` is memory for the first read.
    async fn load_run(
        &self,
        plan: Plan,
        mut charge: Option<Permit>,
    ) -> Result<Loaded<I>, ReadError> {
        let (mut position, mut base, mut size) = (plan.position, plan.base, plan.size);
        loop {
            let left = self.bytes_left(plan.segment, position);
            let wanted = size.min(left);
            let charge = match charge.take() {
                Some(charge) => charge,
                None => self.storage.reading.take(wanted).await,
            };
            let buffer = self.read_segment(plan.segment, position, wanted).await?;
            let (mut chunks, end, next) = {
                let state = self.state.borrow();
                let mut expected = Expected {
                    id: self.id,
                    incarnations: &state.incarnations,
                    next: base,
                };
                let (chunks, end) = run::parse(buffer.bytes(), &mut expected);
                (chunks, end, expected.next)
            };
            if next <= plan.at {
                match end {
                    RunEnd::Needs(needed) if chunks.is_empty() && size < needed && size < left => {
                        size = needed;
                        continue;
                    }
                    RunEnd::Needs(_) if !chunks.is_empty() => {
                        position += chunks[chunks.len() - 1].end as u64;
                        (base, size) = (next, plan.window);
                        continue;
                    }
                    RunEnd::Needs(_) | RunEnd::NoChunk(_) => {
                        let last = chunks.last().map_or(0, |chunk| chunk.end as u64);
                        return Err(self.damaged(plan.segment, position + last, next, end));
                    }
                }
            }
            let limit = self.keep_below(plan.at);
            chunks.retain(|chunk| chunk.base < chunk.next && chunk.base < limit);
            let run = Rc::new(Run::new(
                buffer,
                chunks,
                plan.in_order.then_some(plan.window),
            ));
            if self.state.borrow().reading.era() == plan.era {
                self.remember(&plan, position, &run);
            }
            return Ok(Loaded {
                run,
                position,
                _charge: Some(charge),
            });
        }
    }

    /// What lies beyond is in memory already, or may still change.
    fn keep_below(&self, at: Offset) -> Offset {
        let durable = self.state.borrow().appender.durable().next;
        let after = Offset(at.0 + 1);
        let cached = self.storage.cache.borrow().next_base(self.key, after);
        cached
            .map_or(durable, |cached| cached.min(durable))
            .max(after)
    }

    fn remember(&self, plan: &Plan, position: u64, run: &Rc<Run<<I as Disk>::Buffer>>) {
        let end = run.chunks[run.chunks.len() - 1].end as u64;
        let stream = ReadStream {
            next: run.next(),
            segment: plan.segment,
            position: position + end,
            window: plan.window,
        };
        self.with_reading(|reading| reading.remember(stream));
        let mut cache = self.storage.cache.borrow_mut();
        cache.insert(self.key, Rc::clone(run), run.buffer.bytes().len());
    }

    /// Bytes from `position` to the end of the segment, in whole blocks, at least one.
    fn bytes_left(&self, segment: Offset, position: u64) -> usize {
        let state = self.state.borrow();
        let end = state
            .segments
            .0
            .get(&segment)
            .map_or(0, |segment| segment.end);
        let left = usize::try_from(end.saturating_sub(position)).unwrap_or(usize::MAX);
        left.max(BLOCK_SIZE)
    }

    async fn read_segment(
        &self,
        segment: Offset,
        position: u64,
        size: usize,
    ) -> Result<<I as Disk>::Buffer, ReadError> {
        let read = match self.file(segment).await {
            Ok(file) => file.read_at(position, size).await,
            Err(error) => Err(error),
        };
        let buffer = read.map_err(|error| ReadError::Io {
            path: names::segment_path(&self.dir, segment),
            error: Arc::new(error),
        })?;
        self.storage.count(|count| {
            count.cache_misses += 1;
            count.read_bytes += buffer.bytes().len() as u64;
        });
        Ok(buffer)
    }

    fn damaged(&self, segment: Offset, position: u64, below: Offset, end: RunEnd) -> ReadError {
        ReadError::Damaged {
            path: names::segment_path(&self.dir, segment),
            position,
            below,
            reason: match end {
                RunEnd::Needs(_) => "the segment ends before the offset".to_owned(),
                RunEnd::NoChunk(reason) => reason.to_string(),
            },
        }
    }

    /// A reader that goes in order took the first bytes of a run: read the next ones meanwhile.
    fn read_ahead(&self, run: &Rc<Run<<I as Disk>::Buffer>>) {
        let Some(window) = run.window.take() else {
            return;
        };
        let (this, next) = (self.this(), run.next());
        self.storage.io.spawn(TaskClass::CatchUp, async move {
            // Only an attempt: the reader itself meets the error when it gets there.
            let _ = this.begin_ahead(next, window).await;
        });
    }

    /// Begins the reads from `at` on. They run side by side: the index tells where each one ends.
    async fn begin_ahead(&self, mut at: Offset, window: usize) -> Result<(), ReadError> {
        let reads = match self.storage.is_written() {
            true => 1,
            false => self.storage.cache.borrow().reads_ahead(window),
        };
        for _ in 0..reads {
            if !self.is_behind(at) {
                break;
            }
            // Before the look at what is there: it may take its time.
            let plan = self.plan(at, Some(window)).await?;
            if let Some(run) = self.find_in_memory(at) {
                at = run.next();
                continue;
            }
            let under_way = self.with_reading(|reading| reading.under_way_for(at));
            if under_way.is_none() {
                if let Some(done) = self.with_reading(|reading| reading.under_way_with(&plan)) {
                    over(done).await;
                    continue;
                }
                // Who waits for memory is there already; this one may not come.
                let Some(charge) = self.storage.reading.try_take(plan.size) else {
                    break;
                };
                self.begin_one(plan, charge);
            }
            match under_way.map_or(plan, |(plan, _)| plan).until {
                Some(until) => at = until,
                None => break,
            }
        }
        Ok(())
    }

    fn begin_one(&self, plan: Plan, charge: Permit) {
        let this = self.this();
        let done = self.with_reading(|reading| reading.begin(plan));
        self.storage.io.spawn(TaskClass::CatchUp, async move {
            let _ = this.load_planned(plan, done, Some(charge)).await;
        });
    }

    fn is_behind(&self, offset: Offset) -> bool {
        offset < self.state.borrow().appender.durable().next
    }

    pub(super) async fn find_batch_by_time(
        &self,
        timestamp_ms: i64,
    ) -> Result<Option<(Offset, i64)>, ReadError> {
        let mut at = self.log_start();
        while at < self.log_end() {
            at = at.max(self.log_start());
            let Some(from) = self.skip_by_time(at, timestamp_ms).await? else {
                return Ok(None);
            };
            at = from;
            let loaded = match self.find_in_memory(at) {
                Some(run) => Loaded::from_memory(run),
                None => match self.load(at).await? {
                    Some(loaded) => loaded,
                    None => continue,
                },
            };
            let run = &loaded.run;
            for chunk in run.chunks.iter().filter(|chunk| chunk.next > at) {
                let payload = &run.buffer.bytes()[chunk.payload.clone()];
                let mut batches = run::batches(payload).map(|(header, _)| header);
                let found = batches.find(|header| {
                    header.record_count > 0
                        && header.next_offset() > at
                        && header.next_offset() <= chunk.next
                        && header.max_timestamp_ms >= timestamp_ms
                });
                if let Some(header) = found {
                    return Ok(Some((header.base_offset, header.max_timestamp_ms)));
                }
            }
            at = run.next();
        }
        Ok(None)
    }

    /// The first offset from `at` on that an index does not rule out; `None` beyond the end.
    async fn skip_by_time(
        &self,
        mut at: Offset,
        timestamp_ms: i64,
    ) -> Result<Option<Offset>, ReadError> {
        loop {
            let segment = {
                let state = self.state.borrow();
                match state.segments.holding(at) {
                    Some(segment) if segment.next <= at => return Ok(Some(at)),
                    Some(segment) if segment.max_timestamp_ms < timestamp_ms => {
                        at = segment.next;
                        if at >= state.appender.log_end() {
                            return Ok(None);
                        }
                        continue;
                    }
                    Some(segment) => segment.base,
                    None => return Ok(Some(at)),
                }
            };
            self.ensure_index(segment).await?;
            let state = self.state.borrow();
            let segment = state.segments.0.get(&segment).ok_or(ReadError::Closed)?;
            let index = segment.index.as_ref();
            let entry = index.and_then(|index| index.find_time(timestamp_ms));
            return Ok(Some(entry.map_or(at, |entry| at.max(Offset(entry.offset)))));
        }
    }
}

impl<I: Io> Loaded<I> {
    fn from_memory(run: Rc<Run<<I as Disk>::Buffer>>) -> Self {
        Self {
            run,
            position: 0,
            _charge: None,
        }
    }
}

/// Waits for the end of a read that somebody else does.
pub(super) async fn over(done: Rc<Signal>) {
    let ticket = done.ticket();
    done.raised_since(ticket).await;
}
