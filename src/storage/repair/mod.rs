//! Making damaged files of a stopped broker usable again: what `log repair` does. Nothing is deleted: what is
//! damaged is set aside under a name that ends in `.damaged`, and every record that can still be read stays.
//!
//! Of each damaged log what is good is put together to a whole one ([`chain`]). Offsets whose records are
//! gone are covered by batches without records, so that none of them ever names another record, and a new life
//! begins behind, so that nothing older can be taken for data. Only files are added, each in one step, and the
//! checkpoints come last: a repair that is interrupted is just run again.
//!
//! Plain blocking files, as in [`super::inspect`]: the broker is stopped.

mod chain;
mod survey;
mod write;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use millstream_protocol::{Offset, TopicPartition};
use uuid::Uuid;

use self::{chain::Chain, survey::Survey};
use super::{
    format::names,
    incarnations::Incarnations,
    inspect::{Journals, Verdict, inspect, partition_of},
    limits::{MAX_NUMBER, MAX_OFFSET},
};

/// Offsets left out of every log that may have had a record in a frame nobody can read: more than any frame holds.
pub const SKIPPED: i64 = i32::MAX as i64;

/// Offsets of a log that a repair leaves empty at most; no disk loses more of one.
const MAX_LOST: i64 = 1 << 40;

/// Why nothing is repaired. Nothing was changed, unless it is the system's.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// The system's.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A newer broker's files are not touched.
    #[error(
        "format version {version} of {path} is not known: a newer version of millstream wrote it, and is the one to \
         repair with. If none ever ran on these files, it is this field that is damaged: restore the file, or move it \
         away to give it up"
    )]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Version of its format.
        version: u16,
    },
    /// A checksum holds over what cannot be so.
    #[error(
        "the log in {dir} cannot go up to offset {end} as its files say, {missing} offsets beyond what can be read: \
         they were not written so. Restore them, or move them away to give them up"
    )]
    Absurd {
        /// Its directory.
        dir: PathBuf,
        /// Where it would end.
        end: Offset,
        /// How many of its offsets nothing can be read of.
        missing: i64,
    },
}

/// What is to be done.
#[derive(Debug)]
pub struct Repair {
    /// Logs that are to be made whole.
    pub logs: Vec<LogRepair>,
    /// Journals that the broker refuses, with all their files: once the logs are whole, nothing needs them.
    pub journals: BTreeMap<Uuid, Vec<PathBuf>>,
    /// Files of other journals with damaged records in them. What is good there is still needed.
    pub spoiled: Vec<PathBuf>,
    data_dir: PathBuf,
}

/// A log that is to be made whole.
#[derive(Debug)]
pub struct LogRepair {
    /// Its directory.
    pub dir: PathBuf,
    /// Whose log it is.
    pub id: TopicPartition,
    /// What is wrong with it.
    pub reason: String,
    /// Offsets whose records are gone, each from the first to behind the last; ascending.
    pub lost: Vec<(Offset, Offset)>,
    /// Offsets that nobody can tell whether they ever named a record.
    pub skipped: Option<(Offset, Offset)>,
    /// First offset that can be read, and where the log goes on afterwards.
    pub log_start: Offset,
    /// See `log_start`.
    pub log_end: Offset,
    /// Files that are set aside.
    pub set_aside: Vec<PathBuf>,
    unused: Vec<Offset>,
    chain: Chain,
    lives: Incarnations,
    sequence: u64,
}

impl Repair {
    /// Finds out what is damaged below a data directory, and what of it can be saved. Changes nothing.
    ///
    /// # Errors
    /// [`RepairError`].
    pub fn plan(
        data_dir: &Path,
        partitions: &[PathBuf],
        journals: &Journals,
    ) -> Result<Self, RepairError> {
        let refused = journals.refused();
        let mut logs = Vec::new();
        for dir in partitions {
            logs.extend(plan_log(dir, journals, !refused.is_empty())?);
        }
        let mut spoiled: Vec<PathBuf> = journals.spoiled_files().map(Path::to_owned).collect();
        // What nothing was lost with needs no look.
        spoiled.retain(|path| {
            !logs.is_empty() && !refused.values().flatten().any(|other| other == path)
        });
        spoiled.sort();
        spoiled.dedup();
        Ok(Self {
            logs,
            journals: refused,
            spoiled,
            data_dir: data_dir.to_owned(),
        })
    }

    /// There is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.logs.is_empty() && self.journals.is_empty()
    }

    /// Does it. The broker's lock is held.
    ///
    /// # Errors
    /// The system's. What was done so far stays; another run does the rest.
    pub fn execute(&self, now_ms: i64) -> io::Result<()> {
        for log in &self.logs {
            log.execute(&self.data_dir, now_ms)?;
        }
        let dir = names::journal_dir(&self.data_dir);
        for path in &self.spoiled {
            write::keep_aside(path)?;
        }
        for (journal, files) in &self.journals {
            for path in files {
                write::keep_aside(path)?;
            }
            write::sync_dir(&dir)?;
            write::remove_journal(&self.data_dir, *journal, files)?;
        }
        if dir.exists() {
            write::sync_dir(&dir)?;
        }
        Ok(())
    }
}

fn plan_log(dir: &Path, journals: &Journals, skip: bool) -> Result<Option<LogRepair>, RepairError> {
    let Some(id) = partition_of(dir) else {
        return Ok(None);
    };
    let reason = match inspect(dir, journals, &mut |_| {})?.verdict {
        Verdict::Damaged {
            path,
            position,
            reason,
            ..
        } => Some(format!("at {position} of {}: {reason}", path.display())),
        Verdict::Good | Verdict::TornTail { .. } => None,
        Verdict::NewerFormat { path, version } => {
            return Err(RepairError::NewerFormat { path, version });
        }
    };
    if reason.is_none() && !skip {
        return Ok(None);
    }
    let survey = Survey::read(dir, id, journals)?;
    let chain = Chain::build(&survey, skip);
    check(&survey, &chain)?;
    let log_start = survey.log_start;
    // What is gone below the log's start is missed by nobody.
    let lost = chain.lost.iter().filter(|(_, next)| *next > log_start);
    let lost = lost.map(|(first, next)| (log_start.max(*first), *next));
    Ok(Some(LogRepair {
        dir: dir.to_owned(),
        id,
        reason: reason
            .unwrap_or_else(|| "a journal cannot tell whether it had more of it".to_owned()),
        lost: lost.collect(),
        skipped: chain.skipped,
        log_start,
        log_end: chain.end,
        set_aside: survey.set_aside(&chain),
        unused: survey.unused(&chain),
        chain,
        lives: survey.lives,
        sequence: survey.sequence,
    }))
}

/// Refuses what only somebody who forges checksums can have written.
fn check(survey: &Survey, chain: &Chain) -> Result<(), RepairError> {
    let missing = chain.lost.iter().map(|(first, next)| next.0 - first.0);
    let missing = missing.fold(0_i64, i64::saturating_add);
    let counts_on = survey.sequence < MAX_NUMBER - 2 && survey.lives.current() < MAX_NUMBER;
    if missing > MAX_LOST || chain.end.0 > MAX_OFFSET || !counts_on {
        return Err(RepairError::Absurd {
            dir: survey.dir.clone(),
            end: chain.end,
            missing,
        });
    }
    Ok(())
}
