//! Time: a monotonic clock for waiting, the wall clock for what users see.

use std::{ops::Add, time::Duration};

/// A point on the executor's monotonic clock, in nanoseconds since an arbitrary start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Monotonic(pub u64);

impl Monotonic {
    /// Time from `earlier` to `self`, or zero if it is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Monotonic {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }
}

/// Tells time and waits for it.
pub trait Clock {
    /// The monotonic clock.
    fn now(&self) -> Monotonic;

    /// Milliseconds since 1970 on the wall clock; may step in both directions.
    fn wall_ms(&self) -> i64;

    /// Waits. Dropping the future ends the wait.
    async fn sleep(&self, duration: Duration);

    /// Waits until a point in time; returns at once if it has passed.
    async fn sleep_until(&self, deadline: Monotonic) {
        let wait = deadline.since(self.now());
        if !wait.is_zero() {
            self.sleep(wait).await;
        }
    }
}
