//! Which partition a record goes to if it does not name one: a trait, for the user's own rules too.
//! The rules that come with the client are in [`rules`].

mod rules;

use std::{fmt, sync::Arc};

use bytes::Bytes;
use millstream_protocol::PartitionIndex;

pub use self::rules::{Consistent, ConsistentRandom, Murmur2, RoundRobin};
use super::record::ProducerRecord;

/// Chooses the partition of each record that does not name one.
///
/// A producer makes a clone for each topic, so what a partitioner remembers is of one topic. It is
/// called under the producer's lock, once for each record: it must be quick, and never wait.
///
/// ```
/// use millstream_client::{
///     Murmur2, PartitionChoice, PartitionIndex, Partitioner, RecordView, TopicPartitions,
/// };
///
/// /// The largest customer has partition 0 for itself.
/// #[derive(Clone, Debug)]
/// struct LargestApart;
///
/// impl Partitioner for LargestApart {
///     fn partition(
///         &mut self,
///         record: &RecordView<'_>,
///         partitions: &TopicPartitions<'_>,
///     ) -> PartitionChoice {
///         match (record.key, partitions.count()) {
///             (_, 1) | (Some(b"acme"), _) => PartitionChoice::Partition(PartitionIndex(0)),
///             (Some(key), count) => {
///                 let PartitionIndex(index) = Murmur2::partition_of(key, count - 1);
///                 PartitionChoice::Partition(PartitionIndex(index + 1))
///             }
///             (None, _) => PartitionChoice::Sticky,
///         }
///     }
/// }
///
/// let record = RecordView::of_key(Some(b"acme"));
/// let choice = LargestApart.partition(&record, &TopicPartitions::idle(12));
/// assert_eq!(choice, PartitionChoice::Partition(PartitionIndex(0)));
/// ```
pub trait Partitioner: fmt::Debug + Send {
    /// Where this record goes. A partition that the topic does not have fails the record.
    fn partition(
        &mut self,
        record: &RecordView<'_>,
        partitions: &TopicPartitions<'_>,
    ) -> PartitionChoice;
}

/// Where a record goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartitionChoice {
    /// To this partition.
    Partition(PartitionIndex),
    /// To whichever partition the records without a place of their own go to now: one for each
    /// batch, all of them evenly, fewer to those that are slow (as KIP-794 has it).
    Sticky,
}

/// What a partitioner sees of a record.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct RecordView<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: Option<&'a [u8]>,
    /// Its headers.
    pub headers: &'a [(String, Option<Bytes>)],
    /// Its time, if it brought one.
    pub timestamp_ms: Option<i64>,
}

impl<'a> RecordView<'a> {
    /// A record that has nothing but a key: to try a partitioner on.
    #[must_use]
    pub fn of_key(key: Option<&'a [u8]>) -> Self {
        Self {
            topic: "",
            key,
            value: None,
            headers: &[],
            timestamp_ms: None,
        }
    }

    pub(crate) fn of(record: &'a ProducerRecord) -> Self {
        Self {
            topic: &record.topic,
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &record.headers,
            timestamp_ms: record.timestamp_ms,
        }
    }
}

/// What a partitioner sees of a topic's partitions. There is at least one.
#[derive(Clone, Copy, Debug)]
pub struct TopicPartitions<'a>(Seen<'a>);

#[derive(Clone, Copy, Debug)]
enum Seen<'a> {
    Live(&'a dyn Observed),
    Idle(u32),
}

/// The partitions as the machine has them.
pub(crate) trait Observed: fmt::Debug {
    fn count(&self) -> u32;
    fn is_available(&self, index: u32) -> bool;
    fn queued_batches(&self, index: u32) -> usize;
}

impl<'a> TopicPartitions<'a> {
    pub(crate) fn live(observed: &'a dyn Observed) -> Self {
        Self(Seen::Live(observed))
    }

    /// So many partitions, all available, with nothing queued: to try a partitioner on.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn idle(count: u32) -> TopicPartitions<'static> {
        assert!(count > 0, "a topic has at least one partition");
        TopicPartitions(Seen::Idle(count))
    }

    /// How many there are, as this producer knows; more may be added to a topic at any time.
    #[must_use]
    pub fn count(&self) -> u32 {
        match self.0 {
            Seen::Live(observed) => observed.count(),
            Seen::Idle(count) => count,
        }
    }

    /// Whether it is known who leads the partition, and no attempt to send to it has failed since
    /// the last that succeeded.
    #[must_use]
    pub fn is_available(&self, partition: PartitionIndex) -> bool {
        match self.0 {
            _ if partition.0 >= self.count() => false,
            Seen::Live(observed) => observed.is_available(partition.0),
            Seen::Idle(_) => true,
        }
    }

    /// Batches of this producer that the partition has not acknowledged.
    #[must_use]
    pub fn queued_batches(&self, partition: PartitionIndex) -> usize {
        match self.0 {
            _ if partition.0 >= self.count() => 0,
            Seen::Live(observed) => observed.queued_batches(partition.0),
            Seen::Idle(_) => 0,
        }
    }
}

/// Makes a topic's partitioner.
#[derive(Clone)]
pub struct Partitioning(Arc<dyn Fn() -> Box<dyn Partitioner> + Send + Sync>);

impl Partitioning {
    /// Every topic gets a clone of this one.
    pub fn by<P: Partitioner + Clone + Sync + 'static>(partitioner: P) -> Self {
        Self(Arc::new(move || Box::new(partitioner.clone())))
    }

    pub(crate) fn of_topic(&self) -> Box<dyn Partitioner> {
        (self.0)()
    }
}

impl Default for Partitioning {
    fn default() -> Self {
        Self::by(Murmur2)
    }
}

impl fmt::Debug for Partitioning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_tuple("Partitioning")
            .field(&self.of_topic())
            .finish()
    }
}
