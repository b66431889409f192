//! The journal of a shard: one write and one flush for what many logs appended.
//!
//! Logs with little to write put themselves on a list. While a frame is on its way to disk the list
//! grows; the next frame takes all of it, and does not wait for the one before if there is much. Frames become
//! durable in order: what follows a torn one is not believed. When a frame is durable, so is what it holds, and readers at
//! the tail get it from the frame's own buffer. The logs write their segments later, in larger chunks and
//! without a flush; `ring` frees what they have made durable there. Without room, logs wait for what is on
//! its way; if none is to be expected they go to their segments directly.

mod correction;
mod files;
mod frames;
mod logs;
mod replay;
mod ring;
mod torn;

use std::{
    cell::{Cell, RefCell},
    io,
    path::PathBuf,
    rc::Rc,
    time::Duration,
};

use millstream_protocol::Offset;
use uuid::Uuid;

pub(super) use self::replay::{Gap, ReplayedEntry, SpoiledEntry, Tail};
use self::ring::{Place, Ring};
pub use self::{replay::Replay, torn::TornFrame};
use super::{
    Log, StorageCounters,
    format::{
        chunk::CHUNK_HEADER_SIZE,
        journal::{FRAME_HEADER_SIZE, FrameHeader, entry_size},
    },
    limits::{DIRECT_SIZE, MAX_FRAME_SIZE, MAX_FRAMES_IN_FLIGHT, NEXT_FRAME_SIZE, SEAL_AFTER_MS},
    run::ChunkView,
};
use crate::io::{BLOCK_SIZE, Buffer, Disk, DiskFile, Io, Signal, TaskClass, align_up};

/// What a journal is told at its start.
#[derive(Clone, Debug)]
pub(super) struct JournalConfig {
    pub data_dir: PathBuf,
    /// Size of each of its files, in bytes.
    pub file_size: u64,
    /// Files at most.
    pub file_count_max: usize,
}

/// See the module.
pub(super) struct Journal<I: Io> {
    io: I,
    config: JournalConfig,
    id: Uuid,
    counters: Rc<RefCell<StorageCounters>>,
    ring: RefCell<Ring<I>>,
    /// Logs that have something for the next frame.
    waiting: RefCell<Vec<Rc<Log<I>>>>,
    /// What they had for it when they came, in bytes.
    waiting_size: Cell<usize>,
    committing: Cell<bool>,
    in_flight: Cell<usize>,
    /// Number of the last frame that was begun, and of the last one that is durable.
    sequence: Cell<u64>,
    flushed: Cell<u64>,
    /// The last durable frame that a later one names.
    sealed: Cell<u64>,
    seal_timer: Cell<bool>,
    stopped: Cell<bool>,
    /// A frame could not be written.
    failed: Cell<bool>,
    disk_full: Cell<bool>,
    /// A log failed: what the journal holds of it stays, so room may never come.
    stuck: Cell<bool>,
    /// Raised when a frame is durable, or a log needs the journal less than before.
    changed: Signal,
}

/// A frame on its way.
struct Frame<I: Io> {
    sequence: u64,
    file: <I as Disk>::File,
    path: PathBuf,
    position: u64,
    buffer: Rc<<I as Disk>::Buffer>,
    parts: Vec<Part<I>>,
    /// What it says is needed, and durable.
    oldest: u64,
    flushed: u64,
}

/// One log's part of a frame.
struct Part<I: Io> {
    log: Rc<Log<I>>,
    chunk: u64,
    through_size: usize,
    next: Offset,
    view: ChunkView,
}

impl<I: Io> Part<I> {
    /// Bytes of its entry.
    fn size(&self) -> usize {
        self.view.end - self.view.payload.start + CHUNK_HEADER_SIZE
    }
}

impl<I: Io> Journal<I> {
    pub fn new(
        io: I,
        config: JournalConfig,
        replay: &Replay,
        counters: Rc<RefCell<StorageCounters>>,
    ) -> Rc<Self> {
        Rc::new(Self {
            id: replay.new_journal(|| io.random_u64()),
            io,
            config,
            counters,
            ring: RefCell::new(Ring::default()),
            waiting: RefCell::default(),
            waiting_size: Cell::new(0),
            in_flight: Cell::new(0),
            committing: Cell::new(false),
            sequence: Cell::new(0),
            flushed: Cell::new(0),
            sealed: Cell::new(0),
            seal_timer: Cell::new(false),
            stopped: Cell::new(false),
            failed: Cell::new(false),
            disk_full: Cell::new(false),
            stuck: Cell::new(false),
            changed: Signal::default(),
        })
    }

    /// It takes what logs append: at once, or when the room comes that is on its way.
    pub fn is_ready(&self) -> bool {
        if self.stopped.get() {
            return false;
        }
        let ring = self.ring.borrow();
        ring.has_room(self.frame_size_max())
            || ring.expects_room() && !self.disk_full.get() && !self.stuck.get()
    }

    /// The disk is full, or is not any more: what waits for room need not wait for that.
    pub fn set_disk_full(&self, full: bool) {
        if self.disk_full.replace(full) != full {
            self.changed.raise();
        }
    }

    /// A frame can be written now.
    pub fn has_room(&self) -> bool {
        !self.stopped.get() && self.ring.borrow().has_room(self.frame_size_max())
    }

    fn frame_size_max(&self) -> usize {
        let part = usize::try_from(self.config.file_size / 4).unwrap_or(usize::MAX);
        // Any entry fits, or a log would be sent here again and again.
        MAX_FRAME_SIZE.min(part).max(DIRECT_SIZE + BLOCK_SIZE)
    }

    /// A log has something for the next frame.
    pub fn enqueue(self: &Rc<Self>, log: Rc<Log<I>>) {
        self.waiting_size
            .set(self.waiting_size.get() + log.pending_size());
        self.waiting.borrow_mut().push(log);
        self.wake();
        if self.in_flight.get() > 0 && self.may_begin() {
            self.changed.raise();
        }
    }

    /// A frame may be begun beside those that are on their way.
    fn may_begin(&self) -> bool {
        match self.in_flight.get() {
            0 => true,
            in_flight => {
                let much = NEXT_FRAME_SIZE.min(self.frame_size_max() / 4);
                in_flight < MAX_FRAMES_IN_FLIGHT && self.waiting_size.get() >= much
            }
        }
    }

    fn wake(self: &Rc<Self>) {
        if !self.committing.replace(true) {
            let this = Rc::clone(self);
            self.io
                .spawn(TaskClass::Foreground, async move { this.commit().await });
        }
    }

    /// A log failed, and may need its frames until the next start.
    pub fn log_failed(&self) {
        self.stuck.set(true);
        self.changed.raise();
    }

    /// A log made something durable elsewhere, or has ended.
    pub fn notify(&self) {
        self.changed.raise();
    }

    /// Frame after frame, until nobody waits.
    async fn commit(self: Rc<Self>) {
        loop {
            if !self.has_room() && self.ring.borrow().has_freed() {
                self.announce().await;
            }
            if self.waiting.borrow().is_empty() {
                break;
            }
            self.keep_ahead();
            self.make_way();
            let decided = || self.has_room() || !self.is_ready() || self.ring.borrow().has_freed();
            self.changed
                .wait_until(|| decided() && self.may_begin())
                .await;
            if !self.has_room() && self.ring.borrow().has_freed() && !self.stopped.get() {
                continue;
            }
            let Some(frame) = self.build() else {
                continue;
            };
            let this = Rc::clone(&self);
            self.io.spawn(TaskClass::Foreground, async move {
                this.write(frame).await;
                this.seal_later();
            });
        }
        self.keep_ahead();
        self.committing.set(false);
        self.seal_later();
    }

    /// Without room, who only waits to leave an older file flushes its segment instead: that is where the
    /// room comes from.
    fn make_way(&self) {
        if self.has_room() {
            return;
        }
        let (leaving, waiting) = {
            let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
            let leaves = |log: &Rc<Log<I>>| log.state.borrow().appender.leaves_journal();
            waiting.into_iter().partition::<Vec<_>, _>(leaves)
        };
        self.put_back(waiting);
        for log in leaving {
            log.left_journal();
            log.flush_to_segment();
        }
    }

    /// Those who wait still.
    fn put_back(&self, waiting: Vec<Rc<Log<I>>>) {
        let size = waiting.iter().map(|log| log.pending_size()).sum();
        self.waiting_size.set(size);
        *self.waiting.borrow_mut() = waiting;
    }

    /// Makes a frame of what waits. Without room those who wait are told to go elsewhere.
    fn build(&self) -> Option<Frame<I>> {
        let mut waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        let mut size = FRAME_HEADER_SIZE;
        let mut count = 0;
        for log in &waiting {
            let with_it = size + entry_size(log.pending_size());
            if count > 0 && with_it > self.frame_size_max() {
                break;
            }
            size = with_it;
            count += 1;
        }
        self.put_back(waiting.split_off(count));
        let Some(place) = self.place(align_up(size)) else {
            for log in waiting {
                log.left_journal();
            }
            return None;
        };
        self.fill(waiting, size, place)
    }

    fn fill(&self, logs: Vec<Rc<Log<I>>>, size: usize, place: Place<I>) -> Option<Frame<I>> {
        let sequence = self.sequence.get() + 1;
        let mut buffer = self.io.buffer(align_up(size));
        let mut parts = Vec::with_capacity(logs.len());
        let mut at = FRAME_HEADER_SIZE;
        for log in logs {
            let part = log.hand_over(sequence, &mut buffer.bytes_mut()[at..]);
            let Some((chunk, through_size, header)) = part else {
                log.left_journal();
                continue;
            };
            let end = at + entry_size(header.payload_size as usize);
            let mut view = ChunkView::new(&header, at, header.next);
            view.end = end;
            buffer.bytes_mut()[view.payload.end..end].fill(0);
            self.ring.borrow_mut().used_by(log.key, &log);
            parts.push(Part {
                log,
                chunk,
                through_size,
                next: header.next,
                view,
            });
            at = end;
        }
        if parts.is_empty() {
            return None;
        }
        Some(self.sealed_frame(sequence, buffer, at, parts, place))
    }

    fn sealed_frame(
        &self,
        sequence: u64,
        mut buffer: <I as Disk>::Buffer,
        size: usize,
        parts: Vec<Part<I>>,
        place: Place<I>,
    ) -> Frame<I> {
        let header = FrameHeader {
            size: u32::try_from(size).expect("a frame is below 4 GiB"),
            journal: self.id,
            sequence,
            flushed: self.flushed.get(),
            oldest: self.ring.borrow().oldest().min(sequence),
            entry_count: u32::try_from(parts.len()).expect("few"),
        };
        buffer.shorten(header.disk_size());
        buffer.bytes_mut()[size..].fill(0);
        header.seal(&mut buffer.bytes_mut()[..size]);
        self.sequence.set(sequence);
        self.in_flight.set(self.in_flight.get() + 1);
        self.ring
            .borrow_mut()
            .placed(header.disk_size() as u64, sequence);
        let (file, path, position) = place;
        Frame {
            sequence,
            file,
            path,
            position,
            buffer: Rc::new(buffer),
            parts,
            oldest: header.oldest,
            flushed: header.flushed,
        }
    }

    /// Another frame may be on its way.
    async fn slot_free(&self) {
        let free = || self.in_flight.get() < MAX_FRAMES_IN_FLIGHT;
        self.changed.wait_until(free).await;
    }

    /// Makes a frame durable, then tells the logs.
    async fn write(&self, frame: Frame<I>) {
        let Frame {
            sequence,
            file,
            path,
            position,
            buffer,
            parts,
            oldest,
            flushed,
        } = frame;
        let size = buffer.bytes().len() as u64;
        let written = file.write_durably_at(Rc::clone(&buffer), position).await;
        let in_turn = || self.flushed.get() + 1 == sequence || self.failed.get();
        self.changed.wait_until(in_turn).await;
        self.in_flight.set(self.in_flight.get() - 1);
        // Nothing is believed that follows a frame that failed.
        let follows = match self.failed.get() {
            true => Err(io::Error::other("a frame before it could not be written")),
            false => Ok(()),
        };
        if let Err(error) = follows.and(written) {
            return self.fail(&path, &error, parts);
        }
        {
            let counters = &mut *self.counters.borrow_mut();
            counters.frames_written += 1;
            counters.journal_bytes += size;
            counters.flushes += 1;
        }
        self.sealed.set(flushed);
        self.flushed.set(sequence);
        self.ring.borrow_mut().announced(oldest);
        let used: usize = parts.iter().map(|part| part.size()).sum();
        for part in parts {
            // Any one of them keeps the whole frame in memory, so together they are charged all of it.
            let charge = (buffer.bytes().len() * part.size()).div_ceil(used);
            part.log.journaled(&part, sequence, &buffer, charge);
        }
        self.changed.raise();
    }

    /// Nothing more goes into this journal; what is in it stays needed and is kept. The logs whose
    /// batches it was to make durable are told that they never will be.
    fn fail(&self, path: &std::path::Path, error: &io::Error, parts: Vec<Part<I>>) {
        self.stopped.set(true);
        if !self.failed.replace(true) {
            self.counters.borrow_mut().journal_failures += 1;
            tracing::error!(path = %path.display(), %error, "the journal failed; logs go to their segments");
        }
        for part in parts {
            let error = io::Error::new(error.kind(), error.to_string());
            part.log.fail("writing", path, error);
        }
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        for log in waiting {
            log.left_journal();
        }
        self.changed.raise();
    }

    /// When nothing comes for a while, an empty frame says that the last one was durable: so only a
    /// frame that was being written when the process died can be taken for torn.
    fn seal_later(self: &Rc<Self>) {
        if self.seal_timer.get() || self.sealed.get() == self.flushed.get() {
            return;
        }
        self.seal_timer.set(true);
        let this = Rc::clone(self);
        self.io.spawn(TaskClass::Background, async move {
            let pause = Duration::from_millis(SEAL_AFTER_MS);
            loop {
                let before = this.sequence.get();
                this.io.sleep(pause).await;
                if this.sequence.get() == before {
                    break;
                }
            }
            this.seal_timer.set(false);
            if !this.committing.replace(true) {
                this.seal().await;
                this.commit().await;
            }
        });
    }

    /// Says in the room that is left for it which files are free.
    async fn announce(&self) {
        self.slot_free().await;
        if self.has_room() || !self.ring.borrow().has_freed() {
            return;
        }
        let place = self.ring.borrow().reserved_place();
        match place.filter(|_| !self.stopped.get()) {
            Some(place) => self.write_empty(place).await,
            // The room was taken for this before, so a durable frame in it has said so.
            None => self.ring.borrow_mut().announced(u64::MAX),
        }
    }

    async fn seal(&self) {
        self.slot_free().await;
        // Without room the next frame will say it.
        if let Some(place) = self.place(align_up(FRAME_HEADER_SIZE)) {
            self.write_empty(place).await;
            self.sealed.set(self.flushed.get());
        }
    }

    /// The place of the next frame.
    fn place(&self, size: usize) -> Option<Place<I>> {
        if self.stopped.get() {
            return None;
        }
        let sequence = self.sequence.get() + 1;
        self.ring.borrow_mut().place(size as u64, sequence)
    }

    async fn write_empty(&self, place: Place<I>) {
        let sequence = self.sequence.get() + 1;
        let buffer = self.io.buffer(align_up(FRAME_HEADER_SIZE));
        let frame = self.sealed_frame(sequence, buffer, FRAME_HEADER_SIZE, Vec::new(), place);
        self.write(frame).await;
    }

    /// Takes nothing more; what is in it stays.
    pub fn stop(&self) {
        self.stopped.set(true);
    }
}
