//! Does what the appender decides: each write, flush and preparation in a task of its own, each
//! completion followed by another look at what comes next.

use std::{collections::BTreeSet, io, path::Path, rc::Rc, sync::Arc, time::Duration};

use millstream_protocol::Offset;

use super::{
    Durability, Log, LogError,
    appender::{FlushNeed, Lane, Step},
    format::names,
    limits::{
        BUFFERED_FLUSH_MS, CHECKPOINT_INTERVAL, DESCRIPTOR_ATTEMPTS, DESCRIPTOR_RETRY_MS,
        DIRECT_SIZE, SEAL_AFTER_MS,
    },
    log::State,
    preparation::lacks_descriptors,
    run::Run,
    wait::until,
};
use crate::io::{Buffer, Disk, DiskFile, Io, OpenMode, TaskClass};

impl<I: Io> Log<I> {
    /// Has the writer look for work soon, once for all appends that come until then.
    pub(super) fn schedule(&self) {
        if self.scheduled.replace(true) {
            return;
        }
        let this = self.this();
        self.storage.io.spawn(TaskClass::Foreground, async move {
            this.scheduled.set(false);
            this.pump();
        });
    }

    /// Starts all there is to do, and tells the listener how far things are.
    pub(super) fn pump(&self) {
        while let Some(step) = self.next_step() {
            self.start(step);
        }
        self.enter_journal();
        self.start_timers();
        self.finish_rolled();
        self.prepare_spare();
        self.notify();
        self.changed.raise();
    }

    fn next_step(&self) -> Option<Step<<I as Disk>::Buffer>> {
        let state = &mut *self.state.borrow_mut();
        // A log that closes on a full disk tries no more: each refusal would ask for the next.
        let given_up = state.closing && state.disk_full.is_some();
        if state.failed.is_some() || state.damage.is_some() || given_up {
            return None;
        }
        let lane = self.lane(state);
        let room = lane == Lane::Journal && self.storage.journal.has_room();
        if !room && state.appender.leaves_journal() {
            // It would wait for the room that it is to make.
            state.appender.seal_open();
        }
        let through = state.flush_through.max(state.appender.flush_wanted());
        let behind = state.appender.durable().next < through;
        let need = match state.options.durability {
            _ if behind || state.flush_due => FlushNeed::Everything,
            Durability::Flushed => FlushNeed::Acknowledgement,
            Durability::Buffered => FlushNeed::Nothing,
        };
        let now_ms = self.storage.io.wall_ms();
        let step = state
            .appender
            .next_step(&state.options, now_ms, lane, need)?;
        for placed in state.appender.take_placed() {
            state.segments.placed(&placed);
        }
        if let Step::Flush { .. } = step {
            state.flush_due = false;
        }
        Some(step)
    }

    /// Which way what was appended goes now.
    fn lane(&self, state: &State<<I as Disk>::Buffer>) -> Lane {
        let flushed = state.options.durability == Durability::Flushed;
        let little = state.appender.pending_size() < DIRECT_SIZE;
        if flushed && little && self.storage.journal.is_ready() {
            Lane::Journal
        } else {
            Lane::Direct
        }
    }

    /// Puts the log on the journal's list if it has something for it.
    fn enter_journal(&self) {
        let enters = {
            let state = &mut *self.state.borrow_mut();
            let stopped = state.failed.is_some() || state.damage.is_some();
            let enters = !stopped
                && !state.in_journal_queue
                && state.appender.wants_journal()
                && self.lane(state) == Lane::Journal;
            state.in_journal_queue |= enters;
            enters
        };
        if enters {
            self.storage.journal.enqueue(self.this());
        }
    }

    /// Rolls the segment that is appended to if its records are older than its roll age: without this the
    /// last records of a log that gets no more would never expire. To be called now and then; what is in the
    /// journal alone goes to the segment first, and the roll comes with a later call.
    pub fn roll_old(&self) {
        let step = {
            let state = &mut *self.state.borrow_mut();
            if state.writable().is_err() || state.cutting {
                return;
            }
            let now_ms = self.storage.io.wall_ms();
            let roll_ms = state.options.segment_roll_ms;
            let (_, unplaced_since_ms) = state.appender.unplaced();
            let old_in_memory = unplaced_since_ms
                .is_some_and(|since_ms| now_ms.saturating_sub(since_ms) >= roll_ms);
            // Records that were lost below the log's start leave a gap that only an append may close.
            let whole = state.segments.last().map(|segment| segment.next)
                == Some(state.appender.durable().next);
            let old_tail = state.appender.old_tail(&state.options, now_ms).is_some() && whole;
            if !old_tail && !old_in_memory {
                return;
            }
            let idle = state.appender.is_idle();
            idle.then(|| state.appender.roll())
        };
        match step {
            Some(step) => self.start(step),
            None => self.flush_to_segment(),
        }
    }

    fn start(&self, step: Step<<I as Disk>::Buffer>) {
        let this = self.this();
        self.running.set(self.running.get() + 1);
        self.storage.io.spawn(TaskClass::Foreground, async move {
            match step {
                Step::Write {
                    number,
                    segment,
                    position,
                    run,
                } => this.write(number, segment, position, run).await,
                Step::Flush { segments } => this.flush(segments).await,
                Step::Create { base, size } => this.create(base, size).await,
                Step::Allocate { segment, size } => this.allocate(segment, size).await,
            }
            this.task_done();
        });
    }

    pub(super) fn task_done(&self) {
        self.running.set(self.running.get() - 1);
        self.changed.raise();
    }

    async fn write(
        &self,
        number: u64,
        segment: Offset,
        position: u64,
        run: Rc<Run<<I as Disk>::Buffer>>,
    ) {
        if run.next() > run.base() {
            let size = run.buffer.bytes().len();
            let mut cache = self.storage.cache.borrow_mut();
            cache.insert(self.key, Rc::clone(&run), size);
        }
        let buffer = Rc::clone(&run.buffer);
        let size = buffer.bytes().len() as u64;
        let written = match self.file(segment).await {
            Ok(file) => file.write_at(buffer, position).await,
            Err(error) => Err(error),
        };
        if let Err(error) = written {
            return self.fail("writing", &names::segment_path(&self.dir, segment), error);
        }
        self.storage.count(|count| {
            count.chunks_written += 1;
            count.written_bytes += size;
        });
        if self.state.borrow().failed.is_some() {
            return;
        }
        self.state.borrow_mut().appender.written(number);
        self.pump();
    }

    async fn flush(&self, segments: BTreeSet<Offset>) {
        for segment in &segments {
            let flushed = match self.file(*segment).await {
                Ok(file) => file.sync_data().await,
                Err(error) => Err(error),
            };
            if let Err(error) = flushed {
                return self.fail("flushing", &names::segment_path(&self.dir, *segment), error);
            }
            self.storage.count(|count| count.flushes += 1);
        }
        if self.state.borrow().failed.is_some() {
            return;
        }
        let progress = self.state.borrow_mut().appender.flushed();
        self.storage.free_room(progress.payload_size);
        self.storage.journal.notify();
        self.pump();
    }

    /// Segments that nothing will be written to any more give back what was allocated ahead, and
    /// get their index file.
    fn finish_rolled(&self) {
        let done = {
            let state = &mut *self.state.borrow_mut();
            if state.rolled.is_empty() || state.writable().is_err() {
                return;
            }
            let in_use = state.appender.segments_in_use();
            let done = |base: &mut Offset| !in_use.contains(base);
            state.rolled.extract_if(.., done).collect::<Vec<_>>()
        };
        for base in done {
            let this = self.this();
            // A truncation may make the segment the tail again, and waits for this.
            self.running.set(self.running.get() + 1);
            self.storage.io.spawn(TaskClass::Background, async move {
                this.finish_segment(base).await;
                this.task_done();
            });
        }
    }

    /// The open file of a segment. Waits a while for a descriptor.
    pub(super) async fn file(&self, segment: Offset) -> io::Result<<I as Disk>::File> {
        loop {
            // A file whose name is being given to another stays the segment until that is durable.
            let replacing = self.replacing.borrow().clone();
            if let Some((_, file)) = replacing.filter(|(base, _)| *base == segment) {
                return Ok(file);
            }
            let open = self.storage.files.borrow_mut().find(self.key, segment);
            if let Some(file) = open {
                return Ok(file);
            }
            let era = self.state.borrow().reading.era();
            let file = self.open_segment(segment).await?;
            // Which of the two was opened cannot be told if one took the other's place meanwhile.
            let replacing = self.replacing.borrow();
            let other = replacing.as_ref().is_none_or(|(base, _)| *base != segment);
            let state = self.state.borrow();
            if other && state.reading.era() == era {
                // One that was removed meanwhile must not keep its space.
                if state.segments.0.contains_key(&segment) {
                    let mut files = self.storage.files.borrow_mut();
                    files.insert(self.key, segment, file.clone());
                }
                return Ok(file);
            }
        }
    }

    async fn open_segment(&self, segment: Offset) -> io::Result<<I as Disk>::File> {
        let path = names::segment_path(&self.dir, segment);
        let io = &self.storage.io;
        let mut opened = io.open(&path, OpenMode::Write).await;
        for _ in 1..DESCRIPTOR_ATTEMPTS {
            if !opened.as_ref().is_err_and(lacks_descriptors) {
                break;
            }
            io.sleep(Duration::from_millis(DESCRIPTOR_RETRY_MS)).await;
            opened = io.open(&path, OpenMode::Write).await;
        }
        opened
    }

    /// Latches: nothing that is not durable yet ever will be.
    pub(super) fn fail(&self, operation: &'static str, path: &Path, error: io::Error) {
        let error = LogError::Failed {
            operation,
            path: path.to_owned(),
            error: Arc::new(error),
        };
        let abandoned = {
            let state = &mut *self.state.borrow_mut();
            if state.failed.is_some() {
                return;
            }
            state.failed = Some(error.clone());
            state.appender.abandon()
        };
        self.storage.free_room(abandoned);
        self.storage.journal.log_failed();
        self.changed.raise();
        self.listener.failed(&error);
    }

    fn notify(&self) {
        let (persisted, wanted) = {
            let state = &mut *self.state.borrow_mut();
            let end = match state.options.durability {
                Durability::Flushed => state.appender.acknowledged(),
                Durability::Buffered if state.failed.is_none() => state.appender.log_end(),
                Durability::Buffered => state.persisted,
            };
            let persisted = (end > state.persisted).then_some(end);
            state.persisted = state.persisted.max(end);
            let due = state.appended_since_checkpoint >= CHECKPOINT_INTERVAL;
            if due {
                state.appended_since_checkpoint = 0;
            }
            let wanted = std::mem::take(&mut state.checkpoint_wanted) || due;
            (persisted, wanted && !state.closing)
        };
        if let Some(up_to) = persisted {
            self.listener.persisted(up_to);
        }
        if wanted {
            self.listener.checkpoint_wanted();
        }
    }

    fn start_timers(&self) {
        let (flush, seal) = {
            let state = &mut *self.state.borrow_mut();
            let stopped = state.failed.is_some() || state.damage.is_some();
            let open = !stopped && !state.closing && !state.cutting;
            let idle = state.appender.is_idle();
            let buffered = state.options.durability == Durability::Buffered;
            let flush = open && buffered && !idle && !state.flush_timer;
            let seal = open && idle && state.appender.wants_seal() && !state.seal_timer;
            state.flush_timer |= flush;
            state.seal_timer |= seal;
            (flush, seal)
        };
        if flush {
            let this = self.this();
            self.storage.io.spawn(TaskClass::Foreground, async move {
                let pause = Duration::from_millis(BUFFERED_FLUSH_MS);
                this.storage.io.sleep(pause).await;
                {
                    let state = &mut *this.state.borrow_mut();
                    state.flush_timer = false;
                    state.flush_due = true;
                }
                this.pump();
            });
        }
        if seal {
            let this = self.this();
            self.storage.io.spawn(TaskClass::Background, async move {
                this.seal_when_idle().await;
            });
        }
    }

    /// Waits for a pause in the appends, then has a sealing chunk carry the durable end to disk.
    async fn seal_when_idle(&self) {
        let pause = Duration::from_millis(SEAL_AFTER_MS);
        let io = &self.storage.io;
        loop {
            let last = self.state.borrow().last_append;
            if io.now().since(last) >= pause {
                break;
            }
            io.sleep_until(last + pause).await;
        }
        // A truncation under way counts on nothing being written.
        let held = self.slots.hold().await;
        {
            let state = &mut *self.state.borrow_mut();
            state.seal_timer = false;
            if state.failed.is_none() && !state.closing && !state.cutting {
                let now_ms = io.wall_ms();
                if state.appender.seal_log(now_ms) {
                    // A buffered log would flush it later all the same; nothing waits for it.
                    state.flush_due = true;
                }
            }
        }
        drop(held);
        self.pump();
    }

    /// Has everything below `offset` flushed.
    pub(super) async fn flush_through(&self, offset: Offset) -> Result<(), LogError> {
        {
            let state = &mut *self.state.borrow_mut();
            state.flush_through = state.flush_through.max(offset);
            state.appender.seal_below(offset);
        }
        self.schedule();
        until(&self.changed, || {
            let state = self.state.borrow();
            if state.appender.durable().next >= offset {
                return Some(Ok(()));
            }
            state.stuck().map(Err)
        })
        .await
    }
}
