//! Inboxes: how shards and the control plane talk to a shard. Bounded, never blocking.
//!
//! Each shard has two lanes. The *control* lane carries what must not be refused for load (new
//! metadata, shutdown); the *data* lane carries requests and connections from other shards. A full
//! lane refuses at once: two full inboxes that waited for each other would never move again.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering, fence},
    },
    task::{Context, Poll},
};

use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError, bounded};
use futures_util::task::AtomicWaker;

/// Messages a lane holds before it refuses.
pub const LANE_CAPACITY: usize = 4096;

/// The lane is full, or the shard is gone; the message comes back.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused<M>(pub M);

/// What both ends of a lane share.
#[derive(Debug)]
struct Lane<M> {
    messages: Receiver<M>,
    waker: AtomicWaker,
    /// Nobody receives any more.
    ended: AtomicBool,
}

impl<M> Lane<M> {
    /// Drops what nobody will receive, so that those who wait for an answer to it hear of that.
    fn clear(&self) {
        while self.messages.try_recv().is_ok() {}
    }
}

/// Sends to one lane of one shard, from any thread.
#[derive(Debug)]
pub struct Outbound<M> {
    sender: Sender<M>,
    lane: Arc<Lane<M>>,
}

impl<M> Clone for Outbound<M> {
    fn clone(&self) -> Self {
        Self {
            sender: self.sender.clone(),
            lane: Arc::clone(&self.lane),
        }
    }
}

impl<M> Outbound<M> {
    /// Nobody receives on this lane any more.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.lane.ended.load(Ordering::Acquire)
    }

    /// Hands a message over and wakes the shard. Messages of one sender arrive in order. A message
    /// that the shard did not receive before it ended is dropped.
    ///
    /// # Errors
    /// [`Refused`] if the lane is full or the shard has ended.
    pub fn try_send(&self, message: M) -> Result<(), Refused<M>> {
        if self.has_ended() {
            return Err(Refused(message));
        }
        match self.sender.try_send(message) {
            Ok(()) => {
                self.lane.waker.wake();
                // Either this sees the end, or the end's look at the lane comes after the message.
                fence(Ordering::SeqCst);
                if self.lane.ended.load(Ordering::SeqCst) {
                    self.lane.clear();
                }
                Ok(())
            }
            Err(TrySendError::Full(message)) => Err(Refused(message)),
            Err(TrySendError::Disconnected(_)) => unreachable!("the lane holds a receiver"),
        }
    }
}

/// Receives on one lane; lives on its shard.
#[derive(Debug)]
pub struct Inbound<M> {
    lane: Arc<Lane<M>>,
}

impl<M> Drop for Inbound<M> {
    fn drop(&mut self) {
        self.lane.ended.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        self.lane.clear();
    }
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
        self.lane.waker.register(context.waker());
        match self.try_receive() {
            Some(ready) => Poll::Ready(ready),
            None => Poll::Pending,
        }
    }

    fn try_receive(&mut self) -> Option<Option<M>> {
        match self.lane.messages.try_recv() {
            Ok(message) => Some(Some(message)),
            Err(TryRecvError::Disconnected) => Some(None),
            Err(TryRecvError::Empty) => None,
        }
    }
}

/// A lane of [`LANE_CAPACITY`] messages.
#[must_use]
pub fn lane<M>() -> (Outbound<M>, Inbound<M>) {
    let (sender, messages) = bounded(LANE_CAPACITY);
    let lane = Arc::new(Lane {
        messages,
        waker: AtomicWaker::new(),
        ended: AtomicBool::new(false),
    });
    let inbound = Inbound {
        lane: Arc::clone(&lane),
    };
    (Outbound { sender, lane }, inbound)
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
        drop(inbound);
        assert_eq!(out.try_send(8), Err(Refused(8)));
    }

    /// Whoever sent them may wait for an answer.
    #[test]
    fn messages_to_a_shard_that_ends_are_dropped() {
        let (out, inbound) = lane();
        let message = Arc::new(());
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let (out, message) = (out.clone(), Arc::clone(&message));
                std::thread::spawn(move || {
                    while !matches!(out.try_send(Arc::clone(&message)), Err(Refused(_))) {}
                })
            })
            .collect();
        std::thread::yield_now();
        drop(inbound);
        threads.into_iter().for_each(|it| it.join().unwrap());
        assert_eq!(Arc::strong_count(&message), 1);
    }

    #[test]
    fn an_empty_lane_waits_and_a_lane_without_senders_ends() {
        let (out, mut inbound) = lane::<u8>();
        assert_eq!(inbound.receive().now_or_never(), None);
        drop(out);
        assert_eq!(inbound.receive().now_or_never(), Some(None));
    }
}
