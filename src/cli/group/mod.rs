//! `millstream group`: one file per command.

use std::{collections::BTreeMap, process::ExitCode};

use anyhow::Result;
use clap::{Args, Subcommand};
use millstream_client::{Admin, TopicId};

use super::connect::{ConnectArgs, block_on};

mod delete;
mod describe;
mod list;
mod reset_offsets;

/// Arguments of `millstream group`.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub struct GroupArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(subcommand)]
    command: GroupCommand,
}

#[derive(Debug, Subcommand)]
enum GroupCommand {
    /// List consumer groups
    List(list::ListArgs),
    /// Show how far a group has read, how much is left, and who its members are
    Describe(describe::DescribeArgs),
    /// Move a group's committed offsets
    ResetOffsets(reset_offsets::ResetOffsetsArgs),
    /// Delete groups without members, with their offsets
    Delete(delete::DeleteArgs),
}

impl GroupArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// What kept it from being done.
    pub fn run(self) -> Result<ExitCode> {
        block_on(async {
            let admin = self.connect.client().await?.admin();
            match self.command {
                GroupCommand::List(args) => args.run(&admin).await?,
                GroupCommand::Describe(args) => args.run(&admin).await?,
                GroupCommand::ResetOffsets(args) => args.run(&admin).await?,
                GroupCommand::Delete(args) => args.run(&admin).await?,
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}

/// Topics by identity.
async fn topic_names(admin: &Admin) -> Result<BTreeMap<TopicId, String>> {
    let topics = admin.topics(false).await?.into_iter();
    Ok(topics.map(|topic| (topic.id, topic.name)).collect())
}
