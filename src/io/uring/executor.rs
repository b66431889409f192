//! A shard's thread: its loop, its start, and why the host would not let it start.

use std::{
    cell::Cell,
    future::Future,
    io,
    rc::Rc,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::{
    event::PollFlags,
    thread::{CpuSet, sched_setaffinity},
};

use super::{
    Shard, UringIo,
    blocking::Blocking,
    now_ns,
    ring::{Request, Ring},
};
use crate::io::TaskClass;

/// So long tasks run before the kernel is asked what is new, if they do not run out before.
const ROUND_NS: u64 = 100_000;
/// How often, and with what pause, memory that is lacking for a ring is asked for again.
const MEMORY_ATTEMPTS: u32 = 40;
const MEMORY_PAUSE: Duration = Duration::from_millis(50);
/// Sleeps no longer, whatever the timers say.
const SLEEP_MAX: Duration = Duration::from_secs(3600);
/// How long the end of a shard waits for its disk operations, after which the disk does not answer.
const END_PATIENCE: Duration = Duration::from_secs(30);

/// How to run a shard.
#[derive(Clone, Debug)]
pub struct ShardOptions {
    /// Busy-wait for so long before sleeping. Only with a CPU of its own.
    pub spin: Option<Duration>,
    /// Use direct I/O where the file system allows it.
    pub direct: bool,
}

impl Default for ShardOptions {
    fn default() -> Self {
        Self {
            spin: None,
            direct: true,
        }
    }
}

/// A shard's thread.
pub struct ShardThread<T> {
    thread: JoinHandle<Option<T>>,
}

impl<T> ShardThread<T> {
    /// Waits for the shard to end.
    ///
    /// # Panics
    /// If the shard panicked.
    pub fn join(self) -> T {
        let ended = self
            .thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        ended.expect("it was started")
    }
}

/// Starts a shard on a thread of its own, pinned to `cpu` if given, and runs `main` there to its end.
/// Disk operations that are on their way then still finish; tasks that `main` leaves behind are dropped.
///
/// # Errors
/// The ring could not be made, or there is no such CPU.
pub fn spawn_shard<F, Fut>(
    index: usize,
    cpu: Option<usize>,
    options: &ShardOptions,
    main: F,
) -> io::Result<ShardThread<Fut::Output>>
where
    F: FnOnce(UringIo) -> Fut + Send + 'static,
    Fut: Future + 'static,
    Fut::Output: Send + 'static,
{
    let options = options.clone();
    let blocking = Blocking::start(index)?;
    let (started, outcome) = mpsc::sync_channel(1);
    let thread = thread::Builder::new()
        .name(format!("shard-{index}"))
        .spawn(move || {
            let made = pin_to(cpu).and_then(|()| make_shard(blocking, options.direct));
            let shard = match made {
                Ok(shard) => Rc::new(shard),
                Err(error) => {
                    // The caller waits for this, and does not join a thread that has nothing to give.
                    let _ = started.send(Err(error));
                    return None;
                }
            };
            let _ = started.send(Ok(()));
            Some(run(&shard, options.spin, main))
        })?;
    match outcome.recv() {
        Ok(Ok(())) => Ok(ShardThread { thread }),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(io::Error::other(format!(
            "shard {index} died while it started"
        ))),
    }
}

fn pin_to(cpu: Option<usize>) -> io::Result<()> {
    let Some(cpu) = cpu else { return Ok(()) };
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(sched_setaffinity(None, &set)?)
}

/// Locked memory of a broker that was just killed is given back a moment after its process is gone, so
/// a lack of it is waited out.
#[expect(
    clippy::disallowed_methods,
    reason = "the thread has no executor yet that a pause could block"
)]
fn make_shard(blocking: Blocking, direct: bool) -> io::Result<Shard> {
    let mut attempt = 1;
    let ring = loop {
        match Ring::new() {
            Err(error)
                if error.kind() == io::ErrorKind::OutOfMemory && attempt < MEMORY_ATTEMPTS =>
            {
                attempt += 1;
                thread::sleep(MEMORY_PAUSE);
            }
            Err(error) if error.kind() == io::ErrorKind::OutOfMemory => {
                let remedy = "not enough lockable memory for one ring a shard: raise it with \
                     `ulimit -l 65536`, in systemd with LimitMEMLOCK=64M";
                return Err(io::Error::new(error.kind(), remedy));
            }
            made => break made?,
        }
    };
    Shard::new(ring, blocking, direct)
}

/// The life of a shard: `main`, then the end of what it left behind.
fn run<F, Fut>(shard: &Rc<Shard>, spin: Option<Duration>, main: F) -> Fut::Output
where
    F: FnOnce(UringIo) -> Fut,
    Fut: Future + 'static,
    Fut::Output: 'static,
{
    let io = UringIo {
        shard: Rc::clone(shard),
    };
    start_alarm(shard);
    let result = Rc::new(Cell::new(None));
    let given = Rc::clone(&result);
    let main = main(io);
    shard.tasks.spawn(TaskClass::Foreground, async move {
        given.set(Some(main.await));
    });
    let spin_ns = spin.map_or(0, |spin| u64::try_from(spin.as_nanos()).unwrap_or(u64::MAX));
    let result = loop {
        let busy = run_ready(shard);
        if let Some(result) = result.take() {
            break result;
        }
        ask_kernel(shard, busy, spin_ns);
    };
    end(shard);
    result
}

/// Ends the sleep of the ring when another thread wakes a task.
fn start_alarm(shard: &Rc<Shard>) {
    let alarm = Arc::new(shard.tasks.alarm().expect("a descriptor for the alarm"));
    let ring = Rc::clone(&shard.ring);
    shard.tasks.spawn(TaskClass::Foreground, async move {
        loop {
            let flags = u32::from(PollFlags::IN.bits());
            let _ = ring.submit(Request::poll(&alarm, flags)).await;
            let _ = rustix::io::read(&alarm, &mut [0_u8; 8][..]);
        }
    });
}

/// Runs what is ready, for a while; true if some is left.
fn run_ready(shard: &Shard) -> bool {
    let start = now_ns();
    shard.timers.fire(start);
    shard.tasks.run(start + ROUND_NS)
}

/// Asks the kernel what is new, asleep if there is nothing else to do.
fn ask_kernel(shard: &Shard, busy: bool, spin_ns: u64) {
    let mut wait = None;
    if !busy {
        if spin_ns > 0 && spins(shard, spin_ns) {
            return;
        }
        if shard.tasks.fall_asleep() {
            let due = shard.timers.next_ns();
            let due = due.map(|due| Duration::from_nanos(due.saturating_sub(now_ns())));
            wait = Some(due.unwrap_or(SLEEP_MAX).min(SLEEP_MAX));
        }
    }
    let entered = shard.ring.enter(wait.filter(|wait| !wait.is_zero()));
    shard.tasks.awake();
    entered.unwrap_or_else(|error| panic!("the ring does not work any more: {error}"));
}

/// Looks for work for a while instead of sleeping; true if there is some.
fn spins(shard: &Shard, spin_ns: u64) -> bool {
    let until = now_ns().saturating_add(spin_ns);
    loop {
        let entered = shard.ring.enter(None);
        entered.unwrap_or_else(|error| panic!("the ring does not work any more: {error}"));
        let now = now_ns();
        if shard.tasks.has_work() || shard.timers.next_ns().is_some_and(|due| due <= now) {
            return true;
        }
        if now >= until {
            return false;
        }
        std::hint::spin_loop();
    }
}

/// Lets disk operations finish, then drops the tasks, then waits for the kernel to let go of sockets.
fn end(shard: &Shard) {
    shard.ended.set(true);
    let patience_ns = u64::try_from(END_PATIENCE.as_nanos()).unwrap_or(u64::MAX);
    let until = now_ns().saturating_add(patience_ns);
    loop {
        let busy = run_ready(shard);
        if shard.disk_operations.get() == 0 || now_ns() >= until {
            break;
        }
        ask_kernel(shard, busy, 0);
    }
    let left = shard.disk_operations.get();
    if left > 0 {
        tracing::error!("{left} disk operations did not finish; the shard ends without them");
    }
    shard.tasks.end();
}

/// Makes a ring as a shard would, and lets it go.
///
/// # Errors
/// What the system says; `host::check_kernel` puts it into words.
pub fn try_ring() -> io::Result<()> {
    Ring::new().map(drop)
}
