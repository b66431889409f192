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
mod pending;
mod recent;
mod schedule;
mod snapshot;

pub use accept::{AcceptError, Terms, accept};
pub use clock::DelayClock;
pub use deliver::{Found, Parcel, note, pack};
pub use deliveries::Deliveries;
pub use recent::{Entry, IdHash};
pub use schedule::{CancelVerdict, Recovered, Schedule, Target};
pub use snapshot::Unusable;
