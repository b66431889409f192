//! The partitioners that come with the client.

use millstream_protocol::{
    PartitionIndex,
    partitioner::{consistent_partition_for_key, partition_for_key},
};

use super::{PartitionChoice, Partitioner, RecordView, TopicPartitions};

/// The default, and what Kafka's Java client does: murmur2 of the key modulo the number of
/// partitions; records without a key stick to one partition for each batch.
///
/// Records of one key keep their order as long as the number of partitions stays. Once partitions
/// are added, most keys belong to another one, and their later records are no longer ordered behind
/// their earlier ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Murmur2;

/// As librdkafka's `consistent`: CRC-32 of the key modulo the number of partitions. The empty key and
/// no key at all belong to partition 0, too. Keys move when partitions are added, as with
/// [`Murmur2`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Consistent;

/// As librdkafka's `consistent_random`, its default: CRC-32 of the key modulo the number of
/// partitions; records with an empty key or none go anywhere, sticking to one partition for each
/// batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConsistentRandom;

/// One record to each partition in turn, whatever their keys, passing over partitions that are not
/// available. Every producer begins with partition 0. It makes small batches: [`Murmur2`] spreads
/// records without keys as evenly, and costs less.
#[derive(Clone, Debug, Default)]
pub struct RoundRobin {
    next: u32,
}

impl Murmur2 {
    /// The partition of a key among `count`.
    ///
    /// # Panics
    /// If `count` is 0.
    #[must_use]
    pub fn partition_of(key: &[u8], count: u32) -> PartitionIndex {
        partition_for_key(key, count)
    }
}

impl Consistent {
    /// The partition of a key among `count`.
    ///
    /// # Panics
    /// If `count` is 0.
    #[must_use]
    pub fn partition_of(key: &[u8], count: u32) -> PartitionIndex {
        consistent_partition_for_key(key, count)
    }
}

impl Partitioner for Murmur2 {
    fn partition(
        &mut self,
        record: &RecordView<'_>,
        partitions: &TopicPartitions<'_>,
    ) -> PartitionChoice {
        match record.key {
            Some(key) => PartitionChoice::Partition(Self::partition_of(key, partitions.count())),
            None => PartitionChoice::Sticky,
        }
    }
}

impl Partitioner for Consistent {
    fn partition(
        &mut self,
        record: &RecordView<'_>,
        partitions: &TopicPartitions<'_>,
    ) -> PartitionChoice {
        let key = record.key.unwrap_or_default();
        PartitionChoice::Partition(Self::partition_of(key, partitions.count()))
    }
}

impl Partitioner for ConsistentRandom {
    fn partition(
        &mut self,
        record: &RecordView<'_>,
        partitions: &TopicPartitions<'_>,
    ) -> PartitionChoice {
        match record.key {
            Some([]) | None => PartitionChoice::Sticky,
            Some(_) => Consistent.partition(record, partitions),
        }
    }
}

impl Partitioner for RoundRobin {
    fn partition(
        &mut self,
        _record: &RecordView<'_>,
        partitions: &TopicPartitions<'_>,
    ) -> PartitionChoice {
        let count = partitions.count();
        let first = self.next % count;
        let in_turn = (first..count).chain(0..first);
        let available = in_turn
            .map(PartitionIndex)
            .find(|it| partitions.is_available(*it));
        let chosen = available.unwrap_or(PartitionIndex(first));
        self.next = chosen.0 + 1;
        PartitionChoice::Partition(chosen)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::producer::partitioner::Observed;

    fn choose(
        partitioner: &mut dyn Partitioner,
        key: Option<&[u8]>,
        partitions: &TopicPartitions<'_>,
    ) -> Option<u32> {
        match partitioner.partition(&RecordView::of_key(key), partitions) {
            PartitionChoice::Partition(partition) => Some(partition.0),
            PartitionChoice::Sticky => None,
        }
    }

    /// Made with Kafka's own client.
    const VECTORS: &str =
        include_str!("../../../../protocol/tests/compat/vectors/partitions.jsonl");

    #[test]
    fn the_default_puts_every_key_where_the_java_client_does() {
        let mut count = 0;
        for line in VECTORS.lines() {
            let vector: Value = serde_json::from_str(line).expect("JSON");
            let hex = vector["key"].as_str().expect("hex").as_bytes();
            let byte = |pair: &[u8]| -> anyhow::Result<u8> {
                Ok(u8::from_str_radix(str::from_utf8(pair)?, 16)?)
            };
            let key: anyhow::Result<Vec<u8>> = hex.chunks(2).map(byte).collect();
            let key = key.expect("hex");
            for (partitions, expected) in vector["partition_of"].as_object().expect("an object") {
                let partitions = TopicPartitions::idle(partitions.parse().expect("a count"));
                let chosen = choose(&mut Murmur2, Some(&key), &partitions);
                assert_eq!(chosen.map(u64::from), expected.as_u64(), "{line}");
                count += 1;
            }
        }
        assert_eq!(count, 400 * 7);
        assert_eq!(choose(&mut Murmur2, None, &TopicPartitions::idle(3)), None);
    }

    #[test]
    fn librdkafkas_rules_differ_on_empty_keys_only() {
        let partitions = TopicPartitions::idle(17);
        for empty in [None, Some(&b""[..])] {
            assert_eq!(choose(&mut Consistent, empty, &partitions), Some(0));
            assert_eq!(choose(&mut ConsistentRandom, empty, &partitions), None);
        }
        let expected = Some(0xd077_037e % 17);
        let key = Some(&b"hejsan"[..]);
        assert_eq!(choose(&mut Consistent, key, &partitions), expected);
        assert_eq!(choose(&mut ConsistentRandom, key, &partitions), expected);
    }

    /// Partitions of which only some are available.
    #[derive(Debug)]
    struct Only(&'static [bool]);

    impl Observed for Only {
        fn count(&self) -> u32 {
            u32::try_from(self.0.len()).expect("few")
        }

        fn is_available(&self, index: u32) -> bool {
            self.0[index as usize]
        }

        fn queued_batches(&self, _index: u32) -> usize {
            0
        }
    }

    #[test]
    fn round_robin_passes_over_what_is_away_and_takes_in_what_is_new() {
        let mut turns = RoundRobin::default();
        let mut chosen = |partitions: &Only, count| -> Vec<u32> {
            let partitions = TopicPartitions::live(partitions);
            let turn = |_| choose(&mut turns, Some(b"same"), &partitions).expect("a partition");
            (0..count).map(turn).collect()
        };
        assert_eq!(chosen(&Only(&[true; 3]), 4), [0, 1, 2, 0]);
        assert_eq!(chosen(&Only(&[true, false, true]), 3), [2, 0, 2]);
        assert_eq!(chosen(&Only(&[true, false, true, true]), 2), [3, 0]);
        assert_eq!(chosen(&Only(&[false; 2]), 3), [1, 0, 1], "all are as bad");
    }
}
