//! Load for a Millstream broker: writes, reads, measures, and proves that nothing was lost.
//!
//! The program `loadgen` and the command `millstream bench` are this library. A run is planned
//! (`plan`), dealt out to worker threads (`workers`), each connection being one task (`produce`,
//! `consume`, `round_trip`), measured in intervals (`series`) and written down (`results`). What decides is pure: the schedule (`pace`), the
//! judgement (`verify`).
//!
//! The exit status a script can trust: 0 all is well, 1 something failed or verification found a
//! fault, 2 the command line is wrong.

#![forbid(unsafe_code)]

mod acknowledged;
mod args;
mod broker;
mod clock;
mod compare;
mod console;
mod consume;
mod delay_load;
mod durability;
mod figures;
mod gaps;
mod group_load;
mod hdr_log;
mod host;
mod html;
mod interrupt;
mod lane;
mod linger;
mod load;
mod meter;
mod modes;
mod null_sink;
mod pace;
mod payload;
mod plan;
mod produce;
mod records;
mod results;
mod round_trip;
mod run;
mod series;
mod session;
mod spread;
mod stop;
mod summary;
mod timer;
mod topic;
pub mod units;
mod verify;
mod workers;
mod workload;

pub use args::{CompressionArg, LoadArgs};
pub use session::run;
