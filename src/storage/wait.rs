//! Waiting within one executor: for a value, and for a lock that may be held across an await.

use std::{cell::Cell, rc::Rc};

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

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use super::*;

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
