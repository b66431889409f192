//! Which records are written, and how: every flag may also come from a workload file.

use anyhow::Result;
use clap::Args;

use super::{
    choices::{CompressionArg, DurabilityArg},
    workload_file::WorkloadFile,
};
use crate::{
    linger::LingerTime,
    pace::Arrivals,
    units::{parse_count, parse_percent, parse_size},
    workload::{Keys, Sizes},
};

/// Which records to write. What is absent comes from the workload file, or else is the default.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Records")]
pub struct ProduceArgs {
    /// Bytes of each record's value: 1000, uniform:100-2000 or log-normal:1000,0.5 (median, sigma)
    /// [default: 1000]
    #[arg(long, value_name = "SIZES")]
    pub record_size: Option<Sizes>,
    /// Keys, which choose the partition: none, uniform:1M (how many) or zipf:1M,1.1 (how many,
    /// exponent) [default: none]
    #[arg(long)]
    pub keys: Option<Keys>,
    /// How much of each value a compressor can save [default: 50%]
    #[arg(long, value_name = "PERCENT", value_parser = parse_percent)]
    pub compressible: Option<f64>,
    /// How batches are compressed [default: none]
    #[arg(
        long,
        value_enum,
        hide_possible_values = true,
        value_name = "none|lz4|zstd|..."
    )]
    pub compression: Option<CompressionArg>,
    /// Bytes at which a batch is full [default: 64KiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub batch_size: Option<u64>,
    /// How long a batch waits for more records: a time, or auto, which the traffic decides
    /// [default: 0]
    #[arg(long, value_name = "TIME|auto")]
    pub linger: Option<LingerTime>,
    /// Most unacknowledged bytes of one connection [default: 32MiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub buffer_memory: Option<u64>,
    /// Most unacknowledged records of one connection [default: no limit]
    #[arg(long, value_name = "COUNT", value_parser = parse_count)]
    pub in_flight: Option<u64>,
    /// Records a second over all connections; 0 is as fast as possible [default: 0]
    #[arg(long, value_name = "COUNT", value_parser = parse_count)]
    pub rate: Option<u64>,
    /// How records follow each other at a rate [default: constant]
    #[arg(
        long,
        value_enum,
        hide_possible_values = true,
        value_name = "constant|poisson"
    )]
    pub arrivals: Option<Arrivals>,
    /// Decides what is random, so that a run can be repeated [default: 1]
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,
    /// Partitions of each topic, if it is created [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub partitions: Option<u32>,
    /// Durability of a topic that is created: flushed or buffered [default: flushed]
    #[arg(
        long,
        value_enum,
        hide_possible_values = true,
        value_name = "flushed|buffered"
    )]
    pub durability: Option<DurabilityArg>,
    /// Another setting of a topic that is created, such as retention.ms=1h; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_setting)]
    pub topic_config: Vec<(String, String)>,
}

impl ProduceArgs {
    /// Takes from a file what the command line left open.
    ///
    /// # Errors
    /// A value that is none.
    pub fn fill_from(&mut self, file: &mut WorkloadFile) -> Result<()> {
        file.fill("record-size", &mut self.record_size, str::parse)?;
        file.fill("keys", &mut self.keys, str::parse)?;
        file.fill("compressible", &mut self.compressible, parse_percent)?;
        file.fill_word("compression", &mut self.compression)?;
        file.fill("batch-size", &mut self.batch_size, parse_size)?;
        file.fill("linger", &mut self.linger, str::parse)?;
        file.fill("buffer-memory", &mut self.buffer_memory, parse_size)?;
        file.fill("in-flight", &mut self.in_flight, parse_count)?;
        file.fill("rate", &mut self.rate, parse_count)?;
        file.fill_word("arrivals", &mut self.arrivals)?;
        file.fill_number("seed", &mut self.seed)?;
        file.fill_number("partitions", &mut self.partitions)?;
        file.fill_word("durability", &mut self.durability)
    }
}

fn parse_setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is no setting: write NAME=VALUE")),
    }
}
