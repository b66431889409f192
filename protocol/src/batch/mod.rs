//! Kafka's record batch, magic 2, byte for byte: what travels from producer to disk to consumer.
//!
//! The format is public (Kafka's documentation, "Message Format"; KIP-98 for sequences, KIP-82 for
//! headers). All its integers are big-endian; lengths inside records are zigzag varints.
//!
//! | at | size | field |
//! |---|---|---|
//! | 0 | 8 | base offset |
//! | 8 | 4 | batch length: the bytes after this field |
//! | 12 | 4 | partition leader epoch |
//! | 16 | 1 | magic, 2 |
//! | 17 | 4 | CRC-32C of everything from the attributes on |
//! | 21 | 2 | attributes |
//! | 23 | 4 | last offset delta |
//! | 27 | 8 | base timestamp |
//! | 35 | 8 | max timestamp |
//! | 43 | 8 | producer id |
//! | 51 | 2 | producer epoch |
//! | 53 | 4 | base sequence |
//! | 57 | 4 | record count |
//! | 61 | | records, possibly compressed as one |
//!
//! - A broker takes batches with [`Batches::produced`], then [`place`]s them: base offset and
//!   leader epoch lie outside the CRC, so nothing is encoded again.
//! - A reader of bytes from a peer splits them with [`Batches::checked`] and opens each with
//!   [`DecodedBatch::open`].
//! - A producer fills a [`BatchBuilder`].
//! - Compaction takes records out of batches with a [`BatchFilter`].

mod attributes;
mod batches;
mod builder;
mod compression;
mod decoded;
mod error;
mod filter;
mod header;
mod lz4;
mod place;
mod record;
mod snappy;
mod varint;

pub use attributes::{Attributes, Compression, TimestampType};
pub use batches::Batches;
pub use builder::{BatchBuilder, BuildError, NO_HEADERS};
pub use decoded::DecodedBatch;
pub use error::BatchError;
pub use filter::{BatchFilter, Filtered, emptied, gap};
pub use header::{BATCH_HEADER_SIZE, BatchHeader, MAGIC};
pub use place::{place, place_all, set_append_time, set_producer};
pub use record::{Headers, MIN_RECORD_SIZE, Record, Records};

/// CRC-32C (Castagnoli, the polynomial of iSCSI) as record batches use it.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}
