//! `millstream group list`.

use anyhow::Result;
use clap::Args;
use millstream_client::Admin;
use serde::Serialize;

use super::super::output::{self, Table};

const EXAMPLES: &str = "\
Examples:
  millstream group list
  millstream group list --json | jq -r '.[] | select(.state == \"empty\").group'";

/// Arguments of `millstream group list`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Listed {
    group: String,
    state: String,
    members: u32,
}

impl ListArgs {
    pub(super) async fn run(self, admin: &Admin) -> Result<()> {
        let groups = admin.groups().await?.into_iter();
        let listed: Vec<Listed> = groups
            .map(|it| Listed {
                group: it.group,
                state: it.state,
                members: it.member_count,
            })
            .collect();
        if self.json {
            return output::json(&listed);
        }
        let mut table = Table::new(["GROUP", "STATE", "MEMBERS"]);
        for it in listed {
            table.row([it.group, it.state, it.members.to_string()]);
        }
        table.print()
    }
}
