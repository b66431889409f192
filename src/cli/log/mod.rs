//! `millstream log`: a stopped broker's files, looked at and repaired without it.

use std::{
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand};

use crate::{
    control::check_format,
    storage::inspect::{Journals, partition_dirs},
};

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

/// What a command is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// Say what is there, whatever it is.
    Show,
    /// Judge it.
    Judge,
    /// Change it.
    Change,
}

/// What there is to look at.
struct Stopped {
    /// The directories of partitions, sorted. Of some there may be nothing but what the journals hold.
    partitions: Vec<PathBuf>,
    journals: Journals,
    /// Keeps brokers away, and who would change what is being looked at.
    _held: Vec<File>,
}

impl Stopped {
    /// The partitions below a directory: a data directory, a topic's, or a partition's own; and the journals
    /// of its data directory.
    fn open(dir: &Path, purpose: Purpose) -> Result<Self> {
        ensure!(
            !dir.is_file(),
            "{} is a file: give the directory of its partition, or the data directory",
            dir.display()
        );
        let cannot_read = || format!("cannot read {}", dir.display());
        let whole = dir.canonicalize().with_context(cannot_read)?;
        let held = whole.ancestors().take(DEPTH);
        let held = held.filter_map(|above| hold(above, purpose).transpose());
        let held = held.collect::<Result<_>>()?;
        let mut above = whole.ancestors().take(DEPTH);
        let data_dir = above.find(|dir| dir.join("FORMAT").exists());
        if let Some(Err(error)) = data_dir.map(check_format) {
            ensure!(purpose == Purpose::Show, error);
            eprintln!("warning: {error}");
        }
        let mut partitions = partition_dirs(dir).with_context(cannot_read)?;
        ensure!(
            !partitions.is_empty() || data_dir == Some(whole.as_path()),
            "{} is no data directory, and no topic's or partition's directory in one",
            dir.display()
        );
        let mut journals = Journals::default();
        // What was copied from elsewhere has no journal to look at.
        if let Some(data_dir) = data_dir {
            journals = Journals::read(data_dir).context("cannot read the journals")?;
            let journaled = journals.partition_dirs(data_dir);
            let below = journaled
                .iter()
                .filter_map(|path| path.strip_prefix(&whole).ok());
            // The directory of a partition itself is below itself, by an empty path.
            let below = below.filter(|path| !path.as_os_str().is_empty());
            partitions.extend(below.map(|path| dir.join(path)));
            partitions.sort();
            partitions.dedup();
        }
        Ok(Self {
            partitions,
            journals,
            _held: held,
        })
    }
}

/// Files must not change while they are read: takes the lock of a data directory, if this is one.
fn hold(dir: &Path, purpose: Purpose) -> Result<Option<File>> {
    let path = dir.join("LOCK");
    let makes = purpose == Purpose::Change && dir.join("FORMAT").exists();
    let opened = match makes {
        true => File::options().append(true).create(true).open(&path),
        false => File::open(&path),
    };
    let lock = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.with_context(|| format!("cannot open {}", path.display()))?,
    };
    let taken = match purpose {
        Purpose::Change => lock.try_lock(),
        Purpose::Show | Purpose::Judge => lock.try_lock_shared(),
    };
    match taken {
        Ok(()) => Ok(Some(lock)),
        Err(TryLockError::WouldBlock) => bail!(
            "{} is in use by a broker, or by another command of this kind: stop it first",
            dir.display()
        ),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", dir.display()))
        }
    }
}
