//! `millstream tune undo`: puts back what was there before `apply`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use super::{super::output, StateArgs, target::RootArgs};
use crate::host::tuning::{Restored, Undone, undo};

const EXAMPLES: &str = "\
Exit status: 0 everything is back; 1 something is not; 2 the command line is wrong.

Examples:
  sudo millstream tune undo";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct UndoArgs {
    #[command(flatten)]
    state: StateArgs,
    /// Also put back what somebody else has changed since
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    root: RootArgs,
}

impl UndoArgs {
    pub(super) fn run(self) -> Result<ExitCode> {
        let files = match undo(&self.root.tree(), &self.state.state, self.force)? {
            Undone::Nothing => {
                output::line("nothing to undo")?;
                return Ok(ExitCode::SUCCESS);
            }
            Undone::Restarted => {
                output::line("the host was restarted since, which took everything back")?;
                return Ok(ExitCode::SUCCESS);
            }
            Undone::Files(files) => files,
        };
        let mut complete = true;
        for (path, restored) in files {
            let said = match restored {
                Restored::Back => "as before".to_owned(),
                Restored::Already => "was as before already".to_owned(),
                Restored::ChangedSince(now) => {
                    complete = false;
                    format!("left at {now}: changed since by somebody else (--force overrules)")
                }
                Restored::Refused(error) => {
                    complete = false;
                    format!("refused: {error}")
                }
            };
            output::line(format_args!("{path}: {said}"))?;
        }
        Ok(match complete {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        })
    }
}
