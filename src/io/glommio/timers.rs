//! The timers of a shard.
//!
//! glommio looks at every timer it has each time it goes round, and wakes some up to a millisecond
//! early: ten thousand idle connections would cost a core. So it has one of ours, for the earliest
//! deadline, and the others are kept in order here.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures_util::future::select;

use super::{Shard, now_ns};

/// glommio tells time in these steps.
const STEP: Duration = Duration::from_millis(1);

/// See the module.
pub(super) struct Timers {
    /// By deadline, and a number to tell equal ones apart.
    waiting: RefCell<BTreeMap<(u64, u64), Waker>>,
    number_next: Cell<u64>,
    driver: RefCell<Option<Waker>>,
    /// The driver looks again then.
    armed_ns: Cell<u64>,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            waiting: RefCell::default(),
            number_next: Cell::new(0),
            driver: RefCell::default(),
            armed_ns: Cell::new(u64::MAX),
        }
    }
}

impl Timers {
    fn arm(&self, key: (u64, u64), waker: Waker) {
        self.waiting.borrow_mut().insert(key, waker);
        if key.0 < self.armed_ns.get() {
            self.armed_ns.set(key.0);
            let driver = self.driver.borrow_mut().take();
            if let Some(driver) = driver {
                driver.wake();
            }
        }
    }

    fn fire(&self) {
        loop {
            let waker = {
                let mut waiting = self.waiting.borrow_mut();
                match waiting.first_entry() {
                    Some(entry) if entry.key().0 <= now_ns() => entry.remove(),
                    _ => return,
                }
            };
            waker.wake();
        }
    }

    /// Wakes whoever is due, for as long as the shard lives.
    pub(super) async fn drive(&self) {
        let mut early = false;
        loop {
            self.fire();
            let deadline_ns = self
                .waiting
                .borrow()
                .keys()
                .next()
                .map_or(u64::MAX, |key| key.0);
            self.armed_ns.set(deadline_ns);
            let earlier_one = pin!(poll_fn(|context| {
                if self.armed_ns.get() < deadline_ns {
                    return Poll::Ready(());
                }
                *self.driver.borrow_mut() = Some(context.waker().clone());
                Poll::Pending
            }));
            if deadline_ns == u64::MAX {
                earlier_one.await;
                continue;
            }
            let wait = Duration::from_nanos(deadline_ns.saturating_sub(now_ns()));
            // Woken early, it would be again, at once, until the step is over.
            let wait = if early { wait + STEP } else { wait };
            select(pin!(glommio::timer::sleep(wait)), earlier_one).await;
            early = now_ns() < deadline_ns && self.armed_ns.get() == deadline_ns;
        }
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
        timers.arm(key, context.waker().clone());
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
