//! Where the logs of a data directory lie, and reading their files a piece at a time.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use millstream_protocol::{Offset, TopicPartition};

use crate::storage::format::names::{self, DELAY_DIR, FileKind};

/// Every log's directory in a data directory, in `topics/`, in a topic's, in a partition's, or this one: those of
/// partitions, and of their delay logs.
///
/// # Errors
/// The system's.
pub fn partition_dirs(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    collect(dir, 3, &mut found)?;
    found.sort();
    Ok(found)
}

fn collect(dir: &Path, depth: u32, found: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut below = Vec::new();
    let mut is_partition = false;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if names::file_kind(&path).is_some() {
            is_partition = true;
        } else if path.is_dir() {
            below.push(path);
        }
    }
    if is_partition {
        found.push(dir.to_owned());
    }
    // A partition's delay log lies within it, also where the partition has no files of its own.
    let delay = dir.join(DELAY_DIR);
    for path in below {
        if path == delay {
            collect(&path, 0, found)?;
        } else if !is_partition && depth > 0 {
            collect(&path, depth - 1, found)?;
        }
    }
    Ok(())
}

/// Whose directory it is, by its name.
pub(in crate::storage) fn partition_of(dir: &Path) -> Option<TopicPartition> {
    // In the directory itself its name does not say where it is.
    let whole = dir.canonicalize();
    names::log_of_dir(whole.as_deref().unwrap_or(dir))
}

/// The base offsets of a log's segments, ascending.
pub(in crate::storage) fn segments(dir: &Path) -> io::Result<Vec<Offset>> {
    let mut bases = Vec::new();
    for entry in fs::read_dir(dir)? {
        if let Some(FileKind::Segment(base)) = names::file_kind(&entry?.path()) {
            bases.push(base);
        }
    }
    bases.sort_unstable();
    Ok(bases)
}

/// Reads a file, as far as it is not larger than what is believed.
pub(in crate::storage) fn read_whole(path: &Path, size_max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path)?;
    file.take(size_max as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Fills a buffer from a position of a file, as far as that goes.
pub(in crate::storage) fn read_up_to(
    file: &File,
    buffer: &mut [u8],
    position: u64,
) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match file.read_at(&mut buffer[read..], position + read as u64)? {
            0 => break,
            count => read += count,
        }
    }
    Ok(read)
}
