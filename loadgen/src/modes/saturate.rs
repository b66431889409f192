//! The highest rate whose 99th percentile stays under a bound.

use std::time::Duration;

use anyhow::Result;

use super::{
    points::{Points, keeps_up},
    search::Search,
    sweep::{many, throughput},
};
use crate::{
    args::SaturateArgs,
    load::{Load, usage},
    results::{RunResult, Saturation},
    run::Stage,
    units::{show_count, show_us},
    workload::Writing,
};

const DEFAULT_DURATION: Duration = Duration::from_secs(4);
const DEFAULT_WARM_UP: Duration = Duration::from_secs(1);
/// As fast as possible, batches form otherwise than at a rate: the search begins somewhat above.
const ABOVE_CEILING: f64 = 1.1;

/// Records of a run that a 99th percentile takes.
const MIN_SAMPLES: u64 = 200;

/// A search.
#[derive(Clone, Debug)]
pub struct Saturate {
    /// What is the same at each rate.
    pub base: Load,
    writing: Writing,
    p99: Duration,
    precision: f64,
}

impl Saturate {
    /// A search.
    ///
    /// # Errors
    /// If the arguments contradict each other.
    pub fn of(mut args: SaturateArgs) -> Result<Self> {
        let base = many(&mut args.write, DEFAULT_WARM_UP, DEFAULT_DURATION)?;
        let Some(writing) = base.writing().cloned() else {
            return Err(usage("a search writes"));
        };
        Ok(Self {
            base,
            writing,
            p99: args.p99,
            precision: args.precision,
        })
    }

    /// Searches until the rate is found, or somebody wants results.
    ///
    /// # Errors
    /// What kept a run from starting.
    pub async fn run(&self, stage: &mut Stage<'_>) -> Result<(Vec<RunResult>, Saturation)> {
        let bound_us = u64::try_from(self.p99.as_micros()).unwrap_or(u64::MAX);
        let mut points = Points::new(stage, self.base.clone());
        let fastest = points.run(self.at(0)).await?;
        let ceiling = fastest.map_or(0.0, throughput) * ABOVE_CEILING;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "positive and far below 2^64"
        )]
        let mut search = Search::new(ceiling as u64, self.precision).not_below(self.lowest());
        while let Some(rate) = search.next() {
            if points.is_interrupted() {
                break;
            }
            let result = points.run(self.at(rate)).await?;
            let holds = result.is_some_and(|result| holds(result, bound_us));
            // A run that was cut short says nothing.
            if !points.is_interrupted() {
                search.told(rate, holds);
            }
        }
        let found = search.found();
        let bound = show_us(bound_us);
        let confirmed = search.is_confirmed();
        points.say(&match found.map(show_count) {
            Some(rate) if confirmed => {
                format!("   found  {rate} records/s keep a p99 of at most {bound}, twice")
            }
            Some(rate) => format!(
                "   found  {rate} records/s kept a p99 of at most {bound}; not confirmed: this host \
                 is too uneven for --duration, or the search was stopped"
            ),
            None if points.is_interrupted() => {
                format!("   found  no rate yet that keeps a p99 of at most {bound}")
            }
            None => format!(
                "   found  no rate keeps a p99 of at most {bound}: the bound is below what this disk does even at \
                 {} records/s, and below that a run has too few records for a p99; give a higher --p99",
                show_count(search.lowest_failed())
            ),
        });
        let saturation = Saturation {
            p99_bound_us: bound_us,
            rate: found,
            confirmed,
            precision: self.precision,
        };
        Ok((std::mem::take(&mut points.results), saturation))
    }

    /// Below this a run has too few records for its 99th percentile to mean anything.
    fn lowest(&self) -> u64 {
        let duration = self.base.extent.duration.unwrap_or(DEFAULT_DURATION);
        let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        (MIN_SAMPLES * 1000).div_ceil(duration_ms.max(1))
    }

    fn at(&self, rate: u64) -> Writing {
        Writing {
            rate,
            ..self.writing.clone()
        }
    }
}

/// Whether a rate was kept within the bound.
fn holds(result: &RunResult, bound_us: u64) -> bool {
    let latency = result.produce.as_ref().and_then(|it| it.total.latency_us);
    let within = latency.is_some_and(|latency| latency.p99 <= bound_us);
    within && result.is_ok() && keeps_up(result)
}
