//! Waiting until a socket is ready, in one direction.
//!
//! glommio adds a waker to a list at every poll and cancels the kernel's request when a wait is
//! dropped. Here the request outlives the wait: a `receive` that is dropped and tried again, however
//! often, holds one request and one waker, and cancels nothing.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures_util::task::AtomicWaker;
use glommio::io::{PollState, PollableFd};

use super::system_error;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Read,
    Write,
}

/// See the module. One task at a time waits on it; the latest is the one that is woken.
pub(super) struct Interest {
    direction: Direction,
    request: RefCell<PollState>,
    /// A request is with the kernel, or its result waits in `request`.
    armed: Cell<bool>,
    signal: Arc<Signal>,
}

/// The waker that glommio sees: it outlives the tasks that wait.
#[derive(Default)]
struct Signal {
    fired: AtomicBool,
    waker: AtomicWaker,
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.fired.store(true, Ordering::Release);
        self.waker.wake();
    }
}

impl Interest {
    pub(super) fn new(direction: Direction) -> Self {
        Self {
            direction,
            request: RefCell::default(),
            armed: Cell::new(false),
            signal: Arc::default(),
        }
    }

    /// A request is with the kernel.
    pub(super) fn is_pending(&self) -> bool {
        self.armed.get() && !self.signal.fired.load(Ordering::Acquire)
    }

    /// Waits until the socket may be ready. It may also not be: try, and wait again.
    pub(super) async fn ready(&self, socket: &PollableFd<OwnedFd>) -> io::Result<()> {
        poll_fn(|context| self.poll(context, socket)).await
    }

    fn poll(&self, context: &Context<'_>, socket: &PollableFd<OwnedFd>) -> Poll<io::Result<()>> {
        self.signal.waker.register(context.waker());
        if self.is_pending() {
            return Poll::Pending;
        }
        self.signal.fired.store(false, Ordering::Release);
        let waker = Waker::from(Arc::clone(&self.signal));
        let mut context = Context::from_waker(&waker);
        let mut request = self.request.borrow_mut();
        let polled = match self.direction {
            Direction::Read => socket.poll_readable(&mut context, &mut request),
            Direction::Write => socket.poll_writable(&mut context, &mut request),
        };
        self.armed.set(polled.is_pending());
        polled.map_err(system_error)
    }
}
