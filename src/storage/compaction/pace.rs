//! How fast a shard's compaction may read and write, all its logs together.

use std::{cell::Cell, time::Duration};

use crate::io::{Clock, Monotonic};

/// A budget of bytes a second.
#[derive(Debug)]
pub struct Pace {
    bytes_per_second: u64,
    /// When what was spent so far is paid for.
    paid_at: Cell<Monotonic>,
}

impl Pace {
    /// A budget of so many bytes a second.
    #[must_use]
    pub fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second: bytes_per_second.max(1),
            paid_at: Cell::default(),
        }
    }

    /// Spends `bytes`, and waits until they are paid for.
    pub(super) async fn spend<C: Clock>(&self, clock: &C, bytes: usize) {
        let nanos = (bytes as u128) * 1_000_000_000 / u128::from(self.bytes_per_second);
        let price = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        // What was not spent earlier is not saved up.
        let paid_at = self.paid_at.get().max(clock.now()) + price;
        self.paid_at.set(paid_at);
        clock.sleep_until(paid_at).await;
    }
}
