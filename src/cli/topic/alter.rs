//! `millstream topic alter`.

use anyhow::{Context, Result};
use clap::{ArgGroup, Args};
use millstream_client::Admin;

use super::{
    super::{config::parse_setting, output},
    refused,
};

const EXAMPLES: &str = "\
Examples:
  millstream topic alter events --config retention.ms=3600000
  millstream topic alter events --reset retention.ms --config durability=flushed
  millstream topic alter users --config cleanup.policy=compact,delete";

/// Arguments of `millstream topic alter`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[command(group(ArgGroup::new("change").args(["config", "reset"]).required(true).multiple(true)))]
pub struct AlterArgs {
    /// The topic
    #[arg(value_name = "TOPIC")]
    name: String,
    /// Change a setting; may be given several times: all are changed or none
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = parse_setting)]
    config: Vec<(String, String)>,
    /// Give a setting its default back; may be given several times
    #[arg(long, value_name = "NAME")]
    reset: Vec<String>,
    /// Make a topic a compacted one even if it holds records without a key; they stay
    #[arg(long)]
    force: bool,
}

impl AlterArgs {
    pub(super) async fn run(self, admin: &Admin) -> Result<()> {
        let set = self
            .config
            .into_iter()
            .map(|(name, value)| (name, Some(value)));
        let reset = self.reset.into_iter().map(|name| (name, None));
        let name = &self.name;
        let changes = set.chain(reset).collect();
        let altered = if self.force {
            admin.force_alter_topic(name, changes).await
        } else {
            admin.alter_topic(name, changes).await
        };
        altered
            .map_err(refused)
            .with_context(|| format!("cannot alter topic {name:?}"))?;
        output::line(format_args!("altered topic {name:?}"))
    }
}
