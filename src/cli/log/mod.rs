//! `millstream log`: a stopped broker's files, looked at without it.

use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand};

use crate::storage::inspect::partition_dirs;

mod dump;
mod verify;

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
        }
    }
}

/// The partitions below a directory: a data directory, a topic's, or a partition's own.
fn partitions(dir: &Path) -> Result<Vec<PathBuf>> {
    check_stopped(dir)?;
    let found = partition_dirs(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let is_data_dir = dir.join("FORMAT").exists();
    ensure!(
        !found.is_empty() || is_data_dir,
        "{} is no data directory, and no topic's or partition's directory in one",
        dir.display()
    );
    Ok(found)
}

/// Refuses files that change while they are read. The data directory is `dir` or above it.
fn check_stopped(dir: &Path) -> Result<()> {
    let dir = dir
        .canonicalize()
        .with_context(|| format!("cannot read {}", dir.display()))?;
    for above in dir.ancestors().take(4) {
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
