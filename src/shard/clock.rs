//! Watches the wall clock for steps, which the monotonic clock does not follow.
//!
//! What a shard forgets by age it forgets for good, so a clock that jumps forwards is not believed at once:
//! retention by time waits until the new time has stood for [`BELIEVED_AFTER`], or the clock was set back.
//! Steps while the broker does not run are seen by nobody.

use std::{cell::Cell, time::Duration};

use crate::io::Monotonic;

/// A smaller difference is the clock being adjusted, or a look that took long.
const LEAST_STEP_MS: i64 = 60_000;
/// A clock that was set forwards is right if nobody has set it back for so long.
const BELIEVED_AFTER: Duration = Duration::from_secs(3600);

/// See the module.
#[derive(Default)]
pub(super) struct ClockWatch {
    /// Both clocks at the last look.
    last: Cell<Option<(Monotonic, i64)>>,
    /// How far ahead of what is believed the wall clock is, and since when.
    ahead: Cell<Option<(i64, Monotonic)>>,
}

impl ClockWatch {
    /// How far the wall clock was set since the last look, in milliseconds; 0 if it was not.
    pub fn look(&self, now: Monotonic, wall_ms: i64) -> i64 {
        let last = self.last.replace(Some((now, wall_ms)));
        let step_ms = last.map_or(0, |(then, then_ms)| {
            let passed_ms = i64::try_from(now.since(then).as_millis()).unwrap_or(i64::MAX);
            wall_ms.saturating_sub(then_ms).saturating_sub(passed_ms)
        });
        if step_ms.saturating_abs() < LEAST_STEP_MS {
            return 0;
        }
        let before_ms = match self.ahead.get() {
            Some((ahead_ms, _)) if self.is_doubted(now) => ahead_ms,
            _ => 0,
        };
        let ahead_ms = before_ms.saturating_add(step_ms);
        self.ahead
            .set((ahead_ms >= LEAST_STEP_MS).then_some((ahead_ms, now)));
        step_ms
    }

    /// The wall clock was set forwards not long ago: it may be wrong.
    pub fn is_doubted(&self, now: Monotonic) -> bool {
        let ahead = self.ahead.get();
        ahead.is_some_and(|(_, since)| now.since(since) < BELIEVED_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Monotonic {
        Monotonic(seconds * 1_000_000_000)
    }

    #[test]
    fn a_clock_that_jumps_ahead_is_believed_after_an_hour() {
        let clock = ClockWatch::default();
        assert_eq!(clock.look(at(0), 5_000_000), 0);
        assert_eq!(clock.look(at(10), 5_010_900), 0, "a look took long");
        assert_eq!(clock.look(at(20), 9_020_900), 4_000_000);
        assert!(clock.is_doubted(at(3619)));
        assert!(!clock.is_doubted(at(3620)));
        assert_eq!(clock.look(at(30), 9_030_900), 0);
    }

    #[test]
    fn one_that_is_set_back_again_is_believed_at_once() {
        let clock = ClockWatch::default();
        clock.look(at(0), 0);
        assert_eq!(clock.look(at(1), 601_000), 600_000);
        assert_eq!(clock.look(at(2), 902_000), 300_000);
        assert_eq!(clock.look(at(3), 303_000), -600_000);
        assert!(clock.is_doubted(at(4)), "it is ahead by five minutes still");
        assert_eq!(clock.look(at(4), 4_000), -300_000);
        assert!(!clock.is_doubted(at(4)));
        assert_eq!(clock.look(at(5), -995_000), -1_000_000);
        assert!(!clock.is_doubted(at(5)), "behind deletes nothing");
    }
}
