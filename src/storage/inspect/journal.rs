//! What the journals of a stopped broker hold, for a look at the logs that it belongs to.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use millstream_protocol::{Offset, TopicPartition};
use uuid::Uuid;

use crate::storage::{
    LogError,
    format::{chunk::ChunkHeader, names},
    incarnations::Incarnations,
    journal::{Gap, Replay, SpoiledEntry, Tail, TornFrame},
};

/// The journals in a data directory, read and checked.
#[derive(Debug, Default)]
pub struct Journals {
    replay: Replay,
    gaps: Vec<Gap>,
}

/// A journal that lost a frame which was durable. Nobody can tell whose records were in it, and no broker
/// starts with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalDamage {
    /// The file.
    pub path: PathBuf,
    /// Where the frame should be.
    pub position: u64,
    /// Which frame it is.
    pub reason: String,
}

impl Journals {
    /// Reads the journals in a data directory, if there are any: a clean stop leaves none.
    ///
    /// # Errors
    /// The system's, and a format of a newer broker.
    pub fn read(data_dir: &Path) -> Result<Self, LogError> {
        let (replay, gaps) = Replay::look(data_dir)?;
        Ok(Self { replay, gaps })
    }

    /// What is missing of them.
    pub fn damage(&self) -> impl Iterator<Item = JournalDamage> {
        self.gaps.iter().map(|gap| JournalDamage {
            path: gap.path.clone(),
            position: gap.position,
            reason: gap.to_string(),
        })
    }

    /// Where the next start cuts them because their last frame is torn.
    pub fn torn(&self) -> &[TornFrame] {
        self.replay.torn()
    }

    /// The directories of the partitions that they hold something of; one may not be there yet.
    pub fn partition_dirs(&self, data_dir: &Path) -> Vec<PathBuf> {
        let logs = self.replay.logs();
        logs.map(|id| names::partition_dir(data_dir, id)).collect()
    }

    /// The earliest life of a log that they name.
    pub(super) fn first_life(&self, id: TopicPartition) -> Option<u64> {
        self.replay.lives(id).min()
    }

    /// Journals that no broker starts with, and their files.
    pub(in crate::storage) fn refused(&self) -> BTreeMap<Uuid, Vec<PathBuf>> {
        let journals = self.gaps.iter().map(|gap| gap.journal);
        let files = |journal| (journal, self.replay.files(journal).to_vec());
        journals.map(files).collect()
    }

    /// Files with damaged records in them; one may come several times.
    pub(in crate::storage) fn spoiled_files(&self) -> impl Iterator<Item = &Path> {
        self.replay
            .spoiled_entries()
            .map(|entry| entry.path.as_path())
    }

    /// What they have of a log: each entry's header and batches.
    pub(in crate::storage) fn entries(
        &self,
        id: TopicPartition,
    ) -> impl Iterator<Item = (ChunkHeader, &[u8])> {
        self.replay.entries(id)
    }

    /// What they had of a log, and cannot give.
    pub(in crate::storage) fn spoiled(&self, id: TopicPartition) -> &[SpoiledEntry] {
        self.replay.spoiled(id)
    }

    /// What they had of a log beyond offset `end`, and cannot give.
    pub(super) fn lost_beyond(
        &self,
        id: TopicPartition,
        end: Offset,
        lives: &Incarnations,
    ) -> Option<&SpoiledEntry> {
        self.replay.lost_beyond(id, end, lives)
    }

    /// What follows offset `end` of a log.
    pub(super) fn tail(&self, id: TopicPartition, end: Offset, lives: &Incarnations) -> Tail {
        self.replay.tail(id, end, lives)
    }
}
