//! Directories and opening: on the shard's blocking threads, for these calls have no other form.

use std::{
    fs, io,
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::{fs::OFlags, io::Errno};

use super::{UringIo, buffer::UringBuffer, file::UringFile};
use crate::io::{Disk, DiskInfo, DiskSpace, OpenMode};

impl UringIo {
    /// Runs a call on one path that may block.
    async fn at_path<T: Send + 'static>(
        &self,
        path: &Path,
        call: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let _operation = self.shard.disk_operation().await;
        let path = path.to_path_buf();
        self.shard.blocking.run(move || call(&path)).await
    }
}

impl Disk for UringIo {
    type Buffer = UringBuffer;
    type File = UringFile;

    fn buffer(&self, size: usize) -> UringBuffer {
        self.shard.pool.buffer(size)
    }

    async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<UringFile> {
        let direct = self.shard.direct;
        let opened = self
            .at_path(path, move |path| open(path, mode, direct))
            .await?;
        Ok(UringFile::new(opened, &self.shard))
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

/// Opens a file, for direct I/O if that is wanted and this file system has it.
fn open(path: &Path, mode: OpenMode, direct: bool) -> io::Result<OwnedFd> {
    let mut options = fs::OpenOptions::new();
    options
        .read(true)
        .write(mode != OpenMode::Read)
        .create_new(mode == OpenMode::CreateNew);
    let file = OwnedFd::from(options.mode(0o640).open(path)?);
    if direct {
        let flags = rustix::fs::fcntl_getfl(&file)? | OFlags::DIRECT;
        match rustix::fs::fcntl_setfl(&file, flags) {
            Ok(()) | Err(Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(file)
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
