//! `millstream topic trim`: deletes records from the start of a log.

use anyhow::{Context, Result};
use clap::Args;
use millstream_client::{Admin, Offset, PartitionIndex, RequestError};
use serde::Serialize;

use super::super::{failure::usage, moment::Place, output};

const EXAMPLES: &str = "\
Examples:
  millstream topic trim events --before -7d             records older than a week
  millstream topic trim events --before 5000 --partition 0
  millstream topic trim events --before end             everything";

/// Arguments of `millstream topic trim`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct TrimArgs {
    /// The topic
    #[arg(value_name = "TOPIC")]
    name: String,
    /// Delete the records before this offset or time: OFFSET, 2026-11-22T18:00:00Z, @MILLISECONDS,
    /// -1h (ago), or end
    #[arg(long, value_name = "OFFSET|TIME", allow_hyphen_values = true)]
    before: Place,
    /// Only of this partition
    #[arg(long, short, value_name = "N")]
    partition: Option<u32>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Trimmed {
    partition: u32,
    log_start_offset: i64,
}

impl TrimArgs {
    pub(super) async fn run(self, admin: &Admin) -> Result<()> {
        let name = &self.name;
        let before = self.offsets(admin).await?;
        let trimmed = admin
            .delete_records(name, before)
            .await
            .with_context(|| format!("cannot trim topic {name:?}"))?;
        let trimmed: Vec<Trimmed> = trimmed
            .into_iter()
            .map(|(partition, offset)| Trimmed {
                partition: partition.0,
                log_start_offset: offset.0,
            })
            .collect();
        if self.json {
            return output::json(&trimmed);
        }
        for partition in trimmed {
            output::line(format_args!(
                "partition {} starts at offset {}",
                partition.partition, partition.log_start_offset
            ))?;
        }
        Ok(())
    }

    /// Where each partition shall start.
    async fn offsets(&self, admin: &Admin) -> Result<Vec<(PartitionIndex, Offset)>> {
        let name = &self.name;
        let topic = admin.topic(name).await?;
        let all: Vec<PartitionIndex> = topic.partitions.iter().map(|info| info.partition).collect();
        let wanted: Vec<PartitionIndex> = match self.partition.map(PartitionIndex) {
            None => all.clone(),
            Some(partition) if all.contains(&partition) => vec![partition],
            Some(partition) => {
                return Err(RequestError::UnknownPartition {
                    topic: name.as_str().into(),
                    partition,
                    count: all.len(),
                }
                .into());
            }
        };
        match self.before.spec() {
            Err(_) if wanted.len() > 1 => Err(usage(format_args!(
                "an offset names a place in one partition, and topic {name:?} has {}: add \
                 --partition, or trim by time",
                wanted.len()
            ))),
            Err(offset) => Ok(wanted
                .into_iter()
                .map(|partition| (partition, offset))
                .collect()),
            Ok(spec) => {
                let mut offsets = admin.list_offsets(name, spec).await?;
                offsets.retain(|(partition, _)| wanted.contains(partition));
                Ok(offsets)
            }
        }
    }
}
