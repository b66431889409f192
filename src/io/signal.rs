//! A signal between tasks of one executor: many wait, one call wakes them all.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::poll_fn,
    task::{Poll, Waker},
};

/// Wakes waiters. To miss nothing, look at the condition after [`Signal::ticket`] and before the wait.
///
/// A wait that is dropped leaves nothing behind: a signal may be raised once in a broker's life
/// while millions of waits begin and end.
#[derive(Debug, Default)]
pub struct Signal {
    rounds: Cell<u64>,
    next_wait: Cell<u64>,
    waiting: RefCell<BTreeMap<u64, Waker>>,
}

/// Remembers how often the signal had been raised.
#[derive(Clone, Copy, Debug)]
pub struct SignalTicket(u64);

/// One wait's place among the waiting, left when the wait ends in any way.
struct Wait<'a> {
    signal: &'a Signal,
    number: u64,
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        // Let go of outside the borrow: the last waker of a task may take the task with it.
        let waker = self.signal.waiting.borrow_mut().remove(&self.number);
        drop(waker);
    }
}

impl Signal {
    /// A ticket of now: a wait with it ends if the signal is raised after this.
    #[must_use]
    pub fn ticket(&self) -> SignalTicket {
        SignalTicket(self.rounds.get())
    }

    /// Wakes everyone who waits.
    pub fn raise(&self) {
        self.rounds.set(self.rounds.get() + 1);
        for waker in self.waiting.take().into_values() {
            waker.wake();
        }
    }

    /// Waits until the signal is raised after the ticket was taken.
    pub async fn raised_since(&self, ticket: SignalTicket) {
        let number = self.next_wait.get();
        self.next_wait.set(number + 1);
        let wait = Wait {
            signal: self,
            number,
        };
        poll_fn(|context| {
            if self.rounds.get() != ticket.0 {
                return Poll::Ready(());
            }
            let mut waiting = self.waiting.borrow_mut();
            match waiting.get_mut(&wait.number) {
                Some(waker) => waker.clone_from(context.waker()),
                None => _ = waiting.insert(wait.number, context.waker().clone()),
            }
            Poll::Pending
        })
        .await;
    }

    /// Waits until `condition` holds; it is looked at again each time the signal is raised.
    pub async fn wait_until(&self, mut condition: impl FnMut() -> bool) {
        loop {
            let ticket = self.ticket();
            if condition() {
                return;
            }
            self.raised_since(ticket).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn a_raise_between_the_ticket_and_the_wait_is_not_missed() {
        let signal = Signal::default();
        let ticket = signal.ticket();
        assert!(signal.raised_since(ticket).now_or_never().is_none());
        signal.raise();
        assert!(signal.raised_since(ticket).now_or_never().is_some());
    }

    #[test]
    fn a_wait_that_is_dropped_leaves_nothing_behind() {
        let signal = Signal::default();
        for _ in 0..100 {
            let ticket = signal.ticket();
            assert!(signal.raised_since(ticket).now_or_never().is_none());
        }
        assert!(signal.waiting.borrow().is_empty());
    }
}
