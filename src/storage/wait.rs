//! Waiting within one executor: for a value, and for a lock that may be held across an await.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
};

use futures_channel::oneshot;

use crate::io::Signal;

/// Waits until `look` gives something; it is asked again each time the signal is raised.
pub(super) async fn until<T>(signal: &Signal, mut look: impl FnMut() -> Option<T>) -> T {
    loop {
        let ticket = signal.ticket();
        if let Some(value) = look() {
            return value;
        }
        signal.raised_since(ticket).await;
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
        self.freed.wait_until(|| !self.held.replace(true)).await;
        Held(Rc::clone(self))
    }

    /// The lock, if nobody has it.
    pub fn try_hold(self: &Rc<Self>) -> Option<Held> {
        (!self.held.replace(true)).then(|| Held(Rc::clone(self)))
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

/// So many holders at a time; who waits longest is next.
pub(super) struct Turns {
    free: Cell<usize>,
    waiting: RefCell<VecDeque<oneshot::Sender<Turn>>>,
}

impl Turns {
    pub fn new(count: usize) -> Rc<Self> {
        Rc::new(Self {
            free: Cell::new(count),
            waiting: RefCell::default(),
        })
    }

    /// Waits for a turn.
    pub async fn take(self: &Rc<Self>) -> Turn {
        if let Some(left) = self.free.get().checked_sub(1) {
            self.free.set(left);
            return Turn(Rc::clone(self));
        }
        let (give, turn) = oneshot::channel();
        self.waiting.borrow_mut().push_back(give);
        turn.await.expect("every turn is handed on")
    }
}

/// A turn, until dropped.
pub(super) struct Turn(Rc<Turns>);

impl Drop for Turn {
    fn drop(&mut self) {
        let next = self.0.waiting.borrow_mut().pop_front();
        match next {
            // Who does not wait any more drops it, which hands it on.
            Some(next) => drop(next.send(Self(Rc::clone(&self.0)))),
            None => self.0.free.set(self.0.free.get() + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use super::*;

    #[test]
    fn turns_are_limited_and_go_to_who_waits_longest() {
        let turns = Turns::new(2);
        let mut context = Context::from_waker(Waker::noop());
        let mut waits: Vec<_> = (0..5).map(|_| Box::pin(turns.take())).collect();
        let mut held: Vec<_> = waits
            .iter_mut()
            .map(|wait| wait.as_mut().poll(&mut context))
            .collect();
        let ready = held.iter().map(Poll::is_ready).collect::<Vec<_>>();
        assert_eq!(ready, [true, true, false, false, false]);
        // The third does not wait any more.
        drop(waits.remove(2));
        drop(held.remove(0));
        assert!(waits[3].as_mut().poll(&mut context).is_pending());
        let fourth = waits[2].as_mut().poll(&mut context);
        assert!(fourth.is_ready());
        drop((held, fourth));
        assert!(waits[3].as_mut().poll(&mut context).is_ready());
        assert_eq!(turns.free.get(), 2);
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
        assert!(lock.try_hold().is_none());
        drop(first);
        assert!(second.as_mut().poll(&mut context).is_ready());
    }
}
