//! Counts and latencies, written by workers in batches and taken by the reporter each second.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hdrhistogram::Histogram;

/// Longest latency told apart; longer ones count as this.
const MAX_LATENCY_US: u64 = 3_600_000_000;

/// What happened in some stretch of time.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Records acknowledged, or received.
    pub records: u64,
    /// Bytes of their values.
    pub bytes: u64,
    /// Records that were not acknowledged in the end.
    pub failed: u64,
    /// Latencies in microseconds.
    pub latency_us: Histogram<u64>,
}

impl Default for Sample {
    fn default() -> Self {
        let latency_us = Histogram::new_with_bounds(1, MAX_LATENCY_US, 3)
            .expect("the bounds and digits are constants that fit");
        Self {
            records: 0,
            bytes: 0,
            failed: 0,
            latency_us,
        }
    }
}

impl Sample {
    /// `count` records took this long.
    pub fn latency(&mut self, from_us: i64, until_us: i64, count: u64) {
        let us = u64::try_from(until_us.saturating_sub(from_us)).unwrap_or(0);
        self.latency_us
            .saturating_record_n(us.clamp(1, MAX_LATENCY_US), count);
    }

    /// Adds another stretch.
    pub fn add(&mut self, other: &Self) {
        self.records += other.records;
        self.bytes += other.bytes;
        self.failed += other.failed;
        self.latency_us
            .add(&other.latency_us)
            .expect("all histograms have the same bounds");
    }

    fn clear(&mut self) {
        self.records = 0;
        self.bytes = 0;
        self.failed = 0;
        self.latency_us.reset();
    }
}

/// Shared by one worker and the reporter. A worker takes the lock once a batch, so it is never
/// contended for long.
#[derive(Clone, Debug, Default)]
pub struct Meter(Arc<Mutex<Sample>>);

impl Meter {
    /// Records what happened.
    pub fn record<T>(&self, write: impl FnOnce(&mut Sample) -> T) -> T {
        write(&mut self.lock())
    }

    /// Moves what happened since the last call into `total`.
    pub fn drain_into(&self, total: &mut Sample) {
        let mut sample = self.lock();
        total.add(&sample);
        sample.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Sample> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_drained_is_counted_once() {
        let meter = Meter::default();
        meter.record(|sample| {
            sample.records += 3;
            sample.bytes += 300;
            sample.latency(1_000, 1_500, 2);
            sample.latency(1_000, 900, 1);
        });
        let mut total = Sample::default();
        meter.drain_into(&mut total);
        meter.drain_into(&mut total);
        assert_eq!((total.records, total.bytes), (3, 300));
        assert_eq!(total.latency_us.len(), 3);
        assert_eq!(total.latency_us.max(), 500);
        assert_eq!(
            total.latency_us.min(),
            1,
            "a clock that differs gives no negative time"
        );
    }
}
