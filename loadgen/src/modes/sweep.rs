//! A grid of linger, batch size and rate, each point measured by itself.

use std::time::Duration;

use anyhow::Result;
use millstream_client::Linger;

use super::{
    knee::knee,
    points::{Points, show_size},
};
use crate::{
    args::{RatePoint, SweepArgs, WriteArgs},
    linger::LingerTime,
    load::{Kind, Load, usage},
    results::RunResult,
    run::Stage,
    units::{show_rounded, show_us},
    workload::{Extent, Writing, fill},
};

const DEFAULT_LINGERS: [Linger; 2] = [
    Linger::Fixed(Duration::ZERO),
    Linger::Fixed(Duration::from_millis(2)),
];
const DEFAULT_BATCH_SIZES: [u64; 2] = [16 << 10, 256 << 10];
const DEFAULT_DURATION: Duration = Duration::from_secs(3);
const DEFAULT_WARM_UP: Duration = Duration::from_secs(1);

/// The grid, and what is the same everywhere.
#[derive(Clone, Debug)]
pub struct Sweep {
    /// What is the same.
    pub base: Load,
    writing: Writing,
    lingers: Vec<LingerTime>,
    batch_sizes: Vec<u64>,
    rates: Vec<RatePoint>,
}

/// Points with the same batches.
#[derive(Clone, Debug)]
pub struct Curve<'a> {
    /// How long batches wait.
    pub linger_ms: LingerTime,
    /// Bytes at which they are full.
    pub batch_size: u64,
    /// By the rate that was wanted, the one without any last.
    pub points: Vec<&'a RunResult>,
}

impl Sweep {
    /// A sweep.
    ///
    /// # Errors
    /// If the arguments contradict each other.
    pub fn of(mut args: SweepArgs) -> Result<Self> {
        let base = many(&mut args.write, DEFAULT_WARM_UP, DEFAULT_DURATION)?;
        let told = &args.write.produce;
        let lingers = or_else(args.lingers, told.linger, &DEFAULT_LINGERS.map(LingerTime));
        let batch_sizes = or_else(args.batch_sizes, told.batch_size, &DEFAULT_BATCH_SIZES);
        let Some(writing) = base.writing().cloned() else {
            return Err(usage("a sweep writes"));
        };
        Ok(Self {
            base,
            writing,
            lingers,
            batch_sizes,
            rates: args.rates,
        })
    }

    /// Runs every point, or those until somebody wants results.
    ///
    /// # Errors
    /// What kept one from starting.
    pub async fn run(&self, stage: &mut Stage<'_>) -> Result<Vec<RunResult>> {
        let mut points = Points::new(stage, self.base.clone());
        'grid: for &linger in &self.lingers {
            for &batch_size in &self.batch_sizes {
                let writing = Writing {
                    linger,
                    batch_size,
                    // A batch has to fit.
                    buffer_memory: self.writing.buffer_memory.max(batch_size),
                    ..self.writing.clone()
                };
                self.curve(&mut points, writing).await?;
                if points.is_interrupted() {
                    break 'grid;
                }
            }
        }
        let results = std::mem::take(&mut points.results);
        for line in curves(&results).iter().filter_map(knee_line) {
            points.say(&line);
        }
        Ok(results)
    }

    /// Every rate with the same batches; the fastest first, if others are parts of it.
    async fn curve(&self, points: &mut Points<'_, '_>, writing: Writing) -> Result<()> {
        let mut max = None;
        let is_relative = |rate: &RatePoint| matches!(rate, RatePoint::OfMax(_));
        if self.rates.iter().any(is_relative) || self.rates.contains(&RatePoint::Max) {
            let result = points
                .run(Writing {
                    rate: 0,
                    ..writing.clone()
                })
                .await?;
            max = result.map(throughput);
        }
        for rate in &self.rates {
            let rate = match rate {
                RatePoint::Max => continue,
                RatePoint::Records(rate) => *rate,
                RatePoint::OfMax(part) => rounded(max.unwrap_or(0.0) * part),
            };
            if points.is_interrupted() {
                return Ok(());
            }
            points
                .run(Writing {
                    rate,
                    ..writing.clone()
                })
                .await?;
        }
        Ok(())
    }
}

/// An axis: the values listed, or else the one value that a single run would have.
fn or_else<T: Clone>(list: Vec<T>, one: Option<T>, default: &[T]) -> Vec<T> {
    match (list.is_empty(), one) {
        (false, _) => list,
        (true, Some(one)) => vec![one],
        (true, None) => default.to_vec(),
    }
}

/// The base of a mode with many runs.
///
/// # Errors
/// If the arguments contradict each other.
pub fn many(args: &mut WriteArgs, warm_up: Duration, duration: Duration) -> Result<Load> {
    fill(&mut args.extent, Some(&mut args.produce))?;
    let extent = &mut args.extent;
    extent.warm_up.get_or_insert(warm_up);
    if extent.records.is_none() {
        extent.duration.get_or_insert(duration);
    }
    let outputs = &extent.outputs;
    if outputs.hlog.is_some() || outputs.percentiles.is_some() {
        return Err(usage("--hlog and --percentiles are of a single run"));
    }
    if extent.verify {
        return Err(usage(
            "a mode of many runs does not verify: use both or soak",
        ));
    }
    Ok(Load {
        kind: Kind::Produce(Writing::of(&args.produce)),
        extent: Extent::of(&args.extent),
    })
}

/// Two digits are enough to say a rate, and easier to compare.
fn rounded(rate: f64) -> u64 {
    let step = 10_f64.powf((rate.max(1.0).log10().floor() - 1.0).max(0.0));
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive and far below 2^64"
    )]
    let rate = ((rate / step).round() * step) as u64;
    rate.max(1)
}

/// The points of a sweep, by how they batched.
#[must_use]
pub fn curves(results: &[RunResult]) -> Vec<Curve<'_>> {
    let mut curves: Vec<Curve<'_>> = Vec::new();
    for result in results {
        let Some(settings) = &result.settings.produce else {
            continue;
        };
        let (linger_ms, batch_size) = (settings.linger_ms, settings.batch_size);
        let known = curves
            .iter_mut()
            .find(|curve| curve.linger_ms == linger_ms && curve.batch_size == batch_size);
        match known {
            Some(curve) => curve.points.push(result),
            None => curves.push(Curve {
                linger_ms,
                batch_size,
                points: vec![result],
            }),
        }
    }
    for curve in &mut curves {
        // Where the broker falls behind, a curve turns back: that must show.
        curve
            .points
            .sort_by_key(|run| wanted(run).unwrap_or(u64::MAX));
    }
    curves
}

impl Curve<'_> {
    /// The point beyond which latency climbs faster than throughput.
    #[must_use]
    pub fn knee(&self) -> Option<&RunResult> {
        let measured = |result: &&RunResult| {
            let latency = result.produce.as_ref()?.total.latency_us?;
            #[expect(clippy::cast_precision_loss, reason = "latencies are far below 2^53")]
            Some((throughput(result), latency.p99 as f64))
        };
        let points: Option<Vec<(f64, f64)>> = self.points.iter().map(measured).collect();
        self.points.get(knee(&points?)?).copied()
    }

    /// `linger 2 ms, 64 KiB batches`.
    #[must_use]
    pub fn label(&self) -> String {
        let linger = self.linger_ms;
        format!("linger {linger}, {} batches", show_size(self.batch_size))
    }
}

/// The rate that was wanted, if it was not as fast as possible.
#[must_use]
pub fn wanted(result: &RunResult) -> Option<u64> {
    let rate = result.settings.produce.as_ref()?.rate;
    (rate > 0).then_some(rate)
}

/// Records a second.
#[must_use]
pub fn throughput(result: &RunResult) -> f64 {
    let total = result.produce.as_ref().map(|it| it.total);
    total.map_or(0.0, |total| total.records_per_second)
}

fn knee_line(curve: &Curve<'_>) -> Option<String> {
    let knee = curve.knee()?;
    let p99 = knee.produce.as_ref()?.total.latency_us?.p99;
    Some(format!(
        "    knee  {}: {} records/s at a p99 of {}",
        curve.label(),
        show_rounded(throughput(knee)),
        show_us(p99)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_round() {
        assert_eq!(rounded(123_456.0), 120_000);
        assert_eq!(rounded(99.4), 99);
        assert_eq!(rounded(7.4), 7);
        assert_eq!(rounded(0.2), 1);
    }
}
