//! The command line of the generator, shared by `loadgen` and `millstream bench`.

mod after;
mod choices;
mod extent;
mod grid;
mod produce;
mod workload_file;

use std::time::Duration;

use clap::{Args, Subcommand};

pub use after::{CompareArgs, ReportArgs};
pub use choices::{CompressionArg, DurabilityArg, FromArg};
pub use extent::{ExtentArgs, OutputArgs};
pub use grid::{RatePoint, SaturateArgs, SweepArgs};
pub use produce::ProduceArgs;
pub use workload_file::WorkloadFile;

use crate::{
    delay_load::DelayArgs, group_load::GroupArgs, null_sink::NullSinkArgs, units::parse_size,
};

/// Load, measured; or records, verified.
#[derive(Clone, Debug, Args)]
pub struct LoadArgs {
    /// What to do.
    #[command(subcommand)]
    pub mode: Mode,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Mode {
    /// Write records as fast as the broker acknowledges them, or at a fixed rate
    #[command(after_help = PRODUCE_EXAMPLES)]
    Produce(WriteArgs),
    /// Read a topic from its beginning to its end, as fast as the broker gives
    #[command(after_help = CONSUME_EXAMPLES)]
    Consume(ConsumeArgs),
    /// Write and read at once; latencies of reading are from end to end
    #[command(after_help = BOTH_EXAMPLES)]
    Both(WriteArgs),
    /// One record at a time, from a producer to a consumer that waits for it
    #[command(after_help = END_TO_END_EXAMPLES)]
    EndToEnd(WriteArgs),
    /// Measure a grid of linger, batch size and rate: what batching costs and what it gains
    #[command(after_help = SWEEP_EXAMPLES)]
    Sweep(SweepArgs),
    /// Find the highest rate whose p99 stays under a bound
    #[command(after_help = SATURATE_EXAMPLES)]
    Saturate(SaturateArgs),
    /// Write and read for a long time, verify everything, keep the disk within bounds
    #[command(after_help = SOAK_EXAMPLES)]
    Soak(SoakArgs),
    /// Share topics among members that are killed and added: all is read, each by its owner
    #[command(after_help = GROUP_EXAMPLES)]
    Group(GroupArgs),
    /// Delay very many records: each comes once, none early; how late, and what they cost meanwhile
    #[command(after_help = DELAY_EXAMPLES)]
    Delay(DelayArgs),
    /// Compare results: what differs, and whether by more than repeated runs do
    #[command(after_help = COMPARE_EXAMPLES)]
    Compare(CompareArgs),
    /// Draw earlier results as a page of HTML
    Report(ReportArgs),
    /// Take every record and keep none: what the generator itself can do shows against this
    #[command(hide = true)]
    NullSink(NullSinkArgs),
}

/// A mode that writes.
#[derive(Clone, Debug, Args)]
pub struct WriteArgs {
    /// Which records.
    #[command(flatten)]
    pub produce: ProduceArgs,
    /// How much, how long, and what to tell.
    #[command(flatten)]
    pub extent: ExtentArgs,
}

/// Reading.
#[derive(Clone, Debug, Args)]
pub struct ConsumeArgs {
    /// Where to begin in each partition
    #[arg(long, value_enum, default_value_t = FromArg::Beginning)]
    pub from: FromArg,
    /// How much, how long, and what to tell.
    #[command(flatten)]
    pub extent: ExtentArgs,
}

/// A long run.
#[derive(Clone, Debug, Args)]
pub struct SoakArgs {
    /// Let the topics that are created keep about so much; older records are deleted
    #[arg(long, value_name = "SIZE", default_value = "4GiB", value_parser = parse_size)]
    pub disk: u64,
    /// Which records, and how much.
    #[command(flatten)]
    pub write: WriteArgs,
}

/// Rate of a soak unless another is given: what any disk keeps up with, so that time finds faults.
const SOAK_RATE: u64 = 10_000;
/// And how long.
const SOAK_DURATION: Duration = Duration::from_secs(600);

impl SoakArgs {
    /// What the defaults of a soak are.
    pub fn fill_defaults(&mut self) {
        let WriteArgs { produce, extent } = &mut self.write;
        produce.rate.get_or_insert(SOAK_RATE);
        if extent.records.is_none() {
            extent.duration.get_or_insert(SOAK_DURATION);
        }
        extent.verify = true;
    }
}

impl Mode {
    /// How much, how long, and what to tell; nothing for a mode that puts no load on a broker.
    #[must_use]
    pub fn extent(&self) -> Option<&ExtentArgs> {
        Some(match self {
            Self::Produce(args) | Self::Both(args) | Self::EndToEnd(args) => &args.extent,
            Self::Consume(args) => &args.extent,
            Self::Sweep(args) => &args.write.extent,
            Self::Saturate(args) => &args.write.extent,
            Self::Soak(args) => &args.write.extent,
            Self::Group(_)
            | Self::Delay(_)
            | Self::Compare(_)
            | Self::Report(_)
            | Self::NullSink(_) => return None,
        })
    }

    /// Its name on the command line.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Produce(_) => "produce",
            Self::Consume(_) => "consume",
            Self::Both(_) => "both",
            Self::EndToEnd(_) => "end-to-end",
            Self::Sweep(_) => "sweep",
            Self::Saturate(_) => "saturate",
            Self::Soak(_) => "soak",
            Self::Group(_) => "group",
            Self::Delay(_) => "delay",
            Self::Compare(_) => "compare",
            Self::Report(_) => "report",
            Self::NullSink(_) => "null-sink",
        }
    }
}

const PRODUCE_EXAMPLES: &str = "\
Examples, each after `loadgen` or `millstream bench`:
  produce --spawn                            start a broker, show what it does, remove it
  produce --duration 30s                     as fast as possible, 1,000-byte records
  produce --rate 50k --record-size 200       50,000 records a second, latency from when each was due
  produce --workload orders --arrivals poisson
  produce --verify --state run.json          note what was acknowledged, for later";
const CONSUME_EXAMPLES: &str = "\
Examples, each after `loadgen` or `millstream bench`:
  consume                                    the whole topic, once
  consume --verify --state run.json          prove that nothing acknowledged is missing
  consume --duration 1m                      follow the topic for a minute";
const BOTH_EXAMPLES: &str = "\
Examples, each after `loadgen` or `millstream bench`:
  both --rate 10k --duration 1m --json out.json
  both --verify --records 10M --partitions 4 --connections 2";
const END_TO_END_EXAMPLES: &str = "\
Examples, each after `loadgen` or `millstream bench`:
  end-to-end --spawn                         the next record follows when the last one arrived
  end-to-end --rate 100 --duration 1m        a record every 10 ms, if the last one arrived";
const SWEEP_EXAMPLES: &str = "\
Examples, each after `loadgen` or `millstream bench`:
  sweep --spawn                              batching latency against throughput, on this host
  sweep --lingers 0,1ms,5ms --batch-sizes 64KiB --rates 10%,50%,90%,max --report sweep.html
  sweep --rates 10k,50k,100k --duration 10s --partitions 4 --json sweep.json";
const SATURATE_EXAMPLES: &str = "\
Examples, each after `loadgen` or `millstream bench`:
  saturate --spawn --p99 10ms                the highest rate with 99 of 100 records within 10 ms
  saturate --p99 2ms --record-size 200 --linger 1ms --arrivals poisson";
const GROUP_EXAMPLES: &str = "\
Examples, each after `loadgen` or `millstream bench`:
  group --duration 1m                        3 members over 64 partitions, one killed or added every 3 s
  group --groups 1000 --members 10 --partitions 10 --rate 0 --churn 0 --heartbeat 3s --session-timeout 15s";
const DELAY_EXAMPLES: &str = "\
Examples, each after `loadgen` or `millstream bench`:
  delay --spawn                              100,000 records due over 10 s
  delay --spawn --records 5M --after 3m --over 5m
  delay --spawn --records 200k --after 30s --over 1s --beside 1k
  delay --spawn --records 200k --over 0s     all due at the same millisecond";
const COMPARE_EXAMPLES: &str = "\
Examples, each after `loadgen` or `millstream bench`:
  compare before.json after.json
  compare before-*.json --with after-*.json  repeated runs show what is noise
  compare before-*.json --with after-*.json --fail-if-worse";
const SOAK_EXAMPLES: &str = "\
Examples, each after `loadgen` or `millstream bench`:
  soak --duration 8h --rate 50k --partitions 4
  soak --spawn --duration 1h --disk 20GiB --workload events";
