//! How long operations took: every one is kept, for there are few enough.

use std::time::Duration;

/// Times of operations, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latencies {
    sorted_ns: Vec<u64>,
}

/// Times in microseconds that so many of the operations did not exceed.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Percentiles {
    /// Arithmetic mean.
    pub mean: f64,
    /// Half of them.
    pub p50: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1,000.
    pub p999: f64,
    /// All.
    pub max: f64,
}

impl Latencies {
    /// Of operations in any order.
    #[must_use]
    pub fn of(times: impl IntoIterator<Item = Duration>) -> Self {
        let times = times.into_iter();
        let mut sorted_ns: Vec<u64> = times
            .map(|time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
            .collect();
        sorted_ns.sort_unstable();
        Self { sorted_ns }
    }

    /// How many operations there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.sorted_ns.len() as u64
    }

    /// The usual ones; all zero if there was no operation.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "times for people")]
    pub fn percentiles(&self) -> Percentiles {
        let sum: u128 = self.sorted_ns.iter().map(|ns| u128::from(*ns)).sum();
        Percentiles {
            mean: sum as f64 / 1e3 / self.sorted_ns.len().max(1) as f64,
            p50: self.at(500),
            p99: self.at(990),
            p999: self.at(999),
            max: self.at(1000),
        }
    }

    /// The least time that `per_mille` of all did not exceed, in microseconds.
    #[expect(clippy::cast_precision_loss, reason = "times for people")]
    fn at(&self, per_mille: usize) -> f64 {
        let rank = (self.sorted_ns.len() * per_mille).div_ceil(1000).max(1);
        let ns = self.sorted_ns.get(rank - 1).copied().unwrap_or(0);
        ns as f64 / 1e3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks() {
        let times = (1..=1000).rev().map(Duration::from_micros);
        let percentiles = Latencies::of(times).percentiles();
        let expected = Percentiles {
            mean: 500.5,
            p50: 500.0,
            p99: 990.0,
            p999: 999.0,
            max: 1000.0,
        };
        assert_eq!(percentiles, expected);
        let one = Latencies::of([Duration::from_micros(7)]).percentiles();
        assert_eq!((one.p50, one.p999, one.max), (7.0, 7.0, 7.0));
        assert_eq!(Latencies::default().percentiles().max, 0.0);
    }
}
