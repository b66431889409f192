//! `millstream group delete`.

use anyhow::{Context, Result};
use clap::Args;
use millstream_client::{Admin, ErrorCode};

use super::super::{failure::usage, output};

const EXAMPLES: &str = "\
Examples:
  millstream group delete billing
  millstream group delete old-1 old-2 --yes --if-exists";

/// Arguments of `millstream group delete`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DeleteArgs {
    /// Groups
    #[arg(required = true, value_name = "GROUP")]
    groups: Vec<String>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// A group that is not there is no failure
    #[arg(long)]
    if_exists: bool,
}

impl DeleteArgs {
    pub(super) async fn run(self, admin: &Admin) -> Result<()> {
        if !self.yes {
            let names = self.groups.join(", ");
            let question = format!("delete {names}, with all committed offsets?");
            if !std::io::IsTerminal::is_terminal(&std::io::stdin()) {
                return Err(usage("standard input is no terminal: add --yes"));
            }
            if !output::agreed(question)? {
                anyhow::bail!("nothing was deleted");
            }
        }
        for group in &self.groups {
            match admin.delete_group(group).await {
                Ok(()) => output::line(format_args!("deleted group {group:?}"))?,
                Err(error) if self.if_exists && error.code() == Some(ErrorCode::UnknownGroup) => {
                    output::line(format_args!("there is no group {group:?}"))?;
                }
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot delete group {group:?}"));
                }
            }
        }
        Ok(())
    }
}
