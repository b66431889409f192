//! Which repeats of a log line are written: a burst from each place in the code, then silence until
//! its period is over. Pure: time comes in.

use std::{collections::BTreeMap, time::Duration};

/// Lines from one place that are written in each period.
pub(super) const BURST: u32 = 100;
/// How long a place that was too loud stays silent.
const PERIOD: Duration = Duration::from_secs(10);

/// Where in the code a line comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) file: &'static str,
    pub(super) line: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass,
    /// Write it, and say how many before it were not.
    PassAfter(u64),
    Drop,
}

#[derive(Debug)]
struct Window {
    begin: Duration,
    written: u32,
    left_out: u64,
}

/// What was written lately. Its size is bounded by the places in the code that log.
#[derive(Debug, Default)]
pub(super) struct Limiter(BTreeMap<Place, Window>);

impl Limiter {
    pub(super) fn admit(&mut self, place: Place, now: Duration) -> Verdict {
        let fresh = || Window {
            begin: now,
            written: 0,
            left_out: 0,
        };
        let window = self.0.entry(place).or_insert_with(fresh);
        let left_out = window.left_out;
        if now.saturating_sub(window.begin) >= PERIOD {
            *window = fresh();
        }
        if window.written == BURST {
            window.left_out += 1;
            return Verdict::Drop;
        }
        window.written += 1;
        match (window.written, left_out) {
            (1, 1..) => Verdict::PassAfter(left_out),
            _ => Verdict::Pass,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_the_rest_is_counted() {
        let mut limiter = Limiter::default();
        let loud = Place {
            file: "a.rs",
            line: 1,
        };
        let other = Place {
            file: "a.rs",
            line: 2,
        };
        for _ in 0..BURST {
            assert_eq!(limiter.admit(loud, Duration::ZERO), Verdict::Pass);
        }
        for _ in 0..7 {
            assert_eq!(limiter.admit(loud, Duration::from_secs(9)), Verdict::Drop);
        }
        assert_eq!(limiter.admit(other, Duration::from_secs(9)), Verdict::Pass);
        assert_eq!(limiter.admit(loud, PERIOD), Verdict::PassAfter(7));
        assert_eq!(limiter.admit(loud, PERIOD), Verdict::Pass);
        assert_eq!(limiter.admit(loud, 3 * PERIOD), Verdict::Pass);
    }
}
