//! Waiting within one executor: a signal that wakes everyone, and a lock that may be held across
//! an await.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::Rc,
    task::{Poll, Waker},
};

/// Wakes all that wait. Only a hint: whoever waits looks again at what it waits for.
#[derive(Default)]
pub(super) struct Signal {
    wakers: RefCell<Vec<Waker>>,
    round: Cell<u64>,
}

impl Signal {
    /// Wakes all that wait now.
    pub fn raise(&self) {
        self.round.set(self.round.get() + 1);
        for waker in self.wakers.take() {
            waker.wake();
        }
    }

    /// Waits for the next [`Signal::raise`] after this call.
    pub fn wait(&self) -> impl Future<Output = ()> + '_ {
        let round = self.round.get();
        poll_fn(move |context| {
            if self.round.get() != round {
                return Poll::Ready(());
            }
            let mut wakers = self.wakers.borrow_mut();
            if !wakers.iter().any(|waker| waker.will_wake(context.waker())) {
                wakers.push(context.waker().clone());
            }
            Poll::Pending
        })
    }

    /// Waits until `done` gives something.
    pub async fn until<T>(&self, mut done: impl FnMut() -> Option<T>) -> T {
        loop {
            let changed = self.wait();
            if let Some(value) = done() {
                return value;
            }
            changed.await;
        }
    }
}

/// One holder at a time.
#[derive(Default)]
pub(super) struct Lock {
    held: Cell<bool>,
    freed: Signal,
}

impl Lock {
    /// Waits for the lock.
    pub async fn hold(self: &Rc<Self>) -> Held {
        self.freed
            .until(|| (!self.held.replace(true)).then_some(()))
            .await;
        Held(Rc::clone(self))
    }
}

/// The lock, until dropped.
pub(super) struct Held(Rc<Lock>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.held.set(false);
        self.0.freed.raise();
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, task::Context};

    use super::*;

    #[test]
    fn a_signal_wakes_only_later_rounds() {
        let signal = Signal::default();
        signal.raise();
        let mut waiting = pin!(signal.wait());
        let mut context = Context::from_waker(Waker::noop());
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        signal.raise();
        assert!(waiting.as_mut().poll(&mut context).is_ready());
    }

    #[test]
    fn a_lock_has_one_holder() {
        let lock = Rc::new(Lock::default());
        let mut context = Context::from_waker(Waker::noop());
        let Poll::Ready(first) = pin!(lock.hold()).poll(&mut context) else {
            panic!("the lock is free");
        };
        let mut second = pin!(lock.hold());
        assert!(second.as_mut().poll(&mut context).is_pending());
        drop(first);
        assert!(second.as_mut().poll(&mut context).is_ready());
    }
}
