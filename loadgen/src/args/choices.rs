//! Flags that are one of a few words.

use clap::ValueEnum;
use millstream_client::Compression;

/// Where to begin reading.
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
        Compression::from(self).name()
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
