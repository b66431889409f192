//! Load for a Millstream broker: writes, reads, measures, and proves that nothing was lost.
//!
//! The program `loadgen` and the command `millstream bench` are this library. A run is planned
//! (`plan`), dealt out to worker threads (`workers`), each connection being one task (`produce`,
//! `consume`), and reported each second (`report`). What decides is pure: the schedule (`pace`), the
//! judgement (`verify`).
//!
//! The exit status a script can trust: 0 all is well, 1 something failed or verification found a
//! fault, 2 the command line is wrong.

#![forbid(unsafe_code)]

mod acknowledged;
mod args;
mod clock;
mod consume;
mod figures;
mod gaps;
mod lane;
mod meter;
mod pace;
mod payload;
mod plan;
mod produce;
mod report;
mod run;
mod stop;
mod timer;
mod topic;
pub mod units;
mod verify;
mod workers;

pub use args::{
    CommonArgs, CompressionArg, ConsumeArgs, DurabilityArg, FromArg, LoadArgs, Mode, ProduceArgs,
};
pub use run::run;
