//! Every limit and threshold of the storage layer, in one place.

/// Payload at which an open chunk is written although other writes are in flight, in bytes.
pub const GATHER_SIZE: usize = 256 << 10;
/// Writes of one log that may be in flight at once.
pub const MAX_WRITES_IN_FLIGHT: usize = 4;
/// Largest chunk, header and padding included, in bytes, unless one batch alone is larger.
pub const MAX_CHUNK_SIZE: usize = 1 << 20;
/// Smallest buffer of an open chunk, in bytes.
pub const MIN_CHUNK_CAPACITY: usize = 4 << 10;
/// Largest payload that a chunk header may claim, in bytes: the largest batch a topic may allow.
pub const MAX_PAYLOAD_SIZE: usize = 64 << 20;
/// First preallocation of a segment, in bytes; each further one is [`ALLOCATION_GROWTH`] times the
/// one before, up to [`MAX_ALLOCATION`].
pub const FIRST_ALLOCATION: u64 = 256 << 10;
/// Growth of preallocation.
pub const ALLOCATION_GROWTH: u64 = 4;
/// Largest single preallocation, in bytes.
pub const MAX_ALLOCATION: u64 = 32 << 20;
/// Bytes of log between two index entries of a segment, at least.
pub const INDEX_INTERVAL: u64 = 64 << 10;
/// Bytes appended after which a log asks for a checkpoint.
pub const CHECKPOINT_INTERVAL: u64 = 64 << 20;
/// Idle time after which a sealing chunk carries the durable end to disk, in milliseconds.
pub const SEAL_AFTER_MS: u64 = 100;
/// Time between two flushes of a buffered log, in milliseconds.
pub const BUFFERED_FLUSH_MS: u64 = 100;
/// Idle time after which a log gives back what was allocated ahead for it, in milliseconds.
pub const TRIM_AFTER_MS: u64 = 5 * 60_000;
/// Time between two attempts to allocate on a full disk, in milliseconds.
pub const DISK_FULL_RETRY_MS: u64 = 500;
/// First read of a reader that is not in the cache, in bytes; doubles while it reads in order.
pub const FIRST_READ_SIZE: usize = 1 << 20;
/// How long after an append those who catch up read little at a time, in milliseconds.
pub const WRITTEN_LATELY_MS: u64 = 100;
/// Largest read of those who catch up beside appends, in bytes.
pub const READ_SIZE_BESIDE_APPENDS: usize = 512 << 10;
/// Largest read ahead, in bytes.
pub const MAX_READ_SIZE: usize = 4 << 20;
/// Reads ahead of a reader in order, where the cache is large enough.
pub const MAX_READS_AHEAD: usize = 3;
/// Reads that are under way take this part of a cache's memory, or one of the largest.
pub const READING_PART: usize = 4;
/// Bytes after which a read returns what it has rather than wait for the disk again.
pub const ENOUGH_TO_RETURN: usize = 1 << 20;
/// What a read gives of a buffer is copied if it is less, in bytes, and a small part of the buffer.
pub const COPY_BELOW: usize = 64 << 10;
/// Appended bytes from which on a log writes to its segment at once, instead of to the journal.
pub const DIRECT_SIZE: usize = 32 << 10;
/// Size at which what is in the journal is written to its segment as well, in bytes.
pub const WRITE_BEHIND_SIZE: usize = 64 << 10;
/// What is not larger is put into the journal again rather than flushed to its segment, in bytes.
pub const REJOURNAL_SIZE: usize = 16 << 10;
/// Largest frame of a journal, padding included, in bytes, unless one entry alone is larger.
pub const MAX_FRAME_SIZE: usize = 1 << 20;
/// Frames of a journal that may be on their way to disk at once.
pub const MAX_FRAMES_IN_FLIGHT: usize = 2;
/// So many bytes do not wait for the frame before.
pub const NEXT_FRAME_SIZE: usize = 256 << 10;
/// Size of each file of a journal's ring, in bytes.
pub const JOURNAL_FILE_SIZE: u64 = 16 << 20;
/// Largest size of a journal, all files together, in bytes.
pub const MAX_JOURNAL_SIZE: u64 = 512 << 20;
/// Delayed records of a shard that are in memory on their way into their partitions, in bytes.
pub const MAX_DELIVERING_SIZE: usize = 16 << 20;
/// Segments of a shard that are made at once: thousands that begin together would keep the threads for files
/// from everything else, the journal's next file among it.
pub const MAX_SEGMENTS_MADE_AT_ONCE: usize = 4;
/// Time between two attempts to make a file for the journal when it was refused, in milliseconds.
pub const JOURNAL_RETRY_MS: u64 = 5_000;
/// What a cache may hold at first, in bytes.
pub const CACHE_START: usize = 256 << 20;
/// One byte in so many that pass through a cache lets it grow by one.
pub const CACHE_GROWTH: usize = 4;
/// Readers in order that a log remembers at once.
pub const MAX_READ_STREAMS: usize = 8;
/// Size of one read of a recovery, in bytes.
pub const SCAN_READ_SIZE: usize = 4 << 20;
/// Smallest segment size a log accepts, in bytes.
pub const MIN_SEGMENT_SIZE: u64 = 64 << 10;
/// Largest offset that is believed of a file: beyond it sums would overflow. A partition that takes a million
/// records a second gets there in 146,000 years.
pub const MAX_OFFSET: i64 = 1 << 62;
/// Largest number of a life, of a checkpoint and of a frame that is believed of a file.
pub const MAX_NUMBER: u64 = u64::MAX / 2;
/// Largest checkpoint or index file that is believed, in bytes.
pub const MAX_ENVELOPE_SIZE: usize = 256 << 20;
/// A preallocation of this size or more, in bytes, is filled with zeros ahead of the writer.
pub const ZERO_FILL_FROM: u64 = 16 << 20;
/// Size of one write of zeros, in bytes.
pub const ZERO_FILL_WRITE: usize = 1 << 20;
/// Size of each file of prepared space, in bytes: that of a segment by default.
pub const PREPARED_FILE_SIZE: u64 = 256 << 20;
/// A log that fills half a segment in less time gets its next one made ahead, in milliseconds.
pub const SPARE_WITHIN_MS: i64 = 60_000;
/// Time between two attempts to open a file while descriptors have run out, in milliseconds.
pub const DESCRIPTOR_RETRY_MS: u64 = 20;
/// Attempts to open a segment for its writer while descriptors have run out.
pub const DESCRIPTOR_ATTEMPTS: u64 = 500;
/// Payload at which a chunk that compaction writes is closed, in bytes.
pub const COMPACTED_PAYLOAD_SIZE: usize = 256 << 10;
/// Size of one read of compaction, in bytes.
pub const COMPACTION_READ_SIZE: usize = 512 << 10;
