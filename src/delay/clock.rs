//! The clock that due times are judged by: the wall clock, made monotonic.

use std::time::Duration;

/// Never goes back. When the wall clock is set forward it follows; when that is set back, it runs on at half
/// speed until the wall clock has caught up: nothing is delivered twice as early as it should, and what is
/// to come after a while takes at most twice the while.
#[derive(Clone, Copy, Debug)]
pub struct DelayClock {
    now_us: i64,
    read_at: Duration,
}

impl DelayClock {
    /// A clock that shows the wall clock's time; `monotonic` is time since any beginning.
    #[must_use]
    pub fn new(monotonic: Duration, wall_ms: i64) -> Self {
        Self {
            now_us: wall_ms.saturating_mul(1_000),
            read_at: monotonic,
        }
    }

    /// Milliseconds since 1970.
    pub fn now_ms(&mut self, monotonic: Duration, wall_ms: i64) -> i64 {
        let passed = monotonic.saturating_sub(self.read_at);
        let half_us = i64::try_from(passed.as_micros() / 2).unwrap_or(i64::MAX);
        let wall_us = wall_ms.saturating_mul(1_000);
        // Read again within a microsecond or two, it loses nothing: the rest counts next time.
        if half_us > 0 || wall_us > self.now_us {
            self.now_us = wall_us.max(self.now_us.saturating_add(half_us));
            self.read_at = monotonic;
        }
        self.now_us / 1_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn it_follows_the_wall_clock_forward_and_never_goes_back() {
        let mut clock = DelayClock::new(MS, 1_000);
        assert_eq!(clock.now_ms(2 * MS, 1_001), 1_001);
        assert_eq!(clock.now_ms(3 * MS, 9_000), 9_000, "set forward");
        assert_eq!(
            clock.now_ms(103 * MS, 1_100),
            9_050,
            "set back: at half speed"
        );
        assert_eq!(clock.now_ms(203 * MS, 1_200), 9_100);
        assert_eq!(clock.now_ms(204 * MS, 9_101), 9_101, "caught up");
    }

    #[test]
    fn within_a_millisecond_it_does_not_run_ahead() {
        let mut clock = DelayClock::new(MS, 1_000);
        for step in 0..1_000_u32 {
            let at = MS + MS * step / 1_000;
            assert_eq!(clock.now_ms(at, 1_000), 1_000, "{step}");
        }
    }
}
