//! The broker's own vocabulary, beside `millstream_protocol`'s: settings and quantities as types
//! that cannot be wrong.

pub mod quantity;
pub mod topic_config;

pub use topic_config::{
    CleanupPolicy, ConfigError, Durability, RetentionClock, TimestampType, TopicConfig,
};
