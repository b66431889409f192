//! The command line of the generator, shared by `loadgen` and `millstream bench`.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use millstream_client::Compression;

use crate::{
    broker::BrokerArgs,
    units::{parse_count, parse_duration, parse_size},
};

/// Load, measured; or records, verified.
#[derive(Clone, Debug, Args)]
pub struct LoadArgs {
    /// Which broker.
    #[command(flatten)]
    pub broker: BrokerArgs,
    /// What to do.
    #[command(subcommand)]
    pub mode: Mode,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Mode {
    /// Write records as fast as the broker acknowledges them, or at a fixed rate
    #[command(after_help = PRODUCE_EXAMPLES)]
    Produce {
        /// Which records.
        #[command(flatten)]
        produce: ProduceArgs,
        /// How much, how long, and what to tell.
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Read a topic from its beginning to its end, as fast as the broker gives
    #[command(after_help = CONSUME_EXAMPLES)]
    Consume {
        /// From where.
        #[command(flatten)]
        consume: ConsumeArgs,
        /// How much, how long, and what to tell.
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Write and read at once; latencies of reading are from end to end
    #[command(after_help = BOTH_EXAMPLES)]
    Both {
        /// Which records.
        #[command(flatten)]
        produce: ProduceArgs,
        /// How much, how long, and what to tell.
        #[command(flatten)]
        common: CommonArgs,
    },
}

impl Mode {
    /// How much, how long, and what to tell.
    #[must_use]
    pub fn common(&self) -> &CommonArgs {
        match self {
            Self::Produce { common, .. }
            | Self::Consume { common, .. }
            | Self::Both { common, .. } => common,
        }
    }

    /// Its name on the command line.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Produce { .. } => "produce",
            Self::Consume { .. } => "consume",
            Self::Both { .. } => "both",
        }
    }
}

const PRODUCE_EXAMPLES: &str = "\
Examples:
  loadgen produce --duration 30s                       as fast as possible, 1,000-byte records
  loadgen produce --rate 50k --record-size 200         50,000 records a second, latency from when
                                                       each was due
  loadgen produce --verify --state run.json            note what was acknowledged, for later";
const CONSUME_EXAMPLES: &str = "\
Examples:
  loadgen consume                                      the whole topic, once
  loadgen consume --verify --state run.json            prove that nothing acknowledged is missing
  loadgen consume --duration 1m                        follow the topic for a minute";
const BOTH_EXAMPLES: &str = "\
Examples:
  loadgen both --rate 10k --duration 1m --json out.json
  loadgen both --verify --records 10M --partitions 4 --connections 2";

/// How much, how long, and what to tell.
#[derive(Clone, Debug, Args)]
pub struct CommonArgs {
    /// Topic to use; produce and both create it if it is absent [default: loadgen, or the topic of
    /// --state]
    #[arg(long)]
    pub topic: Option<String>,
    /// Client connections, each with its own producer or consumer
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub connections: u32,
    /// Threads that the connections are spread over
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub threads: u32,
    /// Stop this long after the warm-up [default for writing: 10s, unless --records is given]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// Stop after this many records, over all connections
    #[arg(long, value_name = "COUNT", value_parser = parse_count)]
    pub records: Option<u64>,
    /// Leave the first part out of the final figures
    #[arg(long, alias = "warmup", value_name = "TIME", default_value = "0", value_parser = parse_duration)]
    pub warm_up: Duration,
    /// Report lost, repeated, reordered and corrupt records; fail if there are any
    #[arg(long)]
    pub verify: bool,
    /// File of what was acknowledged: written by producers each second, read by consume --verify
    #[arg(long, value_name = "FILE", requires = "verify")]
    pub state: Option<PathBuf>,
    /// Write results as JSON to this file, or to standard output for -
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write a histogram of each interval to this file, in HdrHistogram's log format
    #[arg(long, value_name = "FILE")]
    pub hlog: Option<PathBuf>,
    /// Write the percentile distribution to this file, in HdrHistogram's text format
    #[arg(long, value_name = "FILE")]
    pub percentiles: Option<PathBuf>,
    /// How long to keep trying while the broker is away
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = parse_duration)]
    pub delivery_timeout: Duration,
}

/// Which records to write.
#[derive(Clone, Debug, Args)]
pub struct ProduceArgs {
    /// Bytes of each record's value
    #[arg(long, value_name = "SIZE", default_value = "1000", value_parser = parse_size)]
    pub record_size: u64,
    /// Bytes at which a batch is full
    #[arg(long, value_name = "SIZE", default_value = "64KiB", value_parser = parse_size)]
    pub batch_size: u64,
    /// How long a batch waits for more records
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = parse_duration)]
    pub linger: Duration,
    /// Most unacknowledged bytes of one connection
    #[arg(long, value_name = "SIZE", default_value = "32MiB", value_parser = parse_size)]
    pub buffer_memory: u64,
    /// Partitions of the topic, if it is created; 1 by default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub partitions: Option<u32>,
    /// Records a second over all connections; 0 is as fast as possible
    #[arg(long, value_name = "COUNT", default_value = "0", value_parser = parse_count)]
    pub rate: u64,
    /// How batches are compressed
    #[arg(long, value_enum, default_value_t = CompressionArg::None)]
    pub compression: CompressionArg,
    /// Durability of the topic, if it is created; flushed by default
    #[arg(long, value_enum)]
    pub durability: Option<DurabilityArg>,
}

/// From where to read.
#[derive(Clone, Debug, Args)]
pub struct ConsumeArgs {
    /// Where to begin in each partition
    #[arg(long, value_enum, default_value_t = FromArg::Beginning)]
    pub from: FromArg,
}

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FromArg {
    /// The first record there is
    Beginning,
    /// Behind the last
    End,
}

/// A topic's durability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DurabilityArg {
    /// Acknowledged once on stable storage
    Flushed,
    /// Acknowledged once in memory
    Buffered,
}

impl DurabilityArg {
    /// The value of the topic setting `durability`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Flushed => "flushed",
            Self::Buffered => "buffered",
        }
    }
}

/// How batches are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CompressionArg {
    /// Not at all
    None,
    /// gzip
    Gzip,
    /// Snappy
    Snappy,
    /// LZ4
    Lz4,
    /// Zstandard
    Zstd,
}

impl CompressionArg {
    /// Kafka's name of it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

impl From<CompressionArg> for Compression {
    fn from(compression: CompressionArg) -> Self {
        match compression {
            CompressionArg::None => Self::None,
            CompressionArg::Gzip => Self::Gzip,
            CompressionArg::Snappy => Self::Snappy,
            CompressionArg::Lz4 => Self::Lz4,
            CompressionArg::Zstd => Self::Zstd,
        }
    }
}
