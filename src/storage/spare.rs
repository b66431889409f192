//! The next segment of a log that is written fast, made ahead of the roll.
//!
//! A segment's name is its base offset, which is known only when its first chunk is. So the file is made
//! under another name, filled with zeros while the segment before it is still written, and renamed at the
//! roll: the writer then waits for a name instead of for space (`docs/adr/0003-zero-fill.md`). It holds nothing,
//! so losing it costs nothing: what a crash leaves behind is removed at the next start.

use std::{io, path::Path, rc::Rc};

use millstream_protocol::Offset;

use super::{
    Log,
    format::{names, segment::SEGMENT_HEADER_SIZE},
    limits::{ZERO_FILL_FROM, ZERO_FILL_WRITE},
    preparation::zeros,
};
use crate::io::{BLOCK_SIZE, Disk, DiskFile, Io, OpenMode, TaskClass};

/// How far the next segment is.
#[derive(Debug, Default)]
pub(super) enum Spare<F> {
    #[default]
    Absent,
    Making,
    /// Its file, and its size in bytes.
    Ready(F, u64),
    /// The disk gave no space; not tried again before the next segment is made.
    Refused,
}

impl<I: Io> Log<I> {
    /// Begins with the next segment if the writer will want it soon.
    pub(super) fn prepare_spare(&self) {
        if !matches!(*self.spare.borrow(), Spare::Absent) {
            return;
        }
        let wanted = {
            let state = self.state.borrow();
            let now_ms = self.storage.io.wall_ms();
            let wanted = state.appender.spare_wanted(&state.options, now_ms);
            wanted.filter(|_| state.writable().is_ok() && !state.cutting)
        };
        let Some(size) = wanted else { return };
        *self.spare.borrow_mut() = Spare::Making;
        let this = self.this();
        self.running.set(self.running.get() + 1);
        self.storage.io.spawn(TaskClass::Background, async move {
            let path = names::spare_path(&this.dir);
            let made = this.make_spare(&path, size).await;
            let spare = match made {
                Ok((file, size)) => Spare::Ready(file, size),
                Err(error) => {
                    tracing::debug!(path = %path.display(), %error, "no segment ahead");
                    // Nothing is lost with it, and the start removes what stays.
                    let _ = this.storage.io.remove_file(&path).await;
                    Spare::Refused
                }
            };
            *this.spare.borrow_mut() = spare;
            this.task_done();
        });
    }

    async fn make_spare(&self, path: &Path, size: u64) -> io::Result<(<I as Disk>::File, u64)> {
        let io = &self.storage.io;
        let segment_size = self.state.borrow().options.segment_size;
        if let Some(prepared) = self.storage.take_prepared(path, segment_size).await? {
            return Ok(prepared);
        }
        let file = io.open(path, OpenMode::CreateNew).await?;
        file.allocate(size).await?;
        if size >= ZERO_FILL_FROM {
            let zeros = zeros(io, ZERO_FILL_WRITE);
            let mut position = SEGMENT_HEADER_SIZE.next_multiple_of(BLOCK_SIZE as u64);
            while position + ZERO_FILL_WRITE as u64 <= size {
                if self.state.borrow().writable().is_err() {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                // Taken for each write: the segment in use may need zeros before this one does.
                let _turn = self.storage.filling.turn().await;
                file.write_at(Rc::clone(&zeros), position).await?;
                position += ZERO_FILL_WRITE as u64;
            }
        }
        // Or the first flush after the roll would have the metadata of all of it to write.
        file.sync_data().await?;
        Ok((file, size))
    }

    /// Makes the spare file a segment, durably, if there is one of that size at least. Gives its size.
    pub(super) async fn use_spare(&self, base: Offset, size: u64) -> io::Result<Option<u64>> {
        let fits = matches!(*self.spare.borrow(), Spare::Ready(_, has) if has >= size);
        if !fits || size <= SEGMENT_HEADER_SIZE {
            return Ok(None);
        }
        let Spare::Ready(file, size) = self.spare.take() else {
            unreachable!("it fits")
        };
        self.write_header(&file, base).await?;
        let path = names::segment_path(&self.dir, base);
        let io = &self.storage.io;
        io.rename(&names::spare_path(&self.dir), &path).await?;
        io.sync_dir(&self.dir).await?;
        self.storage.files.borrow_mut().insert(self.key, base, file);
        Ok(Some(size))
    }

    /// The log ends, or nothing comes any more.
    pub(super) async fn drop_spare(&self) {
        if !matches!(*self.spare.borrow(), Spare::Ready(..)) {
            return;
        }
        let Spare::Ready(file, _) = self.spare.take() else {
            unreachable!("it is ready")
        };
        let _ = self
            .storage
            .io
            .remove_file(&names::spare_path(&self.dir))
            .await;
        let _ = file.close().await;
    }

    /// Bytes of the file that waits.
    pub(super) fn spare_size(&self) -> u64 {
        match *self.spare.borrow() {
            Spare::Ready(_, size) => size,
            Spare::Absent | Spare::Making | Spare::Refused => 0,
        }
    }
}
