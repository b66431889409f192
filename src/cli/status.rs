//! `millstream status`: whether the broker answers, and how it fares.

use std::{process::ExitCode, time::Duration};

use anyhow::Result;
use clap::Args;
use millstream_client::{BrokerStatus, DescribeClusterResponse, RequestError};
use millstream_loadgen::units::parse_duration;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::{
    connect::{ConnectArgs, block_on},
    output::{self, show_size},
};

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

impl<'a> From<&'a DescribeClusterResponse> for Cluster<'a> {
    fn from(cluster: &'a DescribeClusterResponse) -> Self {
        Self {
            cluster_id: cluster.cluster_id.to_string(),
            controller: cluster.controller.0,
            feature_level: cluster.feature_level,
            metadata_index: cluster.metadata_index,
            brokers: cluster.brokers.iter().map(Broker::from).collect(),
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
        let cluster = block_on(async { Ok(self.ask().await?) })?;
        if self.json {
            output::json(&Cluster::from(&cluster))?;
        } else {
            print(&cluster)?;
        }
        let failed = cluster
            .brokers
            .iter()
            .any(|broker| broker.partitions_failed > 0);
        Ok(if failed {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        })
    }

    async fn ask(&self) -> Result<DescribeClusterResponse, RequestError> {
        let deadline = Instant::now() + self.wait;
        loop {
            let asked = async {
                self.connect
                    .client()
                    .await?
                    .admin()
                    .describe_cluster()
                    .await
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

fn print(cluster: &DescribeClusterResponse) -> Result<()> {
    for broker in &cluster.brokers {
        output::line(format_args!(
            "broker {} is up for {}s: version {}, {} shard(s), {} connection(s)",
            broker.id,
            broker.uptime_ms / 1000,
            broker.version,
            broker.shard_count,
            broker.connections
        ))?;
        output::line(format_args!(
            "  partitions  {}, {} of them failed",
            broker.partitions, broker.partitions_failed
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
