//! What must be there before a chunk can be written: a segment with a durable name, and space in it.

use std::{cell::Cell, io, ops::Range, path::Path, rc::Rc, time::Duration};

use millstream_protocol::Offset;
use rustix::io::Errno;

use super::{
    Log, LogError,
    format::{
        names,
        segment::{SEGMENT_HEADER_SIZE, SegmentHeader},
    },
    limits::{
        DESCRIPTOR_RETRY_MS, DISK_FULL_RETRY_MS, MAX_ALLOCATION, TRIM_AFTER_MS, ZERO_FILL_FROM,
        ZERO_FILL_WRITE,
    },
    segments::Segment,
    spare::Spare,
};
use crate::io::{BLOCK_SIZE, Buffer, Disk, DiskFile, Io, OpenMode, Signal, TaskClass};

/// Whether a log of the shard writes zeros ahead of its writer.
#[derive(Default)]
pub(super) struct Filling {
    taken: Cell<bool>,
    /// Raised with each write of the one that does, and at its end.
    changed: Signal,
}

/// A log's turn, until it is dropped.
pub(super) struct Turn<'a>(&'a Filling);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.taken.set(false);
        self.0.changed.raise();
    }
}

impl Filling {
    /// Waits for a turn.
    pub(super) async fn turn(&self) -> Turn<'_> {
        self.changed.wait_until(|| !self.taken.get()).await;
        self.taken.set(true);
        Turn(self)
    }
}

impl<I: Io> Log<I> {
    /// Makes a segment, durably: its name before anything in it is acknowledged.
    pub(super) async fn create(&self, base: Offset, size: u64) {
        let path = names::segment_path(&self.dir, base);
        let size = Cell::new(size);
        let made = self.retry_when_full(&path, async || {
            if let Some(ready) = self.use_spare(base, size.get()).await? {
                size.set(ready);
                return Ok(());
            }
            let size = size.get();
            self.make_segment(base, size).await?;
            // The writer waits for this, so not if it had to wait for others too.
            if self.storage.filling.taken.get() {
                return Ok(());
            }
            let file = self.file(base).await?;
            self.zero_fill(&file, SEGMENT_HEADER_SIZE..size).await
        });
        let made = made.await;
        let size = size.get();
        match made {
            Ok(true) => {
                if matches!(*self.spare.borrow(), Spare::Refused) {
                    *self.spare.borrow_mut() = Spare::Absent;
                }
                let state = &mut *self.state.borrow_mut();
                state.appender.created(base, size);
                let segment = Segment::empty(base, size);
                if let Some(rolled) = state.segments.last() {
                    state.rolled.push(rolled.base);
                    state.checkpoint_wanted = true;
                }
                state.segments.0.insert(base, segment);
                state.clean = false;
            }
            Ok(false) => self.state.borrow_mut().appender.refused(),
            Err(error) => return self.fail("creating", &path, error),
        }
        self.pump();
    }

    async fn make_segment(&self, base: Offset, size: u64) -> io::Result<()> {
        let _turn = self.storage.making.take(1).await;
        let io = &self.storage.io;
        let dir_ready = self.state.borrow().dir_ready;
        if !dir_ready {
            io.create_dir_all(&self.dir).await?;
        }
        let path = names::segment_path(&self.dir, base);
        let file = match io.open(&path, OpenMode::CreateNew).await {
            // Left by an attempt that was refused half-way, or else it would be in use.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if self.state.borrow().segments.0.contains_key(&base) {
                    return Err(error);
                }
                let file = io.open(&path, OpenMode::Write).await?;
                file.truncate(0).await?;
                file
            }
            opened => opened?,
        };
        file.allocate(size).await?;
        self.write_header(&file, base).await?;
        if size <= SEGMENT_HEADER_SIZE {
            // No chunk follows whose flush would cover it.
            file.sync_data().await?;
        }
        io.sync_dir(&self.dir).await?;
        if !dir_ready {
            self.sync_parents().await?;
            self.state.borrow_mut().dir_ready = true;
        }
        let mut files = self.storage.files.borrow_mut();
        files.insert(self.key, base, file);
        Ok(())
    }

    /// Writes the first block of a segment.
    pub(super) async fn write_header(
        &self,
        file: &<I as Disk>::File,
        base: Offset,
    ) -> io::Result<()> {
        let io = &self.storage.io;
        let header = SegmentHeader {
            id: self.id,
            base,
            created_ms: io.wall_ms(),
            compaction: None,
        };
        let mut block = io.buffer(BLOCK_SIZE);
        header.encode(block.bytes_mut());
        file.write_at(Rc::new(block), 0).await
    }

    /// Makes the partition's own name durable, and those of the directories above it.
    async fn sync_parents(&self) -> io::Result<()> {
        let mut dir = self.dir.as_path();
        while let Some(parent) = dir.parent() {
            self.storage.io.sync_dir(parent).await?;
            if parent == self.storage.config.data_dir {
                break;
            }
            dir = parent;
        }
        Ok(())
    }

    pub(super) async fn allocate(&self, segment: Offset, size: u64) {
        let path = names::segment_path(&self.dir, segment);
        let before = {
            let state = self.state.borrow();
            let segment = state.segments.0.get(&segment);
            segment.map_or(size, |segment| segment.file_size)
        };
        let allocated = self.retry_when_full(&path, async || {
            let file = self.file(segment).await?;
            file.allocate(size).await?;
            self.zero_fill(&file, before..size).await
        });
        match allocated.await {
            Ok(true) => {
                let state = &mut *self.state.borrow_mut();
                state.appender.allocated(segment, size);
                if let Some(segment) = state.segments.0.get_mut(&segment) {
                    segment.file_size = segment.file_size.max(size);
                }
            }
            Ok(false) => self.state.borrow_mut().appender.refused(),
            Err(error) => return self.fail("allocating", &path, error),
        }
        self.pump();
    }

    /// Gives back the space that was allocated ahead if nothing was appended for a while; what is in the journal
    /// alone goes to the segment first. To be called now and then, for one log after the other: thousands at
    /// once would keep the threads for files from everything else.
    pub async fn trim_idle(&self) {
        if !self.has_idle_space() {
            return;
        }
        let this = self.this();
        self.in_task(TaskClass::Background, async move {
            // Who appends is told of a failure.
            if this.flush_through(this.log_end()).await.is_ok() {
                this.trim().await;
            }
        })
        .await;
    }

    fn has_idle_space(&self) -> bool {
        let state = self.state.borrow();
        let idle_for = self.storage.io.now().since(state.last_append);
        let tail = state.appender.tail();
        let ahead = tail.is_some_and(|tail| tail.allocated > tail.position);
        let ahead = ahead || self.spare_size() > 0;
        ahead
            && idle_for >= Duration::from_millis(TRIM_AFTER_MS)
            && state.writable().is_ok()
            && !state.cutting
    }

    /// A failure costs space, no more.
    async fn trim(&self) {
        let begun = match self.has_idle_space() && self.state.borrow().appender.is_idle() {
            true => self.state.borrow_mut().appender.trim(),
            false => None,
        };
        let Some((base, size)) = begun else { return };
        self.running.set(self.running.get() + 1);
        self.drop_spare().await;
        let trimmed = match self.file(base).await {
            Ok(file) => file.truncate(size).await,
            Err(error) => Err(error),
        };
        {
            let state = &mut *self.state.borrow_mut();
            state.appender.trimmed();
            if trimmed.is_ok()
                && let Some(segment) = state.segments.0.get_mut(&base)
            {
                segment.file_size = size;
            }
        }
        self.pump();
        self.task_done();
    }

    /// Writes zeros to what was allocated for a log that is being written fast: a write of blocks
    /// that hold data already changes no metadata of the file system, so neither it nor its flush
    /// waits for that (figures in `docs/adr/0003-zero-fill.md`).
    ///
    /// One log of a shard at a time: logs that are written evenly come to their ends together, and zeros for
    /// all of them at once would keep the disk from everything else. A writer that has come to the end
    /// gets what there is at once, zeros or not.
    async fn zero_fill(&self, file: &<I as Disk>::File, range: Range<u64>) -> io::Result<()> {
        if range.end.saturating_sub(range.start) + SEGMENT_HEADER_SIZE < ZERO_FILL_FROM {
            return Ok(());
        }
        let Some(turn) = self.turn_to_fill().await else {
            return Ok(());
        };
        let zeros = zeros(&self.storage.io, ZERO_FILL_WRITE);
        let mut position = range.start.next_multiple_of(BLOCK_SIZE as u64);
        while position + ZERO_FILL_WRITE as u64 <= range.end && !self.is_at_end() {
            file.write_at(Rc::clone(&zeros), position).await?;
            position += ZERO_FILL_WRITE as u64;
            turn.0.changed.raise();
        }
        Ok(())
    }

    /// Waits until no other log fills; `None` once the log's writer can wait no longer.
    async fn turn_to_fill(&self) -> Option<Turn<'_>> {
        let filling = &self.storage.filling;
        let decided = || self.is_at_end() || !filling.taken.get();
        filling.changed.wait_until(decided).await;
        (!filling.taken.replace(true)).then(|| Turn(filling))
    }

    fn is_at_end(&self) -> bool {
        self.state.borrow().appender.wants_space()
    }

    /// What cannot be written for want of space is refused now, as far as it went nowhere: its producers learn
    /// of it at once, and may send it again.
    fn take_back(&self, path: &Path) {
        let (size, end) = {
            let state = &mut *self.state.borrow_mut();
            if state.failed.is_some() {
                // It was given up already.
                return;
            }
            let size = state.appender.take_back(state.persisted);
            if size == 0 {
                return;
            }
            let end = state.appender.log_end();
            state.epochs.retain(|(_, start)| *start < end);
            state.flush_through = state.flush_through.min(end);
            // What was learnt of the log's end is not so any more, and a checkpoint of it must not come to be.
            state.reading.forget();
            (size, end)
        };
        self.storage.free_room(size);
        let path = path.to_owned();
        self.listener.refused(end, &LogError::DiskFull { path });
    }

    /// Does something until there is space and a descriptor for it; false if the log closes first.
    /// While the disk is full, appends are refused; a lack of descriptors passes sooner than that.
    async fn retry_when_full(
        &self,
        path: &Path,
        attempt: impl AsyncFn() -> io::Result<()>,
    ) -> io::Result<bool> {
        loop {
            let result = attempt().await;
            let full = matches!(&result, Err(error) if error.kind() == io::ErrorKind::StorageFull);
            if full && self.storage.release_prepared().await {
                continue;
            }
            let closing = {
                let mut state = self.state.borrow_mut();
                state.disk_full = full.then(|| path.to_owned());
                state.closing
            };
            self.storage.journal.set_disk_full(full);
            if full && !closing {
                self.take_back(path);
            }
            let pause_ms = match &result {
                Err(_) if full => DISK_FULL_RETRY_MS,
                Err(error) if lacks_descriptors(error) => DESCRIPTOR_RETRY_MS,
                _ => return result.map(|()| true),
            };
            self.changed.raise();
            if closing {
                return Ok(false);
            }
            self.storage.io.sleep(Duration::from_millis(pause_ms)).await;
        }
    }
}

/// What space is filled with, so many bytes at a time.
pub(super) fn zeros<D: Disk>(disk: &D, size: usize) -> Rc<D::Buffer> {
    let mut zeros = disk.buffer(size);
    zeros.bytes_mut().fill(0);
    Rc::new(zeros)
}

/// The process or the host has no descriptor to give now. Nothing was written, so nothing failed that
/// would have to latch.
pub(super) fn lacks_descriptors(error: &io::Error) -> bool {
    let number = error.raw_os_error();
    [Errno::MFILE, Errno::NFILE]
        .iter()
        .any(|errno| number == Some(errno.raw_os_error()))
}

const _: () = assert!(MAX_ALLOCATION.is_multiple_of(BLOCK_SIZE as u64));
