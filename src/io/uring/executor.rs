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
    io::Errno,
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
    spawn_with(Ring::new, index, cpu, options, main)
}

/// The same with a ring made in this way.
pub(super) fn spawn_with<F, Fut>(
    make_ring: fn() -> io::Result<Ring>,
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
            let made = pin_to(cpu).and_then(|()| make_shard(make_ring, blocking, options.direct));
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
    let pinned = if cpu < CpuSet::MAX_CPU {
        set.set(cpu);
        sched_setaffinity(None, &set)
    } else {
        Err(Errno::INVAL)
    };
    pinned.map_err(|error| {
        let reason = format!(
            "core {cpu} is missing, or not for this process ({error}): name others with --cores"
        );
        io::Error::new(error.kind(), reason)
    })
}

/// Locked memory of a broker that was just killed is given back a moment after its process is gone, so
/// a lack of it is waited out.
#[expect(
    clippy::disallowed_methods,
    reason = "the thread has no executor yet that a pause could block"
)]
fn make_shard(
    make_ring: fn() -> io::Result<Ring>,
    blocking: Blocking,
    direct: bool,
) -> io::Result<Shard> {
    let mut attempt = 1;
    let ring = loop {
        match make_ring() {
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
    // Tasks hold the shard, and the shard its tasks: a panic must not leave them and their
    // connections behind.
    let tasks = EndTasks(shard);
    let result = loop {
        let busy = run_ready(shard);
        if let Some(result) = result.take() {
            break result;
        }
        ask_kernel(shard, busy, spin_ns, SLEEP_MAX);
    };
    finish_disk(shard, END_PATIENCE);
    drop(tasks);
    result
}

/// Drops the tasks of a shard in the end, which then waits for the kernel to let go of sockets.
struct EndTasks<'a>(&'a Shard);

impl Drop for EndTasks<'_> {
    fn drop(&mut self) {
        self.0.tasks.end();
    }
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

/// Asks the kernel what is new, asleep if there is nothing else to do, and for so long at most.
fn ask_kernel(shard: &Shard, busy: bool, spin_ns: u64, longest: Duration) {
    let mut wait = None;
    if !busy {
        if spin_ns > 0 && spins(shard, spin_ns) {
            return;
        }
        if shard.tasks.fall_asleep() {
            let due = shard.timers.next_ns();
            let due = due.map(|due| Duration::from_nanos(due.saturating_sub(now_ns())));
            wait = Some(due.unwrap_or(longest).min(longest));
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

/// Lets disk operations finish, for so long at most. None begins any more.
fn finish_disk(shard: &Shard, patience: Duration) {
    shard.ended.set(true);
    let patience_ns = u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX);
    let until = now_ns().saturating_add(patience_ns);
    loop {
        let busy = run_ready(shard);
        let left = Duration::from_nanos(until.saturating_sub(now_ns()));
        if shard.disk_operations.get() == 0 || left.is_zero() {
            break;
        }
        ask_kernel(shard, busy, 0, left);
    }
    let left = shard.disk_operations.get();
    if left > 0 {
        tracing::error!("{left} disk operations did not finish; the shard ends without them");
    }
}

/// Makes a ring as a shard would, and lets it go.
///
/// # Errors
/// What the system says; `host::check_kernel` puts it into words.
pub fn try_ring() -> io::Result<()> {
    Ring::new().map(drop)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::io::{
        Clock as _, Disk as _, Listener as _, Net as _, OpenMode, Stream as _, Tasks as _,
        uring::tests::can_run,
    };

    /// A pipe that nobody writes to: opening it never ends, as on a disk that does not answer.
    #[test]
    fn a_disk_that_does_not_answer_holds_up_the_end_for_its_patience_only() {
        if !can_run() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        let mode = rustix::fs::Mode::RWXU;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let shard = Rc::new(make_shard(Ring::new, Blocking::start(0).unwrap(), true).unwrap());
        let (io, path) = (
            UringIo {
                shard: Rc::clone(&shard),
            },
            pipe.clone(),
        );
        shard.tasks.spawn(TaskClass::Foreground, async move {
            let _ = io.open(Path::new(&path), OpenMode::Read).await;
        });
        run_ready(&shard);
        assert_eq!(shard.disk_operations.get(), 1);
        finish_disk(&shard, Duration::from_millis(50));
        assert_eq!(shard.disk_operations.get(), 1);
        shard.tasks.end();
        assert_eq!(Rc::strong_count(&shard), 1);
        drop(shard);
        // The thread that opens it ends too.
        std::fs::File::create(&pipe).unwrap();
    }

    /// A broker ends with a panic; a test must not hang on connections that it left open.
    #[test]
    fn a_panic_closes_connections() {
        if !can_run() {
            return;
        }
        let (sender, receiver) = mpsc::channel();
        let main = move |io: UringIo| async move {
            let listener = io.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
            let address = listener.local_address().unwrap();
            sender
                .send(std::net::TcpStream::connect(address).unwrap())
                .unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            io.spawn(TaskClass::Foreground, async move {
                let _ = stream.receive(&mut [0; 8]).await;
            });
            io.sleep(Duration::from_millis(10)).await;
            panic!("as the test wants it");
        };
        let shard = spawn_shard(0, None, &ShardOptions::default(), main).unwrap();
        let mut outside = receiver.recv().unwrap();
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| shard.join()));
        assert!(ended.is_err());
        outside
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        assert_eq!(std::io::Read::read(&mut outside, &mut [0; 8]).unwrap(), 0);
    }
}
