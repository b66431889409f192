//! Open files: aligned transfers that are whole or fail, whatever the kernel cuts short.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    rc::Rc,
};

use glommio::io::{BufferedFile, DmaFile, ReadResult};
use rustix::{fs::FallocateFlags, io::Errno};

use super::{Shard, buffer::GlommioBuffer, disk::blocking, system_error};
use crate::io::{BLOCK_SIZE, Buffer, DiskFile, align_up};

const BLOCK: u64 = BLOCK_SIZE as u64;

/// An open file.
///
/// Its futures must not be dropped half-way: the memory stays safe, but nobody learns whether the
/// bytes arrived.
#[derive(Clone)]
pub struct GlommioFile {
    kind: Rc<FileKind>,
    shard: Rc<Shard>,
}

pub(super) enum FileKind {
    /// Past the page cache; on tmpfs through it all the same.
    Direct(DmaFile),
    /// Through the page cache, with a copy for each write: where direct I/O is refused or unwanted.
    Buffered(BufferedFile),
}

impl FileKind {
    /// The descriptor, borrowed from the file that owns it.
    fn descriptor(&self) -> BorrowedFd<'_> {
        match self {
            Self::Direct(file) => file.as_fd(),
            Self::Buffered(file) => {
                use std::os::fd::AsRawFd;
                // SAFETY: the file owns the descriptor and outlives the borrow.
                unsafe { BorrowedFd::borrow_raw(file.as_raw_fd()) }
            }
        }
    }

    /// One read, as long as the kernel likes.
    async fn read(&self, position: u64, size: usize) -> io::Result<ReadResult> {
        match self {
            Self::Direct(file) => file.read_at_aligned(position, size).await,
            Self::Buffered(file) => file.read_at(position, size).await,
        }
        .map_err(system_error)
    }

    /// One write, as long as the kernel likes.
    async fn write(&self, buffer: &GlommioBuffer, position: u64) -> io::Result<usize> {
        match self {
            Self::Direct(file) => file.write_rc_at(Rc::clone(buffer.memory()), position).await,
            Self::Buffered(file) => file.write_at(buffer.bytes().to_vec(), position).await,
        }
        .map_err(system_error)
    }

    fn stat(&self) -> io::Result<rustix::fs::Stat> {
        Ok(rustix::fs::fstat(self.descriptor())?)
    }
}

impl GlommioFile {
    pub(super) fn new(kind: FileKind, shard: &Rc<Shard>) -> Self {
        Self {
            kind: Rc::new(kind),
            shard: Rc::clone(shard),
        }
    }

    /// Reads on where the kernel stopped in the middle, and fills the last block with zeros.
    async fn read_rest(
        &self,
        start: ReadResult,
        position: u64,
        wanted: usize,
    ) -> io::Result<GlommioBuffer> {
        let size = align_up(wanted.max(start.len()));
        let mut buffer = GlommioBuffer::zeroed(size);
        buffer.bytes_mut()[..start.len()].copy_from_slice(&start);
        let mut filled = start.len();
        while filled < wanted {
            let aligned = filled - filled % BLOCK_SIZE;
            let read = self
                .kind
                .read(position + aligned as u64, size - aligned)
                .await?;
            if aligned + read.len() <= filled {
                // Somebody cut the file meanwhile.
                break;
            }
            filled = aligned + read.len();
            buffer.bytes_mut()[aligned..filled].copy_from_slice(&read);
        }
        buffer.shorten(align_up(filled));
        Ok(buffer)
    }

    /// A call on the descriptor that may block. It gets a descriptor of its own, so that it cannot
    /// meet another file should this one be closed before it runs.
    async fn blocking_call(
        &self,
        call: impl FnOnce(BorrowedFd<'_>) -> rustix::io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        let own = self.kind.descriptor().try_clone_to_owned()?;
        blocking(move || Ok(call(own.as_fd())?)).await
    }
}

impl DiskFile for GlommioFile {
    type Buffer = GlommioBuffer;

    async fn write_at(&self, buffer: Rc<GlommioBuffer>, position: u64) -> io::Result<()> {
        let _operation = self.shard.tasks.operation().await;
        assert!(
            position.is_multiple_of(BLOCK),
            "unaligned write at {position}"
        );
        let size = buffer.bytes().len();
        let mut written = self.kind.write(&buffer, position).await?;
        while written < size {
            // Only whole blocks count: the rest starts on a block boundary.
            written -= written % BLOCK_SIZE;
            let mut rest = GlommioBuffer::zeroed(size - written);
            rest.bytes_mut().copy_from_slice(&buffer.bytes()[written..]);
            let count = self.kind.write(&rest, position + written as u64).await?;
            if count < BLOCK_SIZE {
                return Err(io::ErrorKind::WriteZero.into());
            }
            written += count;
        }
        Ok(())
    }

    async fn read_at(&self, position: u64, size: usize) -> io::Result<GlommioBuffer> {
        let _operation = self.shard.tasks.operation().await;
        assert!(
            position.is_multiple_of(BLOCK),
            "unaligned read at {position}"
        );
        assert!(
            size > 0 && size.is_multiple_of(BLOCK_SIZE),
            "reads are whole blocks: {size}"
        );
        let read = self.kind.read(position, size).await?;
        if read.len() == size {
            return Ok(GlommioBuffer::from_read(read));
        }
        let rest = self.size().await?.saturating_sub(position);
        let wanted = usize::try_from(rest).map_or(size, |rest| rest.min(size));
        if read.len() >= wanted && read.len().is_multiple_of(BLOCK_SIZE) {
            return Ok(GlommioBuffer::from_read(read));
        }
        self.read_rest(read, position, wanted).await
    }

    async fn sync_data(&self) -> io::Result<()> {
        let _operation = self.shard.tasks.operation().await;
        match &*self.kind {
            FileKind::Direct(file) => file.fdatasync().await,
            FileKind::Buffered(file) => file.fdatasync().await,
        }
        .map_err(system_error)
    }

    /// On failure some of the space may have been set aside; the next attempt uses it.
    async fn allocate(&self, size: u64) -> io::Result<()> {
        let _operation = self.shard.tasks.operation().await;
        if size == 0 {
            return Ok(());
        }
        let allocated = match &*self.kind {
            FileKind::Direct(file) => file.pre_allocate(size, false).await,
            FileKind::Buffered(file) => file.pre_allocate(size, false).await,
        }
        .map_err(system_error);
        let errno = match allocated {
            Ok(()) => return Ok(()),
            Err(error) => Errno::from_io_error(&error).ok_or(error)?,
        };
        match errno {
            // The ring was interrupted, or the file system cannot set space aside in it.
            Errno::INTR => {
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
        let _operation = self.shard.tasks.operation().await;
        self.blocking_call(move |file| {
            rustix::io::retry_on_intr(|| rustix::fs::ftruncate(file, size))
        })
        .await
    }

    async fn size(&self) -> io::Result<u64> {
        Ok(u64::try_from(self.kind.stat()?.st_size).unwrap_or(0))
    }

    async fn physical_size(&self) -> io::Result<u64> {
        // The system counts in sectors of 512 bytes, whatever the disk's are.
        Ok(u64::try_from(self.kind.stat()?.st_blocks).unwrap_or(0) * 512)
    }

    async fn close(self) -> io::Result<()> {
        match Rc::try_unwrap(self.kind) {
            Ok(FileKind::Direct(file)) => file.close().await.map_err(system_error),
            Ok(FileKind::Buffered(file)) => file.close().await.map_err(system_error),
            // Another clone is in use: the last one closes.
            Err(_) => Ok(()),
        }
    }
}
