//! Delayed records: which wait, which are due, what was cancelled. Pure: no clock, no I/O, no randomness;
//! the shell is `shard::delay`, and `docs/delay.md` tells the whole.
//!
//! A partition with delayed records has a second log, its *delay log*. What waits is never stored as such:
//! it is what the delay log accepted, less what its own notes cancel, less what the partition's records say
//! they came from. So no crash between the two logs can lose a record or deliver it twice.

mod accept;
mod clock;
mod deliver;
mod deliveries;
mod finished;
mod found;
mod pending;
mod recent;
mod run_file;
mod runs;
mod schedule;
mod settle;
mod snapshot;
mod spill;
mod undone;

#[cfg(test)]
mod model;

pub use accept::{AcceptError, Accepting, Terms, accept};
pub use clock::DelayClock;
pub use deliver::{Parcel, note, pack};
pub use deliveries::Deliveries;
pub use found::{Found, FoundRecords};
pub use recent::{Entry, IdHash};
pub use run_file::{
    BLOCK_ENTRIES, DamagedBlock, RUN_BLOCK_SIZE, block_of, decode_block, encode_block,
};
pub use runs::{HEAD_ENTRIES, RunRef};
pub use schedule::{CancelVerdict, Schedule, Target};
pub use settle::Recovered;
pub use snapshot::Unusable;
