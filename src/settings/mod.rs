//! Settings of the broker: flags > environment (`MILLSTREAM_…`) > TOML file > defaults.
//!
//! `table` has one row for each setting; its flag, its environment variable, its key in the file,
//! its help and its errors all derive from the row. Here the sources are laid over each other.

mod flags;
mod print;
mod sources;
mod table;
mod values;

#[cfg(test)]
mod tests;

use std::{net::SocketAddr, path::PathBuf};

pub use flags::Flags;
pub use sources::{Environment, Origin, Resolved, SettingsError, resolve};
pub use values::{HostPort, LogFormat, core_list};

use crate::types::TopicConfig;

/// Every setting, typed. `None` where the broker is to decide by what the host has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Where the native protocol is served.
    pub listen: SocketAddr,
    /// What clients are told to connect to; otherwise what they connected to.
    pub advertise: Option<HostPort>,
    /// Where metrics and health are served over HTTP.
    pub admin_listen: Option<SocketAddr>,
    /// How many shards; otherwise one for each usable core.
    pub shards: Option<u32>,
    /// Which cores shards may use; otherwise those that the process may.
    pub cores: Option<Vec<usize>>,
    /// Whether a shard stays on its core.
    pub pin: bool,
    /// Whether shards spin before they sleep: faster on hosts with nothing else to do.
    pub dedicated: bool,
    /// Memory budget in bytes; otherwise a quarter of what there is.
    pub memory_bytes: Option<u64>,
    /// Space that is filled with zeros in quiet moments, for fast writers, in bytes.
    pub prepared_space_bytes: u64,
    /// Whether to go around the page cache where the file system can.
    pub direct_io: bool,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Which log lines there are: a level, or `tracing`'s filter directives.
    pub log_level: String,
    /// How long a clean shutdown may take, in milliseconds.
    pub shutdown_timeout_ms: u64,
    /// Offsets of a consumer group without members are kept so long, in milliseconds.
    pub group_offsets_retention_ms: u64,
    /// What a topic's unset settings are.
    pub topic_defaults: TopicConfig,
}
