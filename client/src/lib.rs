//! The Rust client of Millstream: producer, consumer and admin over one shared [`Client`].
//!
//! ```no_run
//! # async fn run() -> Result<(), millstream_client::Error> {
//! use millstream_client::{Client, ProducerRecord, StartAt};
//! use std::time::Duration;
//!
//! let client = Client::builder("127.0.0.1:7400").client_name("example").connect().await?;
//!
//! let producer = client.producer().build().await?;
//! let delivery = producer.send(ProducerRecord::to("events").key("k").value("v")).await?;
//! let delivered = delivery.await?; // durable on the broker
//!
//! let mut consumer = client.consumer().build();
//! consumer.assign("events", delivered.partition, StartAt::Beginning).await?;
//! for record in consumer.poll(Duration::from_secs(1)).await? {
//!     println!("{} {:?}", record.offset, record.value);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The decisions (batching, sequences, retries, prefetching, truncation) are in pure machines
//! without clock, network or randomness; around each is a thin tokio shell. Every future is `Send`
//! and works on the multi-thread and on the current-thread runtime.

#![forbid(unsafe_code)]

mod admin;
mod backoff;
mod client;
mod clock;
mod connection;
mod consumer;
mod error;
mod group;
mod lookups;
mod metadata;
mod offsets;
mod producer;
mod routing;

/// The code of the README, so that it compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

pub use admin::{Admin, Committed, DelayRef, DelayedRecord, NewTopic, OffsetSpec};
pub use client::{Client, ClientBuilder};
pub use consumer::{
    Consumer, ConsumerBatch, ConsumerBuilder, ConsumerRecord, OutOfRangePolicy, StartAt,
    TruncationPolicy,
};
pub use error::{ConsumeError, Error, ProduceError, RequestError};
pub use group::{
    AutoOffsetReset, CommitOffset, DEFAULT_SESSION_TIMEOUT, GroupAssignor, GroupConsumer,
    GroupConsumerBuilder,
};
pub use millstream_protocol::{
    ErrorCode, LeaderEpoch, Offset, PartitionIndex, TopicId, TopicPartition,
    batch::Compression,
    messages::{
        BrokerInfo, BrokerStatus, CancelOutcome, ConfigEntry, DelayedStatus,
        DescribeClusterResponse, GroupDescription, GroupMember, ListedGroup, PartitionInfo,
        PartitionStatus, TopicInfo,
    },
};
pub use producer::{
    Consistent, ConsistentRandom, Delivered, Delivery, Linger, Murmur2, PartitionChoice,
    Partitioner, Producer, ProducerBuilder, ProducerRecord, RecordView, RoundRobin,
    TopicPartitions, TrySendError,
};

/// The pure machines and what they speak of, for simulations that bring a shell of their own. Not
/// part of the API: anything here may change at any time.
#[doc(hidden)]
#[allow(
    missing_docs,
    reason = "documented where the shells of this crate use them"
)]
pub mod machines {
    pub use crate::metadata::{Leader, Node, Topic};

    /// The producer's.
    pub mod producer {
        pub use crate::producer::{
            delivery::BatchPlace,
            machine::{
                Action, BatchId, Config, Contents, Event, Identity, Machine, Parcel, ProduceSend,
                Refusal, RequestId, Stamp,
            },
            partitioner::Partitioning,
        };
    }

    /// The consumer's.
    pub mod consumer {
        pub use crate::consumer::machine::{Action, Config, Event, FetchId, Item, Machine};
    }

    /// A group member's.
    pub mod group {
        pub use crate::group::machine::{
            Action, Config, Event, HeartbeatId, Machine, Work, partitions_of,
        };
    }
}
