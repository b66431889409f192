//! Closing sockets without cancelling what waits on them.
//!
//! A request that is dropped while the kernel has it is cancelled by its number. When more of those
//! come at once than a ring holds, glommio has already given the numbers to others, and a healthy
//! flush fails with ETIMEDOUT. So a socket with a request pending is shut down first, which completes
//! the request, and only then closed; a few at a time.

use std::{
    cell::RefCell, collections::VecDeque, os::fd::OwnedFd, pin::pin, rc::Rc, time::Duration,
};

use futures_util::future::{Either, select};
use glommio::io::PollableFd;
use rustix::net::Shutdown;

use super::{
    Shard,
    readiness::{Direction, Interest},
};

/// Sockets closed in one go.
const BATCH_COUNT: usize = 64;
/// A request that a shutdown does not complete is cancelled after all.
const PATIENCE: Duration = Duration::from_secs(1);

/// A socket and what waits on it. The requests come first: they must go before the descriptor.
pub(super) struct Socket {
    pub(super) read: Interest,
    pub(super) write: Interest,
    pub(super) descriptor: PollableFd<OwnedFd>,
}

impl Socket {
    pub(super) fn new(descriptor: OwnedFd) -> std::io::Result<Self> {
        Ok(Self {
            read: Interest::new(Direction::Read),
            write: Interest::new(Direction::Write),
            descriptor: PollableFd::new(descriptor).map_err(super::system_error)?,
        })
    }

    pub(super) fn shutdown(&self) {
        // It fails when there is no connection any more, which is what is wanted.
        let _ = rustix::net::shutdown(self.descriptor.get_ref(), Shutdown::Both);
    }

    fn is_pending(&self) -> bool {
        self.read.is_pending() || self.write.is_pending()
    }

    async fn settle(&self) {
        for interest in [&self.read, &self.write] {
            if interest.is_pending() {
                // An error ends the request as well as readiness does.
                let _ = interest.ready(&self.descriptor).await;
            }
        }
    }
}

/// Sockets that nobody owns any more.
#[derive(Default)]
pub(super) struct Closing {
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Socket>,
    running: bool,
    /// The executor ends: no more tasks.
    ended: bool,
}

impl Closing {
    /// No task may be started from now on; what comes is closed at once.
    pub(super) fn end(&self) {
        let queue = {
            let mut state = self.state.borrow_mut();
            state.ended = true;
            std::mem::take(&mut state.queue)
        };
        queue.iter().for_each(Socket::shutdown);
    }

    /// Sockets are still being closed.
    pub(super) fn is_running(&self) -> bool {
        self.state.borrow().running
    }

    fn next_batch(&self) -> Vec<Socket> {
        let mut state = self.state.borrow_mut();
        let count = state.queue.len().min(BATCH_COUNT);
        state.running = count > 0;
        state.queue.drain(..count).collect()
    }
}

impl Shard {
    /// Closes a socket: at once if nothing waits on it, else in a task.
    pub(super) fn close(self: &Rc<Self>, socket: Socket) {
        if !socket.is_pending() {
            return;
        }
        {
            let mut state = self.closing.state.borrow_mut();
            if state.ended {
                drop(state);
                socket.shutdown();
                return;
            }
            state.queue.push_back(socket);
            if std::mem::replace(&mut state.running, true) {
                return;
            }
        }
        let shard = Rc::clone(self);
        let task = async move { shard.close_queued().await };
        if let Ok(task) = glommio::spawn_local_into(task, self.foreground) {
            task.detach();
        }
    }

    async fn close_queued(&self) {
        loop {
            let batch = self.closing.next_batch();
            if batch.is_empty() {
                return;
            }
            batch.iter().for_each(Socket::shutdown);
            let settled = pin!(async {
                for socket in &batch {
                    socket.settle().await;
                }
            });
            let patience = pin!(glommio::timer::sleep(PATIENCE));
            if let Either::Right(_) = select(settled, patience).await {
                tracing::warn!("sockets did not settle within {PATIENCE:?}; closing them anyway");
            }
        }
    }
}
