//! The broker's own vocabulary, beside `millstream_protocol`'s: settings and quantities as types
//! that cannot be wrong.

pub mod cleanup;
pub mod quantity;
pub mod topic_config;

pub use cleanup::{CleanupPolicy, Ratio};
pub use topic_config::{ConfigError, Durability, RetentionClock, TimestampType, TopicConfig};
