//! What is written and read, with every default filled in.

mod keys;
mod sizes;

use std::{path::PathBuf, time::Duration};

use anyhow::Result;
use millstream_client::Compression;

pub use keys::{KEY_SIZE, KeySampler, Keys, key};
pub use sizes::Sizes;

use crate::{
    args::{CompressionArg, DurabilityArg, ExtentArgs, ProduceArgs, WorkloadFile},
    linger::LingerTime,
    pace::Arrivals,
};

/// More often would disturb what is measured.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);

/// Which records are written, and how.
#[derive(Clone, Debug)]
pub struct Writing {
    /// Bytes of a value.
    pub sizes: Sizes,
    /// Keys.
    pub keys: Keys,
    /// Which part of a value a compressor can save.
    pub compressible: f64,
    /// How batches are compressed.
    pub compression: CompressionArg,
    /// Bytes at which a batch is full.
    pub batch_size: u64,
    /// How long a batch waits.
    pub linger: LingerTime,
    /// Most unacknowledged bytes of a connection.
    pub buffer_memory: u64,
    /// Most unacknowledged records of a connection.
    pub in_flight: Option<u64>,
    /// Records a second over all connections; 0 is as fast as possible.
    pub rate: u64,
    /// How they follow each other.
    pub arrivals: Arrivals,
    /// Decides what is random.
    pub seed: u64,
    /// Partitions of a topic, if one was asked for.
    pub partitions: Option<u32>,
    /// Durability of a topic, if one was asked for.
    pub durability: Option<DurabilityArg>,
    /// Other settings of a topic that is created.
    pub topic_config: Vec<(String, String)>,
}

impl Writing {
    /// Fills in defaults.
    #[must_use]
    pub fn of(args: &ProduceArgs) -> Self {
        Self {
            sizes: args.record_size.unwrap_or(Sizes::Fixed(1000)),
            keys: args.keys.unwrap_or(Keys::None),
            compressible: args.compressible.unwrap_or(0.5),
            compression: args.compression.unwrap_or(CompressionArg::None),
            batch_size: args.batch_size.unwrap_or(64 << 10),
            linger: args.linger.unwrap_or_default(),
            buffer_memory: args.buffer_memory.unwrap_or(32 << 20),
            in_flight: args.in_flight,
            rate: args.rate.unwrap_or(0),
            arrivals: args.arrivals.unwrap_or(Arrivals::Constant),
            seed: args.seed.unwrap_or(1),
            partitions: args.partitions,
            durability: args.durability,
            topic_config: args.topic_config.clone(),
        }
    }

    /// For the client.
    #[must_use]
    pub fn codec(&self) -> Compression {
        self.compression.into()
    }
}

/// How much, how long, on how many connections.
#[derive(Clone, Debug)]
pub struct Extent {
    /// The topic, if one was named.
    pub topic: Option<String>,
    /// How many topics, if they are numbered.
    pub topics: Option<u32>,
    /// Connections that write.
    pub producers: u32,
    /// Connections that read.
    pub consumers: u32,
    /// Threads they are spread over.
    pub threads: u32,
    /// Stop this long after the warm-up.
    pub duration: Option<Duration>,
    /// Stop after so many records.
    pub records: Option<u64>,
    /// Left out of the totals.
    pub warm_up: Duration,
    /// Between two lines of figures.
    pub interval: Duration,
    /// Whether to verify.
    pub verify: bool,
    /// File of what was acknowledged.
    pub state: Option<PathBuf>,
    /// How long to try while the broker is away.
    pub delivery_timeout: Duration,
    /// Histogram of each interval.
    pub hlog: Option<PathBuf>,
    /// Percentile distribution.
    pub percentiles: Option<PathBuf>,
}

impl Extent {
    /// Fills in defaults.
    #[must_use]
    pub fn of(args: &ExtentArgs) -> Self {
        let connections = args.connections.unwrap_or(1);
        Self {
            topic: args.topic.clone(),
            topics: args.topics,
            producers: args.producers.unwrap_or(connections),
            consumers: args.consumers.unwrap_or(connections),
            threads: args.threads.unwrap_or(1),
            duration: args.duration,
            records: args.records,
            warm_up: args.warm_up.unwrap_or(Duration::ZERO),
            interval: args
                .interval
                .unwrap_or(Duration::from_secs(1))
                .max(SHORTEST_INTERVAL),
            verify: args.verify,
            state: args.state.clone(),
            delivery_timeout: args.delivery_timeout.unwrap_or(Duration::from_secs(120)),
            hlog: args.outputs.hlog.clone(),
            percentiles: args.outputs.percentiles.clone(),
        }
    }

    /// The topics' names, if the topic has this one.
    #[must_use]
    pub fn topic_names(&self, name: &str) -> Vec<String> {
        match self.topics {
            None => vec![name.to_owned()],
            Some(count) => (0..count)
                .map(|number| format!("{name}-{number}"))
                .collect(),
        }
    }
}

/// Takes from the workload file, if one was named, what the command line left open.
///
/// # Errors
/// If there is no such file, or what it says makes no sense.
pub fn fill(extent: &mut ExtentArgs, produce: Option<&mut ProduceArgs>) -> Result<()> {
    let Some(name) = extent.workload.clone() else {
        return Ok(());
    };
    let mut file = WorkloadFile::open(&name)?;
    extent.fill_from(&mut file)?;
    // A reader passes over what only concerns writers.
    let mut unused = ProduceArgs::default();
    produce.unwrap_or(&mut unused).fill_from(&mut file)?;
    file.finish()
}
