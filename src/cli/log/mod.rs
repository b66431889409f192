//! `millstream log`: a stopped broker's files, looked at and repaired without it.

use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand};

use crate::storage::inspect::{Journals, partition_dirs};

mod dump;
mod repair;
mod verify;

/// Directories from a delay log's to the data directory, both counted.
const DEPTH: usize = 5;

/// Arguments of `millstream log`.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub struct LogArgs {
    #[command(subcommand)]
    command: LogCommand,
}

#[derive(Debug, Subcommand)]
enum LogCommand {
    /// Print what is in the files: segments and chunks, batches or records
    Dump(dump::DumpArgs),
    /// Check every checksum and whether anything durable is missing
    Verify(verify::VerifyArgs),
    /// Make damaged files usable again: what can be read stays, what is damaged is set aside
    Repair(repair::RepairArgs),
}

impl LogArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// If the files can't be read, or a broker uses them.
    pub fn run(self) -> Result<ExitCode> {
        match self.command {
            LogCommand::Dump(args) => args.run(),
            LogCommand::Verify(args) => args.run(),
            LogCommand::Repair(args) => args.run(),
        }
    }
}

/// What there is to look at.
struct Stopped {
    /// The directories of partitions, sorted. Of some there may be nothing but what the journals hold.
    partitions: Vec<PathBuf>,
    journals: Journals,
}

impl Stopped {
    /// The partitions below a directory: a data directory, a topic's, or a partition's own; and the journals
    /// of its data directory.
    fn open(dir: &Path) -> Result<Self> {
        ensure!(
            !dir.is_file(),
            "{} is a file: give the directory of its partition, or the data directory",
            dir.display()
        );
        check_stopped(dir)?;
        let cannot_read = || format!("cannot read {}", dir.display());
        let mut partitions = partition_dirs(dir).with_context(cannot_read)?;
        let whole = dir.canonicalize().with_context(cannot_read)?;
        let mut above = whole.ancestors().take(DEPTH);
        let data_dir = above.find(|dir| dir.join("FORMAT").exists());
        ensure!(
            !partitions.is_empty() || data_dir == Some(whole.as_path()),
            "{} is no data directory, and no topic's or partition's directory in one",
            dir.display()
        );
        let Some(data_dir) = data_dir else {
            // Copied from elsewhere: there is no journal to look at.
            let journals = Journals::default();
            return Ok(Self {
                partitions,
                journals,
            });
        };
        let journals = Journals::read(data_dir);
        let journals = journals.context("cannot read the journals")?;
        let journaled = journals.partition_dirs(data_dir);
        let below = journaled
            .iter()
            .filter_map(|path| path.strip_prefix(&whole).ok());
        // The directory of a partition itself is below itself, by an empty path.
        let below = below.filter(|path| !path.as_os_str().is_empty());
        partitions.extend(below.map(|path| dir.join(path)));
        partitions.sort();
        partitions.dedup();
        Ok(Self {
            partitions,
            journals,
        })
    }
}

/// Refuses files that change while they are read. The data directory is `dir` or above it.
fn check_stopped(dir: &Path) -> Result<()> {
    let dir = dir
        .canonicalize()
        .with_context(|| format!("cannot read {}", dir.display()))?;
    for above in dir.ancestors().take(DEPTH) {
        let Ok(lock) = File::open(above.join("LOCK")) else {
            continue;
        };
        match lock.try_lock_shared() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!(
                "{} is in use by a broker: stop it first, its files change while they are read",
                above.display()
            ),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", above.display()));
            }
        }
    }
    Ok(())
}
