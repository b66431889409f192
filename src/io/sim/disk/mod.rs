//! A disk in memory that loses what was not flushed.
//!
//! [`SimDisk`] is a handle; clones are the same disk, and it outlives simulations:
//!
//! ```text
//! let disk = SimDisk::new();
//! disk.cut_after(n);                                    // the n-th change is the last one
//! Sim::new(seed).with_disk(&disk).run_until_cut(write); // stops there
//! let image = disk.image();                             // keep it, to crash it in several ways
//! disk.crash(CrashPolicy::Random { seed });             // the power goes
//! Sim::new(seed).with_disk(&disk).run(recover_and_check);
//! ```

mod changes;
mod content;
mod fault;
mod file;
mod state;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    io,
    path::Path,
    rc::Rc,
};

pub use fault::{CrashPolicy, DiskTimes, Errno, Fault, Operation};
pub use file::{SimBuffer, SimFile};

use state::DiskState;

/// A disk without another size holds this many bytes: 1 TiB.
const CAPACITY: u64 = 1 << 40;
/// With this variable set to 1, flushes do nothing: every crash test must then fail.
const IGNORE_FLUSHES: &str = "MILLSTREAM_SIM_IGNORE_FLUSHES";

/// See the module.
#[derive(Clone)]
pub struct SimDisk {
    shared: Rc<Shared>,
}

struct Shared {
    state: RefCell<DiskState>,
    faults: RefCell<Vec<Fault>>,
    counts: RefCell<BTreeMap<Operation, u64>>,
    operations: Cell<u64>,
    cut_after: Cell<Option<u64>>,
    times: Cell<DiskTimes>,
    ignore_flushes: Cell<bool>,
    /// Counts crashes: handles from before one are dead.
    mount: Cell<u64>,
}

impl Default for SimDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl SimDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::with_state(DiskState::new(CAPACITY))
    }

    fn with_state(state: DiskState) -> Self {
        let ignore_flushes = std::env::var(IGNORE_FLUSHES).is_ok_and(|value| value == "1");
        let shared = Shared {
            state: RefCell::new(state),
            faults: RefCell::default(),
            counts: RefCell::default(),
            operations: Cell::new(0),
            cut_after: Cell::new(None),
            times: Cell::new(DiskTimes::default()),
            ignore_flushes: Cell::new(ignore_flushes),
            mount: Cell::new(0),
        };
        Self {
            shared: Rc::new(shared),
        }
    }

    /// Sets how many bytes it can hold.
    pub fn set_capacity(&self, bytes: u64) {
        self.shared.state.borrow_mut().capacity = bytes;
    }

    /// Sets how long operations take.
    pub fn set_times(&self, times: DiskTimes) {
        self.shared.times.set(times);
    }

    /// Lets flushes of files and directories return at once and do nothing.
    pub fn ignore_flushes(&self, ignore: bool) {
        self.shared.ignore_flushes.set(ignore);
    }

    /// How many operations that change the disk have begun: writes, flushes, names, sizes.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.shared.operations.get()
    }

    /// How many operations of one kind have begun.
    #[must_use]
    pub fn count(&self, operation: Operation) -> u64 {
        self.shared
            .counts
            .borrow()
            .get(&operation)
            .copied()
            .unwrap_or(0)
    }

    /// Lets `count` more changing operations begin. The one after them never does: the run ends
    /// there, with whatever was in flight still in flight.
    pub fn cut_after(&self, count: u64) {
        self.shared.cut_after.set(Some(self.operations() + count));
    }

    /// Plans a failure.
    pub fn fail(&self, fault: Fault) {
        self.shared.faults.borrow_mut().push(fault);
    }

    /// Forgets all planned failures and the cut.
    pub fn heal(&self) {
        self.shared.faults.borrow_mut().clear();
        self.shared.cut_after.set(None);
    }

    /// The power goes and comes back: unsynced changes meet their fate, open handles die, planned
    /// failures and the cut are forgotten.
    pub fn crash(&self, policy: CrashPolicy) {
        self.heal();
        self.shared.mount.set(self.shared.mount.get() + 1);
        self.shared.state.borrow_mut().crash(policy);
    }

    /// The process ends, the power stays: operations in flight finish, open handles die, planned
    /// failures and the cut are forgotten. Nothing is lost, and nothing becomes durable.
    pub fn remount(&self) {
        self.heal();
        self.shared.mount.set(self.shared.mount.get() + 1);
        self.shared.state.borrow_mut().settle();
    }

    /// Everything on it now, unsynced changes included.
    #[must_use]
    pub fn image(&self) -> DiskImage {
        DiskImage {
            state: self.shared.state.borrow().clone(),
        }
    }

    /// Flips the bits of `mask` in one byte of a file, as a bad disk would.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn corrupt(&self, path: &Path, position: u64, mask: u8) -> io::Result<()> {
        let mut state = self.shared.state.borrow_mut();
        let inode = state.look_up(path)?;
        state.flip(inode, position, mask)
    }
}

/// A copy of a disk at one moment.
#[derive(Clone)]
pub struct DiskImage {
    state: DiskState,
}

impl DiskImage {
    /// A disk of its own that starts from this image, as if just unplugged: crash it before use.
    #[must_use]
    pub fn to_disk(&self) -> SimDisk {
        SimDisk::with_state(self.state.clone())
    }
}
