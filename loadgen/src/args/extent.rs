//! How much and how long, on how many connections, and what to tell: what every mode has.

use std::{path::PathBuf, time::Duration};

use anyhow::Result;
use clap::Args;

use super::workload_file::WorkloadFile;
use crate::{
    broker::BrokerArgs,
    units::{parse_count, parse_duration},
};

/// How much, how long, and what to tell. What is absent comes from the workload file, or else is the
/// default.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Run")]
pub struct ExtentArgs {
    /// Take what no flag says from this workload: a TOML file, or one of the ready ones
    #[arg(long, value_name = "FILE|NAME")]
    pub workload: Option<String>,
    /// Topic to use; writers create it if it is absent [default: loadgen, or that of --state]
    #[arg(long, value_name = "NAME")]
    pub topic: Option<String>,
    /// Use so many topics, named with a number behind the name [default: 1, with no number]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub topics: Option<u32>,
    /// Client connections, each with its own producer or consumer [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub connections: Option<u32>,
    /// Connections that write, if not as many as --connections
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub producers: Option<u32>,
    /// Connections that read, if not as many as --connections
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub consumers: Option<u32>,
    /// Threads that the connections are spread over [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub threads: Option<u32>,
    /// Stop this long after the warm-up
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// Stop after this many records, over all connections
    #[arg(long, value_name = "COUNT", value_parser = parse_count)]
    pub records: Option<u64>,
    /// Leave the first part out of the final figures [default: 0]
    #[arg(long, alias = "warmup", value_name = "TIME", value_parser = parse_duration)]
    pub warm_up: Option<Duration>,
    /// Time between two lines of figures [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub interval: Option<Duration>,
    /// Report lost, repeated, reordered and corrupt records; fail if there are any
    #[arg(long)]
    pub verify: bool,
    /// File of what was acknowledged: written by producers each second, read by consume --verify
    #[arg(long, value_name = "FILE", requires = "verify")]
    pub state: Option<PathBuf>,
    /// How long to keep trying while the broker is away [default: 2m]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub delivery_timeout: Option<Duration>,
    /// Where results go.
    #[command(flatten)]
    pub outputs: OutputArgs,
    /// Which broker.
    #[command(flatten)]
    pub broker: BrokerArgs,
}

impl ExtentArgs {
    /// Takes from a file what the command line left open.
    ///
    /// # Errors
    /// A value that is none.
    pub fn fill_from(&mut self, file: &mut WorkloadFile) -> Result<()> {
        file.fill("topic", &mut self.topic, |text| Ok(text.to_owned()))?;
        file.fill_number("topics", &mut self.topics)?;
        file.fill_number("connections", &mut self.connections)?;
        file.fill_number("producers", &mut self.producers)?;
        file.fill_number("consumers", &mut self.consumers)?;
        file.fill_number("threads", &mut self.threads)?;
        if self.records.is_none() {
            file.fill("duration", &mut self.duration, parse_duration)?;
        }
        if self.duration.is_none() {
            file.fill("records", &mut self.records, parse_count)?;
        }
        file.forget("duration");
        file.forget("records");
        file.fill("warm-up", &mut self.warm_up, parse_duration)
    }
}

/// Where results go.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Results")]
pub struct OutputArgs {
    /// Write results as JSON to this file, or to standard output for -
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Draw results as a page of HTML in this file: complete in itself, for any browser
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Write a histogram of each interval to this file, in HdrHistogram's log format
    #[arg(long, value_name = "FILE")]
    pub hlog: Option<PathBuf>,
    /// Write the percentile distribution to this file, in HdrHistogram's text format
    #[arg(long, value_name = "FILE")]
    pub percentiles: Option<PathBuf>,
}
