//! The files of a journal: one that is written, older ones that are still needed, and spare ones. Files
//! are filled with zeros when they are made and used again in place, so that no write changes anything
//! but data.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    path::PathBuf,
    rc::{Rc, Weak},
    time::Duration,
};

use super::Journal;
use crate::{
    io::{BLOCK_SIZE, Buffer, Disk, DiskFile, Io, OpenMode, TaskClass},
    storage::{
        Log,
        cache::LogKey,
        format::{
            journal::{JOURNAL_HEADER_SIZE, encode_file_header},
            names,
        },
        limits::{JOURNAL_RETRY_MS, ZERO_FILL_WRITE},
        preparation::zeros,
        reserve::is_short,
    },
};

/// Left free at the end of each file, for a frame that says which files are free.
const RESERVE_SIZE: u64 = BLOCK_SIZE as u64;

/// A file, its path, and a position in it.
pub(super) type Place<I> = (<I as Disk>::File, PathBuf, u64);

struct RingFile<I: Io> {
    file: <I as Disk>::File,
    path: PathBuf,
    /// Numbers of its first and last frame.
    first: u64,
    last: u64,
    /// Where the next frame goes.
    position: u64,
    size: u64,
    /// Logs that have something in it.
    users: BTreeMap<LogKey, Weak<Log<I>>>,
}

/// See the module.
pub(super) struct Ring<I: Io> {
    active: Option<RingFile<I>>,
    /// Oldest first.
    used: VecDeque<RingFile<I>>,
    /// Not needed any more, but no durable frame says so yet: a torn frame in one of them would look like
    /// one that is missing.
    freed: VecDeque<RingFile<I>>,
    /// Used in the order in which they became free: so what is overwritten first is what is oldest.
    spare: VecDeque<RingFile<I>>,
    made: u32,
    /// A new file is being made, or was refused a moment ago.
    preparing: bool,
    growing: bool,
    /// The first file was made, or could not be.
    attempted: bool,
    reclaiming: bool,
}

impl<I: Io> Default for Ring<I> {
    fn default() -> Self {
        Self {
            active: None,
            used: VecDeque::new(),
            freed: VecDeque::new(),
            spare: VecDeque::new(),
            made: 0,
            preparing: false,
            growing: false,
            attempted: false,
            reclaiming: false,
        }
    }
}

impl<I: Io> Ring<I> {
    /// A frame of `size` bytes has a place.
    pub fn has_room(&self, size: usize) -> bool {
        let size = size as u64 + RESERVE_SIZE;
        let fits = |file: &RingFile<I>| file.position + size <= file.size;
        self.active.as_ref().is_some_and(fits) || !self.spare.is_empty()
    }

    /// The place of a frame that says what is not needed any more, in the room that is left for it.
    pub fn reserved_place(&self) -> Option<Place<I>> {
        let active = self.active.as_ref()?;
        (active.position + RESERVE_SIZE <= active.size)
            .then(|| (active.file.clone(), active.path.clone(), active.position))
    }

    /// Files wait for a frame that says that they are free.
    pub fn has_freed(&self) -> bool {
        !self.freed.is_empty()
    }

    /// A frame is durable that needs nothing before frame `oldest`.
    pub fn announced(&mut self, oldest: u64) {
        while self.freed.front().is_some_and(|file| file.last < oldest) {
            let freed = self.freed.pop_front();
            self.spare.extend(freed);
        }
    }

    /// The place of frame `sequence` with `size` bytes.
    pub fn place(&mut self, size: u64, sequence: u64) -> Option<Place<I>> {
        let full = |file: &RingFile<I>| file.position + size + RESERVE_SIZE > file.size;
        if self.active.as_ref().is_none_or(full) {
            let mut next = self.spare.pop_front()?;
            next.position = JOURNAL_HEADER_SIZE;
            (next.first, next.last) = (sequence, sequence);
            next.users.clear();
            self.used.extend(self.active.replace(next));
        }
        let active = self.active.as_ref()?;
        (active.position + size + RESERVE_SIZE <= active.size)
            .then(|| (active.file.clone(), active.path.clone(), active.position))
    }

    /// A frame got the place that was asked for last.
    pub fn placed(&mut self, size: u64, sequence: u64) {
        let active = self.active.as_mut().expect("a frame has a place");
        active.position += size;
        active.last = sequence;
    }

    /// A log has something in the frame that is being made.
    pub fn used_by(&mut self, key: LogKey, log: &Rc<Log<I>>) {
        let active = self.active.as_mut().expect("a frame has a place");
        let user = active.users.entry(key);
        user.or_insert_with(|| Rc::downgrade(log));
    }

    /// The first frame of the oldest file that is needed.
    pub fn oldest(&self) -> u64 {
        let oldest = self.used.front().or(self.active.as_ref());
        oldest.map_or(u64::MAX, |file| file.first)
    }

    /// A file is being made, or made free.
    pub fn expects_room(&self) -> bool {
        self.growing || self.reclaiming || self.has_freed()
    }

    fn file_count(&self) -> usize {
        usize::from(self.active.is_some()) + self.used.len() + self.freed.len() + self.spare.len()
    }

    fn is_half_full(&self) -> bool {
        let half = |file: &RingFile<I>| file.position >= file.size / 2;
        self.active.as_ref().is_none_or(half)
    }
}

impl<I: Io> Journal<I> {
    /// Has the next file ready before it is needed: an older one that becomes free, or a new one.
    pub(super) fn keep_ahead(self: &Rc<Self>) {
        let (reclaim, prepare) = {
            let ring = &mut *self.ring.borrow_mut();
            if self.stopped.get() || !ring.spare.is_empty() || ring.has_freed() {
                return;
            }
            let reclaim = !ring.used.is_empty() && !ring.reclaiming;
            let may_grow = ring.file_count() < self.config.file_count_max && !ring.preparing;
            let prepare = may_grow && ring.is_half_full();
            ring.reclaiming |= reclaim;
            ring.preparing |= prepare;
            ring.growing |= prepare;
            (reclaim, prepare)
        };
        if reclaim {
            let this = Rc::clone(self);
            self.io
                .spawn(TaskClass::CatchUp, async move { this.reclaim().await });
        }
        if prepare {
            let this = Rc::clone(self);
            self.io
                .spawn(TaskClass::CatchUp, async move { this.prepare().await });
        }
    }

    /// Starts the journal; it takes appends once its first file is made.
    pub fn start(self: &Rc<Self>) {
        self.keep_ahead();
    }

    /// Waits until the journal can be used, or cannot be made.
    pub async fn started(&self) {
        let attempted = || self.ring.borrow().attempted;
        self.changed.wait_until(attempted).await;
    }

    async fn prepare(self: Rc<Self>) {
        let number = self.ring.borrow().made;
        let path = names::journal_path(&self.config.data_dir, self.id, number);
        let made = self.make_file(&path).await;
        {
            let ring = &mut *self.ring.borrow_mut();
            ring.attempted = true;
            ring.growing = false;
        }
        match made {
            Ok(file) => {
                let ring = &mut *self.ring.borrow_mut();
                ring.made += 1;
                ring.spare.push_back(RingFile {
                    file,
                    path,
                    first: 0,
                    last: 0,
                    position: JOURNAL_HEADER_SIZE,
                    size: self.config.file_size,
                    users: BTreeMap::new(),
                });
                ring.preparing = false;
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the journal cannot grow for now");
                self.changed.raise();
                self.io.sleep(Duration::from_millis(JOURNAL_RETRY_MS)).await;
                self.ring.borrow_mut().preparing = false;
                if self.ring.borrow().active.is_none() {
                    self.keep_ahead();
                }
            }
        }
        self.changed.raise();
    }

    async fn make_file(&self, path: &std::path::Path) -> io::Result<<I as Disk>::File> {
        let dir = names::journal_dir(&self.config.data_dir);
        self.io.create_dir_all(&dir).await?;
        self.io.sync_dir(&self.config.data_dir).await?;
        let file = self.io.open(path, OpenMode::CreateNew).await?;
        let filled = self.fill_file(&file).await;
        if filled.is_err() {
            // What was begun holds nothing.
            let _ = self.io.remove_file(path).await;
        }
        filled?;
        self.io.sync_dir(&dir).await?;
        Ok(file)
    }

    async fn fill_file(&self, file: &<I as Disk>::File) -> io::Result<()> {
        let size = self.config.file_size;
        // Before, so that a disk that has little is left alone; after, as other shards did the same at once.
        self.leave_reserve(size).await?;
        file.allocate(size).await?;
        self.leave_reserve(0).await?;
        let step = usize::try_from(size).map_or(ZERO_FILL_WRITE, |size| size.min(ZERO_FILL_WRITE));
        let zeros = zeros(&self.io, step);
        let mut position = 0;
        while position + step as u64 <= size {
            file.write_at(Rc::clone(&zeros), position).await?;
            position += step as u64;
        }
        let mut block = self.io.buffer(BLOCK_SIZE);
        encode_file_header(self.id, block.bytes_mut());
        file.write_at(Rc::new(block), 0).await?;
        file.sync_data().await
    }

    /// Refuses what would take the space that is to stay free.
    async fn leave_reserve(&self, size: u64) -> io::Result<()> {
        let space = self.io.space(&self.config.data_dir).await?;
        match is_short(&space, size) {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }

    /// Has the logs need the oldest file no more, and makes it a spare one.
    async fn reclaim(self: Rc<Self>) {
        let (last, users) = {
            let ring = self.ring.borrow();
            let Some(oldest) = ring.used.front() else {
                return;
            };
            (
                oldest.last,
                oldest.users.values().cloned().collect::<Vec<_>>(),
            )
        };
        let needs = |log: &Weak<Log<I>>| {
            let log = log.upgrade()?;
            log.first_frame()
                .is_some_and(|first| first <= last)
                .then_some(log)
        };
        for log in users.iter().filter_map(needs) {
            log.leave_journal();
            self.io.yield_if_needed().await;
        }
        let mut left = users;
        let free = || {
            while left.last().is_some_and(|log| needs(log).is_none()) {
                left.pop();
            }
            left.is_empty() || self.stopped.get()
        };
        self.changed.wait_until(free).await;
        {
            let ring = &mut *self.ring.borrow_mut();
            ring.reclaiming = false;
            if !self.stopped.get() {
                let freed = ring.used.pop_front();
                ring.freed.extend(freed);
            }
        }
        self.changed.raise();
        self.wake();
    }

    /// Removes the files: every log has made everything durable in its segments.
    pub async fn remove(&self) -> io::Result<()> {
        self.stop();
        let files: Vec<RingFile<I>> = {
            let ring = &mut *self.ring.borrow_mut();
            let used = std::mem::take(&mut ring.used).into_iter();
            let active = ring.active.take();
            let freed = std::mem::take(&mut ring.freed);
            let spare = std::mem::take(&mut ring.spare);
            used.chain(active).chain(freed).chain(spare).collect()
        };
        if files.is_empty() {
            return Ok(());
        }
        let paths = files.into_iter().map(|file| file.path).collect();
        super::files::remove_journal(&self.io, &self.config.data_dir, self.id, paths).await
    }
}
