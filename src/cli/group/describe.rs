//! `millstream group describe`: how far it has read, how much is left, who reads what.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use clap::Args;
use millstream_client::{
    Admin, ErrorCode, GroupDescription, Offset, OffsetSpec, TopicId, TopicPartition,
};
use serde::Serialize;

use super::{
    super::output::{self, Table},
    topic_names,
};

const EXAMPLES: &str = "\
Lag counts offsets, not records: those that compaction took count too.

Examples:
  millstream group describe billing
  millstream group describe billing --json | jq '[.partitions[].lag] | add'";

/// Arguments of `millstream group describe`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DescribeArgs {
    /// The group
    #[arg(value_name = "GROUP")]
    group: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Described {
    group: String,
    state: String,
    /// Leader epoch of the coordinator, and its count of changes.
    epoch: (i64, i64),
    assignor: String,
    partitions: Vec<Partition>,
    members: Vec<Member>,
}

#[derive(Serialize)]
struct Partition {
    topic: String,
    partition: u32,
    committed: Option<i64>,
    end: Option<i64>,
    lag: Option<i64>,
    metadata: String,
    member: Option<String>,
}

#[derive(Serialize)]
struct Member {
    member: String,
    instance_id: Option<String>,
    client: String,
    host: String,
    topics: Vec<String>,
    pattern: Option<String>,
    partitions: usize,
    letting_go: usize,
    heard_ms_ago: u64,
}

impl DescribeArgs {
    pub(super) async fn run(self, admin: &Admin) -> Result<()> {
        let group = &self.group;
        let found = admin.group(group).await;
        let found = found.with_context(|| format!("cannot describe group {group:?}"))?;
        let described = describe(admin, found).await?;
        if self.json {
            return output::json(&described);
        }
        let members = described.members.len();
        output::line(format_args!(
            "group {group:?} is {}: {members} members, epoch {}.{}, {} assignor",
            described.state, described.epoch.0, described.epoch.1, described.assignor
        ))?;
        print_partitions(&described.partitions)?;
        print_members(&described.members)
    }
}

fn print_partitions(partitions: &[Partition]) -> Result<()> {
    if partitions.is_empty() {
        return Ok(());
    }
    output::line("")?;
    let show = |number: Option<i64>| number.map_or_else(|| "-".to_owned(), |it| it.to_string());
    let mut table = Table::new(["TOPIC", "PARTITION", "COMMITTED", "END", "LAG", "MEMBER"]);
    for it in partitions {
        table.row([
            it.topic.clone(),
            it.partition.to_string(),
            show(it.committed),
            show(it.end),
            show(it.lag),
            it.member.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    table.print()
}

fn print_members(members: &[Member]) -> Result<()> {
    if members.is_empty() {
        return Ok(());
    }
    output::line("")?;
    let mut table = Table::new([
        "MEMBER",
        "INSTANCE",
        "CLIENT",
        "FROM",
        "PARTITIONS",
        "HEARD",
    ]);
    for it in members {
        let partitions = match it.letting_go {
            0 => it.partitions.to_string(),
            going => format!("{} and {going} to let go", it.partitions),
        };
        table.row([
            it.member.clone(),
            it.instance_id.clone().unwrap_or_else(|| "-".to_owned()),
            it.client.clone(),
            it.host.clone(),
            partitions,
            format!("{} ms ago", it.heard_ms_ago),
        ]);
    }
    table.print()
}

async fn describe(admin: &Admin, found: GroupDescription) -> Result<Described> {
    let names = topic_names(admin).await?;
    let committed = admin.committed_offsets(&found.group).await?;
    let mut owners: BTreeMap<TopicPartition, &str> = BTreeMap::new();
    for member in &found.members {
        for at in member.assignment.iter().chain(&member.revoking) {
            owners.insert(*at, &member.member_id);
        }
    }
    let places: BTreeSet<TopicPartition> = committed.keys().chain(owners.keys()).copied().collect();
    let topics: BTreeSet<TopicId> = places.iter().map(|at| at.topic).collect();
    let mut ends: BTreeMap<TopicPartition, Offset> = BTreeMap::new();
    for topic in topics {
        let Some(name) = names.get(&topic) else {
            continue;
        };
        match admin.list_offsets(name, OffsetSpec::Latest).await {
            Ok(offsets) => ends.extend(
                offsets
                    .into_iter()
                    .map(|(partition, offset)| (TopicPartition { topic, partition }, offset)),
            ),
            // It went away meanwhile.
            Err(error) if error.code() == Some(ErrorCode::UnknownTopic) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let partitions = places.into_iter().filter_map(|at| {
        let known = committed.get(&at);
        let (offset, end) = (known.map(|it| it.offset.0), ends.get(&at).map(|it| it.0));
        Some(Partition {
            topic: names.get(&at.topic)?.clone(),
            partition: at.partition.0,
            committed: offset,
            end,
            lag: offset.zip(end).map(|(offset, end)| (end - offset).max(0)),
            metadata: known.map_or_else(String::new, |it| it.metadata.clone()),
            member: owners.get(&at).map(|it| (*it).to_owned()),
        })
    });
    let mut partitions: Vec<Partition> = partitions.collect();
    partitions.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    let members = found.members.iter().map(|it| Member {
        member: it.member_id.clone(),
        instance_id: it.instance_id.clone(),
        client: it.client_name.clone(),
        host: it.host.clone(),
        topics: it.topics.clone(),
        pattern: it.pattern.clone(),
        partitions: it.assignment.len(),
        letting_go: it.revoking.len(),
        heard_ms_ago: it.silent_ms,
    });
    Ok(Described {
        members: members.collect(),
        group: found.group,
        state: found.state,
        epoch: (found.epoch >> 32, found.epoch & 0xffff_ffff),
        assignor: found.assignor,
        partitions,
    })
}
