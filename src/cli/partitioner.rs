//! `--partitioner`: which partition a key chooses.

use clap::ValueEnum;
use millstream_client::{Consistent, ConsistentRandom, Murmur2, ProducerBuilder, RoundRobin};

/// How records without a partition find theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PartitionerArg {
    /// As Kafka's Java client: by key; records without one anywhere, a batch to each partition
    Murmur2,
    /// As librdkafka's: by key with CRC-32; the empty key and none go to partition 0
    Consistent,
    /// As librdkafka's default: by key with CRC-32; records with an empty key or none anywhere
    ConsistentRandom,
    /// Each record to the next partition, whatever its key
    RoundRobin,
}

impl PartitionerArg {
    /// A producer that does so.
    #[must_use]
    pub fn set(self, producer: ProducerBuilder) -> ProducerBuilder {
        match self {
            Self::Murmur2 => producer.partitioner(Murmur2),
            Self::Consistent => producer.partitioner(Consistent),
            Self::ConsistentRandom => producer.partitioner(ConsistentRandom),
            Self::RoundRobin => producer.partitioner(RoundRobin::default()),
        }
    }
}
