//! Waiting until a socket is ready, in one direction.
//!
//! The request outlives the wait: a `receive` that is dropped and tried again, however often, holds
//! one request. It is cancelled when the socket goes.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    os::fd::OwnedFd,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use rustix::event::PollFlags;

use super::ring::{Operation, Request, Ring};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Read,
    Write,
}

/// See the module. One task at a time waits on it; the latest is the one that is woken.
pub(super) struct Interest {
    flags: PollFlags,
    request: RefCell<Option<Operation>>,
    /// The last try found or left nothing: not worth another before the socket is ready.
    exhausted: Cell<bool>,
}

impl Interest {
    pub(super) fn new(direction: Direction) -> Self {
        Self {
            flags: match direction {
                Direction::Read => PollFlags::IN,
                Direction::Write => PollFlags::OUT,
            },
            request: RefCell::new(None),
            exhausted: Cell::new(false),
        }
    }

    /// A request is with the kernel.
    pub(super) fn is_pending(&self) -> bool {
        self.request.borrow().is_some()
    }

    /// Whether a try is worth it before anything is waited for.
    pub(super) fn is_exhausted(&self) -> bool {
        self.exhausted.get()
    }

    pub(super) fn set_exhausted(&self, exhausted: bool) {
        self.exhausted.set(exhausted);
    }

    /// Waits until the socket may be ready. It may also not be: try, and wait again. Errors of the
    /// socket make it ready, so that the next try finds them.
    pub(super) async fn ready(&self, ring: &Rc<Ring>, socket: &Arc<OwnedFd>) {
        poll_fn(|context| self.poll(context, ring, socket)).await;
    }

    fn poll(&self, context: &Context<'_>, ring: &Rc<Ring>, socket: &Arc<OwnedFd>) -> Poll<()> {
        let mut request = self.request.borrow_mut();
        let flags = u32::from(self.flags.bits());
        let operation = request.get_or_insert_with(|| ring.submit(Request::poll(socket, flags)));
        if operation.poll_answer(context).is_pending() {
            return Poll::Pending;
        }
        *request = None;
        self.exhausted.set(false);
        Poll::Ready(())
    }
}
