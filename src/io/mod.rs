//! What a shard may ask of the world: disk, network, time, tasks and chance, as traits.
//!
//! Shells are generic over [`Io`] and name no runtime. `uring/` implements it on io_uring;
//! `sim/` implements it in memory, from one seed, with faults. Everything here lives on one thread:
//! no future is `Send`, and nothing needs a lock.

mod budget;
mod clock;
#[cfg(test)]
mod conformance;
mod disk;
mod net;
mod random;
mod signal;
pub mod sim;
mod tasks;
pub mod uring;

pub use budget::{Budget, Permit};
pub use clock::{Clock, Monotonic};
pub use disk::{BLOCK_SIZE, Buffer, Disk, DiskFile, DiskInfo, DiskSpace, OpenMode, align_up};
pub use net::{Listener, Net, Stream};
pub use random::Random;
pub use signal::{Signal, SignalTicket};
pub use tasks::{TaskClass, Tasks};

/// Everything at once, cheap to clone.
pub trait Io: Disk + Net + Clock + Tasks + Clone + 'static {
    /// A random number; not for secrets. In simulation it comes from the seed.
    fn random_u64(&self) -> u64;
}
