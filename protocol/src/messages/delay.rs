//! Delayed records: accepting them, and what waits. `docs/delay.md` tells what they promise.

use crate::{
    error_code::ErrorCode,
    ids::{Offset, PartitionIndex, TopicId, TopicPartition},
    messages::{ProducePartition, ProducePartitionResult},
    wire_struct,
};

/// What became of an attempt to cancel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum CancelOutcome {
    /// Nothing is known of it: it never was, or it is long over.
    #[default]
    Unknown = 0,
    /// It will not be delivered, and that is durable.
    Cancelled = 1,
    /// It is in the partition already.
    Delivered = 2,
}

impl CancelOutcome {
    /// Its number on the wire.
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The outcome of a number; what only a newer peer knows is `Unknown`.
    #[must_use]
    pub fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Cancelled,
            2 => Self::Delivered,
            _ => Self::Unknown,
        }
    }
}

wire_struct! {
    /// As `ProduceRequest`, of records that each carry a header with their due time.
    pub struct ProduceDelayedRequest {
        /// Milliseconds after which the client gives up; the broker may drop what it has not begun.
        pub timeout_ms: u32,
        /// One for each partition; a partition may appear once.
        pub partitions: Vec<ProducePartition>,
    }

    /// As `ProduceResponse`, but that `base_offset` is the first record's delay id.
    pub struct ProduceDelayedResponse {
        /// One for each partition.
        pub partitions: Vec<ProducePartitionResult>,
    }

    /// A page of what waits in one partition.
    pub struct ListDelayedPartition {
        /// The topic.
        pub topic: TopicId,
        /// The partition.
        pub partition: PartitionIndex,
        /// Only what is due later than this, in milliseconds since 1970, or then with a larger delay id.
        pub after_ms: i64,
        /// The delay id to go on behind, or -1.
        pub after_delay_id: Offset,
        /// The most records of the page; the broker may give fewer.
        pub max_records: u32,
    }

    /// What waits, in order of due time.
    pub struct ListDelayedRequest {
        /// The partitions.
        pub partitions: Vec<ListDelayedPartition>,
    }

    /// A record that waits.
    pub struct DelayedRecord {
        /// When it is due, in milliseconds since 1970.
        pub due_ms: i64,
        /// What the broker calls it, within its partition.
        pub delay_id: Offset,
        /// What its producer calls it, or empty.
        pub id: String,
        /// Its key.
        pub key: Option<Vec<u8>>,
        /// Bytes of its value.
        pub value_size: u32,
    }

    /// A partition's page.
    pub struct ListDelayedResult {
        /// The topic.
        pub topic: TopicId,
        /// The partition.
        pub partition: PartitionIndex,
        /// `None`, or what is wrong.
        pub error: ErrorCode,
        /// A sentence when there is an error.
        pub message: String,
        /// In order of due time, then of delay id.
        pub records: Vec<DelayedRecord>,
        /// There is more behind the last one.
        pub more: bool,
    }

    /// In the order of the request.
    pub struct ListDelayedResponse {
        /// One for each partition.
        pub partitions: Vec<ListDelayedResult>,
    }

    /// One record that is not to be delivered.
    pub struct CancelDelayed {
        /// The topic.
        pub topic: TopicId,
        /// The partition.
        pub partition: PartitionIndex,
        /// What the broker calls it, or -1 to go by `id`.
        pub delay_id: Offset,
        /// What its producer calls it.
        pub id: String,
    }

    /// Takes delayed records back.
    pub struct CancelDelayedRequest {
        /// The records.
        pub records: Vec<CancelDelayed>,
    }

    /// What became of one of them.
    pub struct CancelDelayedResult {
        /// The topic.
        pub topic: TopicId,
        /// The partition.
        pub partition: PartitionIndex,
        /// `None`, or what is wrong.
        pub error: ErrorCode,
        /// A sentence when there is an error.
        pub message: String,
        /// What became of it: 0 unknown, 1 cancelled, 2 already delivered.
        pub outcome: u8,
        /// What the broker calls it, or -1.
        pub delay_id: Offset,
    }

    /// In the order of the request.
    pub struct CancelDelayedResponse {
        /// One for each record.
        pub results: Vec<CancelDelayedResult>,
    }

    /// Asks how much waits.
    pub struct DescribeDelayedRequest {
        /// The partitions.
        pub partitions: Vec<TopicPartition>,
    }

    /// What waits in a partition.
    pub struct DelayedStatus {
        /// The topic.
        pub topic: TopicId,
        /// The partition.
        pub partition: PartitionIndex,
        /// `None`, or what is wrong.
        pub error: ErrorCode,
        /// A sentence when there is an error.
        pub message: String,
        /// Records that wait.
        pub pending: u64,
        /// When the next one is due, in milliseconds since 1970, or -1.
        pub next_due_ms: i64,
        /// Bytes of disk that all it takes to hold them takes, preallocation included.
        pub physical_bytes: u64,
    }

    /// In the order of the request.
    pub struct DescribeDelayedResponse {
        /// One for each partition.
        pub partitions: Vec<DelayedStatus>,
    }
}
