//! The disk under the data directory: its space, its file system, whether it can go around the page
//! cache, and how long a flush takes.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    time::{Duration, Instant},
};

use super::mounts::Mount;
use crate::io::BLOCK_SIZE;

/// Flushes that the latency is the median of.
const FLUSH_COUNT: usize = 7;

/// What a disk is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskFacts {
    /// Name of the file system, such as `ext4`.
    pub file_system: String,
    /// What an ordinary user may still take, in bytes.
    pub free_bytes: u64,
    /// All there is, in bytes.
    pub total_bytes: u64,
    /// Whether reads and writes can bypass the page cache.
    pub direct: bool,
    /// Median time of a 4 KiB write and its flush.
    pub flush: Duration,
}

impl DiskFacts {
    /// Whether it is memory that looks like a disk: nothing on it outlives a restart of the host.
    #[must_use]
    pub fn is_memory(&self) -> bool {
        is_memory(&self.file_system)
    }
}

fn is_memory(file_system: &str) -> bool {
    matches!(file_system, "tmpfs" | "ramfs" | "devtmpfs")
}

/// Tries the disk with a small file of its own, which is gone afterwards.
///
/// # Errors
/// The directory cannot be written.
pub fn disk_facts(directory: &Path) -> io::Result<DiskFacts> {
    let space = rustix::fs::statvfs(directory)?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let directory = directory.canonicalize()?;
    let file_system = Mount::holding(&mounts, &directory)
        .map_or_else(|| "unknown".to_owned(), |mount| mount.file_system);
    let probe = directory.join(".disk-probe");
    let result = try_disk(&probe, &file_system);
    // A left-over is harmless, and the next start takes it away.
    let _ = fs::remove_file(&probe);
    let (direct, flush) = result?;
    Ok(DiskFacts {
        file_system,
        free_bytes: space.f_bavail.saturating_mul(space.f_frsize),
        total_bytes: space.f_blocks.saturating_mul(space.f_frsize),
        direct,
        flush,
    })
}

fn try_disk(probe: &Path, file_system: &str) -> io::Result<(bool, Duration)> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    let direct_flag = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).expect("a flag of open");
    // Memory has no page cache to go around, whatever newer kernels pretend.
    let direct = options.clone().custom_flags(direct_flag).open(probe);
    if let (false, Ok(file)) = (is_memory(file_system), direct)
        && let Ok(flush) = measure(&file)
    {
        return Ok((true, flush));
    }
    Ok((false, measure(&options.open(probe)?)?))
}

#[expect(
    clippy::disallowed_methods,
    reason = "measures the disk before any shard has a clock"
)]
fn measure(file: &File) -> io::Result<Duration> {
    let memory = vec![0_u8; 2 * BLOCK_SIZE];
    let start = memory.as_ptr().align_offset(BLOCK_SIZE);
    let block = &memory[start..start + BLOCK_SIZE];
    let mut times = Vec::with_capacity(FLUSH_COUNT);
    // The first write finds the file's place on the disk; it is not counted.
    file.write_all_at(block, 0)?;
    file.sync_data()?;
    for _ in 0..FLUSH_COUNT {
        let begin = Instant::now();
        file.write_all_at(block, 0)?;
        file.sync_data()?;
        times.push(begin.elapsed());
    }
    times.sort_unstable();
    Ok(times[FLUSH_COUNT / 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_real_directory_is_measured_and_left_clean() {
        let temp = tempfile::tempdir().unwrap();
        let facts = disk_facts(temp.path()).unwrap();
        assert!(facts.total_bytes >= facts.free_bytes && facts.total_bytes > 0);
        assert!(facts.flush > Duration::ZERO);
        assert_ne!(facts.file_system, "unknown");
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
        assert!(disk_facts(&temp.path().join("missing")).is_err());
    }
}
