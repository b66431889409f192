//! `millstream status`: whether the broker answers, and how it fares.

use std::{process::ExitCode, time::Duration};

use anyhow::Result;
use clap::Args;
use millstream_client::{Admin, BrokerStatus, DescribeClusterResponse, ErrorCode, RequestError};
use millstream_loadgen::units::parse_duration;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::{
    connect::{ConnectArgs, block_on},
    output::{self, show_size},
};

/// Failed partitions that are named; the others are only counted.
const NAMED: usize = 5;
/// With more topics than this the broker's own count is believed, which is up to a second old.
const MAX_TOPICS_ASKED: usize = 200;
/// Pause between two attempts.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

const EXAMPLES: &str = "\
Exit status: 0 the broker answers and all its partitions serve; 1 otherwise.

Examples:
  millstream status
  millstream status --wait 10s && ./start-the-rest
  millstream status --json | jq '.brokers[0].disk_free'";

/// Arguments of `millstream status`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct StatusArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    /// Keep trying this long until the broker answers
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = parse_duration)]
    wait: Duration,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Cluster<'a> {
    cluster_id: String,
    controller: u32,
    feature_level: u16,
    metadata_index: u64,
    brokers: Vec<Broker<'a>>,
    failed_partitions: &'a [FailedPartition],
}

/// A partition that does not serve all it should.
#[derive(Serialize)]
struct FailedPartition {
    topic: String,
    partition: u32,
    error: String,
}

#[derive(Serialize)]
struct Broker<'a> {
    id: u32,
    version: &'a str,
    shards: u32,
    uptime_ms: u64,
    connections: u32,
    partitions: u32,
    partitions_failed: u32,
    memory_budget: u64,
    memory_used: u64,
    data_dir: &'a str,
    disk_free: u64,
    disk_total: u64,
    direct_io: bool,
    forwarded_requests: u64,
}

impl<'a> Cluster<'a> {
    fn new(cluster: &'a DescribeClusterResponse, failed: &'a [FailedPartition]) -> Self {
        Self {
            cluster_id: cluster.cluster_id.to_string(),
            controller: cluster.controller.0,
            feature_level: cluster.feature_level,
            metadata_index: cluster.metadata_index,
            brokers: cluster.brokers.iter().map(Broker::from).collect(),
            failed_partitions: failed,
        }
    }
}

impl<'a> From<&'a BrokerStatus> for Broker<'a> {
    fn from(broker: &'a BrokerStatus) -> Self {
        Self {
            id: broker.id.0,
            version: &broker.version,
            shards: broker.shard_count,
            uptime_ms: broker.uptime_ms,
            connections: broker.connections,
            partitions: broker.partitions,
            partitions_failed: broker.partitions_failed,
            memory_budget: broker.memory_budget,
            memory_used: broker.memory_used,
            data_dir: &broker.data_dir,
            disk_free: broker.disk_free,
            disk_total: broker.disk_total,
            direct_io: broker.direct_io,
            forwarded_requests: broker.forwarded_requests,
        }
    }
}

impl StatusArgs {
    /// Asks and prints.
    ///
    /// # Errors
    /// If the broker does not answer in time.
    pub fn run(self) -> Result<ExitCode> {
        let (cluster, failed) = block_on(async {
            let (admin, cluster) = self.ask().await?;
            let failed = failed_partitions(&admin, &cluster).await;
            Ok((cluster, failed))
        })?;
        if self.json {
            output::json(&Cluster::new(&cluster, &failed))?;
        } else {
            print(&cluster, failed.len())?;
        }
        tell_failed(&failed);
        let counted = cluster.brokers.iter();
        let counted = counted.map(|broker| broker.partitions_failed).max();
        Ok(if !failed.is_empty() || counted > Some(0) {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        })
    }

    async fn ask(&self) -> Result<(Admin, DescribeClusterResponse), RequestError> {
        let deadline = Instant::now() + self.wait;
        loop {
            let asked = async {
                let admin = self.connect.client().await?.admin();
                let cluster = admin.describe_cluster().await?;
                Ok::<_, RequestError>((admin, cluster))
            };
            match asked.await {
                Err(error) if error.is_retriable() && Instant::now() < deadline => {
                    sleep(RETRY_PAUSE).await;
                }
                asked => return asked,
            }
        }
    }
}

/// Asks every partition: the counts of the shards are a little older than the last error.
async fn failed_partitions(
    admin: &Admin,
    cluster: &DescribeClusterResponse,
) -> Vec<FailedPartition> {
    let counted = cluster.brokers.iter().any(|it| it.partitions_failed > 0);
    let topics = admin.topics(true).await.unwrap_or_default();
    if !counted && topics.len() > MAX_TOPICS_ASKED {
        return Vec::new();
    }
    let mut failed = Vec::new();
    for topic in &topics {
        // One that was deleted meanwhile has not failed.
        let statuses = admin.describe_partitions(topic).await.unwrap_or_default();
        let bad = statuses
            .into_iter()
            .filter(|status| status.error != ErrorCode::None && !status.error.is_retriable());
        failed.extend(bad.map(|status| FailedPartition {
            topic: topic.name.clone(),
            partition: status.partition.0,
            error: status.message.to_string(),
        }));
    }
    failed
}

/// Which they are, what is wrong, and what to type next.
fn tell_failed(failed: &[FailedPartition]) {
    for partition in failed.iter().take(NAMED) {
        let FailedPartition {
            topic,
            partition,
            error,
        } = partition;
        eprintln!("error: {topic}/{partition}: {error}");
    }
    if failed.len() > NAMED {
        eprintln!("error: and {} more", failed.len() - NAMED);
    }
    if let Some(first) = failed.first() {
        eprintln!(
            "next: millstream topic describe {}; with the broker stopped, millstream log verify DATA-DIR",
            first.topic
        );
    }
}

fn print(cluster: &DescribeClusterResponse, failed: usize) -> Result<()> {
    for broker in &cluster.brokers {
        output::line(format_args!(
            "broker {} is up for {}s: version {}, {}, {}",
            broker.id,
            broker.uptime_ms / 1000,
            broker.version,
            output::counted(broker.shard_count.into(), "shard", "shards"),
            output::counted(broker.connections.into(), "connection", "connections"),
        ))?;
        output::line(format_args!(
            "  partitions  {}, {} of them failed",
            broker.partitions,
            u64::from(broker.partitions_failed).max(failed as u64)
        ))?;
        output::line(format_args!(
            "  memory      {} of {} in use",
            show_size(broker.memory_used),
            show_size(broker.memory_budget)
        ))?;
        output::line(format_args!(
            "  disk        {} of {} free, {} I/O, {}",
            show_size(broker.disk_free),
            show_size(broker.disk_total),
            if broker.direct_io {
                "direct"
            } else {
                "buffered"
            },
            broker.data_dir
        ))?;
    }
    output::line(format_args!("cluster {}", cluster.cluster_id))
}
