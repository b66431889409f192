//! `millstream topic describe`.

use anyhow::Result;
use clap::Args;
use millstream_client::{Admin, DelayedStatus, ErrorCode, PartitionStatus, TopicInfo};
use serde::Serialize;

use super::{
    super::{
        moment::show_time,
        output::{self, Table, show_size},
    },
    plural,
};

const EXAMPLES: &str = "\
Examples:
  millstream topic describe events
  millstream topic describe events --json | jq '[.[0].partitions[].logical_bytes] | add'";

/// Arguments of `millstream topic describe`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DescribeArgs {
    /// Names
    #[arg(required = true, value_name = "TOPIC")]
    names: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Described<'a> {
    name: &'a str,
    id: String,
    config: Vec<Setting<'a>>,
    partitions: Vec<Partition<'a>>,
}

#[derive(Serialize)]
struct Setting<'a> {
    name: &'a str,
    value: &'a str,
    /// Set on the topic; otherwise the default shows.
    is_set: bool,
}

#[derive(Serialize)]
struct Partition<'a> {
    partition: u32,
    /// Null, or why it can't be used.
    error: Option<&'a str>,
    shard: u32,
    leader_epoch: i32,
    log_start_offset: i64,
    high_watermark: i64,
    log_end_offset: i64,
    /// Bytes of record batches.
    logical_bytes: u64,
    /// Bytes of disk, preallocation included.
    physical_bytes: u64,
    segments: u32,
    /// Append time of the oldest record, or null.
    oldest_append_ms: Option<i64>,
    /// Bytes of closed segments that compaction has been through, and of those that it has not.
    clean_bytes: u64,
    dirty_bytes: u64,
    /// The latter's part of both, or null where there is neither.
    dirty_ratio: Option<f64>,
    /// Delayed records that wait, and the bytes of disk they take, which no retention counts.
    delayed_records: u64,
    delayed_bytes: u64,
}

impl<'a> Described<'a> {
    fn new(
        topic: &'a TopicInfo,
        statuses: &'a [PartitionStatus],
        delayed: &[DelayedStatus],
    ) -> Self {
        let config = topic.configs.iter().map(|entry| Setting {
            name: &entry.name,
            value: &entry.value,
            is_set: entry.is_set,
        });
        let delayed_in = |status: &PartitionStatus| {
            let found = delayed.iter().find(|it| it.partition == status.partition);
            found.map_or((0, 0), |it| (it.pending, it.physical_bytes))
        };
        let partitions = statuses.iter().map(|status| Partition {
            partition: status.partition.0,
            error: (status.error != ErrorCode::None).then_some(&*status.message),
            shard: status.shard.0,
            leader_epoch: status.leader_epoch.0,
            log_start_offset: status.log_start_offset.0,
            high_watermark: status.high_watermark.0,
            log_end_offset: status.log_end_offset.0,
            logical_bytes: status.logical_bytes,
            physical_bytes: status.physical_bytes,
            segments: status.segments,
            oldest_append_ms: Some(status.oldest_append_ms).filter(|&ms| ms >= 0),
            clean_bytes: status.clean_bytes,
            dirty_bytes: status.dirty_bytes,
            dirty_ratio: dirty_ratio(status),
            delayed_records: delayed_in(status).0,
            delayed_bytes: delayed_in(status).1,
        });
        Self {
            name: &topic.name,
            id: topic.id.to_string(),
            config: config.collect(),
            partitions: partitions.collect(),
        }
    }

    fn print(&self) -> Result<()> {
        let partitions = plural(self.partitions.len() as u64, "partition");
        output::line(format_args!("{}: {partitions}, id {}", self.name, self.id))?;
        for setting in &self.config {
            let note = if setting.is_set { "" } else { " (default)" };
            output::line(format_args!("  {}={}{note}", setting.name, setting.value))?;
        }
        output::line("")?;
        let mut table = Table::new([
            "PARTITION",
            "START",
            "END",
            "LOG-END",
            "LOGICAL",
            "PHYSICAL",
            "SEGMENTS",
            "SHARD",
            "EPOCH",
            "OLDEST",
        ]);
        for partition in &self.partitions {
            let oldest = partition.oldest_append_ms.map(show_time);
            table.row([
                partition.partition.to_string(),
                partition.log_start_offset.to_string(),
                partition.high_watermark.to_string(),
                partition.log_end_offset.to_string(),
                show_size(partition.logical_bytes),
                show_size(partition.physical_bytes),
                partition.segments.to_string(),
                partition.shard.to_string(),
                partition.leader_epoch.to_string(),
                oldest.unwrap_or_default(),
            ]);
        }
        table.print()?;
        for partition in &self.partitions {
            if let Some(ratio) = partition.dirty_ratio {
                output::line(format_args!(
                    "partition {}: dirty ratio {ratio:.2} ({} of {} in closed segments)",
                    partition.partition,
                    show_size(partition.dirty_bytes),
                    show_size(partition.clean_bytes + partition.dirty_bytes),
                ))?;
            }
            if partition.delayed_bytes > 0 {
                output::line(format_args!(
                    "partition {}: {} waiting, {} of disk besides",
                    partition.partition,
                    plural(partition.delayed_records, "delayed record"),
                    show_size(partition.delayed_bytes),
                ))?;
            }
            if let Some(error) = partition.error {
                output::line(format_args!("partition {}: {error}", partition.partition))?;
            }
        }
        Ok(())
    }
}

/// How much of a compacted topic's partition compaction has still to go through.
#[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
fn dirty_ratio(status: &PartitionStatus) -> Option<f64> {
    let closed = status.clean_bytes + status.dirty_bytes;
    (closed > 0).then(|| status.dirty_bytes as f64 / closed as f64)
}

impl DescribeArgs {
    pub(super) async fn run(self, admin: &Admin) -> Result<()> {
        let mut topics = Vec::new();
        for name in &self.names {
            let topic = admin.topic(name).await?;
            let statuses = admin.describe_partitions(&topic).await?;
            // An older broker has none.
            let delayed = admin.count_delayed(name).await.unwrap_or_default();
            topics.push((topic, statuses, delayed));
        }
        let described: Vec<Described<'_>> = topics
            .iter()
            .map(|(topic, statuses, delayed)| Described::new(topic, statuses, delayed))
            .collect();
        if self.json {
            return output::json(&described);
        }
        for (index, topic) in described.iter().enumerate() {
            if index > 0 {
                output::line("")?;
            }
            topic.print()?;
        }
        Ok(())
    }
}
