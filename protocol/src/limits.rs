//! Every limit of the protocol, in one place. Reaching one gives an error that names it.

use crate::schema::Entry;

macro_rules! limits {
    ($($(#[doc = $doc:literal])* $name:ident: $type:ty = $value:expr;)*) => {
        $($(#[doc = $doc])* pub const $name: $type = $value;)*

        /// Name, value and meaning of every limit.
        pub const ENTRIES: &[Entry] = &[$(Entry {
            name: stringify!($name),
            number: $name as u64,
            doc: &[$($doc),*],
        }),*];
    };
}

limits! {
    /// Largest frame before the handshake is done, in bytes.
    MAX_FRAME_SIZE_BEFORE_HANDSHAKE: u32 = 64 << 10;
    /// Largest frame of a session, in bytes: the largest batch a topic may allow, and its wrapping.
    MAX_FRAME_SIZE: u32 = (64 << 20) + (1 << 20);
    /// Largest body of a request (the part that is not record batches), in bytes.
    MAX_BODY_SIZE: u32 = 1 << 20;
    /// Requests of one connection that may be unanswered at once; the broker stops reading beyond.
    MAX_REQUESTS_IN_FLIGHT: usize = 1024;
    /// Batches of an idempotent producer that each partition remembers, so batches that it may have unanswered there.
    MAX_BATCHES_IN_FLIGHT: usize = 64;
    /// Default largest record (key, value, headers and framing), in bytes.
    DEFAULT_MAX_RECORD_SIZE: u32 = 1 << 20;
    /// Default largest record batch, in bytes.
    DEFAULT_MAX_BATCH_SIZE: u32 = 4 << 20;
    /// The most that a topic's `max.batch.bytes` may be, in bytes.
    MAX_BATCH_SIZE: u32 = 64 << 20;
    /// Longest topic name, in characters (all are one byte).
    MAX_TOPIC_NAME: usize = 249;
    /// Partitions that one request may name.
    MAX_PARTITIONS_PER_REQUEST: usize = 10_000;
    /// Topics that one request may name.
    MAX_TOPICS_PER_REQUEST: usize = 10_000;
    /// Most partitions of one topic.
    MAX_PARTITIONS_PER_TOPIC: u32 = 10_000;
    /// Most partitions of a broker.
    MAX_PARTITIONS_PER_BROKER: usize = 100_000;
    /// Longest wait that a fetch may ask for, in milliseconds.
    MAX_FETCH_WAIT_MS: u32 = 60_000;
    /// Most bytes of records that one fetch reply carries, unless one batch alone is larger.
    MAX_FETCH_SIZE: u32 = 16 << 20;
    /// Longest client name and version in a handshake, in bytes.
    MAX_CLIENT_NAME: usize = 256;
    /// Longest name or value of a topic setting, in bytes.
    MAX_CONFIG_VALUE: usize = 1024;
    /// Longest name of a group, in bytes.
    MAX_GROUP_ID: usize = 249;
    /// Longest member id and instance id, in bytes.
    MAX_MEMBER_ID: usize = 128;
    /// Groups that one request may name.
    MAX_GROUPS_PER_REQUEST: usize = 1000;
    /// Topics that a member may subscribe to by name.
    MAX_SUBSCRIBED_TOPICS: usize = 1000;
    /// Partitions that a member may say to hold.
    MAX_OWNED_PARTITIONS: usize = 50_000;
    /// Longest pattern of topics, in bytes.
    MAX_TOPIC_PATTERN: usize = 1024;
    /// Most members of one group.
    MAX_GROUP_MEMBERS: usize = 1000;
    /// Largest reply about groups, in bytes, as the broker counts before it makes it.
    MAX_GROUP_REPLY_SIZE: usize = 16 << 20;
    /// Longest metadata of a committed offset, in bytes.
    MAX_OFFSET_METADATA: usize = 4096;
    /// Shortest session timeout of a group's member, in milliseconds.
    MIN_SESSION_TIMEOUT_MS: u32 = 500;
    /// Longest session timeout of a group's member, in milliseconds.
    MAX_SESSION_TIMEOUT_MS: u32 = 1_800_000;
    /// Longest rebalance timeout of a group's member, in milliseconds.
    MAX_REBALANCE_TIMEOUT_MS: u32 = 86_400_000;
    /// Longest id that a producer may give a delayed record, in bytes.
    MAX_DELAY_ID_SIZE: usize = 255;
    /// Most delayed records that one reply lists.
    MAX_DELAYED_PER_PAGE: u32 = 1_000;
    /// The most bytes that the records of one batch may be when they are decompressed.
    MAX_UNCOMPRESSED_BATCH_SIZE: usize = 128 << 20;
}
