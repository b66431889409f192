//! Counters of one shard: written by it alone, read by anyone, without locks.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that one shard writes and others read, a little late.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; only the owning shard calls this, so no read-modify-write is needed.
    pub fn add(&self, amount: u64) {
        self.set(self.value().wrapping_add(amount));
    }

    /// Sets; only the owning shard calls this.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])* $name:ident: $kind:ident,)*) => {
        /// What a shard counts.
        #[derive(Debug, Default)]
        pub struct ShardCounters {
            $($(#[doc = $doc])* pub $name: Counter,)*
        }

        impl ShardCounters {
            /// Every counter: name, help, whether it only grows, value.
            pub fn each(&self) -> impl Iterator<Item = (&'static str, &'static str, Kind, u64)> {
                [$((stringify!($name), concat!($($doc),*), Kind::$kind, self.$name.value()),)*]
                    .into_iter()
            }
        }
    };
}

/// How a number behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
}

counters! {
    /// Requests received.
    requests: Counter,
    /// Bytes received from clients.
    received_bytes: Counter,
    /// Bytes sent to clients.
    sent_bytes: Counter,
    /// Requests that needed another shard.
    forwarded_requests: Counter,
    /// Client connections open now.
    connections: Gauge,
    /// Partitions open now.
    partitions: Gauge,
    /// Partitions that take nothing new.
    partitions_failed: Gauge,
    /// Bytes of record batches appended.
    appended_bytes: Counter,
    /// Chunks written to segments.
    chunks_written: Counter,
    /// Bytes written to segments, headers and padding included.
    written_bytes: Counter,
    /// Flushes of segments and of the journal.
    flushes: Counter,
    /// Segments that compaction wrote anew.
    compacted_segments: Counter,
    /// Records that compaction removed.
    compacted_records: Counter,
    /// Fetches of records that retention, or someone, had deleted: a reader was overrun.
    readers_overrun: Counter,
    /// Frames written to the journal, each flushed.
    journal_frames: Counter,
    /// Bytes written to the journal, headers and padding included.
    journal_bytes: Counter,
    /// Journals that failed: the broker ends then.
    journal_failures: Counter,
    /// Reads answered from memory.
    cache_hits: Counter,
    /// Reads that needed the disk.
    cache_misses: Counter,
    /// Bytes read from disk.
    read_bytes: Counter,
    /// Bytes of the cache in use.
    cached_bytes: Gauge,
    /// Bytes appended and not yet durable.
    unflushed_bytes: Gauge,
    /// Segment files open now.
    open_files: Gauge,
    /// Bytes of prepared space that wait for a partition that is written fast.
    prepared_bytes: Gauge,
    /// Bytes of receive buffers in use.
    receive_buffer_bytes: Gauge,
    /// Bytes of replies not yet sent.
    reply_bytes: Gauge,
    /// Free bytes on the disk of the data directory.
    disk_free: Gauge,
    /// Total bytes of the disk of the data directory.
    disk_total: Gauge,
    /// Rises as long as the shard makes progress.
    heartbeat: Counter,
}
