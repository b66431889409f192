//! The timers of a shard, in order of their deadlines. The executor asks for the next one before it sleeps.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use super::{Shard, now_ns};

/// See the module.
#[derive(Default)]
pub(super) struct Timers {
    /// By deadline, and a number to tell equal ones apart.
    waiting: RefCell<BTreeMap<(u64, u64), Waker>>,
    number_next: Cell<u64>,
}

impl Timers {
    /// Wakes whoever is due.
    pub(super) fn fire(&self, now_ns: u64) {
        loop {
            let waker = {
                let mut waiting = self.waiting.borrow_mut();
                match waiting.first_entry() {
                    Some(entry) if entry.key().0 <= now_ns => entry.remove(),
                    _ => return,
                }
            };
            waker.wake();
        }
    }

    /// The earliest deadline.
    pub(super) fn next_ns(&self) -> Option<u64> {
        self.waiting.borrow().keys().next().map(|key| key.0)
    }
}

/// Waits for a point in time.
pub(super) struct Sleep {
    shard: Rc<Shard>,
    deadline_ns: u64,
    key: Option<(u64, u64)>,
}

impl Sleep {
    pub(super) fn new(shard: &Rc<Shard>, duration: Duration) -> Self {
        let wait_ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let deadline_ns = now_ns().saturating_add(wait_ns);
        Self {
            shard: Rc::clone(shard),
            deadline_ns,
            key: None,
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if now_ns() >= self.deadline_ns {
            return Poll::Ready(());
        }
        let timers = &self.shard.timers;
        let key = self.key.unwrap_or_else(|| {
            let number = timers.number_next.get();
            timers.number_next.set(number + 1);
            (self.deadline_ns, number)
        });
        let waker = context.waker().clone();
        let before = timers.waiting.borrow_mut().insert(key, waker);
        drop(before);
        self.key = Some(key);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            let waker = self.shard.timers.waiting.borrow_mut().remove(&key);
            drop(waker);
        }
    }
}
