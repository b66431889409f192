//! Open files: aligned transfers that are whole or fail, whatever the kernel cuts short.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    rc::Rc,
    sync::Arc,
};

use rustix::{fs::FallocateFlags, io::Errno};

use super::{
    Shard,
    buffer::UringBuffer,
    ring::{Durability, Held, Request},
};
use crate::io::{BLOCK_SIZE, Buffer, DiskFile, align_up};

const BLOCK: u64 = BLOCK_SIZE as u64;

/// An open file.
///
/// Its futures must not be dropped half-way: the memory stays safe, but nobody learns whether the
/// bytes arrived.
#[derive(Clone)]
pub struct UringFile {
    open: Rc<Open>,
    shard: Rc<Shard>,
}

/// Closed by a thread beside the shard: the last one to close a removed file waits for its space.
struct Open {
    descriptor: Option<Arc<OwnedFd>>,
    shard: Rc<Shard>,
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(Ok(descriptor)) = self.descriptor.take().map(Arc::try_unwrap) {
            self.shard.blocking.drop_there(descriptor);
        }
    }
}

impl UringFile {
    pub(super) fn new(descriptor: OwnedFd, shard: &Rc<Shard>) -> Self {
        Self {
            open: Rc::new(Open {
                descriptor: Some(Arc::new(descriptor)),
                shard: Rc::clone(shard),
            }),
            shard: Rc::clone(shard),
        }
    }

    fn descriptor(&self) -> &Arc<OwnedFd> {
        let descriptor = self.open.descriptor.as_ref();
        descriptor.expect("a file is open until it is dropped")
    }

    fn stat(&self) -> io::Result<rustix::fs::Stat> {
        Ok(rustix::fs::fstat(self.descriptor())?)
    }

    /// A call on the descriptor that may block. It gets a descriptor of its own, so that it cannot
    /// meet another file should this one be closed before it runs.
    async fn blocking_call(
        &self,
        call: impl FnOnce(BorrowedFd<'_>) -> rustix::io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        let own = self.descriptor().try_clone()?;
        let blocking = &self.shard.blocking;
        blocking.run(move || Ok(call(own.as_fd())?)).await
    }

    async fn write(
        &self,
        buffer: Rc<UringBuffer>,
        position: u64,
        durability: Durability,
    ) -> io::Result<()> {
        let _operation = self.shard.disk_operation().await;
        assert!(
            position.is_multiple_of(BLOCK),
            "unaligned write at {position}"
        );
        let size = buffer.as_slice().len();
        let mut written = 0;
        while written < size {
            let start = position + written as u64;
            let request = Request::write(self.descriptor(), &buffer, written, start, durability);
            match self.shard.ring.submit(request).await.0 {
                // Only whole blocks count: the rest starts on a block boundary.
                Ok(count) if count as usize >= size - written => return Ok(()),
                Ok(count) if count as usize >= BLOCK_SIZE => {
                    written += count as usize / BLOCK_SIZE * BLOCK_SIZE;
                }
                Ok(_) => return Err(io::ErrorKind::WriteZero.into()),
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// One read from `start` of the buffer on, as long as the kernel likes.
    async fn read_some(
        &self,
        buffer: UringBuffer,
        start: usize,
        position: u64,
    ) -> io::Result<(UringBuffer, usize)> {
        let mut buffer = buffer;
        loop {
            let request = Request::read(self.descriptor(), buffer, start, position);
            let (answer, held) = self.shard.ring.submit(request).await;
            let Held::Target(_, held) = held else {
                unreachable!("a read holds its target");
            };
            buffer = held;
            match answer {
                Ok(count) => return Ok((buffer, count as usize)),
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl DiskFile for UringFile {
    type Buffer = UringBuffer;

    async fn write_at(&self, buffer: Rc<UringBuffer>, position: u64) -> io::Result<()> {
        self.write(buffer, position, Durability::Later).await
    }

    async fn write_durably_at(&self, buffer: Rc<UringBuffer>, position: u64) -> io::Result<()> {
        self.write(buffer, position, Durability::Now).await
    }

    async fn read_at(&self, position: u64, size: usize) -> io::Result<UringBuffer> {
        let _operation = self.shard.disk_operation().await;
        assert!(
            position.is_multiple_of(BLOCK),
            "unaligned read at {position}"
        );
        let mut buffer = self.shard.pool.buffer(size);
        let mut filled = 0;
        let mut wanted = size;
        while filled < wanted {
            // From a block's start: the kernel may have stopped in the middle of one.
            let start = filled - filled % BLOCK_SIZE;
            let count;
            (buffer, count) = self
                .read_some(buffer, start, position + start as u64)
                .await?;
            let read = start + count;
            if read < wanted {
                let rest = self.size().await?.saturating_sub(position);
                wanted = usize::try_from(rest).map_or(size, |rest| rest.min(size));
            }
            if read <= filled {
                // The end, or somebody cut the file meanwhile.
                break;
            }
            filled = read;
        }
        let end = align_up(filled);
        buffer.as_mut_slice()[filled..end].fill(0);
        buffer.shorten(end);
        Ok(buffer)
    }

    async fn sync_data(&self) -> io::Result<()> {
        let _operation = self.shard.disk_operation().await;
        let request = Request::sync_data(self.descriptor());
        // Never tried again: what failed to reach the disk may be forgotten by then.
        self.shard.ring.submit(request).await.0?;
        Ok(())
    }

    /// On failure some of the space may have been set aside; the next attempt uses it.
    async fn allocate(&self, size: u64) -> io::Result<()> {
        let _operation = self.shard.disk_operation().await;
        if size == 0 {
            return Ok(());
        }
        let request = Request::allocate(self.descriptor(), size);
        let errno = match self.shard.ring.submit(request).await.0 {
            Ok(_) => return Ok(()),
            Err(errno) => errno,
        };
        match errno {
            Errno::INTR | Errno::AGAIN => {
                self.blocking_call(move |file| {
                    rustix::io::retry_on_intr(|| {
                        rustix::fs::fallocate(file, FallocateFlags::empty(), 0, size)
                    })
                })
                .await
            }
            // This file system cannot set space aside at all: grow the file, and take the risk.
            Errno::OPNOTSUPP | Errno::NOSYS if self.size().await? < size => {
                self.blocking_call(move |file| rustix::fs::ftruncate(file, size))
                    .await
            }
            Errno::OPNOTSUPP | Errno::NOSYS => Ok(()),
            // Whoever must stay within a quota sees a full disk.
            Errno::DQUOT => Err(io::Error::new(io::ErrorKind::StorageFull, errno)),
            _ => Err(errno.into()),
        }
    }

    async fn truncate(&self, size: u64) -> io::Result<()> {
        let _operation = self.shard.disk_operation().await;
        self.blocking_call(move |file| {
            rustix::io::retry_on_intr(|| rustix::fs::ftruncate(file, size))
        })
        .await
    }

    async fn size(&self) -> io::Result<u64> {
        Ok(u64::try_from(self.stat()?.st_size).unwrap_or(0))
    }

    async fn physical_size(&self) -> io::Result<u64> {
        // The system counts in sectors of 512 bytes, whatever the disk's are.
        Ok(u64::try_from(self.stat()?.st_blocks).unwrap_or(0) * 512)
    }

    async fn close(self) -> io::Result<()> {
        let Self { open, shard } = self;
        // Another clone is in use: the last one closes.
        if let Ok(mut open) = Rc::try_unwrap(open)
            && let Some(Ok(descriptor)) = open.descriptor.take().map(Arc::try_unwrap)
        {
            let closed = shard.blocking.run(move || {
                drop(descriptor);
                Ok(())
            });
            closed.await?;
        }
        Ok(())
    }
}
