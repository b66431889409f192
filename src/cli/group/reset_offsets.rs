//! `millstream group reset-offsets`: moves what a group has committed.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use clap::Args;
use millstream_client::{
    Admin, ErrorCode, Offset, OffsetSpec, PartitionIndex, RequestError, TopicPartition,
};
use serde::Serialize;

use super::{
    super::{
        failure::usage,
        moment::Place,
        output::{self, Table},
    },
    topic_names,
};

const EXAMPLES: &str = "\
The group must have no members: stop them first. Offsets beyond what a partition
holds become its beginning or end.

Examples:
  millstream group reset-offsets billing --to beginning --dry-run
  millstream group reset-offsets billing --topic orders --to -2h
  millstream group reset-offsets billing --topic orders --partition 3 --to 4200
  millstream group reset-offsets billing --shift -100";

/// Arguments of `millstream group reset-offsets`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[command(group(clap::ArgGroup::new("where").required(true).args(["to", "shift"])))]
pub struct ResetOffsetsArgs {
    /// The group; made if there is none
    #[arg(value_name = "GROUP")]
    group: String,
    /// Where to: beginning, end, OFFSET, 2026-11-22T18:00:00Z, @MILLISECONDS or -1h (ago)
    #[arg(long, value_name = "PLACE", allow_hyphen_values = true)]
    to: Option<Place>,
    /// By so many offsets, forward or back (-100)
    #[arg(long, value_name = "COUNT", allow_hyphen_values = true)]
    shift: Option<i64>,
    /// Only of this topic, which the group need not have read; may be given several times
    #[arg(long, short, value_name = "TOPIC")]
    topic: Vec<String>,
    /// Only this partition; may be given several times
    #[arg(long, short, value_name = "N")]
    partition: Vec<u32>,
    /// Show what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Move {
    topic: String,
    partition: u32,
    from: Option<i64>,
    to: i64,
    #[serde(skip)]
    at: TopicPartition,
}

impl ResetOffsetsArgs {
    pub(super) async fn run(self, admin: &Admin) -> Result<()> {
        let group = &self.group;
        match admin.group(group).await {
            Ok(found) if !found.members.is_empty() => {
                let names = found
                    .members
                    .iter()
                    .map(|it| format!("{} ({} at {})", it.member_id, it.client_name, it.host));
                let names: Vec<String> = names.collect();
                bail!(
                    "group {group:?} has members; stop {} first",
                    names.join(", ")
                );
            }
            Ok(_) => {}
            Err(error) if error.code() == Some(ErrorCode::UnknownGroup) => {}
            Err(error) => return Err(error.into()),
        }
        let moves = self.moves(admin).await?;
        if moves.is_empty() {
            bail!("group {group:?} has committed nothing: name a --topic");
        }
        if !self.dry_run {
            let mut by_topic: BTreeMap<&str, Vec<(TopicPartition, Offset)>> = BTreeMap::new();
            for it in &moves {
                let moved = (it.at, Offset(it.to));
                by_topic.entry(&it.topic).or_default().push(moved);
            }
            for (topic, offsets) in by_topic {
                let moved = admin.set_committed_offsets(group, topic, &offsets).await;
                moved.with_context(|| format!("cannot move group {group:?}"))?;
            }
        }
        if self.json {
            return output::json(&moves);
        }
        let mut table = Table::new(["TOPIC", "PARTITION", "FROM", "TO"]);
        for it in &moves {
            table.row([
                it.topic.clone(),
                it.partition.to_string(),
                it.from
                    .map_or_else(|| "-".to_owned(), |from| from.to_string()),
                it.to.to_string(),
            ]);
        }
        table.print()?;
        if self.dry_run {
            output::line("nothing was changed: --dry-run")?;
        }
        Ok(())
    }

    async fn moves(&self, admin: &Admin) -> Result<Vec<Move>> {
        let committed = admin.committed_offsets(&self.group).await?;
        let names = topic_names(admin).await?;
        let topics: BTreeSet<String> = match self.topic.is_empty() {
            false => self.topic.iter().cloned().collect(),
            true => {
                let read = committed.keys().filter_map(|at| names.get(&at.topic));
                read.cloned().collect()
            }
        };
        let mut moves = Vec::new();
        for topic in topics {
            let id = admin.topic(&topic).await?.id;
            let starts = admin.list_offsets(&topic, OffsetSpec::Earliest).await?;
            let ends: BTreeMap<PartitionIndex, Offset> = admin
                .list_offsets(&topic, OffsetSpec::Latest)
                .await?
                .into_iter()
                .collect();
            let places = self.places(admin, &topic).await?;
            self.check_partitions(&topic, ends.len())?;
            for (partition, start) in starts {
                if !self.partition.is_empty() && !self.partition.contains(&partition.0) {
                    continue;
                }
                let at = TopicPartition {
                    topic: id,
                    partition,
                };
                let from = committed.get(&at).map(|it| it.offset);
                if from.is_none() && self.topic.is_empty() {
                    continue;
                }
                let end = ends[&partition];
                let to = match (&places, self.shift) {
                    (Some(places), _) => places.get(&partition).copied().unwrap_or(end),
                    (None, Some(shift)) => {
                        let Some(from) = from else {
                            bail!("nothing is committed of {topic}/{partition} to shift from");
                        };
                        Offset(from.0.saturating_add(shift))
                    }
                    (None, None) => return Err(usage("say where to: --to or --shift")),
                };
                moves.push(Move {
                    topic: topic.clone(),
                    partition: partition.0,
                    from: from.map(|it| it.0),
                    to: to.0.clamp(start.0, end.0.max(start.0)),
                    at,
                });
            }
        }
        Ok(moves)
    }

    /// Where each partition goes; none with --shift.
    async fn places(
        &self,
        admin: &Admin,
        topic: &str,
    ) -> Result<Option<BTreeMap<PartitionIndex, Offset>>> {
        let Some(to) = self.to else {
            return Ok(None);
        };
        let offsets = match to.spec() {
            Ok(spec) => admin.list_offsets(topic, spec).await?,
            Err(offset) => {
                let all = admin.list_offsets(topic, OffsetSpec::Latest).await?;
                all.into_iter()
                    .map(|(partition, _)| (partition, offset))
                    .collect()
            }
        };
        Ok(Some(offsets.into_iter().collect()))
    }

    fn check_partitions(&self, topic: &str, count: usize) -> Result<()> {
        let missing = self.partition.iter().find(|it| **it as usize >= count);
        match missing {
            None => Ok(()),
            Some(partition) => Err(RequestError::UnknownPartition {
                topic: topic.into(),
                partition: PartitionIndex(*partition),
                count,
            }
            .into()),
        }
    }
}
