//! The traits of `io` on io_uring: one ring, one thread, direct I/O, real sockets.
//!
//! One [`UringIo`] lives on each shard's thread ([`spawn_shard`]). The executor is our own
//! (`docs/adr/0004-executor.md`): tasks and wake-ups (`tasks`), whose turn it is (`shares`), timers
//! (`timers`), requests to the kernel (`ring`), the loop that ties them together (`executor`), and on
//! top of them files (`file`, `disk`) and sockets (`net`).

mod blocking;
mod buffer;
mod disk;
mod executor;
mod file;
mod net;
mod readiness;
mod ring;
mod shares;
#[cfg(test)]
mod stress;
mod tasks;
#[cfg(test)]
mod tests;
mod timers;

use std::{
    cell::{Cell, RefCell},
    future::Future,
    hash::{BuildHasher, RandomState},
    io,
    rc::Rc,
    sync::LazyLock,
    time::{Duration, Instant, SystemTime},
};

use super::{Clock, Io, Monotonic, Random, TaskClass, Tasks};
use blocking::Blocking;
use buffer::Pool;
use ring::Ring;
use tasks::TaskList;
use timers::{Sleep, Timers};

pub use buffer::UringBuffer;
pub use executor::{ShardOptions, ShardThread, spawn_shard, try_ring};
pub use file::UringFile;
pub use net::{BACKLOG_COUNT, UringDetached, UringListener, UringStream};

/// Where every shard's monotonic clock starts.
static START: LazyLock<Instant> = LazyLock::new(|| {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is where io::Clock comes from"
    )]
    Instant::now()
});

/// The world of one shard, cheap to clone. It cannot leave its thread.
#[derive(Clone)]
pub struct UringIo {
    shard: Rc<Shard>,
}

struct Shard {
    ring: Rc<Ring>,
    tasks: TaskList,
    timers: Timers,
    pool: Rc<Pool>,
    blocking: Blocking,
    random: RefCell<Random>,
    direct: bool,
    /// Disk operations on their way: they finish before the shard ends.
    disk_operations: Cell<usize>,
    ended: Cell<bool>,
}

impl Shard {
    fn new(ring: Ring, blocking: Blocking, direct: bool) -> io::Result<Self> {
        LazyLock::force(&START);
        Ok(Self {
            ring: Rc::new(ring),
            tasks: TaskList::new()?,
            timers: Timers::default(),
            pool: Rc::default(),
            blocking,
            random: RefCell::new(Random::new(RandomState::new().hash_one(0_u64))),
            direct,
            disk_operations: Cell::new(0),
            ended: Cell::new(false),
        })
    }

    /// Admits a disk operation; once the shard ends, none begins any more.
    async fn disk_operation(&self) -> DiskOperation<'_> {
        if self.ended.get() {
            std::future::pending::<()>().await;
        }
        self.disk_operations.set(self.disk_operations.get() + 1);
        DiskOperation { shard: self }
    }
}

/// A disk operation on its way.
struct DiskOperation<'a> {
    shard: &'a Shard,
}

impl Drop for DiskOperation<'_> {
    fn drop(&mut self) {
        let count = &self.shard.disk_operations;
        count.set(count.get() - 1);
    }
}

fn now_ns() -> u64 {
    u64::try_from(START.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

impl Clock for UringIo {
    fn now(&self) -> Monotonic {
        Monotonic(now_ns())
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "this is where io::Clock comes from"
    )]
    fn wall_ms(&self) -> i64 {
        let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => millis(after),
            Err(before) => -millis(before.duration()),
        }
    }

    async fn sleep(&self, duration: Duration) {
        Sleep::new(&self.shard, duration).await;
    }
}

impl Tasks for UringIo {
    fn spawn(&self, class: TaskClass, task: impl Future<Output = ()> + 'static) {
        self.shard.tasks.spawn(class, task);
    }

    async fn yield_if_needed(&self) {
        self.shard.tasks.yield_if_needed().await;
    }
}

impl Io for UringIo {
    fn random_u64(&self) -> u64 {
        self.shard.random.borrow_mut().next_u64()
    }
}
