//! What survives when the power goes, or the disk lies: a log on the simulated disk, cut at every
//! operation, crashed in several ways, opened again, and compared with an oracle.
//!
//! `kill` does it to real brokers, as far as that goes.
//!
//! A failure names its seed and cut; `MILLSTREAM_CRASH=seed,cut cargo test --test crash every_cut` runs
//! that one again.

#[path = "../support/broker.rs"]
mod broker;
mod compaction_cuts;
mod corruption;
mod cuts;
mod delay_cuts;
mod delay_index;
mod delay_life;
mod delay_mended;
mod delay_world;
mod journal_cuts;
mod journal_damage;
mod journal_failures;
mod kill;
mod log_cuts;
mod log_damage;
mod log_faults;
mod log_forged;
mod log_inspect;
mod log_prepared;
mod log_rolls;
mod log_spare;
mod lossy_fs;
mod metadata_damage;
mod nth_failure;
mod oracle;
mod power;
mod workload;
