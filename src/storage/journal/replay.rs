//! What the journals of the last process hold: read once, before any log opens, by whichever number of
//! shards comes next.
//!
//! A journal's frames are numbered. From the oldest that is needed they must follow each other up to
//! the last one; what breaks off there is a torn frame that was never acknowledged, unless a later frame
//! says that it was durable. Then acknowledged data is damaged. If the frame's directory is intact it says
//! whose: those logs are read-only from there on. If not, nobody can tell, and the broker does not start.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    ops::{Range, RangeInclusive},
    path::{Path, PathBuf},
    sync::Arc,
};

use millstream_protocol::{Offset, TopicPartition};
use uuid::Uuid;

use super::{
    files::{Removed, remove_journal},
    frames::{FoundFile, FoundFrame},
    torn::{DoubtfulFrames, TornFrame},
};
use crate::{
    io::Io,
    storage::{
        LogError,
        format::{
            chunk::{CHUNK_HEADER_SIZE, ChunkHeader},
            journal::JOURNAL_HEADER_SIZE,
        },
        incarnations::Incarnations,
        run,
    },
};

/// Everything found in journals, by the log it belongs to. Shared by all shards while they start.
#[derive(Debug, Default)]
pub struct Replay {
    entries: BTreeMap<TopicPartition, Vec<Entry>>,
    /// Parts of durable frames whose batches are damaged.
    spoiled: BTreeMap<TopicPartition, Vec<SpoiledEntry>>,
    frames: Vec<Vec<u8>>,
    journals: BTreeMap<Uuid, JournalFiles>,
    torn: Vec<TornFrame>,
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
    /// Some of that was written when more was durable than is good now: up to here.
    pub proof: Option<Offset>,
}

/// A log's part of a durable frame, of which only the header can be believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::storage) struct SpoiledEntry {
    pub header: ChunkHeader,
    /// The file, and where the entry begins there.
    pub path: PathBuf,
    pub position: u64,
    /// Number of the frame.
    pub frame: u64,
}

impl SpoiledEntry {
    /// What is wrong.
    pub fn reason(&self) -> String {
        let (first, next) = (self.header.base, self.header.next);
        format!(
            "the records from offset {first} to {next} in frame {} of the journal do not match their checksum, \
             but a later frame says that they were durable",
            self.frame
        )
    }
}

/// Frames are missing that are known to have been durable, and nobody can tell whose records they held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::storage) struct Gap {
    pub journal: Uuid,
    /// Numbers of the frames.
    pub frames: RangeInclusive<u64>,
    /// The file that should hold the first one, as far as can be told, and the position there.
    pub path: PathBuf,
    pub position: u64,
}

impl Replay {
    /// What the files of journals hold, and the frames that they had durably and that are missing: that does not
    /// keep the rest from being looked at. Nothing in a journal is needed whose removal was begun.
    pub(super) fn of(removed: Removed, files: Vec<(Uuid, FoundFile)>) -> (Self, Vec<Gap>) {
        let mut replay = Self::default();
        for (journal, files) in removed {
            let logs = BTreeSet::new();
            replay
                .journals
                .insert(journal, JournalFiles { files, logs });
        }
        let mut journals: BTreeMap<Uuid, Vec<FoundFile>> = BTreeMap::new();
        for (journal, file) in files {
            journals.entry(journal).or_default().push(file);
        }
        let mut gaps = Vec::new();
        for (journal, files) in journals {
            gaps.extend(replay.add_journal(journal, files));
        }
        replay.sort();
        (replay, gaps)
    }

    fn sort(&mut self) {
        for entries in self.entries.values_mut() {
            entries.sort_by_key(|entry| (entry.header.base, entry.header.next));
        }
    }

    /// The logs that there is, or was, something of.
    pub(in crate::storage) fn logs(&self) -> impl Iterator<Item = TopicPartition> {
        self.entries.keys().chain(self.spoiled.keys()).copied()
    }

    /// The files of a journal.
    pub(in crate::storage) fn files(&self, journal: Uuid) -> &[PathBuf] {
        let known = self.journals.get(&journal);
        known.map_or(&[], |known| known.files.as_slice())
    }

    /// All there is of a log: each entry's header and batches, whether they fill it or not.
    pub(in crate::storage) fn entries(
        &self,
        id: TopicPartition,
    ) -> impl Iterator<Item = (ChunkHeader, &[u8])> {
        let entries = self.entries.get(&id).into_iter().flatten();
        entries.map(|entry| {
            (
                entry.header,
                &self.frames[entry.frame][entry.payload.clone()],
            )
        })
    }

    /// What is damaged of any log's part of the journals.
    pub(in crate::storage) fn spoiled_entries(&self) -> impl Iterator<Item = &SpoiledEntry> {
        self.spoiled.values().flatten()
    }

    /// What is damaged of a log's part of the journals.
    pub(in crate::storage) fn spoiled(&self, id: TopicPartition) -> &[SpoiledEntry] {
        self.spoiled.get(&id).map_or(&[], Vec::as_slice)
    }

    /// The first record of a log at or beyond `end` that the journals had durably and cannot give.
    pub(in crate::storage) fn lost_beyond(
        &self,
        id: TopicPartition,
        end: Offset,
        lives: &Incarnations,
    ) -> Option<&SpoiledEntry> {
        let lost = self.spoiled(id).iter().filter(|entry| {
            let header = &entry.header;
            let admitted = lives.admit(header.incarnation, header.base, header.next);
            admitted.is_some_and(|next| next > end)
        });
        lost.min_by_key(|entry| entry.header.base)
    }

    /// Where a journal was cut because its last frame is torn.
    pub fn torn(&self) -> &[TornFrame] {
        &self.torn
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

    /// Adds what a journal holds; gives the frames that it had durably and that are missing.
    fn add_journal(&mut self, journal: Uuid, files: Vec<FoundFile>) -> Vec<Gap> {
        let known = JournalFiles {
            files: files.iter().map(|file| file.path.clone()).collect(),
            logs: BTreeSet::new(),
        };
        self.journals.insert(journal, known);
        let flushed = files.iter().map(|file| file.flushed).max().unwrap_or(0);
        let last_path = files.last().map(|file| file.path.clone());
        let mut place = (last_path.unwrap_or_default(), JOURNAL_HEADER_SIZE);
        let doubtful = DoubtfulFrames::of(journal, &files);
        let mut frames = BTreeMap::new();
        for file in files {
            for frame in file.frames {
                frames.insert(frame.header.sequence, (file.path.clone(), frame));
            }
        }
        let Some((_, (_, newest))) = frames.last_key_value() else {
            self.torn.extend(doubtful.first());
            return Vec::new();
        };
        let mut gaps = Vec::new();
        let mut gap = |frames, (path, position)| {
            let gap = Gap {
                journal,
                frames,
                path,
                position,
            };
            gaps.push(gap);
        };
        let mut expected = newest.header.oldest.max(1);
        for (sequence, (path, frame)) in frames.split_off(&expected) {
            let missing = expected..=flushed.min(sequence - 1);
            if !missing.is_empty() {
                // Behind the frame before it, unless the file of the next one does not begin with that.
                let begins = frame.position > JOURNAL_HEADER_SIZE && path != place.0;
                let begins = begins.then(|| (path.clone(), JOURNAL_HEADER_SIZE));
                gap(missing, begins.unwrap_or_else(|| place.clone()));
            }
            if sequence > flushed.max(expected - 1) + 1 || frame.spoiled && sequence > flushed {
                // Torn, and what follows a torn frame was never acknowledged.
                let torn = expected.max(flushed + 1);
                let is_torn = sequence == torn;
                if !is_torn || frame.damaged_entries().next().is_some() {
                    let found = doubtful.find(torn, (&place.0, place.1));
                    let missing = || TornFrame::missing(journal, torn, place);
                    self.torn.push(found.unwrap_or_else(missing));
                }
                if is_torn {
                    self.add_frame(journal, &path, frame, true);
                }
                return gaps;
            }
            place = (path.clone(), frame.end());
            expected = sequence.saturating_add(1);
            self.add_frame(journal, &path, frame, false);
        }
        if flushed >= expected {
            gap(expected..=flushed, place);
        } else {
            let torn = doubtful.find(expected, (&place.0, place.1));
            self.torn.extend(torn);
        }
        gaps
    }

    /// Adds what is intact of a frame. What is damaged is lost if the frame is known to have been durable; of a torn
    /// one the rest may have been acknowledged, and harms nobody if it was not.
    fn add_frame(&mut self, journal: Uuid, path: &Path, frame: FoundFrame, is_torn: bool) {
        let damaged: BTreeSet<usize> = frame.damaged_entries().map(|(_, at)| at).collect();
        let logs = &mut self.journals.entry(journal).or_default().logs;
        for (header, at) in frame.entries() {
            if !damaged.contains(&at) {
                let payload = at + CHUNK_HEADER_SIZE;
                self.entries.entry(header.id).or_default().push(Entry {
                    header,
                    frame: self.frames.len(),
                    payload: payload..payload + header.payload_size as usize,
                });
            } else if !is_torn {
                let spoiled = self.spoiled.entry(header.id).or_default();
                spoiled.push(SpoiledEntry {
                    header,
                    path: path.to_owned(),
                    position: frame.position + at as u64,
                    frame: frame.header.sequence,
                });
            } else {
                continue;
            }
            logs.insert(header.id);
        }
        self.frames.push(frame.bytes);
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
        self.entries.contains_key(&id) || self.spoiled.contains_key(&id)
    }

    /// The lives of a log that there is something of.
    pub(in crate::storage) fn lives(&self, id: TopicPartition) -> impl Iterator<Item = u64> {
        let entries = self.entries.get(&id).into_iter().flatten();
        let whole = entries.map(|entry| entry.header.incarnation);
        let spoiled = self.spoiled(id).iter();
        whole.chain(spoiled.map(|entry| entry.header.incarnation))
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
            proof: None,
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
                let says_more = header.flushed > tail.end;
                tail.proof = tail.proof.max(says_more.then_some(header.flushed));
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

impl Gap {
    /// Why no broker starts with it.
    pub(super) fn refusal(self, data_dir: &Path) -> LogError {
        let error = format!(
            "{self}, and nobody can tell whose they are. 'millstream log repair --dry-run {}' says what is \
             known; restoring the journal's files loses nothing. Do not move them away: the offsets of what is lost would \
             be given again",
            data_dir.display()
        );
        LogError::Io {
            operation: "reading the journal",
            error: Arc::new(io::Error::new(io::ErrorKind::InvalidData, error)),
            path: self.path,
        }
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = self.frames.clone().into_inner();
        let journal = self.journal;
        match last - first {
            0 => write!(f, "frame {first} of journal {journal} is")?,
            _ => write!(f, "frames {first} to {last} of journal {journal} are")?,
        }
        write!(
            f,
            " damaged or missing, but a later frame says that it was durable: acknowledged records are lost"
        )
    }
}
