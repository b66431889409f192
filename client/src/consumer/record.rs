//! What a consumer hands out.

use std::sync::Arc;

use bytes::Bytes;
use millstream_protocol::{Offset, PartitionIndex};

/// One record. Key, value and header values are slices of the reply they came in: keeping one keeps
/// the whole reply (up to a few MiB) in memory; copy what is kept for long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerRecord {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: PartitionIndex,
    /// The offset.
    pub offset: Offset,
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
    /// The key, if any.
    pub key: Option<Bytes>,
    /// The value; none in a tombstone.
    pub value: Option<Bytes>,
    /// Headers in order; names may repeat.
    pub headers: Vec<(String, Option<Bytes>)>,
}

/// Where to begin reading a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// The first offset there is.
    Beginning,
    /// Behind the last record that consumers may see.
    End,
    /// An offset.
    Offset(Offset),
    /// The first record at or after a time, in milliseconds since 1970; the end if there is none.
    Timestamp(i64),
}

/// What to do when the position is not in the log (deleted by retention or trim, or beyond the end).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutOfRangePolicy {
    /// Report it and pause the partition until `seek`.
    #[default]
    Error,
    /// Go on at the first offset there is.
    Earliest,
    /// Go on at the end.
    Latest,
}

/// What to do when records that were read are no longer what the log holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TruncationPolicy {
    /// Report it and pause the partition until `seek`.
    #[default]
    Error,
    /// Log a warning and go on where the log parts from what was read.
    Continue,
}
