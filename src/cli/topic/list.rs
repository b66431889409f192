//! `millstream topic list`.

use std::collections::BTreeMap;

use anyhow::Result;
use clap::Args;
use millstream_client::{Admin, TopicInfo};
use serde::Serialize;

use super::super::output::{self, Table};

const EXAMPLES: &str = "\
Examples:
  millstream topic list
  millstream topic list --json | jq -r '.[].name'";

/// Arguments of `millstream topic list`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ListArgs {
    /// Show the broker's own topics too
    #[arg(long)]
    internal: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Listed<'a> {
    name: &'a str,
    id: String,
    partitions: usize,
    /// The settings that were set; others have their defaults.
    config: BTreeMap<&'a str, &'a str>,
}

impl<'a> From<&'a TopicInfo> for Listed<'a> {
    fn from(topic: &'a TopicInfo) -> Self {
        let set = topic.configs.iter().filter(|entry| entry.is_set);
        Self {
            name: &topic.name,
            id: topic.id.to_string(),
            partitions: topic.partitions.len(),
            config: set.map(|entry| (&*entry.name, &*entry.value)).collect(),
        }
    }
}

impl ListArgs {
    pub(super) async fn run(self, admin: &Admin) -> Result<()> {
        let mut topics = admin.topics(self.internal).await?;
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        let listed: Vec<Listed<'_>> = topics.iter().map(Listed::from).collect();
        if self.json {
            return output::json(&listed);
        }
        let mut table = Table::new(["TOPIC", "PARTITIONS", "SETTINGS"]);
        for topic in listed {
            let settings: Vec<String> = topic
                .config
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            table.row([
                topic.name.to_owned(),
                topic.partitions.to_string(),
                settings.join(" "),
            ]);
        }
        table.print()
    }
}
