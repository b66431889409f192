//! The Millstream broker: a durable, partitioned commit log, one executor per core.
//!
//! Start at `ARCHITECTURE.md`. Pure machines decide (`partition`, `session`, `controller`, `group`), shells
//! act (`storage`, `net`, `shard`), and only `io` knows the runtime.

pub mod admin;
pub mod broker;
pub mod cli;
pub mod control;
pub mod controller;
pub mod delay;
pub mod group;
pub mod host;
pub mod io;
pub mod logging;
pub mod net;
pub mod partition;
pub mod session;
pub mod settings;
pub mod shard;
pub mod storage;
pub mod types;
