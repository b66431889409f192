//! Results as data: what a run leaves behind, written as JSON and read again by `report` and
//! `compare`. Fields are only ever added, and a new one is optional to read.

use serde::{Deserialize, Serialize};

use crate::{
    broker::{BrokerFacts, BrokerFigures, BrokerInterval},
    durability::Durability,
    figures::Figures,
    host::HostFacts,
    linger::LingerTime,
    verify::Verdict,
};

/// Rises when a reader of older documents would misread newer ones.
pub const FORMAT: u32 = 1;

/// Everything about one invocation of the generator.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Document {
    /// Of this document.
    pub format: u32,
    /// What was done: `produce`, `sweep`, ...
    pub mode: String,
    /// When, RFC 3339.
    pub started_at: String,
    /// The command line.
    pub command: Vec<String>,
    /// Version of the generator.
    pub version: String,
    /// Git revision it was built from, if the build was told.
    pub revision: Option<String>,
    /// The host it ran on.
    pub host: HostFacts,
    /// The broker under load.
    pub broker: BrokerFacts,
    /// Whether all went well.
    pub ok: bool,
    /// The one run, where there is one.
    #[serde(flatten)]
    pub run: Option<RunResult>,
    /// Each run of a mode that has several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub points: Vec<RunResult>,
    /// What a search found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saturation: Option<Saturation>,
}

impl Document {
    /// Every run, one or many.
    pub fn runs(&self) -> impl Iterator<Item = &RunResult> {
        self.run.iter().chain(&self.points)
    }
}

/// The highest rate within a bound.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Saturation {
    /// What 99 of 100 records had to keep, in microseconds.
    pub p99_bound_us: u64,
    /// The rate, if any kept it.
    pub rate: Option<u64>,
    /// Whether it kept it again when it was tried again.
    #[serde(default)]
    pub confirmed: bool,
    /// Part of the rate that it may be off.
    pub precision: f64,
}

/// One run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunResult {
    /// Its number, as in the records it wrote.
    pub run: String,
    /// The topic, or the first of several.
    pub topic: String,
    /// What was asked for.
    pub settings: Settings,
    /// What was written, and how fast it was acknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub produce: Option<StreamResult>,
    /// What was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consume: Option<StreamResult>,
    /// Whether what was written is durable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durability: Option<Durability>,
    /// What the broker did while it counted.
    pub broker_figures: Option<BrokerFigures>,
    /// What the broker did over time.
    #[serde(default)]
    pub broker_intervals: Vec<BrokerInterval>,
    /// Sent records that were neither acknowledged nor refused when the run was stopped.
    pub unanswered: u64,
    /// What verification found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Verdict>,
    /// What went wrong.
    pub errors: Vec<String>,
}

impl RunResult {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.errors.is_empty() && self.verify.as_ref().is_none_or(Verdict::is_clean)
    }

    /// Each direction that was measured, with its name.
    pub fn streams(&self) -> impl Iterator<Item = (&'static str, &StreamResult)> {
        let streams = [("produce", &self.produce), ("consume", &self.consume)];
        streams
            .into_iter()
            .filter_map(|(name, stream)| Some((name, stream.as_ref()?)))
    }
}

/// One direction of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StreamResult {
    /// All of it, without the warm-up.
    pub total: Figures,
    /// The latency below which so many percent lie, in ever finer steps towards 100.
    #[serde(default)]
    pub percentiles: Vec<Percentile>,
    /// Over time, with the warm-up.
    pub intervals: Vec<Interval>,
}

/// One point of the latency curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Percentile {
    /// Between 0 and 100.
    pub percent: f64,
    /// Microseconds.
    pub us: u64,
    /// Records that were this fast.
    pub count: u64,
}

/// Figures of a stretch of time.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Interval {
    /// Seconds since the start at the end of the interval.
    pub at_seconds: f64,
    /// Whether it is left out of the totals.
    pub warm_up: bool,
    /// Its figures.
    #[serde(flatten)]
    pub figures: Figures,
}

/// What was asked for, for whoever compares results.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Settings {
    /// Client connections that wrote, or that read where nothing was written.
    pub connections: u32,
    /// Those that read, if any did.
    #[serde(default)]
    pub consumers: u32,
    /// Threads they were spread over.
    pub threads: u32,
    /// Topics.
    #[serde(default = "one")]
    pub topics: usize,
    /// Partitions of all topics.
    pub partitions: u32,
    /// Seconds left out at the start.
    pub warm_up_seconds: f64,
    /// How records were written, if they were.
    #[serde(flatten)]
    pub produce: Option<ProduceSettings>,
}

/// How records were written.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProduceSettings {
    /// Bytes of a value, about the mean where they differ.
    pub record_size: u64,
    /// How they differ.
    #[serde(default)]
    pub record_sizes: String,
    /// Which keys records have.
    #[serde(default)]
    pub keys: String,
    /// Which part of a value a compressor can save.
    #[serde(default)]
    pub compressible: f64,
    /// Bytes at which a batch is full.
    pub batch_size: u64,
    /// Milliseconds a batch waits, or "auto".
    pub linger_ms: LingerTime,
    /// Most unacknowledged bytes of a connection.
    pub buffer_memory: u64,
    /// Most unacknowledged records of a connection.
    #[serde(default)]
    pub in_flight: Option<u64>,
    /// Records a second; 0 is as fast as possible.
    pub rate: u64,
    /// How they follow each other.
    #[serde(default)]
    pub arrivals: String,
    /// Decides what is random.
    #[serde(default)]
    pub seed: u64,
    /// Codec.
    pub compression: String,
    /// The topic's durability.
    pub durability: String,
}

fn one() -> usize {
    1
}
