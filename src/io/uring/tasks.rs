//! The tasks of a shard: run queues, and wake-ups from this thread and from others.
//!
//! A wake-up from the shard's own thread goes into a queue of the thread. One from elsewhere goes into
//! a channel, and if the shard sleeps an event counter ends that. Who goes to sleep first says so,
//! then looks at the channel; who wakes first fills the channel, then looks whether the shard sleeps
//! (Dekker): between them none is missed.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::Future,
    os::fd::OwnedFd,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering, fence},
    },
    task::{Context, Poll, Wake, Waker},
};

use crossbeam_channel::{Receiver, Sender, unbounded};
use rustix::event::EventfdFlags;

use super::{now_ns, shares::Shares};
use crate::io::TaskClass;

/// A task that ran for so long lets others run when it is asked to.
const SLICE_NS: u64 = 250_000;

fn index(class: TaskClass) -> usize {
    match class {
        TaskClass::Foreground => 0,
        TaskClass::CatchUp => 1,
        TaskClass::Background => 2,
    }
}

/// What wakes one task.
struct Handle {
    home: Arc<Home>,
    slot: usize,
    /// Tells this task from those that had the slot before.
    number: u64,
    class: usize,
    /// In some queue already.
    queued: AtomicBool,
}

impl Wake for Handle {
    fn wake(self: Arc<Self>) {
        Self::wake_by_ref(&self);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.queued.swap(true, Ordering::AcqRel) {
            return;
        }
        // A thread that ends may wake when what it had is gone already.
        let local = LOCAL.try_with(|local| {
            let local = local.borrow();
            let at_home = local
                .as_ref()
                .filter(|queues| Arc::ptr_eq(&queues.home, &self.home));
            at_home
                .map(|queues| queues.push(Arc::clone(self)))
                .is_some()
        });
        if !local.unwrap_or(false) {
            self.home.wake(Arc::clone(self));
        }
    }
}

thread_local! {
    /// The queues of the shard that runs on this thread.
    static LOCAL: RefCell<Option<Rc<Queues>>> = const { RefCell::new(None) };
}

/// Where other threads reach a shard.
struct Home {
    woken: Sender<Arc<Handle>>,
    sleeping: AtomicBool,
    alarm: OwnedFd,
}

impl Home {
    fn wake(&self, handle: Arc<Handle>) {
        // A shard that has ended has no tasks left that could miss this.
        let _ = self.woken.send(handle);
        fence(Ordering::SeqCst);
        if self.sleeping.swap(false, Ordering::SeqCst) {
            // It fails only when the counter is full, and then the shard wakes as well.
            let _ = rustix::io::write(&self.alarm, &1_u64.to_ne_bytes());
        }
    }
}

/// Tasks that are ready.
struct Queues {
    home: Arc<Home>,
    ready: RefCell<[VecDeque<Arc<Handle>>; 3]>,
}

impl Queues {
    fn push(&self, handle: Arc<Handle>) {
        self.ready.borrow_mut()[handle.class].push_back(handle);
    }
}

type Task = Pin<Box<dyn Future<Output = ()>>>;

struct Entry {
    number: u64,
    /// Absent while it runs.
    task: Option<Task>,
    waker: Option<Waker>,
}

/// See the module.
pub(super) struct TaskList {
    queues: Rc<Queues>,
    woken: Receiver<Arc<Handle>>,
    entries: RefCell<Entries>,
    shares: Shares,
    slice_start_ns: Cell<u64>,
    ended: Cell<bool>,
}

#[derive(Default)]
struct Entries {
    slots: Vec<Option<Entry>>,
    free: Vec<usize>,
    number_next: u64,
}

impl TaskList {
    /// The tasks of the shard that runs on this thread.
    pub(super) fn new() -> std::io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let (sender, woken) = unbounded();
        let home = Home {
            woken: sender,
            sleeping: AtomicBool::new(false),
            alarm: rustix::event::eventfd(0, flags)?,
        };
        let queues = Rc::new(Queues {
            home: Arc::new(home),
            ready: RefCell::default(),
        });
        LOCAL.with(|local| *local.borrow_mut() = Some(Rc::clone(&queues)));
        Ok(Self {
            queues,
            woken,
            entries: RefCell::default(),
            shares: Shares::default(),
            slice_start_ns: Cell::new(0),
            ended: Cell::new(false),
        })
    }

    /// A descriptor that becomes readable when another thread wakes a shard that sleeps.
    pub(super) fn alarm(&self) -> std::io::Result<OwnedFd> {
        self.queues.home.alarm.try_clone()
    }

    pub(super) fn spawn(&self, class: TaskClass, task: impl Future<Output = ()> + 'static) {
        if self.ended.get() {
            return;
        }
        let entries = &mut *self.entries.borrow_mut();
        let number = entries.number_next;
        entries.number_next += 1;
        let slot = entries.free.pop().unwrap_or_else(|| {
            entries.slots.push(None);
            entries.slots.len() - 1
        });
        let handle = Arc::new(Handle {
            home: Arc::clone(&self.queues.home),
            slot,
            number,
            class: index(class),
            queued: AtomicBool::new(true),
        });
        entries.slots[slot] = Some(Entry {
            number,
            task: Some(Box::pin(task)),
            waker: Some(Waker::from(Arc::clone(&handle))),
        });
        self.queues.push(handle);
    }

    /// Runs ready tasks until none is left or `until_ns` has come; true if some are left.
    pub(super) fn run(&self, until_ns: u64) -> bool {
        let mut now = now_ns();
        loop {
            self.take_woken();
            let Some(handle) = self.next() else {
                return false;
            };
            self.slice_start_ns.set(now);
            let class = handle.class;
            self.run_one(&handle);
            let after = now_ns();
            self.shares.charge(class, after - now);
            now = after;
            if now >= until_ns {
                return true;
            }
        }
    }

    fn take_woken(&self) {
        while let Ok(handle) = self.woken.try_recv() {
            self.queues.push(handle);
        }
    }

    fn next(&self) -> Option<Arc<Handle>> {
        let ready = &mut *self.queues.ready.borrow_mut();
        let class = self
            .shares
            .next([0, 1, 2].map(|class| !ready[class].is_empty()));
        ready[class].pop_front()
    }

    fn run_one(&self, handle: &Handle) {
        let Some((mut task, waker)) = self.take(handle) else {
            return;
        };
        // Before it runs: what wakes it meanwhile has it run again.
        handle.queued.store(false, Ordering::Release);
        let polled = task.as_mut().poll(&mut Context::from_waker(&waker));
        let ended = {
            let entries = &mut *self.entries.borrow_mut();
            match entries.slots.get_mut(handle.slot) {
                Some(Some(entry)) if polled.is_pending() => {
                    (entry.task, entry.waker) = (Some(task), Some(waker));
                    None
                }
                Some(slot) => {
                    *slot = None;
                    entries.free.push(handle.slot);
                    Some((task, waker))
                }
                None => Some((task, waker)),
            }
        };
        // Outside the borrow: what a task owns may start or wake others when it goes.
        drop(ended);
    }

    fn take(&self, handle: &Handle) -> Option<(Task, Waker)> {
        let entries = &mut *self.entries.borrow_mut();
        let entry = entries.slots.get_mut(handle.slot)?.as_mut()?;
        if entry.number != handle.number {
            return None;
        }
        Some((entry.task.take()?, entry.waker.take()?))
    }

    /// Lets others run, if the task that asks has run for long.
    pub(super) async fn yield_if_needed(&self) {
        if now_ns().saturating_sub(self.slice_start_ns.get()) < SLICE_NS {
            return;
        }
        let mut yielded = false;
        std::future::poll_fn(|context| {
            if std::mem::replace(&mut yielded, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    /// Some task is ready.
    pub(super) fn has_work(&self) -> bool {
        let ready = self.queues.ready.borrow();
        !self.woken.is_empty() || !ready.iter().all(VecDeque::is_empty)
    }

    /// True if the shard may sleep; then [`TaskList::awake`] must follow.
    pub(super) fn fall_asleep(&self) -> bool {
        let sleeping = &self.queues.home.sleeping;
        sleeping.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if self.has_work() {
            sleeping.store(false, Ordering::SeqCst);
            return false;
        }
        true
    }

    pub(super) fn awake(&self) {
        self.queues.home.sleeping.store(false, Ordering::SeqCst);
    }

    /// Drops every task; none begins any more.
    pub(super) fn end(&self) {
        self.ended.set(true);
        loop {
            let slots = std::mem::take(&mut self.entries.borrow_mut().slots);
            if slots.is_empty() {
                return;
            }
            drop(slots);
        }
    }
}

impl Drop for TaskList {
    fn drop(&mut self) {
        LOCAL.with(|local| drop(local.borrow_mut().take()));
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    /// A list with one task that waits, and its waker.
    fn with_one_task() -> (TaskList, Waker) {
        let tasks = TaskList::new().unwrap();
        let wakers = Rc::new(RefCell::new(Vec::new()));
        let given = Rc::clone(&wakers);
        tasks.spawn(TaskClass::Foreground, async move {
            std::future::poll_fn(|context| {
                given.borrow_mut().push(context.waker().clone());
                Poll::<()>::Pending
            })
            .await;
        });
        assert!(!tasks.run(u64::MAX));
        let waker = wakers.borrow_mut().pop().expect("it ran once");
        (tasks, waker)
    }

    fn rings(tasks: &TaskList) -> bool {
        let alarm = tasks.alarm().unwrap();
        let mut polled = [PollFd::new(&alarm, PollFlags::IN)];
        poll(&mut polled, Some(&Timespec::default())).unwrap() == 1
    }

    #[test]
    fn a_wake_before_the_sleep_prevents_it() {
        let (tasks, waker) = with_one_task();
        thread::spawn(move || waker.wake()).join().unwrap();
        assert!(!rings(&tasks), "nobody sleeps yet");
        assert!(!tasks.fall_asleep());
    }

    #[test]
    fn a_wake_during_the_sleep_ends_it() {
        let (tasks, waker) = with_one_task();
        assert!(tasks.fall_asleep());
        thread::spawn(move || waker.wake()).join().unwrap();
        assert!(rings(&tasks));
        tasks.awake();
        assert!(tasks.has_work());
    }
}
