//! Inboxes: how shards and the control plane talk to a shard. Bounded, never blocking.
//!
//! Each shard has two lanes. The *control* lane carries what must not be refused for load (new
//! metadata, shutdown); the *data* lane carries requests and connections from other shards. A full
//! lane refuses at once: two full inboxes that waited for each other would never move again.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
};

use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError, bounded};
use futures_util::task::AtomicWaker;

/// Messages a lane holds before it refuses.
pub const LANE_CAPACITY: usize = 4096;

/// The lane is full, or the shard is gone; the message comes back.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused<M>(pub M);

/// Sends to one lane of one shard, from any thread.
#[derive(Debug)]
pub struct Outbound<M> {
    sender: Sender<M>,
    waker: Arc<AtomicWaker>,
}

impl<M> Clone for Outbound<M> {
    fn clone(&self) -> Self {
        Self {
            sender: self.sender.clone(),
            waker: Arc::clone(&self.waker),
        }
    }
}

impl<M> Outbound<M> {
    /// Hands a message over and wakes the shard. Messages of one sender arrive in order.
    ///
    /// # Errors
    /// [`Refused`] if the lane is full or the shard has ended.
    pub fn try_send(&self, message: M) -> Result<(), Refused<M>> {
        match self.sender.try_send(message) {
            Ok(()) => {
                self.waker.wake();
                Ok(())
            }
            Err(TrySendError::Full(message) | TrySendError::Disconnected(message)) => {
                Err(Refused(message))
            }
        }
    }
}

/// Receives on one lane; lives on its shard.
#[derive(Debug)]
pub struct Inbound<M> {
    receiver: Receiver<M>,
    waker: Arc<AtomicWaker>,
}

impl<M> Inbound<M> {
    /// Waits for the next message; `None` when every sender is gone.
    pub async fn receive(&mut self) -> Option<M> {
        poll_fn(|context| self.poll(context)).await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<M>> {
        if let Some(ready) = self.try_receive() {
            return Poll::Ready(ready);
        }
        // A message may have come between the look and the registration: look again after it.
        self.waker.register(context.waker());
        match self.try_receive() {
            Some(ready) => Poll::Ready(ready),
            None => Poll::Pending,
        }
    }

    fn try_receive(&mut self) -> Option<Option<M>> {
        match self.receiver.try_recv() {
            Ok(message) => Some(Some(message)),
            Err(TryRecvError::Disconnected) => Some(None),
            Err(TryRecvError::Empty) => None,
        }
    }
}

/// A lane of [`LANE_CAPACITY`] messages.
#[must_use]
pub fn lane<M>() -> (Outbound<M>, Inbound<M>) {
    let (sender, receiver) = bounded(LANE_CAPACITY);
    let waker = Arc::new(AtomicWaker::new());
    (
        Outbound {
            sender,
            waker: Arc::clone(&waker),
        },
        Inbound { receiver, waker },
    )
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn a_full_lane_gives_the_message_back() {
        let (out, mut inbound) = lane();
        for number in 0..LANE_CAPACITY {
            assert_eq!(out.try_send(number), Ok(()));
        }
        assert_eq!(out.try_send(7), Err(Refused(7)));
        assert_eq!(inbound.receive().now_or_never(), Some(Some(0)));
        assert_eq!(out.try_send(7), Ok(()));
    }

    #[test]
    fn an_empty_lane_waits_and_a_lane_without_senders_ends() {
        let (out, mut inbound) = lane::<u8>();
        assert_eq!(inbound.receive().now_or_never(), None);
        drop(out);
        assert_eq!(inbound.receive().now_or_never(), Some(None));
    }
}
