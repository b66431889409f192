//! Directories and opening: on the shard's blocking threads, for these calls have no other form.

use std::{
    fs,
    io::{self, ErrorKind},
    os::{
        fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    path::{Path, PathBuf},
};

use glommio::io::{BufferedFile, OpenOptions};
use rustix::{fs::OFlags, io::Errno};

use super::{
    GlommioIo,
    buffer::GlommioBuffer,
    file::{FileKind, GlommioFile},
    system_error,
};
use crate::io::{Disk, DiskInfo, DiskSpace, OpenMode};

/// Runs a call that may block on a thread where it may.
pub(super) async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    glommio::executor().spawn_blocking(call).await
}

impl GlommioIo {
    /// Runs a call on one path that may block.
    async fn at_path<T: Send + 'static>(
        &self,
        path: &Path,
        call: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let _operation = self.shard.tasks.operation().await;
        let path = path.to_path_buf();
        blocking(move || call(&path)).await
    }

    /// Opens for glommio what is open already.
    ///
    /// glommio opens by name, and panics when the name is gone a moment later. The name below
    /// `/proc` stays as long as the descriptor. Where `/proc` is missing the real name must do.
    async fn open_direct(
        &self,
        open: &OwnedFd,
        path: &Path,
        writable: bool,
    ) -> io::Result<FileKind> {
        let _operation = self.shard.tasks.operation().await;
        let mut options = OpenOptions::new();
        options.read(true).write(writable);
        let held = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd()));
        let opened = match options.dma_open(&held).await.map_err(system_error) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                options.dma_open(path).await.map_err(system_error)
            }
            result => result,
        };
        opened.map(FileKind::Direct)
    }

    fn open_buffered(open: OwnedFd) -> FileKind {
        // SAFETY: the descriptor is open, and given away for good.
        FileKind::Buffered(unsafe { BufferedFile::from_raw_fd(open.into_raw_fd()) })
    }
}

impl Disk for GlommioIo {
    type Buffer = GlommioBuffer;
    type File = GlommioFile;

    fn buffer(&self, size: usize) -> GlommioBuffer {
        GlommioBuffer::zeroed(size)
    }

    async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<GlommioFile> {
        let writable = mode != OpenMode::Read;
        let open = self
            .at_path(path, move |path| {
                let mut options = fs::OpenOptions::new();
                options
                    .read(true)
                    .write(writable)
                    .create_new(mode == OpenMode::CreateNew);
                Ok(OwnedFd::from(options.mode(0o640).open(path)?))
            })
            .await?;
        if !self.shard.direct {
            return Ok(GlommioFile::new(Self::open_buffered(open), &self.shard));
        }
        match self.open_direct(&open, path, writable).await {
            Ok(kind) => Ok(GlommioFile::new(kind, &self.shard)),
            // This file system refuses direct I/O.
            Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                Ok(GlommioFile::new(Self::open_buffered(open), &self.shard))
            }
            Err(error) => {
                if mode == OpenMode::CreateNew {
                    // Or the next attempt would find it there. The first error is the one to tell.
                    let _ = self.remove_file(path).await;
                }
                Err(error)
            }
        }
    }

    async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.at_path(path, |path| fs::create_dir_all(path)).await
    }

    async fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.at_path(path, |path| {
            let entries = fs::read_dir(path)?.map(|entry| Ok(entry?.path()));
            let mut paths = entries.collect::<io::Result<Vec<_>>>()?;
            paths.sort();
            Ok(paths)
        })
        .await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let to = to.to_path_buf();
        self.at_path(from, move |from| fs::rename(from, to)).await
    }

    async fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.at_path(path, |path| fs::remove_file(path)).await
    }

    async fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.at_path(path, |path| fs::remove_dir(path)).await
    }

    async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.at_path(path, |path| fs::File::open(path)?.sync_all())
            .await
    }

    async fn space(&self, path: &Path) -> io::Result<DiskSpace> {
        self.at_path(path, |path| {
            let stat = rustix::fs::statvfs(path)?;
            let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
            Ok(DiskSpace {
                free: bytes(stat.f_bavail),
                total: bytes(stat.f_blocks),
            })
        })
        .await
    }

    async fn info(&self, path: &Path) -> io::Result<DiskInfo> {
        let wanted = self.shard.direct;
        self.at_path(path, move |path| {
            let file_system = file_system_name(path)?;
            // tmpfs takes the flag and ignores it.
            let direct = wanted && file_system != "tmpfs" && takes_direct(path)?;
            Ok(DiskInfo {
                direct,
                file_system,
            })
        })
        .await
    }
}

/// The name of the file system that holds `path`, or its number.
fn file_system_name(path: &Path) -> io::Result<String> {
    let number = rustix::fs::statfs(path)?.f_type;
    let name = match number {
        0xef53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0x0102_1994 => "tmpfs",
        0x8584_58f6 => "ramfs",
        0x794c_7630 => "overlay",
        0xf2f5_2010 => "f2fs",
        0x2fc1_2fc1 => "zfs",
        0x6969 => "nfs",
        0x6573_5546 => "fuse",
        0x0102_1997 => "9p",
        _ => return Ok(format!("{number:#x}")),
    };
    Ok(name.to_owned())
}

/// Tries to open a file for direct I/O: one without a name, or where that is impossible one with.
fn takes_direct(directory: &Path) -> io::Result<bool> {
    let direct = OFlags::DIRECT.bits().cast_signed();
    let nameless = (OFlags::TMPFILE | OFlags::DIRECT).bits().cast_signed();
    let open = |path: &Path, flags| {
        fs::OpenOptions::new()
            .read(true)
            .write(true)
            .mode(0o600)
            .custom_flags(flags)
            .open(path)
    };
    let refused = |error: &io::Error| error.raw_os_error() == Some(Errno::INVAL.raw_os_error());
    match open(directory, nameless) {
        Ok(_) => return Ok(true),
        Err(error) if refused(&error) => return Ok(false),
        Err(error) if error.raw_os_error() != Some(Errno::OPNOTSUPP.raw_os_error()) => {
            return Err(error);
        }
        Err(_) => {}
    }
    let path = directory.join(format!(".direct-io-probe-{}", std::process::id()));
    fs::File::create_new(&path)?;
    let opened = open(&path, direct);
    fs::remove_file(&path)?;
    match opened {
        Ok(_) => Ok(true),
        Err(error) if refused(&error) => Ok(false),
        Err(error) => Err(error),
    }
}
