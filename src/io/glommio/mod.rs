//! The traits of `io` on glommio: io_uring, direct I/O, real sockets.
//!
//! One [`GlommioIo`] lives on each shard's thread ([`spawn_shard`]). What glommio does badly is kept
//! in here: waiting for sockets without piling up wakers (`readiness`), closing without a flood of
//! cancellations (`closing`), files whose names go away (`disk`), short reads and writes (`file`).

mod buffer;
mod closing;
mod disk;
mod executor;
mod file;
mod memlock;
mod net;
mod pulse;
mod readiness;
mod tasks;
#[cfg(test)]
mod tests;
mod timers;

use std::{
    cell::RefCell,
    future::Future,
    hash::{BuildHasher, RandomState},
    io,
    rc::Rc,
    sync::LazyLock,
    time::{Duration, Instant, SystemTime},
};

use glommio::{GlommioError, Latency, Shares, TaskQueueHandle};

use super::{Clock, Io, Monotonic, Random, TaskClass, Tasks};
use closing::Closing;
use tasks::TaskList;
use timers::{Sleep, Timers};

pub use buffer::GlommioBuffer;
pub use executor::{ShardOptions, ShardThread, io_uring_available, spawn_shard};
pub use file::GlommioFile;
pub use memlock::locked_memory_limit;
pub use net::{GlommioDetached, GlommioListener, GlommioStream};

/// How often a task that matters looks whether another should run.
const FOREGROUND_LATENCY: Duration = Duration::from_millis(1);

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
pub struct GlommioIo {
    shard: Rc<Shard>,
}

struct Shard {
    foreground: TaskQueueHandle,
    catch_up: TaskQueueHandle,
    background: TaskQueueHandle,
    random: RefCell<Random>,
    closing: Closing,
    tasks: TaskList,
    timers: Timers,
    direct: bool,
}

impl GlommioIo {
    /// The world of the executor that runs this; `direct` asks for direct I/O where it is possible.
    fn new(direct: bool) -> Self {
        let queue = |shares, latency, name| {
            glommio::executor().create_task_queue(Shares::Static(shares), latency, name)
        };
        let shard = Shard {
            foreground: queue(1000, Latency::Matters(FOREGROUND_LATENCY), "foreground"),
            catch_up: queue(300, Latency::NotImportant, "catch-up"),
            background: queue(100, Latency::NotImportant, "background"),
            random: RefCell::new(Random::new(RandomState::new().hash_one(0_u64))),
            closing: Closing::default(),
            tasks: TaskList::default(),
            timers: Timers::default(),
            direct,
        };
        LazyLock::force(&START);
        Self {
            shard: Rc::new(shard),
        }
    }
}

fn now_ns() -> u64 {
    u64::try_from(START.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

impl Clock for GlommioIo {
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

impl Tasks for GlommioIo {
    fn spawn(&self, class: TaskClass, task: impl Future<Output = ()> + 'static) {
        let queue = match class {
            TaskClass::Foreground => self.shard.foreground,
            TaskClass::CatchUp => self.shard.catch_up,
            TaskClass::Background => self.shard.background,
        };
        self.shard.spawn(queue, task);
    }

    async fn yield_if_needed(&self) {
        glommio::yield_if_needed().await;
    }
}

impl Io for GlommioIo {
    fn random_u64(&self) -> u64 {
        self.shard.random.borrow_mut().next_u64()
    }
}

/// The system's error inside glommio's, with its number: callers look for `StorageFull` and the like.
fn system_error(error: GlommioError<()>) -> io::Error {
    match error {
        GlommioError::IoError(source) | GlommioError::EnhancedIoError { source, .. } => source,
        other => other.into(),
    }
}
