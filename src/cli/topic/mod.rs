//! `millstream topic`: one file per command.

use std::process::ExitCode;

use anyhow::{Result, anyhow};
use clap::{Args, Subcommand};
use millstream_client::RequestError;

use super::connect::{ConnectArgs, block_on};

mod add_partitions;
mod alter;
mod create;
mod delete;
mod describe;
mod list;
mod trim;

/// Arguments of `millstream topic`.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub struct TopicArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(subcommand)]
    command: TopicCommand,
}

#[derive(Debug, Subcommand)]
enum TopicCommand {
    /// Create topics
    Create(create::CreateArgs),
    /// List topics
    List(list::ListArgs),
    /// Show a topic's settings, and its partitions' offsets and sizes
    Describe(describe::DescribeArgs),
    /// Change a topic's settings
    Alter(alter::AlterArgs),
    /// Delete topics with all they hold
    Delete(delete::DeleteArgs),
    /// Delete a topic's records before an offset or a time
    Trim(trim::TrimArgs),
    /// Give a topic more partitions
    AddPartitions(add_partitions::AddPartitionsArgs),
}

impl TopicArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// What kept it from being done.
    pub fn run(self) -> Result<ExitCode> {
        if let TopicCommand::Delete(args) = &self.command {
            args.check()?;
        }
        block_on(async {
            let admin = self.connect.client().await?.admin();
            match self.command {
                TopicCommand::Create(args) => args.run(&admin).await?,
                TopicCommand::List(args) => args.run(&admin).await?,
                TopicCommand::Describe(args) => args.run(&admin).await?,
                TopicCommand::Alter(args) => args.run(&admin).await?,
                TopicCommand::Delete(args) => args.run(&admin).await?,
                TopicCommand::Trim(args) => args.run(&admin).await?,
                TopicCommand::AddPartitions(args) => args.run(&admin).await?,
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}

/// `1 partition`, `2 partitions`.
fn plural(count: u64, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    }
}

/// What was asked of a topic that is not there: to create it would help nobody who wants it changed or gone.
fn refused(error: RequestError) -> anyhow::Error {
    match error {
        RequestError::UnknownTopic(_) => {
            anyhow!("there is no such topic; millstream topic list shows which there are")
        }
        error => error.into(),
    }
}
