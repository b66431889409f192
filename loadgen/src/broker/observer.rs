//! Looks at the broker's counters while a run is under way, never making it wait.
//!
//! A shard publishes its counters once a second. So the figures count from a look at counters that
//! have just been published to one at counters published after the end; a look that finds nothing
//! new is no look.

use std::{mem, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{task::JoinHandle, time::sleep};

use super::metrics::{BrokerFigures, Scrape, scrape};
use crate::clock::Clock;

/// Between two looks that wait for counters to be published.
const FRESH_EVERY: Duration = Duration::from_millis(100);
/// Longest wait for that: a shard that is late must not hold up the results.
const FRESH_PATIENCE_US: i64 = 3_000_000;
/// Looks closer together than this show nothing but their own rounding.
const SHORTEST_INTERVAL_US: i64 = 500_000;

/// What the broker did in one stretch of the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BrokerInterval {
    /// Seconds since the start at the end of the interval.
    pub at_seconds: f64,
    /// Flushes a second.
    pub flushes_per_second: f64,
    /// Bytes written for each flush.
    pub bytes_per_flush: Option<f64>,
    /// Cores in use.
    pub cpu_cores: f64,
    /// Memory in use, in bytes.
    pub resident_bytes: f64,
}

#[derive(Clone, Debug)]
struct Look {
    at_us: i64,
    scrape: Scrape,
}

/// Looks on request. Where no admin port is known, there is nothing to see.
#[derive(Debug)]
pub struct Observer {
    admin: Option<String>,
    clock: Clock,
    start_us: i64,
    /// What the run's figures count from, once it is known.
    baseline: Option<Look>,
    baseline_wanted: Option<JoinHandle<Option<Look>>>,
    last: Option<Look>,
    intervals: Vec<BrokerInterval>,
    under_way: Option<JoinHandle<Option<Look>>>,
}

impl Observer {
    /// An observer of the broker with this admin address.
    #[must_use]
    pub fn new(admin: Option<String>, clock: Clock) -> Self {
        Self {
            admin,
            clock,
            start_us: clock.now_us(),
            baseline: None,
            baseline_wanted: None,
            last: None,
            intervals: Vec::new(),
            under_way: None,
        }
    }

    /// A run starts: intervals count from now, and so do figures until told otherwise.
    pub async fn begin(&mut self) {
        self.start_us = self.clock.now_us();
        self.intervals.clear();
        // Nothing is under way yet, so that what was published is right, or nearly so.
        let look = match &self.admin {
            Some(admin) => look(admin, self.clock).await,
            None => None,
        };
        self.baseline.clone_from(&look);
        self.last = look;
    }

    /// What happened before now does not count.
    pub fn measure_from_now(&mut self) {
        if let Some(admin) = self.admin.clone() {
            let fresh = fresh_look(admin, self.clock, self.last.clone());
            self.baseline_wanted = Some(tokio::spawn(fresh));
        }
    }

    /// Takes what the last look brought, and starts another. Must be called within a runtime.
    pub async fn look(&mut self) {
        if self.under_way.as_ref().is_some_and(|it| !it.is_finished()) {
            return;
        }
        self.settle().await;
        if let Some(admin) = self.admin.clone() {
            let clock = self.clock;
            let look = async move { look(&admin, clock).await };
            self.under_way = Some(tokio::spawn(look));
        }
    }

    /// Waits for the last counters; what the broker did while it counted, and over time.
    pub async fn finish(&mut self) -> (Option<BrokerFigures>, Vec<BrokerInterval>) {
        let ended_us = self.clock.now_us();
        self.settle().await;
        if let Some(baseline) = self.baseline_wanted.take()
            && let Ok(Some(look)) = baseline.await
        {
            self.baseline = Some(look);
        }
        if let Some(admin) = self.admin.clone()
            && let Some(look) = fresh_look(admin, self.clock, None).await
        {
            // What it shows had happened by the end of the run.
            let at_us = ended_us;
            let last = Look { at_us, ..look };
            self.took(last.clone());
            self.last = Some(last);
        }
        let figures = match (self.baseline.take(), &self.last) {
            (Some(baseline), Some(last)) => Some(figures(&baseline, last)),
            _ => None,
        };
        (figures, mem::take(&mut self.intervals))
    }

    async fn settle(&mut self) {
        if let Some(under_way) = self.under_way.take()
            && let Ok(Some(look)) = under_way.await
        {
            self.took(look);
        }
    }

    fn took(&mut self, look: Look) {
        if let Some(last) = &self.last {
            let is_fresh = look.scrape.is_newer_than(&last.scrape);
            if !is_fresh || look.at_us - last.at_us < SHORTEST_INTERVAL_US {
                return;
            }
            self.intervals.push(interval(last, &look, self.start_us));
        }
        self.last = Some(look);
    }
}

async fn look(admin: &str, clock: Clock) -> Option<Look> {
    let scrape = scrape(admin).await.ok()?;
    Some(Look {
        at_us: clock.now_us(),
        scrape,
    })
}

/// A look at counters that every shard has published since `earlier`, or since now.
async fn fresh_look(admin: String, clock: Clock, earlier: Option<Look>) -> Option<Look> {
    let began_us = clock.now_us();
    let earlier = match earlier {
        Some(earlier) => earlier,
        None => look(&admin, clock).await?,
    };
    loop {
        let found = look(&admin, clock).await?;
        let waited_us = found.at_us - began_us;
        if found.scrape.is_newer_than(&earlier.scrape) || waited_us > FRESH_PATIENCE_US {
            return Some(found);
        }
        sleep(FRESH_EVERY).await;
    }
}

#[expect(clippy::cast_precision_loss, reason = "rates are rounded anyway")]
fn figures(from: &Look, until: &Look) -> BrokerFigures {
    let seconds = (until.at_us - from.at_us).max(1) as f64 / 1e6;
    until.scrape.since(&from.scrape, seconds)
}

#[expect(clippy::cast_precision_loss, reason = "rates are rounded anyway")]
fn interval(from: &Look, until: &Look, start_us: i64) -> BrokerInterval {
    let figures = figures(from, until);
    BrokerInterval {
        at_seconds: (until.at_us - start_us) as f64 / 1e6,
        flushes_per_second: figures.flushes_per_second,
        bytes_per_flush: figures.bytes_per_flush,
        cpu_cores: figures.cpu_seconds / figures.seconds,
        resident_bytes: figures.resident_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(second: i64, heartbeat: i64) -> Look {
        let text = format!(
            "# TYPE millstream_shard_flushes counter\n\
             millstream_shard_flushes_total {}\n\
             # TYPE millstream_shard_heartbeat counter\n\
             millstream_shard_heartbeat_total{{shard=\"0\"}} {heartbeat}\n",
            heartbeat * 10
        );
        Look {
            at_us: second * 1_000_000,
            scrape: Scrape::parse(&text),
        }
    }

    #[test]
    fn a_look_that_finds_nothing_new_is_no_interval() {
        let mut observer = Observer::new(None, Clock::start());
        observer.start_us = 0;
        for (second, heartbeat) in [(0, 0), (1, 1), (2, 1), (3, 3)] {
            observer.took(seen(second, heartbeat));
        }
        let intervals = &observer.intervals;
        assert_eq!(intervals.len(), 2, "{intervals:?}");
        assert_eq!(intervals[1].at_seconds, 3.0);
        assert_eq!(intervals[1].flushes_per_second, 10.0);
    }

    #[test]
    fn figures_count_from_the_baseline() {
        let mut observer = Observer::new(None, Clock::start());
        observer.took(seen(0, 0));
        observer.took(seen(4, 4));
        observer.baseline = Some(seen(2, 2));
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let (figures, _) = runtime.unwrap().block_on(observer.finish());
        let figures = figures.unwrap();
        assert_eq!((figures.flushes, figures.seconds), (20.0, 2.0));
    }
}
