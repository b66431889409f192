//! What this shard has forwarded and other shards have not answered, in bytes.
//!
//! A shard that has too much that is not yet durable stops reading from its own connections; those of
//! other shards, which forward to it, it can't stop. They stop by themselves at a limit of their own.

use std::{cell::Cell, rc::Rc};

use crate::io::Signal;

/// Counts forwarded bytes.
#[derive(Debug, Default)]
pub(super) struct Forwarded {
    bytes: Cell<usize>,
    freed: Signal,
}

/// Bytes under way to other shards, until dropped.
#[derive(Debug)]
pub(super) struct UnderWay {
    forwarded: Rc<Forwarded>,
    bytes: usize,
}

impl Forwarded {
    /// Counts bytes until they are answered. Never refuses: whoever forwards has read them already.
    pub fn add(self: &Rc<Self>, bytes: usize) -> UnderWay {
        self.bytes.set(self.bytes.get() + bytes);
        UnderWay {
            forwarded: Rc::clone(self),
            bytes,
        }
    }

    /// Waits until less than `limit` is under way.
    pub async fn room(&self, limit: usize) {
        let below = || self.bytes.get() < limit;
        self.freed.wait_until(below).await;
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let bytes = &self.forwarded.bytes;
        bytes.set(bytes.get() - self.bytes);
        self.forwarded.freed.raise();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn forwarded_produces_make_room_when_they_are_answered() {
        let forwarded = Rc::new(Forwarded::default());
        let first = forwarded.add(60);
        assert!(forwarded.room(100).now_or_never().is_some());
        let second = forwarded.add(60);
        let mut room = Box::pin(forwarded.room(100));
        assert!(room.as_mut().now_or_never().is_none());
        drop(first);
        assert!(room.now_or_never().is_some());
        drop(second);
        assert_eq!(forwarded.bytes.get(), 0);
    }
}
