//! The requests of one connection that wait for their replies.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Notify, oneshot};

use super::frame::IncomingFrame;
use crate::error::RequestError;

type Waiter = oneshot::Sender<Result<IncomingFrame, RequestError>>;

/// Shared by the handles of a connection and its task.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    state: Mutex<State>,
    /// Rung when a handle closes the connection, so that its task ends.
    pub closed: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiters: BTreeMap<u64, Waiter>,
    next_id: u64,
    /// Set once: nothing is sent any more.
    failed: Option<RequestError>,
    established: bool,
}

impl Pending {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A correlation id, and where its reply will come; at once an error if the connection is over.
    pub(crate) fn expect_reply(
        &self,
    ) -> (u64, oneshot::Receiver<Result<IncomingFrame, RequestError>>) {
        let (waiter, reply) = oneshot::channel();
        let mut state = self.state();
        state.next_id += 1;
        let id = state.next_id;
        match &state.failed {
            // The receiver is in our hands, so this send cannot fail.
            Some(error) => drop(waiter.send(Err(error.clone()))),
            None => drop(state.waiters.insert(id, waiter)),
        }
        (id, reply)
    }

    /// Hands a reply over. False if nobody asked.
    pub(crate) fn replied(&self, frame: IncomingFrame) -> bool {
        let waiter = self.state().waiters.remove(&frame.header.correlation_id);
        let asked = waiter.is_some();
        // A caller that lost interest is no error.
        waiter.map(|waiter| waiter.send(Ok(frame)));
        asked
    }

    /// Ends the connection: every waiter, and every later request, gets `error`. The first stands.
    pub(crate) fn fail(&self, error: &RequestError) {
        let waiters = {
            let mut state = self.state();
            if state.failed.is_none() {
                state.failed = Some(error.clone());
            }
            std::mem::take(&mut state.waiters)
        };
        for waiter in waiters.into_values() {
            drop(waiter.send(Err(error.clone())));
        }
        self.closed.notify_one();
    }

    pub(crate) fn set_established(&self) {
        self.state().established = true;
    }

    /// Whether the handshake succeeded once.
    pub(crate) fn is_established(&self) -> bool {
        self.state().established
    }

    pub(crate) fn is_failed(&self) -> bool {
        self.state().failed.is_some()
    }
}
