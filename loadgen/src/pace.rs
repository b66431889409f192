//! When each record is *intended* to be sent, at a rate shared by several producers: evenly, or at
//! random as independent clients would (a Poisson process).
//!
//! Open loop: the schedule does not wait for the broker. A latency measured from the intended time
//! contains the delay that a stalled broker imposes on the records queued behind the stall, which a
//! closed loop would leave out ("coordinated omission").

use clap::ValueEnum;
use rand::{SeedableRng, rngs::SmallRng};
use rand_distr::{Distribution, Exp1};

/// How records follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Arrivals {
    /// Evenly
    Constant,
    /// At random, as from many independent clients
    Poisson,
}

impl Arrivals {
    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Constant => "constant",
            Self::Poisson => "poisson",
        }
    }
}

/// The whole run's schedule.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// When it begins, microseconds since 1970.
    pub start_us: i64,
    /// Records a second, of all producers together; not 0: as fast as possible has no schedule.
    pub rate: u64,
    /// How they follow each other.
    pub arrivals: Arrivals,
    /// Decides what is random.
    pub seed: u64,
}

/// One producer's part of a schedule. Pure: times are handed in and out.
#[derive(Clone, Debug)]
pub struct Pace {
    start_us: i64,
    rate: u64,
    gaps: Gaps,
}

#[derive(Clone, Debug)]
enum Gaps {
    /// Record `first + n * stride` of the whole schedule is this producer's n-th.
    Even { first: u64, stride: u64, sent: u64 },
    Random {
        /// Since the start.
        next_ns: f64,
        mean_ns: f64,
        random: Box<SmallRng>,
    },
}

impl Pace {
    /// The part of producer `index` of `producers`. Even schedules interleave evenly; random ones
    /// add up to one that is random.
    ///
    /// # Panics
    /// If the rate is 0.
    #[must_use]
    pub fn new(schedule: &Schedule, index: u32, producers: u32) -> Self {
        let Schedule {
            start_us,
            rate,
            arrivals,
            seed,
        } = *schedule;
        assert!(rate > 0, "an unlimited rate has no schedule");
        let gaps = match arrivals {
            Arrivals::Constant => Gaps::Even {
                first: u64::from(index),
                stride: u64::from(producers),
                sent: 0,
            },
            Arrivals::Poisson => {
                let mut random = SmallRng::seed_from_u64(seed.wrapping_add(u64::from(index)));
                #[expect(clippy::cast_precision_loss, reason = "rates are far below 2^53")]
                let mean_ns = f64::from(producers) * 1e9 / rate as f64;
                Gaps::Random {
                    next_ns: gap(mean_ns, &mut random),
                    mean_ns,
                    random: Box::new(random),
                }
            }
        };
        Self {
            start_us,
            rate,
            gaps,
        }
    }

    /// When the next record is intended to be sent, microseconds since 1970.
    #[must_use]
    pub fn next_us(&self) -> i64 {
        let after_us = match &self.gaps {
            Gaps::Even {
                first,
                stride,
                sent,
            } => {
                let number = u128::from(*first) + u128::from(*sent) * u128::from(*stride);
                let after_us = number * 1_000_000 / u128::from(self.rate);
                i64::try_from(after_us).expect("a schedule within 292,000 years")
            }
            #[expect(
                clippy::cast_possible_truncation,
                reason = "saturates after 292,000 years"
            )]
            Gaps::Random { next_ns, .. } => (next_ns / 1e3) as i64,
        };
        self.start_us + after_us
    }

    /// The next record was sent: on to the one after.
    pub fn advance(&mut self) {
        match &mut self.gaps {
            Gaps::Even { sent, .. } => *sent += 1,
            Gaps::Random {
                next_ns,
                mean_ns,
                random,
            } => *next_ns += gap(*mean_ns, random),
        }
    }
}

/// The time between two events of a Poisson process.
fn gap(mean_ns: f64, random: &mut SmallRng) -> f64 {
    let gap: f64 = Exp1.sample(random);
    gap * mean_ns
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(rate: u64, arrivals: Arrivals) -> Schedule {
        Schedule {
            start_us: 1_000,
            rate,
            arrivals,
            seed: 1,
        }
    }

    fn times(schedule: &Schedule, producers: u32, each: usize) -> Vec<i64> {
        let mut times: Vec<i64> = (0..producers)
            .flat_map(|index| {
                let mut pace = Pace::new(schedule, index, producers);
                (0..each).map(move |_| {
                    let at = pace.next_us();
                    pace.advance();
                    at
                })
            })
            .collect();
        times.sort_unstable();
        times
    }

    #[test]
    fn producers_interleave_to_the_whole_rate() {
        let found = times(&schedule(1_000, Arrivals::Constant), 3, 100);
        let want: Vec<i64> = (0..300).map(|number| 1_000 + number * 1_000).collect();
        assert_eq!(found, want);
    }

    #[test]
    fn an_odd_rate_does_not_drift() {
        let mut pace = Pace::new(&schedule(7, Arrivals::Constant), 0, 1);
        for _ in 0..7_000_000 {
            pace.advance();
        }
        assert_eq!(pace.next_us(), 1_000_000_001_000);
    }

    #[test]
    fn poisson_arrivals_keep_the_rate_and_are_random() {
        let found = times(&schedule(10_000, Arrivals::Poisson), 2, 50_000);
        let seconds = found[found.len() - 1] / 1_000_000;
        assert!(
            (9..=10).contains(&seconds),
            "100,000 records take {seconds} s"
        );
        let mut in_each_100_ms = vec![0.0; 95];
        for at in &found {
            if let Some(count) = in_each_100_ms.get_mut(usize::try_from(at / 100_000).unwrap()) {
                *count += 1.0;
            }
        }
        let count = 95.0;
        let mean: f64 = in_each_100_ms.iter().sum::<f64>() / count;
        let squares = in_each_100_ms.iter().map(|it| (it - mean).powi(2));
        // Events of a Poisson process: the variance of their number is its mean.
        let dispersion = squares.sum::<f64>() / count / mean;
        assert!((0.6..1.5).contains(&dispersion), "{dispersion}");
        assert_eq!(
            found,
            times(&schedule(10_000, Arrivals::Poisson), 2, 50_000)
        );
    }
}
