//! How long batches wait for company.

use std::time::Duration;

/// How long a batch that is not full waits for more records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linger {
    /// So long after its first record.
    Fixed(Duration),
    /// Not at all while little is sent; where one request follows another, so long that about four
    /// are in flight, and 5 ms at most. A record waits for a quarter of the round trips that are
    /// seen, and so the longer the busier the broker is.
    Auto,
}

impl Default for Linger {
    fn default() -> Self {
        Self::Fixed(Duration::ZERO)
    }
}

impl From<Duration> for Linger {
    fn from(linger: Duration) -> Self {
        Self::Fixed(linger)
    }
}
