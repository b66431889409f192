//! Small files read and written whole: checkpoints and indexes.

use std::{io, path::Path, rc::Rc};

use super::limits::{MAX_ENVELOPE_SIZE, SCAN_READ_SIZE};
use crate::io::{Buffer, Disk, DiskFile, OpenMode, align_up};

/// Bytes of a file that are read at once at first.
const FIRST_WHOLE_READ: usize = 64 << 10;

/// Reads a file, up to the largest that is believed.
pub(super) async fn read<D: Disk>(disk: &D, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path, OpenMode::Read).await?;
    let mut bytes = Vec::new();
    while bytes.len() < MAX_ENVELOPE_SIZE {
        // Most are small.
        let size = bytes.len().clamp(FIRST_WHOLE_READ, SCAN_READ_SIZE);
        let block = file.read_at(bytes.len() as u64, size).await?;
        if block.bytes().is_empty() {
            break;
        }
        bytes.extend_from_slice(block.bytes());
    }
    file.close().await?;
    Ok(bytes)
}

/// Writes `bytes`, whole blocks, over the start of a file and flushes it, making the file first if
/// there is none; true if it did, and then the name is not durable yet. What the file held beyond
/// stays there.
pub(super) async fn write<D: Disk>(disk: &D, path: &Path, bytes: &[u8]) -> io::Result<bool> {
    assert_eq!(bytes.len(), align_up(bytes.len()));
    let (file, made) = match disk.open(path, OpenMode::Write).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            (disk.open(path, OpenMode::CreateNew).await?, true)
        }
        opened => (opened?, false),
    };
    // A refusal for want of space comes here, before anything was overwritten.
    file.allocate(bytes.len() as u64).await?;
    let mut buffer = disk.buffer(bytes.len());
    buffer.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
    file.write_at(Rc::new(buffer), 0).await?;
    file.sync_data().await?;
    file.close().await?;
    Ok(made)
}
