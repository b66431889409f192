//! What a disk can do, asked the way the broker writes: directly, through the same ring, into a file that was
//! filled with zeros before.
//!
//! The file loses its name as soon as it is open, so its space is free again however the process ends. Both
//! its size and the time of each step are bounded.

mod latency;
mod steps;

#[cfg(test)]
mod tests;

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::io::{BLOCK_SIZE, Io, OpenMode};

pub use latency::{Latencies, Percentiles};
use steps::Trial;

/// Size of a large write or read, as fio is asked for in `docs/performance.md`.
pub const LARGE_SIZE: usize = 128 << 10;
/// How many of them are on their way at once.
pub const DEPTH: usize = 8;
/// Size of a small write.
pub const SMALL_SIZE: usize = BLOCK_SIZE;
/// A smaller file would fit into the disk's own memory.
pub const MIN_SIZE: u64 = 16 << 20;
/// What must stay free: the larger of this and one part in `SPARE_PARTS` of the disk.
const MIN_SPARE: u64 = 1 << 30;
const SPARE_PARTS: u64 = 50;

const NAME: &str = ".millstream-disk-check";

/// How much and how long.
#[derive(Clone, Debug)]
pub struct DiskPlan {
    /// Size of the file in bytes.
    pub size: u64,
    /// Time of each step; there are four.
    pub step_time: Duration,
}

/// A step that begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Zeros are written, as ahead of a hot log.
    Fill,
    /// Large writes.
    Write,
    /// Small writes, each flushed.
    Flush,
    /// Large reads.
    Read,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct DiskFigures {
    /// Name of the file system.
    pub file_system: String,
    /// Whether the page cache was bypassed.
    pub direct: bool,
    /// What was free before, in bytes.
    pub free_bytes: u64,
    /// Size of the file, which is less than planned where filling it took too long.
    pub size: u64,
    /// Large writes in order, and the flush after them.
    pub write: Throughput,
    /// Small writes in order, one at a time, each with its flush.
    pub flush: Flushes,
    /// Large reads in order.
    pub read: Throughput,
}

/// Many operations at once.
#[derive(Clone, Debug)]
pub struct Throughput {
    /// Bytes moved.
    pub bytes: u64,
    /// In this time.
    pub elapsed: Duration,
    /// How long each operation took.
    pub latencies: Latencies,
}

impl Throughput {
    /// Bytes in a second.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    pub fn bytes_per_second(&self) -> f64 {
        self.bytes as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// One small write and its flush after the other.
#[derive(Clone, Debug)]
pub struct Flushes {
    /// In this time.
    pub elapsed: Duration,
    /// The writes alone.
    pub writes: Latencies,
    /// The flushes alone.
    pub flushes: Latencies,
    /// Both together.
    pub both: Latencies,
}

impl Flushes {
    /// Writes with their flush in a second.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    pub fn per_second(&self) -> f64 {
        self.both.count() as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// Why a disk was not measured.
#[derive(Debug, thiserror::Error)]
pub enum DiskCheckError {
    /// Not a disk.
    #[error(
        "{0} lies in memory ({1}): there is no disk to measure; name a directory on ext4 or XFS"
    )]
    Memory(PathBuf, String),
    /// Not enough space.
    #[error(
        "{free} bytes are free in {directory}: a file of {size} would leave less than the {spare} that a broker \
         keeps free; --size takes less"
    )]
    Space {
        /// Where.
        directory: PathBuf,
        /// What is free, in bytes.
        free: u64,
        /// What was to be used.
        size: u64,
        /// What must stay.
        spare: u64,
    },
    /// The disk or the system refused.
    #[error("cannot measure {0}")]
    Io(PathBuf, #[source] io::Error),
}

/// Measures the disk under a directory, which exists. `tell` hears of each step as it begins.
///
/// # Errors
/// [`DiskCheckError`]. Nothing is left behind in any case.
pub async fn check_disk<I: Io>(
    io: &I,
    directory: &Path,
    plan: &DiskPlan,
    tell: impl Fn(Step),
) -> Result<DiskFigures, DiskCheckError> {
    let failed = |error| DiskCheckError::Io(directory.to_owned(), error);
    let info = io.info(directory).await.map_err(failed)?;
    if matches!(info.file_system.as_str(), "tmpfs" | "ramfs") {
        return Err(DiskCheckError::Memory(
            directory.to_owned(),
            info.file_system,
        ));
    }
    let space = io.space(directory).await.map_err(failed)?;
    let size = plan.size.max(MIN_SIZE) / LARGE_SIZE as u64 * LARGE_SIZE as u64;
    let spare = MIN_SPARE.max(space.total / SPARE_PARTS);
    if space.free < size.saturating_add(spare) {
        return Err(DiskCheckError::Space {
            directory: directory.to_owned(),
            free: space.free,
            size,
            spare,
        });
    }
    let measured = async {
        let file = nameless_file(io, directory).await?;
        let trial = Trial::new(io, file, plan.step_time);
        tell(Step::Fill);
        let trial = trial.fill(size).await?;
        tell(Step::Write);
        let write = trial.write().await?;
        tell(Step::Flush);
        let flush = trial.flush().await?;
        tell(Step::Read);
        let read = trial.read().await?;
        let size = trial.size();
        trial.close().await?;
        Ok((size, write, flush, read))
    };
    let (size, write, flush, read) = measured.await.map_err(failed)?;
    Ok(DiskFigures {
        file_system: info.file_system,
        direct: info.direct,
        free_bytes: space.free,
        size,
        write,
        flush,
        read,
    })
}

/// A new file that nothing but this process knows of.
async fn nameless_file<I: Io>(io: &I, directory: &Path) -> io::Result<I::File> {
    let path = directory.join(NAME);
    // Of a process that was killed in the moment between the two calls below.
    match io.remove_file(&path).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = io.open(&path, OpenMode::CreateNew).await?;
    io.remove_file(&path).await?;
    Ok(file)
}
