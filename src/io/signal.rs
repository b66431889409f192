//! A signal between tasks of one executor: many wait, one call wakes them all.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    task::{Poll, Waker},
};

/// Wakes waiters. To miss nothing, look at the condition after [`Signal::ticket`] and before the wait.
#[derive(Debug, Default)]
pub struct Signal {
    rounds: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
}

/// Remembers how often the signal had been raised.
#[derive(Clone, Copy, Debug)]
pub struct SignalTicket(u64);

impl Signal {
    /// A ticket of now: a wait with it ends if the signal is raised after this.
    #[must_use]
    pub fn ticket(&self) -> SignalTicket {
        SignalTicket(self.rounds.get())
    }

    /// Wakes everyone who waits.
    pub fn raise(&self) {
        self.rounds.set(self.rounds.get() + 1);
        for waker in self.waiting.take() {
            waker.wake();
        }
    }

    /// Waits until the signal is raised after the ticket was taken.
    pub async fn raised_since(&self, ticket: SignalTicket) {
        poll_fn(|context| {
            if self.rounds.get() != ticket.0 {
                return Poll::Ready(());
            }
            let mut waiting = self.waiting.borrow_mut();
            if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                waiting.push(context.waker().clone());
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
}
