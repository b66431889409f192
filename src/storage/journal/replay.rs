//! What the journals of the last process hold: read once, before any log opens, by whichever number of
//! shards comes next.
//!
//! A journal's frames are numbered. From the oldest that is needed they must follow each other up to
//! the last one; what breaks off there is a torn frame that was never acknowledged, unless a later frame
//! says that it was durable. Then acknowledged data is gone, and nobody can tell whose: the broker
//! does not start.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use millstream_protocol::{Offset, TopicPartition};
use uuid::Uuid;

use crate::{
    io::{BLOCK_SIZE, Buffer, DiskFile, Io, OpenMode},
    storage::{
        LogError,
        format::{
            chunk::{CHUNK_HEADER_SIZE, ChunkHeader},
            journal::{
                FRAME_HEADER_SIZE, FRAME_MAGIC, FrameHeader, JOURNAL_HEADER_SIZE, NotAJournal,
                decode_file_header, entry_size,
            },
            names,
        },
        incarnations::Incarnations,
        limits::SCAN_READ_SIZE,
        run,
    },
};

/// Everything found in journals, by the log it belongs to. Shared by all shards while they start.
#[derive(Debug, Default)]
pub struct Replay {
    entries: BTreeMap<TopicPartition, Vec<Entry>>,
    frames: Vec<Vec<u8>>,
    journals: BTreeMap<Uuid, JournalFiles>,
}

/// The files of a journal, and the logs that have something in it.
#[derive(Debug, Default)]
struct JournalFiles {
    files: Vec<PathBuf>,
    logs: BTreeSet<TopicPartition>,
}

/// A log's part of a frame.
#[derive(Clone, Debug)]
struct Entry {
    header: ChunkHeader,
    frame: usize,
    payload: Range<usize>,
}

/// Batches that only a journal holds.
#[derive(Clone, Debug)]
pub(in crate::storage) struct ReplayedEntry {
    pub header: ChunkHeader,
    /// Back to back.
    pub batches: Vec<u8>,
    /// Offset of the first one, and after the last one.
    pub first: Offset,
    pub next: Offset,
    pub batch_count: u32,
}

/// What the journals add to a log.
#[derive(Clone, Debug)]
pub(in crate::storage) struct Tail {
    /// They follow each other.
    pub entries: Vec<ReplayedEntry>,
    /// Where the last one ends.
    pub end: Offset,
    /// There is more of this life that does not follow: it must never be taken for data.
    pub stale: bool,
}

/// A frame is missing that is known to have been durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::storage) struct Gap {
    pub journal: Uuid,
    /// Number of the frame.
    pub frame: u64,
    /// The file that should hold it, as far as can be told, and the position there.
    pub path: PathBuf,
    pub position: u64,
}

/// One file as it was found.
struct FoundFile {
    path: PathBuf,
    /// Frames that follow each other from the start of the file on, and their positions there.
    frames: Vec<(FrameHeader, u64, Vec<u8>)>,
    /// Of all valid frames in it, also those that do not follow.
    newest: Option<FrameHeader>,
    flushed: u64,
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
        let mut journals: BTreeMap<Uuid, Vec<FoundFile>> = BTreeMap::new();
        let mut replay = Self::default();
        let removed = paths.iter().filter_map(|path| journal_of(path, ".removed"));
        let removed: BTreeSet<Uuid> = removed.collect();
        for journal in &removed {
            // Its removal was begun, so nothing in it is needed: it only has to be ended.
            let theirs = |path: &&PathBuf| journal_of(path, ".journal") == Some(*journal);
            let theirs = JournalFiles {
                files: paths.iter().filter(theirs).cloned().collect(),
                logs: BTreeSet::new(),
            };
            replay.journals.insert(*journal, theirs);
        }
        for path in paths {
            let journal = journal_of(&path, ".journal");
            if let Some(journal) = journal.filter(|journal| !removed.contains(journal)) {
                let file = read_file(io, path, journal).await?;
                journals.entry(journal).or_default().push(file);
            }
        }
        for (journal, files) in journals {
            replay.add_journal(journal, files).map_err(LogError::from)?;
        }
        replay.sort();
        Ok(Arc::new(replay))
    }

    /// The same from files that were read by other means; what is missing does not keep the rest from being
    /// looked at.
    pub(in crate::storage) fn of_files(files: Vec<(PathBuf, Vec<u8>)>) -> (Self, Vec<Gap>) {
        let removed = files
            .iter()
            .filter_map(|(path, _)| journal_of(path, ".removed"));
        let removed: BTreeSet<Uuid> = removed.collect();
        let mut journals: BTreeMap<Uuid, Vec<FoundFile>> = BTreeMap::new();
        for (path, bytes) in files {
            let journal = journal_of(&path, ".journal");
            if let Some(journal) = journal.filter(|journal| !removed.contains(journal)) {
                let frames = bytes.get(BLOCK_SIZE..).unwrap_or_default();
                let file = parse_file(path, journal, frames);
                journals.entry(journal).or_default().push(file);
            }
        }
        let mut replay = Self::default();
        let mut gaps = Vec::new();
        for (journal, files) in journals {
            gaps.extend(replay.add_journal(journal, files).err());
        }
        replay.sort();
        (replay, gaps)
    }

    fn sort(&mut self) {
        for entries in self.entries.values_mut() {
            entries.sort_by_key(|entry| (entry.header.base, entry.header.next));
        }
    }

    /// The logs that there is something of.
    pub(in crate::storage) fn logs(&self) -> impl Iterator<Item = TopicPartition> {
        self.entries.keys().copied()
    }

    /// There is nothing to replay, and nothing to remove.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.journals.is_empty()
    }

    /// Removes the journals that were read: everything in them is durable elsewhere. Those stay that hold
    /// something of a log in `untaken`, and are read again at the next start.
    ///
    /// # Errors
    /// The disk's. What is left is read again as well, and does no harm.
    pub async fn remove<I: Io>(
        &self,
        io: &I,
        data_dir: &Path,
        untaken: &BTreeSet<TopicPartition>,
    ) -> io::Result<()> {
        for (journal, JournalFiles { files, logs }) in &self.journals {
            if logs.is_disjoint(untaken) {
                remove_journal(io, data_dir, *journal, files.clone()).await?;
            }
        }
        Ok(())
    }

    fn add_journal(&mut self, journal: Uuid, mut files: Vec<FoundFile>) -> Result<(), Gap> {
        let first = |file: &FoundFile| file.frames.first().map(|(header, ..)| header.sequence);
        files.sort_by_key(first);
        let newest = files.iter().filter_map(|file| file.newest);
        let newest = newest.max_by_key(|header| header.sequence);
        let paths = files.iter().map(|file| file.path.clone());
        let known = JournalFiles {
            files: paths.collect(),
            logs: BTreeSet::new(),
        };
        self.journals.insert(journal, known);
        let Some(newest) = newest else {
            return Ok(());
        };
        let flushed = files.iter().map(|file| file.flushed).max().unwrap_or(0);
        let last_path = files.last().map(|file| file.path.clone());
        let last_path = last_path.unwrap_or_default();
        let mut expected = newest.oldest;
        let mut place: Option<(PathBuf, u64)> = None;
        // Files whose first frame is bad, by the newest one that is good.
        let mut headless = BTreeMap::new();
        for file in files {
            if let (Some(newest), None) = (file.newest, file.frames.first()) {
                headless.insert(newest.sequence, file.path.clone());
            }
            for (header, position, bytes) in file.frames {
                if header.sequence == expected {
                    expected += 1;
                    place = Some((file.path.clone(), position + header.disk_size() as u64));
                    self.add_frame(journal, &header, bytes);
                }
            }
        }
        if flushed < expected {
            return Ok(());
        }
        // Behind the frame before it, if that file does not begin with one that is bad.
        let begins = headless.range(expected..).next();
        let begins = begins.map(|(_, path)| (path.clone(), JOURNAL_HEADER_SIZE));
        let (path, position) = begins.or(place).unwrap_or((last_path, JOURNAL_HEADER_SIZE));
        Err(Gap {
            journal,
            frame: expected,
            path,
            position,
        })
    }

    fn add_frame(&mut self, journal: Uuid, header: &FrameHeader, bytes: Vec<u8>) {
        let logs = &mut self.journals.entry(journal).or_default().logs;
        let mut at = FRAME_HEADER_SIZE;
        for _ in 0..header.entry_count {
            // The frame's checksum holds, so what does not fit was written so, and nobody can read it.
            let Some(Ok(entry)) = bytes.get(at..).map(ChunkHeader::peek) else {
                break;
            };
            let payload =
                at + CHUNK_HEADER_SIZE..at + CHUNK_HEADER_SIZE + entry.payload_size as usize;
            if payload.end > bytes.len() {
                break;
            }
            at += entry_size(entry.payload_size as usize);
            logs.insert(entry.id);
            self.entries.entry(entry.id).or_default().push(Entry {
                header: entry,
                frame: self.frames.len(),
                payload,
            });
        }
        self.frames.push(bytes);
    }

    /// A name for a journal that none of these has.
    pub(in crate::storage) fn new_journal(&self, mut random: impl FnMut() -> u64) -> Uuid {
        loop {
            let (high, low) = (random(), random());
            let id = Uuid::from_u64_pair(high, low);
            if !self.journals.contains_key(&id) {
                return id;
            }
        }
    }

    /// There is something of this log.
    pub(in crate::storage) fn holds(&self, id: TopicPartition) -> bool {
        self.entries.contains_key(&id)
    }

    /// The lives of a log that there is something of.
    pub(in crate::storage) fn lives(&self, id: TopicPartition) -> impl Iterator<Item = u64> {
        let entries = self.entries.get(&id).into_iter().flatten();
        entries.map(|entry| entry.header.incarnation)
    }

    /// What follows offset `end` of a log.
    pub(in crate::storage) fn tail(
        &self,
        id: TopicPartition,
        end: Offset,
        lives: &Incarnations,
    ) -> Tail {
        let mut tail = Tail {
            entries: Vec::new(),
            end,
            stale: false,
        };
        for entry in self.entries.get(&id).into_iter().flatten() {
            let header = &entry.header;
            let Some(admitted) = lives.admit(header.incarnation, header.base, header.next) else {
                continue;
            };
            if admitted <= tail.end {
                continue;
            }
            if header.base > tail.end {
                tail.stale = true;
                continue;
            }
            let payload = &self.frames[entry.frame][entry.payload.clone()];
            tail.add(header, payload, admitted);
        }
        tail
    }
}

impl Tail {
    /// Takes the batches from the end so far up to `admitted`.
    fn add(&mut self, header: &ChunkHeader, payload: &[u8], admitted: Offset) {
        let mut entry = ReplayedEntry {
            header: *header,
            batches: Vec::new(),
            first: self.end,
            next: self.end,
            batch_count: 0,
        };
        if !run::batches_fill(payload, header.base, header.next) {
            self.stale = true;
            return;
        }
        for (batch, range) in run::batches(payload) {
            let follows = batch.base_offset >= entry.next;
            if follows && batch.next_offset() <= admitted {
                entry.batches.extend_from_slice(&payload[range]);
                entry.next = batch.next_offset();
                entry.batch_count += 1;
            }
        }
        if entry.batch_count > 0 {
            self.end = entry.next;
            self.entries.push(entry);
        }
    }
}

impl From<Gap> for LogError {
    fn from(gap: Gap) -> Self {
        Self::Io {
            operation: "reading the journal",
            error: Arc::new(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "{gap}. Restore its files, or move them away to start without what only they hold"
                ),
            )),
            path: gap.path,
        }
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (frame, journal) = (self.frame, self.journal);
        write!(
            f,
            "frame {frame} of journal {journal} is damaged or missing, but a later frame says that it was \
             durable: acknowledged records are lost"
        )
    }
}

/// The journal that a file belongs to by its name.
fn journal_of(path: &Path, suffix: &str) -> Option<Uuid> {
    let stem = path.file_name()?.to_str()?.strip_suffix(suffix)?;
    Uuid::try_parse(stem.split('-').next()?).ok()
}

async fn read_file<I: Io>(io: &I, path: PathBuf, journal: Uuid) -> Result<FoundFile, LogError> {
    let file = io.open(&path, OpenMode::Write).await;
    let file = file.map_err(failed("opening", &path))?;
    // The last process may have died between a write and its flush: what is believed now must not be gone
    // after a power cut.
    file.sync_data().await.map_err(failed("flushing", &path))?;
    let block = file.read_at(0, BLOCK_SIZE).await;
    let block = block.map_err(failed("reading", &path))?;
    if let Err(NotAJournal::Version(version)) = decode_file_header(block.bytes()) {
        return Err(LogError::NewerFormat { path, version });
    }
    let mut bytes = Vec::new();
    loop {
        let position = JOURNAL_HEADER_SIZE + bytes.len() as u64;
        let read = file.read_at(position, SCAN_READ_SIZE).await;
        let read = read.map_err(failed("reading", &path))?;
        if read.bytes().is_empty() {
            break;
        }
        bytes.extend_from_slice(read.bytes());
        io.yield_if_needed().await;
    }
    Ok(parse_file(path, journal, &bytes))
}

fn parse_file(path: PathBuf, journal: Uuid, bytes: &[u8]) -> FoundFile {
    let mut found = FoundFile {
        path,
        frames: Vec::new(),
        newest: None,
        flushed: 0,
    };
    let mut at = 0;
    let mut follows = true;
    while at < bytes.len() {
        let header = valid_frame(&bytes[at..], journal);
        let next = match (&header, found.frames.last()) {
            (Some(header), Some((last, ..))) => header.sequence == last.sequence + 1,
            (Some(_), None) => true,
            (None, _) => false,
        };
        follows &= next;
        let Some(header) = header else {
            at += BLOCK_SIZE;
            continue;
        };
        found.flushed = found.flushed.max(header.flushed);
        let newer = |newest: &FrameHeader| newest.sequence < header.sequence;
        if found.newest.as_ref().is_none_or(newer) {
            found.newest = Some(header);
        }
        if follows {
            let frame = bytes[at..at + header.size as usize].to_vec();
            let position = JOURNAL_HEADER_SIZE + at as u64;
            found.frames.push((header, position, frame));
        }
        at += header.disk_size();
    }
    found
}

fn valid_frame(bytes: &[u8], journal: Uuid) -> Option<FrameHeader> {
    if !bytes.starts_with(&FRAME_MAGIC) {
        return None;
    }
    FrameHeader::verified(bytes).filter(|header| header.journal == journal)
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
    let mark = dir.join(format!("{}.removed", journal.simple()));
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
