//! Which partition a key belongs to: as Kafka's Java client has it, or as librdkafka does, so that
//! producers of one topic agree whatever they are written in.

use crate::ids::PartitionIndex;

const SEED: u32 = 0x9747_b28c;
const MULTIPLIER: u32 = 0x5bd1_e995;
const ROTATION: u32 = 24;

/// MurmurHash2, 32 bits, with Kafka's seed.
#[must_use]
pub fn murmur2(key: &[u8]) -> i32 {
    // Only the low 32 bits of the length take part.
    let size = key.len().to_le_bytes();
    let mut hash = SEED ^ u32::from_le_bytes([size[0], size[1], size[2], size[3]]);
    let (words, tail) = key.as_chunks::<4>();
    for word in words {
        let mut mixed = u32::from_le_bytes(*word).wrapping_mul(MULTIPLIER);
        mixed ^= mixed >> ROTATION;
        hash = hash.wrapping_mul(MULTIPLIER) ^ mixed.wrapping_mul(MULTIPLIER);
    }
    for (index, byte) in tail.iter().enumerate() {
        hash ^= u32::from(*byte) << (8 * index);
    }
    if !tail.is_empty() {
        hash = hash.wrapping_mul(MULTIPLIER);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MULTIPLIER);
    hash ^= hash >> 15;
    hash.cast_signed()
}

/// The partition of a key among `count` partitions.
///
/// # Panics
/// If `count` is 0.
#[must_use]
pub fn partition_for_key(key: &[u8], count: u32) -> PartitionIndex {
    PartitionIndex((murmur2(key) & i32::MAX).cast_unsigned() % count)
}

/// The partition of a key among `count` partitions as librdkafka's `consistent` has it: CRC-32 (of
/// ISO 3309, as zlib computes it) modulo the count. The empty key, and none, belong to partition 0.
///
/// # Panics
/// If `count` is 0.
#[must_use]
pub fn consistent_partition_for_key(key: &[u8], count: u32) -> PartitionIndex {
    PartitionIndex(crc_fast::crc32_iso_hdlc(key) % count)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The checksums that librdkafka's own test expects (`tests/0048-partitioner.c`).
    #[test]
    fn keys_go_to_the_partitions_of_librdkafka() {
        let long = b"this is another string with more length to it perhaps";
        let vectors: [(&[u8], u32); 4] = [
            (b"", 0),
            (b"23456", 0xb1b4_51d7),
            (long, 0xb015_0df7),
            (b"hejsan", 0xd077_037e),
        ];
        for (key, checksum) in vectors {
            for count in [1, 7, 17, 1000] {
                let partition = consistent_partition_for_key(key, count);
                assert_eq!(partition, PartitionIndex(checksum % count), "{key:?}");
            }
        }
    }
}
