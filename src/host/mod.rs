//! What the host gives: checks before the start, each with one sentence and its remedy, and the
//! facts that defaults are made of.
//!
//! Everything here runs once, on the main thread, before any shard exists. What can be better about a host
//! that does work is in `tuning`, for a command of its own.

mod cgroup;
mod disk;
pub mod disk_check;
mod kernel;
mod limits;
mod mounts;
mod ports;
mod resources;
pub mod tuning;

pub use disk::{DiskFacts, disk_facts};
pub use kernel::{KernelError, check_kernel};
pub use limits::{LimitError, MIN_OPEN_FILES, raise_limits};
pub use ports::{PortError, check_port, is_loopback};
pub use resources::{Resources, resources};
