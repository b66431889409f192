//! Starting a shard's executor, and telling why the host would not let it.

use std::{
    future::Future,
    io,
    pin::pin,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use futures_util::future::{Either, select};
use glommio::{LocalExecutor, LocalExecutorBuilder, Placement, PoolPlacement};
use rustix::{io::Errno, process::Resource};

use super::{
    GlommioIo,
    memlock::{self, locked_memory_limit},
    pulse, system_error,
};

/// Entries of each ring, unless told otherwise or memory is scarce (`memlock`): deep, so that cancellations never wait for room (see `closing`).
const RING_DEPTH: usize = 4096;
/// How long a task may hold up the rings; also bounds how late a wake from another thread is seen.
const PREEMPT_TIMER: Duration = Duration::from_millis(1);
/// An executor that runs nothing for this long after it was made sleeps over its first task.
const START_PATIENCE: Duration = Duration::from_millis(500);
/// It takes a thread that loses its processor for a millisecond at one place, each time.
const START_ATTEMPTS: usize = 10;
/// How often, and with what pause, locked memory that is lacking is asked for again.
const MEMORY_ATTEMPTS: u32 = 40;
const MEMORY_PAUSE: Duration = Duration::from_millis(50);
/// Threads of each shard for calls that block.
const BLOCKING_THREAD_COUNT: usize = 2;
/// glommio refuses to start below this.
const MEMLOCK_SIZE_MIN: u64 = 512 << 10;

/// How to run a shard.
#[derive(Clone, Debug)]
pub struct ShardOptions {
    /// Shards in this process: they share the memory that may be locked.
    pub shard_count: usize,
    /// Busy-wait for so long before sleeping. Only with a CPU of its own.
    pub spin: Option<Duration>,
    /// Use direct I/O where the file system allows it.
    pub direct: bool,
    /// Entries of each of its rings.
    pub ring_depth: usize,
}

impl Default for ShardOptions {
    fn default() -> Self {
        Self {
            shard_count: 1,
            spin: None,
            direct: true,
            ring_depth: RING_DEPTH,
        }
    }
}

/// A shard's thread.
pub struct ShardThread<T> {
    /// `None` only if the executor was never made, and then nobody has this.
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
/// The executor could not be made: [`io_uring_available`] tells why in words.
pub fn spawn_shard<F, Fut>(
    index: usize,
    cpu: Option<usize>,
    options: &ShardOptions,
    main: F,
) -> io::Result<ShardThread<Fut::Output>>
where
    F: FnOnce(GlommioIo) -> Fut + Send + 'static,
    Fut: Future + 'static,
    Fut::Output: Send + 'static,
{
    let mut main = main;
    for _ in 0..START_ATTEMPTS {
        match try_spawn(index, cpu, options, main)? {
            Attempt::Runs(thread) => return Ok(ShardThread { thread }),
            Attempt::Sleeps(unused) => main = unused,
        }
    }
    Err(io::Error::other(format!(
        "shard {index} was not woken in {START_ATTEMPTS} attempts to start it"
    )))
}

/// What became of a thread that should run a shard.
enum Attempt<T, F> {
    Runs(JoinHandle<Option<T>>),
    /// glommio went to sleep over the first task (see `pulse`), when no timer was there yet to end
    /// that. The thread is left behind; if it ever wakes it finds nothing to do, and ends.
    Sleeps(F),
}

fn try_spawn<F, Fut>(
    index: usize,
    cpu: Option<usize>,
    options: &ShardOptions,
    main: F,
) -> io::Result<Attempt<Fut::Output, F>>
where
    F: FnOnce(GlommioIo) -> Fut + Send + 'static,
    Fut: Future + 'static,
    Fut::Output: Send + 'static,
{
    let options = options.clone();
    let (made, outcome) = mpsc::sync_channel(1);
    let (running, runs) = mpsc::sync_channel(1);
    let main = Arc::new(Mutex::new(Some(main)));
    let to_run = Arc::clone(&main);
    let thread = thread::Builder::new()
        .name(format!("shard-{index}"))
        .spawn(move || {
            let executor = match make_executor(cpu, &options) {
                Ok(executor) => executor,
                Err(error) => {
                    // The caller waits for this, and does not join a thread that has nothing to give.
                    let _ = made.send(Err(error));
                    return None;
                }
            };
            let _ = made.send(Ok(()));
            executor.run(async move {
                let main = take(&to_run)?;
                let _ = running.send(());
                Some(run_main(options.direct, main).await)
            })
        })?;
    match outcome.recv() {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(error),
        Err(_) => {
            return Err(io::Error::other(format!(
                "shard {index} died while it started"
            )));
        }
    }
    if runs.recv_timeout(START_PATIENCE).is_err()
        && let Some(unused) = take(&main)
    {
        return Ok(Attempt::Sleeps(unused));
    }
    Ok(Attempt::Runs(thread))
}

/// Whoever takes it runs it, or keeps it from being run.
fn take<F>(main: &Mutex<Option<F>>) -> Option<F> {
    main.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// The life of a shard: `main` in the foreground, then the end of what it left behind.
async fn run_main<F, Fut>(direct: bool, main: F) -> Fut::Output
where
    F: FnOnce(GlommioIo) -> Fut,
    Fut: Future + 'static,
    Fut::Output: 'static,
{
    let io = GlommioIo::new(direct);
    let shard = Rc::clone(&io.shard);
    let _pulse = pulse::start(shard.foreground);
    let timers = Rc::clone(&shard);
    let driver = async move { timers.timers.drive().await };
    let driver = glommio::spawn_local_into(driver, shard.foreground);
    let task = glommio::spawn_local_into(main(io), shard.foreground);
    let task = task.expect("the queue was just made");
    // The tasks above may be slept over before any of them has run. This timer is armed at once.
    let first_beat = pin!(pulse::beat());
    let result = match select(first_beat, task).await {
        Either::Right((result, _)) => result,
        Either::Left((never, _)) => match never {},
    };
    shard.end().await;
    drop(driver);
    result
}

/// Locked memory of a broker that was just killed is given back a moment after its process is gone, so
/// a lack of it is waited out.
#[expect(
    clippy::disallowed_methods,
    reason = "the thread has no executor yet that a pause could block"
)]
fn make_executor(cpu: Option<usize>, options: &ShardOptions) -> io::Result<LocalExecutor> {
    for _ in 1..MEMORY_ATTEMPTS {
        match try_executor(cpu, options) {
            Err(error) if error.kind() == io::ErrorKind::OutOfMemory => thread::sleep(MEMORY_PAUSE),
            other => return other,
        }
    }
    try_executor(cpu, options)
}

fn try_executor(cpu: Option<usize>, options: &ShardOptions) -> io::Result<LocalExecutor> {
    let placement = cpu.map_or(Placement::Unbound, Placement::Fixed);
    let rings = memlock::plan(
        locked_memory_limit(),
        options.shard_count,
        options.ring_depth,
    );
    let mut builder = LocalExecutorBuilder::new(placement)
        .ring_depth(rings.depth)
        .preempt_timer(PREEMPT_TIMER)
        .io_memory(rings.io_memory)
        .blocking_thread_pool_placement(PoolPlacement::Unbound(BLOCKING_THREAD_COUNT));
    if let Some(spin) = options.spin {
        builder = builder.spin_before_park(spin);
    }
    builder.make().map_err(system_error)
}

/// Whether this host lets us use io_uring.
///
/// # Errors
/// One sentence on what is in the way and what to do about it.
pub fn io_uring_available() -> Result<(), String> {
    let mut parameters = rustix::io_uring::io_uring_params::default();
    // SAFETY: the parameters are valid for the call, and the ring is closed unused.
    let ring = unsafe { rustix::io_uring::io_uring_setup(8, &mut parameters) };
    if let Err(errno) = ring {
        let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok();
        return Err(setup_remedy(errno, disabled.as_deref().map(str::trim)));
    }
    let memlock = rustix::process::getrlimit(Resource::Memlock).current;
    if let Some(limit) = memlock.filter(|limit| *limit < MEMLOCK_SIZE_MIN) {
        return Err(format!(
            "only {} KiB of memory may be locked and {} KiB are needed: raise the limit with \
             `ulimit -l 8192`, or LimitMEMLOCK=8M in the systemd unit, or --ulimit memlock=-1 for Docker",
            limit >> 10,
            MEMLOCK_SIZE_MIN >> 10,
        ));
    }
    let made = thread::spawn(|| make_executor(None, &ShardOptions::default()).map(drop));
    match made.join() {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("the io_uring executor does not start: {error}")),
        Err(_) => Err("the io_uring executor does not start: it panicked".to_owned()),
    }
}

/// What a refused `io_uring_setup` means; `disabled` is the sysctl, where there is one.
fn setup_remedy(errno: Errno, disabled: Option<&str>) -> String {
    match (errno, disabled) {
        (Errno::PERM, Some(value @ ("1" | "2"))) => format!(
            "io_uring is switched off on this host (kernel.io_uring_disabled={value}): switch it on \
             with `sudo sysctl -w kernel.io_uring_disabled=0`, and in /etc/sysctl.d to keep it"
        ),
        (Errno::PERM | Errno::ACCESS, _) => "io_uring is forbidden to this process, most likely by \
             the seccomp profile of a container: start it with a profile that allows io_uring_setup, \
             io_uring_enter and io_uring_register (for Docker: --security-opt seccomp=FILE)"
            .to_owned(),
        (Errno::NOSYS, _) => "this kernel has no io_uring: Linux 5.15 or later is needed (in a \
             sandbox such as gVisor io_uring may be missing whatever the kernel)"
            .to_owned(),
        (Errno::NOMEM, _) => "not enough memory may be locked for io_uring: raise the limit with \
             `ulimit -l 8192`, or LimitMEMLOCK=8M in the systemd unit"
            .to_owned(),
        (Errno::MFILE | Errno::NFILE, _) => "no file descriptor is left for io_uring: raise the \
             limit with `ulimit -n 65536`, or LimitNOFILE=65536 in the systemd unit"
            .to_owned(),
        (errno, _) => format!("io_uring cannot be set up: {}", io::Error::from(errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_names_its_remedy() {
        for (errno, disabled, remedy) in [
            (
                Errno::PERM,
                Some("2"),
                "sysctl -w kernel.io_uring_disabled=0",
            ),
            (Errno::PERM, Some("1"), "kernel.io_uring_disabled=1"),
            (Errno::PERM, Some("0"), "seccomp"),
            (Errno::PERM, None, "seccomp"),
            (Errno::NOSYS, None, "Linux 5.15"),
            (Errno::NOMEM, None, "ulimit -l"),
            (Errno::MFILE, None, "ulimit -n"),
            (Errno::FAULT, None, "Bad address"),
        ] {
            let text = setup_remedy(errno, disabled);
            assert!(text.contains(remedy), "{text}");
        }
    }
}
