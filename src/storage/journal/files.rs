//! The files of journals: found by their names, read by whatever means there are, removed.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use uuid::Uuid;

use super::{
    frames::{FoundFile, parse_file},
    replay::{Gap, Replay},
};
use crate::{
    io::{BLOCK_SIZE, Buffer, DiskFile, Io, OpenMode},
    storage::{
        LogError,
        format::{
            journal::{NotAJournal, decode_file_header},
            names::{self, JournalFileKind},
        },
        limits::{MAX_JOURNAL_SIZE, SCAN_READ_SIZE},
    },
};

/// Journals whose removal was begun, and what is left of their files: it only has to be ended.
pub(super) type Removed = BTreeMap<Uuid, Vec<PathBuf>>;

/// The directory of journals, as far as it is theirs.
struct Listing {
    removed: Removed,
    files: Vec<(Uuid, PathBuf)>,
}

impl Listing {
    fn of(mut paths: Vec<PathBuf>) -> Self {
        paths.sort();
        let mut removed = Removed::new();
        let mut ring = Vec::new();
        for path in paths {
            match names::journal_file_kind(&path) {
                Some(JournalFileKind::Removal(journal)) => {
                    removed.insert(journal, Vec::new());
                }
                Some(JournalFileKind::Ring(journal)) => ring.push((journal, path)),
                None => {}
            }
        }
        let mut files = Vec::new();
        for (journal, path) in ring {
            match removed.get_mut(&journal) {
                Some(removed) => removed.push(path),
                None => files.push((journal, path)),
            }
        }
        Self { removed, files }
    }
}

impl Replay {
    /// Reads every journal in a data directory.
    ///
    /// # Errors
    /// The disk's, a newer format, or a damaged frame that is known to have been durable.
    pub async fn read<I: Io>(io: &I, data_dir: &Path) -> Result<Arc<Self>, LogError> {
        let dir = names::journal_dir(data_dir);
        let paths = match io.read_dir(&dir).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Arc::default()),
            paths => paths.map_err(failed("listing", &dir))?,
        };
        let listing = Listing::of(paths);
        let mut files = Vec::new();
        for (journal, path) in listing.files {
            let bytes = read_file(io, &path).await?;
            files.push((journal, found(path, journal, &bytes)?));
        }
        let (replay, gaps) = Self::of(listing.removed, files);
        match gaps.into_iter().next() {
            Some(gap) => Err(gap.refusal(data_dir)),
            None => Ok(Arc::new(replay)),
        }
    }

    /// The same without a broker, and without changing anything; a damaged frame does not keep the rest from being
    /// looked at.
    pub(in crate::storage) fn look(data_dir: &Path) -> Result<(Self, Vec<Gap>), LogError> {
        let dir = names::journal_dir(data_dir);
        let entries = match fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Default::default()),
            entries => entries.map_err(failed("listing", &dir))?,
        };
        let paths: io::Result<Vec<PathBuf>> = entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect();
        let listing = Listing::of(paths.map_err(failed("listing", &dir))?);
        let mut files = Vec::new();
        for (journal, path) in listing.files {
            let size = fs::metadata(&path).map_err(failed("reading", &path))?.len();
            check_size(&path, size)?;
            let bytes = fs::read(&path).map_err(failed("reading", &path))?;
            files.push((journal, found(path, journal, &bytes)?));
        }
        Ok(Self::of(listing.removed, files))
    }
}

/// What a file holds. With frames that can be read, a version that is not known is damage to its header.
fn found(path: PathBuf, journal: Uuid, bytes: &[u8]) -> Result<FoundFile, LogError> {
    let (block, frames) = bytes.split_at(bytes.len().min(BLOCK_SIZE));
    let file = parse_file(path, journal, frames);
    match decode_file_header(block) {
        Err(NotAJournal::Version(version)) if file.frames.iter().all(|frame| frame.spoiled) => {
            Err(LogError::NewerFormat {
                path: file.path,
                version,
            })
        }
        Err(NotAJournal::Version(_) | NotAJournal::Damaged) | Ok(_) => Ok(file),
    }
}

/// All of it is held in memory.
fn check_size(path: &Path, size: u64) -> Result<(), LogError> {
    if size <= MAX_JOURNAL_SIZE {
        return Ok(());
    }
    let error = format!("it has {size} bytes, and no journal more than {MAX_JOURNAL_SIZE}");
    let error = io::Error::new(io::ErrorKind::InvalidData, error);
    Err(failed("reading", path)(error))
}

async fn read_file<I: Io>(io: &I, path: &Path) -> Result<Vec<u8>, LogError> {
    let file = io.open(path, OpenMode::Write).await;
    let file = file.map_err(failed("opening", path))?;
    // The last process may have died between a write and its flush: what is believed now must not be gone
    // after a power cut.
    file.sync_data().await.map_err(failed("flushing", path))?;
    check_size(path, file.size().await.map_err(failed("measuring", path))?)?;
    let mut bytes = Vec::new();
    loop {
        let size = match bytes.len() {
            0 => BLOCK_SIZE,
            _ => SCAN_READ_SIZE,
        };
        let read = file.read_at(bytes.len() as u64, size).await;
        let read = read.map_err(failed("reading", path))?;
        if read.bytes().is_empty() {
            return Ok(bytes);
        }
        bytes.extend_from_slice(read.bytes());
        io.yield_if_needed().await;
    }
}

/// Removes a journal. A mark that says so comes first, durably, and goes last: a journal of which some
/// files are missing looks like one that lost them.
pub(super) async fn remove_journal<I: Io>(
    io: &I,
    data_dir: &Path,
    journal: Uuid,
    files: Vec<PathBuf>,
) -> io::Result<()> {
    let dir = names::journal_dir(data_dir);
    let mark = names::removal_path(data_dir, journal);
    match io.open(&mark, OpenMode::CreateNew).await {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => made?.close().await?,
    }
    io.sync_dir(&dir).await?;
    for path in files {
        match io.remove_file(&path).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed?,
        }
    }
    io.sync_dir(&dir).await?;
    io.remove_file(&mark).await?;
    io.sync_dir(&dir).await
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LogError {
    let path = path.to_owned();
    move |error| LogError::Io {
        operation,
        path,
        error: Arc::new(error),
    }
}
