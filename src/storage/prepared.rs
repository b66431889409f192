//! Space that was filled with zeros in quiet moments, for logs that are written fast.
//!
//! Zeros that are written while the log is written take half of what the disk can do, and each flush waits
//! for some of them (`docs/adr/0007-prepared-space.md`). So a shard may keep files of zeros: a hot log's next segment
//! is one of them, renamed. They hold nothing, so a start removes what is left of them, and so does a
//! disk that becomes short.

use std::{
    cell::{Cell, RefCell},
    io,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use super::{
    LogError, ShardStorage,
    format::names,
    limits::{WRITTEN_LATELY_MS, ZERO_FILL_WRITE},
    preparation::zeros,
    reserve::{is_short, reserve},
};
use crate::io::{Disk, DiskFile, Io, OpenMode, TaskClass};

/// See the module.
#[derive(Default)]
pub(super) struct Prepared {
    /// Files that are ready.
    ready: RefCell<Vec<PathBuf>>,
    /// One is being made.
    making: Cell<bool>,
    /// The storage is closed, or the disk short: what is being made is not wanted any more.
    unwanted: Cell<bool>,
}

impl<I: Io> ShardStorage<I> {
    /// Prepares what is missing, if nothing is appended at the moment. To be called now and then.
    pub fn prepare_space(self: &Rc<Self>) {
        let wanted = self.config.prepared_size / self.config.prepared_file_size;
        let enough = || self.prepared.ready.borrow().len() as u64 >= wanted;
        if enough() || self.is_written() || self.prepared.making.replace(true) {
            return;
        }
        self.prepared.unwanted.set(false);
        let this = Rc::clone(self);
        self.io.spawn(TaskClass::Background, async move {
            let enough = || this.prepared.ready.borrow().len() as u64 >= wanted;
            while !enough() && !this.prepared.unwanted.get() {
                if let Err(error) = this.prepare_file().await {
                    tracing::debug!(%error, "no space is prepared for now");
                    break;
                }
            }
            this.prepared.making.set(false);
        });
    }

    async fn prepare_file(&self) -> io::Result<()> {
        let dir = names::prepared_dir(&self.config.data_dir);
        let space = self.io.space(&self.config.data_dir).await?;
        // Twice what is left free, or what is prepared would be given back a moment later.
        if is_short(&space, reserve(&space) + self.config.prepared_file_size) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.io.create_dir_all(&dir).await?;
        let path = dir.join(format!("{:016x}.zeros", self.io.random_u64()));
        let file = self.io.open(&path, OpenMode::CreateNew).await?;
        let filled = self.fill_prepared(&file).await;
        let closed = file.close().await;
        match filled.and(closed) {
            Ok(()) if !self.prepared.unwanted.get() => {
                self.prepared.ready.borrow_mut().push(path);
                Ok(())
            }
            filled => {
                // It holds nothing.
                let _ = self.io.remove_file(&path).await;
                filled
            }
        }
    }

    async fn fill_prepared(&self, file: &<I as Disk>::File) -> io::Result<()> {
        let size = self.config.prepared_file_size;
        file.allocate(size).await?;
        let step = usize::try_from(size).map_or(ZERO_FILL_WRITE, |size| size.min(ZERO_FILL_WRITE));
        let zeros = zeros(&self.io, step);
        let mut position = 0;
        while position < size && !self.prepared.unwanted.get() {
            if self.is_written() {
                self.io
                    .sleep(Duration::from_millis(WRITTEN_LATELY_MS))
                    .await;
                continue;
            }
            file.write_at(Rc::clone(&zeros), position).await?;
            position += step as u64;
        }
        file.sync_data().await
    }

    /// Gives a file of zeros the name `to`, if there is one and it is no larger than `size` bytes; gives its
    /// size. Its old name is gone from the disk before anything is written to it: a file system without a journal
    /// could have both names after a crash, and the next start removes what has the old one.
    pub(super) async fn take_prepared(
        &self,
        to: &Path,
        size: u64,
    ) -> io::Result<Option<(<I as Disk>::File, u64)>> {
        let file_size = self.config.prepared_file_size;
        if size < file_size {
            return Ok(None);
        }
        let Some(path) = self.prepared.ready.borrow_mut().pop() else {
            return Ok(None);
        };
        self.io.rename(&path, to).await?;
        let dir = names::prepared_dir(&self.config.data_dir);
        self.io.sync_dir(&dir).await?;
        let file = self.io.open(to, OpenMode::Write).await?;
        Ok(Some((file, file_size)))
    }

    /// Gives all of it back: the disk is short, or the storage closes. Whether there was any.
    pub async fn release_prepared(&self) -> bool {
        self.prepared.unwanted.set(true);
        let files = self.prepared.ready.take();
        let any = !files.is_empty();
        for path in files {
            if let Err(error) = self.io.remove_file(&path).await {
                tracing::warn!(path = %path.display(), %error, "prepared space stays until the next start");
            }
        }
        any
    }

    /// Bytes that are ready.
    pub(super) fn prepared_bytes(&self) -> u64 {
        self.prepared.ready.borrow().len() as u64 * self.config.prepared_file_size
    }
}

/// Removes what the last process prepared; before any storage is made.
///
/// # Errors
/// The disk's.
pub async fn remove_prepared<D: Disk>(disk: &D, data_dir: &Path) -> Result<(), LogError> {
    let path = names::prepared_dir(data_dir);
    let removed = async {
        let files = match disk.read_dir(&path).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            files => files?,
        };
        for path in files {
            disk.remove_file(&path).await?;
        }
        Ok(())
    };
    removed.await.map_err(|error| LogError::Io {
        operation: "removing",
        path: path.clone(),
        error: Arc::new(error),
    })
}
