//! The figures of a stretch of time: what is printed each second, and what goes into the JSON.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    meter::Sample,
    results::Percentile,
    units::{show_count, show_rounded, show_us},
};

/// Latency percentiles in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// Half are faster.
    pub p50: u64,
    /// Nine of ten are faster.
    pub p90: u64,
    /// 99 of 100 are faster.
    pub p99: u64,
    /// 999 of 1,000 are faster.
    pub p99_9: u64,
    /// The slowest.
    pub max: u64,
}

/// Throughput and latency of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Records acknowledged, or received.
    pub records: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// Records that were not acknowledged in the end.
    pub failed: u64,
    /// Records a second.
    pub records_per_second: f64,
    /// Megabytes (10^6 bytes) a second.
    pub mb_per_second: f64,
    /// Latencies in microseconds, if any were measured.
    pub latency_us: Option<Latency>,
}

impl Figures {
    /// The figures of a sample taken over this long.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "rates are rounded anyway")]
    pub fn new(sample: &Sample, duration_us: i64) -> Self {
        let seconds = (duration_us.max(1)) as f64 / 1e6;
        let histogram = &sample.latency_us;
        let latency_us = (!histogram.is_empty()).then(|| Latency {
            p50: histogram.value_at_quantile(0.5),
            p90: histogram.value_at_quantile(0.9),
            p99: histogram.value_at_quantile(0.99),
            p99_9: histogram.value_at_quantile(0.999),
            max: histogram.max(),
        });
        Self {
            seconds,
            records: sample.records,
            bytes: sample.bytes,
            failed: sample.failed,
            records_per_second: sample.records as f64 / seconds,
            mb_per_second: sample.bytes as f64 / seconds / 1e6,
            latency_us,
        }
    }
}

/// Steps of the latency curve between 0 and 50 percent, between 50 and 75, and so on towards 100.
const STEPS_PER_HALF: u32 = 5;

/// The latency curve: HdrHistogram's percentile distribution.
#[must_use]
pub fn percentiles(sample: &Sample) -> Vec<Percentile> {
    let histogram = &sample.latency_us;
    if histogram.is_empty() {
        return Vec::new();
    }
    let values = histogram.iter_quantiles(STEPS_PER_HALF);
    let points = values.map(|value| Percentile {
        percent: value.quantile_iterated_to() * 100.0,
        us: value.value_iterated_to().min(histogram.max()),
        count: histogram.count_between(0, value.value_iterated_to()),
    });
    points.collect()
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = show_rounded(self.records_per_second);
        write!(f, "{:>9.1} MB/s {rate:>13} records/s", self.mb_per_second)?;
        if let Some(latency) = &self.latency_us {
            for (name, us) in [
                ("p50", latency.p50),
                ("p90", latency.p90),
                ("p99", latency.p99),
                ("p99.9", latency.p99_9),
                ("max", latency.max),
            ] {
                write!(f, "  {name} {:>7}", show_us(us))?;
            }
        }
        if self.failed > 0 {
            write!(f, "  FAILED {}", show_count(self.failed))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_happened() {
        let mut sample = Sample {
            records: 500_000,
            bytes: 500_000_000,
            ..Sample::default()
        };
        let empty = Figures::new(&sample, 1_000_000);
        assert_eq!(empty.latency_us, None);
        for us in 1..=1_000 {
            sample.latency(0, us, 1);
        }
        let figures = Figures::new(&sample, 500_000);
        assert_eq!(figures.latency_us.map(|latency| latency.p99), Some(990));
        assert_eq!(
            figures.to_string(),
            "   1000.0 MB/s     1,000,000 records/s  p50  500 us  p90  900 us  p99  990 us  \
             p99.9  999 us  max 1.00 ms"
        );
    }
}
