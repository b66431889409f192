//! Time for measuring: microseconds since 1970 that never step back.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Reads the wall clock once and counts on from there by the monotonic one, so that a producer and
/// a consumer of one process agree to the microsecond. Those of two processes agree as well as
/// their hosts' clocks do.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    origin_us: i64,
}

impl Clock {
    /// A clock that starts now.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "the generator's only source of time"
    )]
    pub fn start() -> Self {
        let since_1970 = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        Self {
            origin: Instant::now(),
            origin_us: i64::try_from(since_1970.as_micros()).unwrap_or(i64::MAX),
        }
    }

    /// Microseconds since 1970.
    #[must_use]
    pub fn now_us(&self) -> i64 {
        let elapsed_us = i64::try_from(self.origin.elapsed().as_micros()).unwrap_or(i64::MAX);
        self.origin_us.saturating_add(elapsed_us)
    }
}
