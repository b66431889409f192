//! What one direction of a run measured: a stretch at a time, and in all.

use std::time::Duration;

use crate::{
    figures::{Figures, percentiles},
    meter::{Meter, Sample},
    results::{Interval, StreamResult},
};

/// A shorter rest at the end is no interval of its own.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(200);

/// One direction's figures over time.
#[derive(Debug)]
pub struct Stream {
    /// `produce` or `consume`.
    pub name: &'static str,
    meters: Vec<Meter>,
    total: Sample,
    intervals: Vec<Interval>,
    /// What was measured in the last of them.
    last: Sample,
    /// Records so far, those of the warm-up too.
    records: u64,
}

impl Stream {
    /// A direction with one meter for each worker.
    #[must_use]
    pub fn new(name: &'static str, meters: Vec<Meter>) -> Self {
        Self {
            name,
            meters,
            total: Sample::default(),
            intervals: Vec::new(),
            last: Sample::default(),
            records: 0,
        }
    }

    /// Takes what happened since the last call.
    fn take(&self) -> Sample {
        let mut sample = Sample::default();
        for meter in &self.meters {
            meter.drain_into(&mut sample);
        }
        sample
    }
}

/// What happened in one direction in one interval.
#[derive(Debug)]
pub struct Tick {
    /// The direction.
    pub name: &'static str,
    /// When the interval began, microseconds since 1970.
    pub from_us: i64,
    /// How long it was.
    pub duration_us: i64,
    /// Its figures.
    pub interval: Interval,
    /// Everything that was measured.
    pub sample: Sample,
    /// Records so far.
    pub records_so_far: u64,
}

/// The directions of a run, over time.
#[derive(Debug)]
pub struct Series {
    streams: Vec<Stream>,
    warm_up: Duration,
    start_us: i64,
    /// Start of the interval under way.
    interval_us: i64,
    /// Length of the last interval.
    last_us: i64,
    /// Length of all intervals that count.
    measured_us: i64,
}

impl Series {
    /// Nothing yet.
    #[must_use]
    pub fn new(streams: Vec<Stream>, warm_up: Duration) -> Self {
        Self {
            streams,
            warm_up,
            start_us: 0,
            interval_us: 0,
            last_us: 0,
            measured_us: 0,
        }
    }

    /// The run starts.
    pub fn begin(&mut self, now_us: i64) {
        self.start_us = now_us;
        self.interval_us = now_us;
    }

    /// Whether what comes next is left out of the totals.
    #[must_use]
    pub fn warms_up(&self) -> bool {
        // An interval that the warm-up ends in belongs to it.
        since(self.start_us, self.interval_us) < self.warm_up
    }

    /// Since the start.
    #[must_use]
    pub fn elapsed(&self, now_us: i64) -> Duration {
        since(self.start_us, now_us)
    }

    /// An interval ends.
    pub fn interval(&mut self, now_us: i64) -> Vec<Tick> {
        let warm_up = self.warms_up();
        let from_us = std::mem::replace(&mut self.interval_us, now_us);
        let duration_us = now_us - from_us;
        self.last_us = duration_us;
        if !warm_up {
            self.measured_us += duration_us;
        }
        let at_seconds = self.elapsed(now_us).as_secs_f64();
        let ticks = self.streams.iter_mut().map(|stream| {
            let sample = stream.take();
            if !warm_up {
                stream.total.add(&sample);
            }
            let interval = Interval {
                at_seconds,
                warm_up,
                figures: Figures::new(&sample, duration_us),
            };
            stream.intervals.push(interval);
            stream.records += sample.records;
            stream.last.clone_from(&sample);
            Tick {
                name: stream.name,
                from_us,
                duration_us,
                interval,
                sample,
                records_so_far: stream.records,
            }
        });
        ticks.collect()
    }

    /// The last interval ends. A rest that is too short for one belongs to the interval before, with its time: rates
    /// would be too high without it, and latencies too good without what was late.
    pub fn last_interval(&mut self, now_us: i64) -> Vec<Tick> {
        let nothing_else = self.measured_us == 0 && !self.warms_up();
        if nothing_else || since(self.interval_us, now_us) >= SHORTEST_INTERVAL {
            return self.interval(now_us);
        }
        let rests: Vec<Sample> = self.streams.iter().map(Stream::take).collect();
        if rests.iter().all(|rest| rest.records + rest.failed == 0) {
            return Vec::new();
        }
        let warm_up = self.warms_up();
        let rest_us = now_us - std::mem::replace(&mut self.interval_us, now_us);
        self.last_us += rest_us;
        if !warm_up {
            self.measured_us += rest_us;
        }
        let at_seconds = self.elapsed(now_us).as_secs_f64();
        for (stream, rest) in self.streams.iter_mut().zip(rests) {
            if !warm_up {
                stream.total.add(&rest);
            }
            stream.last.add(&rest);
            if let Some(interval) = stream.intervals.last_mut() {
                interval.at_seconds = at_seconds;
                interval.figures = Figures::new(&stream.last, self.last_us);
            }
        }
        Vec::new()
    }

    /// Everything, by direction.
    #[must_use]
    pub fn finish(self) -> Vec<Whole> {
        let measured_us = self.measured_us;
        let wholes = self.streams.into_iter().map(|stream| Whole {
            name: stream.name,
            result: StreamResult {
                total: Figures::new(&stream.total, measured_us),
                percentiles: percentiles(&stream.total),
                intervals: stream.intervals,
            },
            total: stream.total,
        });
        wholes.collect()
    }
}

/// One direction of a run that has ended.
#[derive(Debug)]
pub struct Whole {
    /// `produce` or `consume`.
    pub name: &'static str,
    /// For the document.
    pub result: StreamResult,
    /// Everything that was measured without the warm-up.
    pub total: Sample,
}

fn since(from_us: i64, until_us: i64) -> Duration {
    Duration::from_micros(u64::try_from(until_us - from_us).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_US: i64 = 1_000_000;

    #[test]
    fn the_warm_up_is_left_out_of_totals_and_kept_in_the_series() {
        let meter = Meter::default();
        let stream = Stream::new("produce", vec![meter.clone()]);
        let mut series = Series::new(vec![stream], Duration::from_secs(2));
        series.begin(0);
        for second in 1..=5 {
            meter.record(|sample| sample.records += 10);
            let ticks = series.interval(second * SECOND_US);
            assert_eq!(ticks[0].interval.warm_up, second <= 2, "second {second}");
            assert_eq!(ticks[0].records_so_far, second.unsigned_abs() * 10);
        }
        meter.record(|sample| sample.records += 7);
        assert!(series.last_interval(5 * SECOND_US + 1_000).is_empty());
        let whole = series.finish().remove(0);
        let total = whole.result.total;
        assert_eq!(total.records, 37);
        assert!((total.seconds - 3.001).abs() < 1e-9, "{total:?}");
        let intervals = whole.result.intervals;
        assert_eq!(intervals.len(), 5);
        let counted = intervals.iter().filter(|it| !it.warm_up);
        let records: u64 = counted.map(|it| it.figures.records).sum();
        assert_eq!(
            records, total.records,
            "the total is the sum of its intervals"
        );
        assert!((intervals[4].at_seconds - 5.001).abs() < 1e-9);
    }

    #[test]
    fn a_long_rest_is_an_interval_and_so_is_all_there_is() {
        let mut series = Series::new(vec![Stream::new("consume", Vec::new())], Duration::ZERO);
        series.begin(0);
        assert_eq!(series.last_interval(SECOND_US / 2).len(), 1);
        assert!(series.last_interval(SECOND_US / 2 + 9).is_empty());
        assert!((series.finish()[0].result.total.seconds - 0.5).abs() < 1e-9);
        let mut short = Series::new(vec![Stream::new("consume", Vec::new())], Duration::ZERO);
        short.begin(0);
        assert_eq!(short.last_interval(9_000).len(), 1);
    }
}
