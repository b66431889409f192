//! Disk: aligned reads and writes at positions, flushes, and the few directory operations a log needs.
//!
//! Nothing is durable before the call that makes it so has returned: bytes need
//! [`DiskFile::sync_data`], a new or renamed or removed name needs [`Disk::sync_dir`] of its parent.
//! Futures of file operations must not be dropped half-way: run them in a task of their own.

use std::{
    io,
    path::{Path, PathBuf},
    rc::Rc,
};

/// Every position, size and buffer of direct I/O is a multiple of this.
pub const BLOCK_SIZE: usize = 4096;

/// `size` rounded up to whole blocks.
#[must_use]
pub const fn align_up(size: usize) -> usize {
    size.next_multiple_of(BLOCK_SIZE)
}

/// Memory that a disk can read and write directly: aligned, whole blocks.
pub trait Buffer: 'static {
    /// The bytes. Initialised, but with unspecified contents until written.
    fn bytes(&self) -> &[u8];

    /// The bytes, to fill.
    fn bytes_mut(&mut self) -> &mut [u8];

    /// Shortens the buffer to `size` bytes, a multiple of [`BLOCK_SIZE`]; the memory stays.
    fn shorten(&mut self, size: usize);
}

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Read only; must exist.
    Read,
    /// Read and write; must exist.
    Write,
    /// Read and write; must not exist.
    CreateNew,
}

/// What kind of disk a directory lies on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskInfo {
    /// Reads and writes bypass the page cache.
    pub direct: bool,
    /// Name of the file system, such as `ext4`.
    pub file_system: String,
}

/// Space on a file system, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSpace {
    /// What an ordinary user may still take.
    pub free: u64,
    /// All there is.
    pub total: u64,
}

/// A disk.
pub trait Disk {
    /// Memory for its reads and writes.
    type Buffer: Buffer;
    /// An open file.
    type File: DiskFile<Buffer = Self::Buffer>;

    /// A buffer of `size` bytes, a positive multiple of [`BLOCK_SIZE`].
    fn buffer(&self, size: usize) -> Self::Buffer;

    /// Opens a file.
    ///
    /// # Errors
    /// `NotFound`, `AlreadyExists`, and whatever the system says.
    async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Self::File>;

    /// Creates a directory and its missing parents.
    async fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Names and paths of what a directory holds, sorted by name; files and directories alike.
    async fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>>;

    /// Renames a file over what is there.
    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    async fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty directory.
    async fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// Makes names in a directory durable.
    async fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Space on the file system that holds `path`.
    async fn space(&self, path: &Path) -> io::Result<DiskSpace>;

    /// What kind of disk holds `path`.
    async fn info(&self, path: &Path) -> io::Result<DiskInfo>;
}

/// An open file. Clones share it; the last one closes it.
pub trait DiskFile: Clone + 'static {
    /// Memory for its reads and writes.
    type Buffer: Buffer;

    /// Writes the whole buffer at `position`, a multiple of [`BLOCK_SIZE`]. Short writes are
    /// continued. Not durable before [`DiskFile::sync_data`].
    async fn write_at(&self, buffer: Rc<Self::Buffer>, position: u64) -> io::Result<()>;

    /// The same, and durable when it returns; other writes are not. For a system that does both in one
    /// request.
    async fn write_durably_at(&self, buffer: Rc<Self::Buffer>, position: u64) -> io::Result<()> {
        self.write_at(buffer, position).await?;
        self.sync_data().await
    }

    /// Reads up to `size` bytes at `position`, both multiples of [`BLOCK_SIZE`]. The buffer is
    /// shortened to the whole blocks read; at the end of the file it may be empty (length 0). A
    /// file's last partial block is zero-filled.
    async fn read_at(&self, position: u64, size: usize) -> io::Result<Self::Buffer>;

    /// Flushes: every write that had completed when this was called is durable when it returns.
    async fn sync_data(&self) -> io::Result<()>;

    /// Makes room up to `size` bytes from the start, so that writes below neither extend the file
    /// nor run out of space; the new range reads as zeros. Never shrinks. Needs a flush to last.
    ///
    /// # Errors
    /// `StorageFull`: nothing was changed that matters, and a later call may succeed.
    async fn allocate(&self, size: u64) -> io::Result<()>;

    /// Cuts the file to `size` bytes.
    async fn truncate(&self, size: u64) -> io::Result<()>;

    /// Size of the file in bytes.
    async fn size(&self) -> io::Result<u64>;

    /// Bytes that the file takes on disk.
    async fn physical_size(&self) -> io::Result<u64>;

    /// Closes this handle and waits for it. Dropping closes in the background.
    async fn close(self) -> io::Result<()>;
}
