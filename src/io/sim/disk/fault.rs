//! What can go wrong with a simulated disk, and how long things take on it.

use std::{io, path::Path, time::Duration};

/// What happens to unsynced changes when the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashPolicy {
    /// All of them are lost.
    DropAll,
    /// All of them arrived, those in flight too.
    KeepAll,
    /// Each one arrived, was lost, or arrived in some of its 512-byte sectors.
    Random {
        /// Determines every choice.
        seed: u64,
    },
}

/// Kinds of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Opening a file that exists.
    Open,
    /// Creating a file.
    Create,
    /// Reading a file or a directory.
    Read,
    /// Writing blocks.
    Write,
    /// Flushing a file.
    SyncData,
    /// Setting space aside.
    Allocate,
    /// Cutting a file.
    Truncate,
    /// Moving a name.
    Rename,
    /// Removing a file or directory.
    Remove,
    /// Creating directories.
    CreateDir,
    /// Flushing a directory.
    SyncDir,
}

impl Operation {
    /// Whether it changes the disk or what survives: these are counted and can be cut.
    #[must_use]
    pub fn changes(self) -> bool {
        !matches!(self, Self::Open | Self::Read)
    }
}

/// What the system may answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errno {
    /// `EIO`.
    Io,
    /// `ENOSPC`.
    NoSpace,
    /// `EMFILE`.
    TooManyFiles,
    /// `ENOENT`.
    NotFound,
    /// `EEXIST`.
    Exists,
    /// `ENOTDIR`.
    NotDirectory,
    /// `EISDIR`.
    IsDirectory,
    /// `ENOTEMPTY`.
    NotEmpty,
    /// `EBADF`.
    BadDescriptor,
    /// `EINVAL`.
    Invalid,
}

impl From<Errno> for io::Error {
    fn from(errno: Errno) -> Self {
        Self::from_raw_os_error(match errno {
            Errno::NotFound => 2,
            Errno::Io => 5,
            Errno::BadDescriptor => 9,
            Errno::Exists => 17,
            Errno::NotDirectory => 20,
            Errno::IsDirectory => 21,
            Errno::Invalid => 22,
            Errno::TooManyFiles => 24,
            Errno::NoSpace => 28,
            Errno::NotEmpty => 39,
        })
    }
}

/// An operation that is to fail.
#[derive(Clone, Debug)]
pub struct Fault {
    operation: Operation,
    /// How many matching operations still pass.
    skip: u64,
    /// How many fail after those.
    count: u64,
    error: Errno,
    path_part: String,
}

impl Fault {
    /// The `nth` operation of its kind from now on fails; 1 is the next.
    ///
    /// # Panics
    /// If `nth` is 0.
    #[must_use]
    pub fn nth(operation: Operation, nth: u64, error: Errno) -> Self {
        assert!(nth > 0, "the next operation is number 1");
        Self {
            operation,
            skip: nth - 1,
            count: 1,
            error,
            path_part: String::new(),
        }
    }

    /// Every operation of its kind fails until [`super::SimDisk::heal`].
    #[must_use]
    pub fn always(operation: Operation, error: Errno) -> Self {
        Self {
            operation,
            skip: 0,
            count: u64::MAX,
            error,
            path_part: String::new(),
        }
    }

    /// Only where the path contains this.
    #[must_use]
    pub fn on(mut self, path_part: &str) -> Self {
        path_part.clone_into(&mut self.path_part);
        self
    }

    /// Whether this operation fails; counts it.
    pub(super) fn strikes(&mut self, operation: Operation, path: &Path) -> Option<Errno> {
        if operation != self.operation || !path.to_string_lossy().contains(&self.path_part) {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        if self.count == 0 {
            return None;
        }
        self.count -= 1;
        Some(self.error)
    }
}

/// How long operations take: a range each, from which the seed draws.
#[derive(Clone, Copy, Debug)]
pub struct DiskTimes {
    /// Reads and writes.
    pub transfer: (Duration, Duration),
    /// Flushes of files and directories.
    pub flush: (Duration, Duration),
    /// Everything else.
    pub metadata: (Duration, Duration),
}

impl Default for DiskTimes {
    fn default() -> Self {
        let range = |low, high| (Duration::from_micros(low), Duration::from_micros(high));
        Self {
            transfer: range(20, 300),
            flush: range(50, 800),
            metadata: range(10, 100),
        }
    }
}

impl DiskTimes {
    /// The same disk, so many times slower.
    #[must_use]
    pub fn slower(self, factor: u32) -> Self {
        let slow = |(low, high): (Duration, Duration)| (low * factor, high * factor);
        Self {
            transfer: slow(self.transfer),
            flush: slow(self.flush),
            metadata: slow(self.metadata),
        }
    }

    pub(super) fn of(&self, operation: Operation) -> (Duration, Duration) {
        match operation {
            Operation::Read | Operation::Write => self.transfer,
            Operation::SyncData | Operation::SyncDir => self.flush,
            Operation::Open
            | Operation::Create
            | Operation::Allocate
            | Operation::Truncate
            | Operation::Rename
            | Operation::Remove
            | Operation::CreateDir => self.metadata,
        }
    }
}
