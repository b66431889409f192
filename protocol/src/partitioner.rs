//! Which partition a key belongs to: what Kafka's Java client does, so that both agree.

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
