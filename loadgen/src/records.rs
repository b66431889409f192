//! The records that one connection writes: which partition is next, and what goes there.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use millstream_client::{PartitionIndex, ProducerRecord};
use millstream_protocol::partitioner::partition_for_key;
use rand::{SeedableRng, rngs::SmallRng};

use crate::{
    payload::{Head, Payload},
    spread::Spread,
    workload::{KEY_SIZE, KeySampler, Sizes, Writing, key},
};

/// Keys and values are cut from chunks of this size, so that a record costs no allocation of its own.
const CHUNK_SIZE: usize = 256 << 10;

/// Makes the records of one connection.
#[derive(Debug)]
pub struct Records {
    run: u64,
    producer: u32,
    spread: Arc<Spread>,
    sizes: Sizes,
    keys: KeySampler,
    random: SmallRng,
    payload: Payload,
    chunk: BytesMut,
    /// The partition whose turn it is, and for how many more records.
    partition: u32,
    turn: u64,
    turn_length: u64,
    /// The topic whose turn it is, where keys choose the partition.
    topic: usize,
}

/// A record, and where it goes.
#[derive(Debug)]
pub struct Made {
    /// For the client.
    pub record: ProducerRecord,
    /// The partition, numbered over all topics.
    pub partition: u32,
    /// Bytes of key and value.
    pub size: u64,
}

impl Records {
    /// The records of connection `producer` of run `run`.
    ///
    /// # Panics
    /// If there is no partition to write to.
    #[must_use]
    pub fn new(
        run: u64,
        producer: u32,
        writing: &Writing,
        spread: Arc<Spread>,
        checked: bool,
    ) -> Self {
        assert!(spread.count() > 0, "there is a partition to write to");
        let largest = usize::try_from(writing.sizes.largest()).expect("sizes are limited");
        // As fast as possible, a partition gets a batch at a time; at a rate, a record at a time.
        let turn_length = match writing.rate {
            0 => (writing.batch_size / writing.sizes.mean().max(1)).max(1),
            _ => 1,
        };
        let seed = writing.seed.wrapping_add(u64::from(producer) << 32);
        Self {
            run,
            producer,
            sizes: writing.sizes,
            keys: writing.keys.sampler(),
            random: SmallRng::seed_from_u64(seed),
            payload: Payload::new(largest, checked, writing.compressible, seed),
            chunk: BytesMut::new(),
            // Connections begin at different partitions.
            partition: producer % spread.count(),
            turn: 0,
            turn_length,
            topic: producer as usize % spread.topic_count(),
            spread,
        }
    }

    /// The next record; `sequence` tells how many went to a partition before.
    pub fn next(&mut self, intended_us: i64, sequence: impl FnOnce(u32) -> u64) -> Made {
        let key = self.keys.sample(&mut self.random).map(key);
        let partition = match &key {
            None => self.in_turn(),
            Some(key) => self.by_key(key),
        };
        let size = usize::try_from(self.sizes.sample(&mut self.random)).expect("sizes are limited");
        let key_size = if key.is_some() { KEY_SIZE } else { 0 };
        if self.chunk.capacity() - self.chunk.len() < key_size + size {
            self.chunk = BytesMut::with_capacity(CHUNK_SIZE.max(key_size + size));
        }
        let head = Head {
            run: self.run,
            producer: self.producer,
            partition,
            sequence: sequence(partition),
            intended_us,
        };
        let (topic, index) = self.spread.at(partition);
        let mut record = ProducerRecord::to(Arc::clone(topic))
            .partition(index)
            .timestamp_ms(intended_us / 1_000);
        if let Some(key) = key {
            self.chunk.extend_from_slice(&key);
            record = record.key(self.chunk.split().freeze());
        }
        self.payload.write(&mut self.chunk, &head, size);
        let value: Bytes = self.chunk.split().freeze();
        Made {
            record: record.value(value),
            partition,
            size: (key_size + size) as u64,
        }
    }

    fn in_turn(&mut self) -> u32 {
        if self.turn == 0 {
            self.turn = self.turn_length;
            self.partition = (self.partition + 1) % self.spread.count();
        }
        self.turn -= 1;
        self.partition
    }

    /// Topics take turns; within one, the key decides as it does for any client.
    fn by_key(&mut self, key: &[u8]) -> u32 {
        self.topic = (self.topic + 1) % self.spread.topic_count();
        let partitions = self.spread.partitions(self.topic);
        let PartitionIndex(index) = partition_for_key(key, partitions);
        self.spread.number(self.topic, PartitionIndex(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::ProduceArgs;

    fn made(args: &ProduceArgs, topics: &[(&str, u32)], count: usize) -> Vec<Made> {
        let topics = topics
            .iter()
            .map(|(name, count)| (Arc::from(*name), *count));
        let spread = Arc::new(Spread::new(topics));
        let mut records = Records::new(1, 0, &Writing::of(args), spread, false);
        (0..count).map(|_| records.next(5_000, |_| 0)).collect()
    }

    #[test]
    fn without_keys_partitions_get_a_batch_each_in_turn() {
        let args = ProduceArgs {
            batch_size: Some(2_000),
            ..ProduceArgs::default()
        };
        let found: Vec<u32> = made(&args, &[("a", 2), ("b", 1)], 7)
            .iter()
            .map(|made| made.partition)
            .collect();
        assert_eq!(found, [1, 1, 2, 2, 0, 0, 1]);
    }

    #[test]
    fn at_a_rate_they_get_a_record_each() {
        let args = ProduceArgs {
            rate: Some(10),
            ..ProduceArgs::default()
        };
        let made = made(&args, &[("a", 3)], 4);
        let found: Vec<u32> = made.iter().map(|made| made.partition).collect();
        assert_eq!(found, [1, 2, 0, 1]);
        assert_eq!(made[0].size, 1_000);
    }

    #[test]
    fn a_key_has_one_partition_in_each_topic() {
        let args = ProduceArgs {
            keys: Some("uniform:3".parse().unwrap()),
            record_size: Some("100".parse().unwrap()),
            ..ProduceArgs::default()
        };
        let made = made(&args, &[("a", 8), ("b", 8)], 200);
        let mut partitions: Vec<u32> = made.iter().map(|made| made.partition).collect();
        partitions.sort_unstable();
        partitions.dedup();
        assert!((2..=6).contains(&partitions.len()), "{partitions:?}");
        assert!(
            partitions.iter().any(|&number| number < 8),
            "{partitions:?}"
        );
        assert!(
            partitions.iter().any(|&number| number >= 8),
            "{partitions:?}"
        );
        assert_eq!(made[0].size, 116);
    }
}
