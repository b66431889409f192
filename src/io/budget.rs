//! A budget of bytes on one shard: taken before memory is filled, given back when it is freed.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    rc::Rc,
    task::{Poll, Waker},
};

/// Bytes that may be in use at once. Takers wait in order, so a large one is not starved.
#[derive(Debug)]
pub struct Budget {
    total: usize,
    used: Cell<usize>,
    permits: Cell<usize>,
    next_ticket: Cell<u64>,
    waiting: RefCell<VecDeque<(u64, Waker)>>,
}

/// Bytes taken from a budget; dropping it gives them back.
#[derive(Debug)]
pub struct Permit {
    budget: Rc<Budget>,
    bytes: usize,
}

impl Budget {
    /// A budget of `total` bytes.
    #[must_use]
    pub fn new(total: usize) -> Rc<Self> {
        Rc::new(Self {
            total,
            used: Cell::new(0),
            permits: Cell::new(0),
            next_ticket: Cell::new(0),
            waiting: RefCell::default(),
        })
    }

    /// Bytes in use.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.get()
    }

    /// All of it.
    #[must_use]
    pub fn total(&self) -> usize {
        self.total
    }

    /// Somebody waits for memory that others hold.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        !self.waiting.borrow().is_empty()
    }

    /// More is in use than there should be: see [`Budget::force`].
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.used.get() > self.total
    }

    /// Bytes of a permit, on average.
    #[must_use]
    pub fn mean(&self) -> usize {
        self.used.get() / self.permits.get().max(1)
    }

    /// Takes bytes, whether they are there or not: for what cannot be refused any more.
    #[must_use]
    pub fn force(self: &Rc<Self>, bytes: usize) -> Permit {
        self.used.set(self.used.get() + bytes);
        self.permits.set(self.permits.get() + 1);
        Permit {
            budget: Rc::clone(self),
            bytes,
        }
    }

    /// Takes bytes at once, or not at all. More than the whole budget counts as the whole, so that
    /// anything within the protocol's limits can pass, alone.
    #[must_use]
    pub fn try_take(self: &Rc<Self>, bytes: usize) -> Option<Permit> {
        if self.waiting.borrow().is_empty() {
            self.grab(bytes)
        } else {
            None
        }
    }

    fn grab(self: &Rc<Self>, bytes: usize) -> Option<Permit> {
        let bytes = bytes.min(self.total);
        (self.used.get() + bytes <= self.total).then(|| self.force(bytes))
    }

    /// Takes bytes, waiting for others to give theirs back. Dropping the future leaves the queue.
    pub async fn take(self: &Rc<Self>, bytes: usize) -> Permit {
        if let Some(permit) = self.try_take(bytes) {
            return permit;
        }
        let ticket = self.next_ticket.get();
        self.next_ticket.set(ticket + 1);
        let _leave = LeaveQueue {
            budget: self,
            ticket,
        };
        poll_fn(|context| {
            let mut waiting = self.waiting.borrow_mut();
            let first = waiting.front().is_none_or(|(other, _)| *other == ticket);
            if first && let Some(permit) = self.grab(bytes) {
                return Poll::Ready(permit);
            }
            // Tickets are in order; with thousands of waiters a look at each of them for each would
            // take the shard's whole time.
            match waiting.binary_search_by_key(&ticket, |(other, _)| *other) {
                Ok(at) => waiting[at].1.clone_from(context.waker()),
                Err(_) => waiting.push_back((ticket, context.waker().clone())),
            }
            Poll::Pending
        })
        .await
    }

    fn wake_first(&self) {
        if let Some((_, waker)) = self.waiting.borrow().front() {
            waker.wake_by_ref();
        }
    }
}

/// Takes a waiter out of the queue however its wait ends, and lets the next one look.
struct LeaveQueue<'a> {
    budget: &'a Budget,
    ticket: u64,
}

impl Drop for LeaveQueue<'_> {
    fn drop(&mut self) {
        let left = {
            let waiting = &mut *self.budget.waiting.borrow_mut();
            let at = waiting.binary_search_by_key(&self.ticket, |(ticket, _)| *ticket);
            at.ok().and_then(|at| waiting.remove(at))
        };
        // Let go of outside the borrow: the last waker of a task may take the task with it.
        drop(left);
        self.budget.wake_first();
    }
}

impl Permit {
    /// Gives back all but `bytes`.
    pub fn shrink(&mut self, bytes: usize) {
        if bytes < self.bytes {
            self.budget
                .used
                .set(self.budget.used.get() - (self.bytes - bytes));
            self.bytes = bytes;
            self.budget.wake_first();
        }
    }

    /// Bytes it stands for.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.budget.used.set(self.budget.used.get() - self.bytes);
        self.budget.permits.set(self.budget.permits.get() - 1);
        self.budget.wake_first();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn a_large_taker_is_not_starved_by_small_ones() {
        let budget = Budget::new(100);
        let held = budget.try_take(60).expect("room for 60 of 100");
        let mut large = Box::pin(budget.take(80));
        assert!(large.as_mut().now_or_never().is_none());
        assert!(
            budget.try_take(10).is_none(),
            "a small one waits behind the large one"
        );
        drop(held);
        let large = large.now_or_never().expect("room for 80 of 100");
        assert_eq!(large.bytes(), 80);
        assert_eq!(budget.used(), 80);
        drop(large);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_waiter_that_gives_up_lets_the_next_one_in() {
        let budget = Budget::new(10);
        let held = budget.try_take(8).expect("room for 8 of 10");
        let mut first = Box::pin(budget.take(9));
        let mut second = Box::pin(budget.take(2));
        assert!(first.as_mut().now_or_never().is_none());
        assert!(second.as_mut().now_or_never().is_none());
        drop(first);
        assert!(second.now_or_never().is_some());
        drop(held);
    }

    #[test]
    fn more_than_the_whole_is_the_whole() {
        let budget = Budget::new(10);
        let all = budget.try_take(1000).expect("alone, anything passes");
        assert_eq!(all.bytes(), 10);
    }
}
