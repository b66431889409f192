//! `millstream topic create`.

use anyhow::{Context, Result, ensure};
use clap::Args;
use millstream_client::{Admin, ErrorCode, NewTopic};

use super::{
    super::{config::parse_setting, output},
    plural,
};

const EXAMPLES: &str = "\
Examples:
  millstream topic create events
  millstream topic create events --partitions 4 --config retention.ms=86400000
  millstream topic create metrics --config durability=buffered --if-not-exists";

/// Arguments of `millstream topic create`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CreateArgs {
    /// Names: letters, digits, '.', '_' and '-'
    #[arg(required = true, value_name = "TOPIC")]
    names: Vec<String>,
    /// How many partitions; the broker's default if absent
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    partitions: Option<u32>,
    /// Set a topic setting; may be given several times
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = parse_setting)]
    config: Vec<(String, String)>,
    /// A topic that exists already is no error, whatever its settings
    #[arg(long)]
    if_not_exists: bool,
}

impl CreateArgs {
    pub(super) async fn run(self, admin: &Admin) -> Result<()> {
        let mut failures = Vec::new();
        for name in &self.names {
            let mut topic = NewTopic::new(name).partitions(self.partitions.unwrap_or(0));
            for (setting, value) in &self.config {
                topic = topic.config(setting, value);
            }
            match admin.create_topic(topic).await {
                Ok(_) => {
                    let topic = admin.topic(name).await?;
                    let partitions = plural(topic.partitions.len() as u64, "partition");
                    output::line(format_args!("created topic {name:?} with {partitions}"))?;
                }
                Err(error)
                    if self.if_not_exists && error.code() == Some(ErrorCode::TopicExists) =>
                {
                    output::line(format_args!("topic {name:?} exists already"))?;
                }
                // One that is refused says nothing of the others.
                Err(error) if error.code().is_some() => {
                    failures.push(format!("cannot create topic {name:?}: {error}"));
                }
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot create topic {name:?}"));
                }
            }
        }
        ensure!(failures.is_empty(), "{}", failures.join("\n       "));
        Ok(())
    }
}
