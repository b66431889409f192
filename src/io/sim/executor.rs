//! The executor of a simulation: one thread, one seed, a clock that jumps.
//!
//! Whenever several tasks could run, the seed chooses. When none can, time jumps to the next timer.
//! When there is none either, the simulation can never move again: that is a deadlock, and it panics
//! with the seed. Every choice goes into a running hash, so two runs of one seed can be compared.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use crate::io::random::{Random, mix};

/// What one poll of a task costs in virtual time, so that a task that never waits cannot stop the clock.
const POLL_COST_NS: u64 = 1_000;
/// More polls than this in one run are taken for a livelock.
const POLL_COUNT_MAX: u64 = 200_000_000;
/// The wall clock of a fresh simulation: 2026-01-01T00:00:00Z.
const WALL_START_MS: i64 = 1_767_225_600_000;

type TaskFuture = Pin<Box<dyn Future<Output = ()>>>;

/// Tasks that were woken, in order; shared with wakers, which must be `Send`.
type ReadyQueue = Arc<Mutex<Vec<u64>>>;

struct TaskWaker {
    id: u64,
    queued: AtomicBool,
    ready: ReadyQueue,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.ready
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(self.id);
        }
    }
}

struct Task {
    node: u32,
    /// Absent while it is being polled.
    future: Option<TaskFuture>,
    waker: Arc<TaskWaker>,
}

/// See the module.
pub(super) struct Executor {
    seed: u64,
    ready: ReadyQueue,
    tasks: RefCell<BTreeMap<u64, Task>>,
    task_next: Cell<u64>,
    timers: RefCell<BTreeMap<(u64, u64), Waker>>,
    timer_next: Cell<u64>,
    now_ns: Cell<u64>,
    wall_offset_ms: Cell<i64>,
    random: RefCell<Random>,
    trace: Cell<u64>,
    poll_count: Cell<u64>,
    halted: Cell<bool>,
    /// Set while everything is torn down: futures dropped now were not abandoned.
    stopping: Cell<bool>,
}

impl Executor {
    pub(super) fn new(seed: u64) -> Rc<Self> {
        Rc::new(Self {
            seed,
            ready: ReadyQueue::default(),
            tasks: RefCell::default(),
            task_next: Cell::new(0),
            timers: RefCell::default(),
            timer_next: Cell::new(0),
            now_ns: Cell::new(0),
            wall_offset_ms: Cell::new(WALL_START_MS),
            random: RefCell::new(Random::new(mix(seed ^ 0x6d69_6c6c))),
            trace: Cell::new(mix(seed)),
            poll_count: Cell::new(0),
            halted: Cell::new(false),
            stopping: Cell::new(false),
        })
    }

    /// Runs until `root` ends, or until someone halts: then `None`.
    pub(super) fn run<T: 'static>(
        self: &Rc<Self>,
        root: impl Future<Output = T> + 'static,
    ) -> Option<T> {
        let _stop = Stop { executor: self };
        let result = Rc::new(RefCell::new(None));
        let slot = Rc::clone(&result);
        self.spawn(0, async move {
            let value = root.await;
            *slot.borrow_mut() = Some(value);
        });
        loop {
            if let Some(value) = result.borrow_mut().take() {
                return Some(value);
            }
            if self.halted.get() {
                return None;
            }
            assert!(
                self.turn(),
                "deadlock: {} tasks wait for nothing that can happen",
                self.tasks.borrow().len()
            );
            assert!(
                self.poll_count.get() < POLL_COUNT_MAX,
                "livelock: too many polls"
            );
        }
    }

    /// Ends the run at once; nothing is polled again.
    pub(super) fn halt(&self) {
        self.halted.set(true);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.get() || self.halted.get()
    }

    pub(super) fn spawn(&self, node: u32, future: impl Future<Output = ()> + 'static) {
        let id = self.task_next.replace(self.task_next.get() + 1);
        let ready = Arc::clone(&self.ready);
        let waker = Arc::new(TaskWaker {
            id,
            queued: AtomicBool::new(false),
            ready,
        });
        waker.wake_by_ref();
        let task = Task {
            node,
            future: Some(Box::pin(future)),
            waker,
        };
        self.tasks.borrow_mut().insert(id, task);
    }

    /// Drops all tasks of a node, as a crash of its process would, and those that they leave behind.
    pub(super) fn kill(&self, node: u32) {
        loop {
            let doomed = {
                let mut tasks = self.tasks.borrow_mut();
                let ids: Vec<u64> = tasks
                    .iter()
                    .filter(|(_, task)| task.node == node)
                    .map(|(id, _)| *id)
                    .collect();
                ids.into_iter()
                    .filter_map(|id| tasks.remove(&id))
                    .collect::<Vec<_>>()
            };
            if doomed.is_empty() {
                return;
            }
            // Outside the borrow: what the futures own may spawn, wake or look at the clock when
            // dropped. What they spawn dies too: a dead process does nothing.
            let was_stopping = self.stopping.replace(true);
            drop(doomed);
            self.stopping.set(was_stopping);
        }
    }

    /// Runs one task or moves the clock; false if neither is possible.
    fn turn(&self) -> bool {
        self.fire_timers();
        let chosen = {
            let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
            if ready.is_empty() {
                None
            } else {
                let index = self.random.borrow_mut().index(ready.len());
                Some(ready.swap_remove(index))
            }
        };
        if let Some(id) = chosen {
            self.poll(id);
            return true;
        }
        let Some(deadline_ns) = self.timers.borrow().keys().next().map(|(at, _)| *at) else {
            return false;
        };
        self.now_ns.set(deadline_ns.max(self.now_ns.get()));
        true
    }

    fn fire_timers(&self) {
        loop {
            let waker = {
                let mut timers = self.timers.borrow_mut();
                match timers.first_entry() {
                    Some(entry) if entry.key().0 <= self.now_ns.get() => entry.remove(),
                    _ => return,
                }
            };
            waker.wake();
        }
    }

    fn poll(&self, id: u64) {
        let taken = self.tasks.borrow_mut().get_mut(&id).and_then(|task| {
            let future = task.future.take()?;
            Some((future, Arc::clone(&task.waker)))
        });
        // A task that has ended may still be woken.
        let Some((mut future, task_waker)) = taken else {
            return;
        };
        task_waker.queued.store(false, Ordering::Release);
        self.note(id);
        self.poll_count.set(self.poll_count.get() + 1);
        self.now_ns.set(self.now_ns.get() + POLL_COST_NS);
        let waker = Waker::from(task_waker);
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(()) => {
                let ended = self.tasks.borrow_mut().remove(&id);
                drop(ended);
            }
            Poll::Pending => {
                let killed = match self.tasks.borrow_mut().get_mut(&id) {
                    Some(task) => {
                        task.future = Some(future);
                        None
                    }
                    None => Some(future),
                };
                if let Some(future) = killed {
                    // It killed its own node while it ran.
                    let was_stopping = self.stopping.replace(true);
                    drop(future);
                    self.stopping.set(was_stopping);
                }
            }
        }
    }

    pub(super) fn now_ns(&self) -> u64 {
        self.now_ns.get()
    }

    pub(super) fn wall_ms(&self) -> i64 {
        let elapsed_ms = i64::try_from(self.now_ns.get() / 1_000_000).unwrap_or(i64::MAX);
        self.wall_offset_ms.get().saturating_add(elapsed_ms)
    }

    pub(super) fn step_wall(&self, by_ms: i64) {
        self.wall_offset_ms
            .set(self.wall_offset_ms.get().saturating_add(by_ms));
    }

    pub(super) fn sleep(self: &Rc<Self>, duration: Duration) -> Sleep {
        let wait_ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let deadline_ns = self.now_ns().saturating_add(wait_ns);
        Sleep {
            executor: Rc::clone(self),
            deadline_ns,
            timer: None,
        }
    }

    pub(super) fn random<T>(&self, choose: impl FnOnce(&mut Random) -> T) -> T {
        choose(&mut self.random.borrow_mut())
    }

    /// A duration of `low..=high`.
    pub(super) fn between(&self, low: Duration, high: Duration) -> Duration {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 2);
        Duration::from_nanos(self.random(|random| random.between(nanos(low), nanos(high))))
    }

    /// Mixes an event into the trace.
    pub(super) fn note(&self, event: u64) {
        self.trace.set(mix(
            self.trace.get() ^ mix(event ^ self.now_ns.get().rotate_left(32))
        ));
    }

    pub(super) fn trace_hash(&self) -> u64 {
        self.trace.get()
    }
}

/// Tears a run down, and names its seed if it failed.
struct Stop<'a> {
    executor: &'a Executor,
}

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "simulation failed; replay it with Sim::new({})",
                self.executor.seed
            );
        }
        self.executor.stopping.set(true);
        // Dropping a task may end or spawn others; go on until none is left.
        loop {
            let task = self.executor.tasks.borrow_mut().pop_first();
            if task.is_none() {
                return;
            }
        }
    }
}

/// Waits for a point in virtual time.
pub(super) struct Sleep {
    executor: Rc<Executor>,
    deadline_ns: u64,
    timer: Option<(u64, u64)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.executor.now_ns() >= self.deadline_ns {
            return Poll::Ready(());
        }
        let key = self.timer.unwrap_or_else(|| {
            let number = self.executor.timer_next.get();
            self.executor.timer_next.set(number + 1);
            (self.deadline_ns, number)
        });
        self.timer = Some(key);
        self.executor
            .timers
            .borrow_mut()
            .insert(key, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.timer {
            self.executor.timers.borrow_mut().remove(&key);
        }
    }
}
