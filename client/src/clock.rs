//! The client's only clocks: machines are told the time, shells ask here.

use std::time::Duration;

use tokio::time::Instant;

/// A timeout longer than this is as good as none.
pub(crate) const FAR_AWAY: Duration = Duration::from_secs(86_400 * 365);

/// Time since the client started; what machines call `now`. Follows tokio's clock, which tests can
/// pause.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// When `now` will be `at`.
    pub(crate) fn instant(&self, at: Duration) -> Instant {
        self.start + at
    }
}

/// Milliseconds since 1970: the timestamp of a record that brings none.
#[expect(
    clippy::disallowed_methods,
    reason = "records carry wall time, and the client's edge is where it is read"
)]
pub(crate) fn wall_time_ms() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(0))
}

/// A number that differs between processes: seeds the jitter of back-offs, nothing else.
pub(crate) fn jitter_seed() -> u64 {
    let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
    high ^ low
}
