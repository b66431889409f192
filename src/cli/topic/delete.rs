//! `millstream topic delete`: asks first, or wants `--yes`.

use std::io::{self, IsTerminal};

use anyhow::{Context, Result, bail};
use clap::Args;
use millstream_client::{Admin, ErrorCode};

use super::{
    super::{delay, failure::usage, output},
    plural, refused,
};

const EXAMPLES: &str = "\
Examples:
  millstream topic delete events
  millstream topic delete events clicks --yes --if-exists";

/// Arguments of `millstream topic delete`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DeleteArgs {
    /// Names
    #[arg(required = true, value_name = "TOPIC")]
    names: Vec<String>,
    /// Do not ask; needed where standard input is no terminal
    #[arg(long, short)]
    yes: bool,
    /// A topic that does not exist is no error
    #[arg(long)]
    if_exists: bool,
}

impl DeleteArgs {
    /// Whether somebody can be asked, if that is needed.
    pub(super) fn check(&self) -> Result<()> {
        if !self.yes && !io::stdin().is_terminal() {
            return Err(usage("deleting needs --yes where nobody can be asked"));
        }
        Ok(())
    }

    pub(super) async fn run(self, admin: &Admin) -> Result<()> {
        for name in &self.names {
            if !self.yes && !confirm(admin, name).await? {
                bail!("topic {name:?} was not deleted");
            }
            // Nobody would miss them in an answer about records that can be read.
            let pending = delay::pending(admin, name).await.unwrap_or(0);
            match admin.delete_topic(name).await {
                Ok(()) if pending > 0 => {
                    let records = plural(pending, "delayed record");
                    let line = format!("deleted topic {name:?}, and {records} that waited");
                    output::line(line)?;
                }
                Ok(()) => output::line(format_args!("deleted topic {name:?}"))?,
                Err(error) if self.if_exists && error.code() == Some(ErrorCode::UnknownTopic) => {
                    output::line(format_args!("topic {name:?} does not exist"))?;
                }
                Err(error) => {
                    return Err(refused(error))
                        .with_context(|| format!("cannot delete topic {name:?}"));
                }
            }
        }
        Ok(())
    }
}

async fn confirm(admin: &Admin, name: &str) -> Result<bool> {
    let topic = admin.topic(name).await.map_err(refused)?;
    let statuses = admin.describe_partitions(&topic).await?;
    let records: i64 = statuses
        .iter()
        .map(|status| status.high_watermark.0 - status.log_start_offset.0)
        .sum();
    let records = plural(u64::try_from(records).unwrap_or(0), "record");
    let partitions = plural(statuses.len() as u64, "partition");
    let pending = match delay::pending(admin, name).await? {
        0 => String::new(),
        pending => format!(", and {} that wait", plural(pending, "delayed record")),
    };
    output::agreed(format_args!(
        "Delete topic {name:?} with {records} in {partitions}{pending}?"
    ))
}
