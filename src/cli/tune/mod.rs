//! `millstream tune`: one file per command. What there is to look at and to set is `host::tuning`'s.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Args, Subcommand};

mod apply;
mod check;
mod target;
mod undo;

/// Arguments of `millstream tune`.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub struct TuneArgs {
    #[command(subcommand)]
    command: TuneCommand,
}

#[derive(Debug, Subcommand)]
enum TuneCommand {
    /// Say how each item stands and why it matters; changes nothing
    Check(check::CheckArgs),
    /// Show what would be set as a script, ask, set it, and note what was there
    Apply(apply::ApplyArgs),
    /// Put back what was there before
    Undo(undo::UndoArgs),
}

impl TuneArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// What kept it from being done.
    pub fn run(self) -> Result<ExitCode> {
        match self.command {
            TuneCommand::Check(args) => args.run(),
            TuneCommand::Apply(args) => args.run(),
            TuneCommand::Undo(args) => args.run(),
        }
    }
}

/// Where what was there before is kept.
#[derive(Debug, Args)]
struct StateArgs {
    /// File that keeps what was there before
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/var/lib/millstream/tune-undo.json"
    )]
    state: PathBuf,
}
