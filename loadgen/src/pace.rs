//! When each record is *intended* to be sent, at a fixed rate shared by several producers.
//!
//! Open loop: the schedule does not wait for the broker. A latency measured from the intended time
//! contains the delay that a stalled broker imposes on the records queued behind the stall, which a
//! closed loop would leave out ("coordinated omission").

/// One producer's part of the schedule. Pure: times are handed in and out.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    start_us: i64,
    rate: u64,
    first: u64,
    stride: u64,
    sent: u64,
}

impl Pace {
    /// Producer `index` of `producers`, together sending `rate` records a second from `start_us`.
    /// Their records interleave evenly.
    ///
    /// # Panics
    /// If `rate` is 0: no schedule, send as fast as possible.
    #[must_use]
    pub fn new(start_us: i64, rate: u64, index: usize, producers: usize) -> Self {
        assert!(rate > 0, "an unlimited rate has no schedule");
        Self {
            start_us,
            rate,
            first: index as u64,
            stride: producers as u64,
            sent: 0,
        }
    }

    /// When the next record is intended to be sent, microseconds since 1970.
    #[must_use]
    pub fn next_us(&self) -> i64 {
        let number = u128::from(self.first) + u128::from(self.sent) * u128::from(self.stride);
        let after_us = number * 1_000_000 / u128::from(self.rate);
        self.start_us + i64::try_from(after_us).expect("a schedule within 292,000 years")
    }

    /// The next record was sent: on to the one after.
    pub fn advance(&mut self) {
        self.sent += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn producers_interleave_to_the_whole_rate() {
        let mut times: Vec<i64> = (0..3)
            .flat_map(|index| {
                let mut pace = Pace::new(1_000, 1_000, index, 3);
                (0..100).map(move |_| {
                    let at = pace.next_us();
                    pace.advance();
                    at
                })
            })
            .collect();
        times.sort_unstable();
        let want: Vec<i64> = (0..300).map(|number| 1_000 + number * 1_000).collect();
        assert_eq!(times, want);
    }

    #[test]
    fn an_odd_rate_does_not_drift() {
        let mut pace = Pace::new(0, 7, 0, 1);
        for _ in 0..7_000_000 {
            pace.advance();
        }
        assert_eq!(pace.next_us(), 1_000_000_000_000);
    }
}
