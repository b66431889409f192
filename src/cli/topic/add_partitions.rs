//! `millstream topic add-partitions`.

use anyhow::{Context, Result};
use clap::Args;
use millstream_client::Admin;

use super::super::output;

const EXAMPLES: &str = "\
A key then belongs to another partition than before: records of one key that
were written earlier stay where they are.

Examples:
  millstream topic add-partitions events --total 8";

/// Arguments of `millstream topic add-partitions`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct AddPartitionsArgs {
    /// The topic
    #[arg(value_name = "TOPIC")]
    name: String,
    /// How many partitions it shall have in all
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    total: u32,
}

impl AddPartitionsArgs {
    pub(super) async fn run(self, admin: &Admin) -> Result<()> {
        let Self { name, total } = &self;
        admin
            .create_partitions(name, *total)
            .await
            .with_context(|| format!("cannot add partitions to topic {name:?}"))?;
        output::line(format_args!("topic {name:?} has {total} partitions"))
    }
}
