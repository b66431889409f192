//! `millstream tune apply`: shows, asks, notes what was there, sets.

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
};

use anyhow::{Result, bail};
use clap::Args;

use super::{
    super::{failure::usage, output},
    StateArgs,
    target::TargetArgs,
};
use crate::host::tuning::{Change, Finding, Item, Outcome, apply, script};

const EXAMPLES: &str = "\
What is set lasts until the host restarts; the files of `tuning/` make it last.
Exit status: 0 everything was set, or there was nothing to set; 1 something was refused; 2 the
command line is wrong.

Examples:
  millstream tune apply --dry-run > tune.sh
  sudo millstream tune apply --data-dir /var/lib/millstream --cores 2-7
  sudo millstream tune apply --yes --only cpu-governor,block-scheduler";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ApplyArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    state: StateArgs,
    /// Do not ask; needed where standard input is no terminal
    #[arg(long, short)]
    yes: bool,
    /// Only print the script
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
}

impl ApplyArgs {
    pub(super) fn run(self) -> Result<ExitCode> {
        let tree = self.target.tree();
        let findings = self.target.findings(&tree)?;
        let left = left_to_people(&findings);
        let plan = plan(findings);
        if plan.is_empty() {
            eprintln!("nothing to set{left}");
            return Ok(ExitCode::SUCCESS);
        }
        output::line(script(&tree, &plan).trim_end())?;
        if self.dry_run {
            return Ok(ExitCode::SUCCESS);
        }
        if !self.yes && !io::stdin().is_terminal() {
            return Err(usage("applying needs --yes where nobody can be asked"));
        }
        let count: usize = plan.iter().map(|(_, changes)| changes.len()).sum();
        if !self.yes && !output::agreed(format_args!("Set {count} value(s) as above?"))? {
            bail!("nothing was changed");
        }
        let refused = apply(&tree, &plan, &self.state.state)?;
        for change in &refused {
            eprintln!("refused: {}: {}", change.path, change.error);
        }
        eprintln!(
            "{} of {count} value(s) set; `millstream tune undo` takes them back{left}",
            count - refused.len()
        );
        Ok(match refused.is_empty() {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        })
    }
}

fn plan(findings: Vec<(&'static Item, Finding)>) -> Vec<(&'static Item, Vec<Change>)> {
    let plan = findings
        .into_iter()
        .map(|(item, finding)| (item, finding.changes));
    plan.filter(|(_, changes)| !changes.is_empty()).collect()
}

/// Names what no value in a file puts right.
fn left_to_people(findings: &[(&Item, Finding)]) -> String {
    let left = findings
        .iter()
        .filter(|(_, finding)| finding.outcome == Outcome::NotOk && finding.changes.is_empty());
    let names: Vec<&str> = left.map(|(item, _)| item.name).collect();
    match names.is_empty() {
        true => String::new(),
        false => format!(
            "; left to you, see `millstream tune check`: {}",
            names.join(", ")
        ),
    }
}
