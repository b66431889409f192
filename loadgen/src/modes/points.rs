//! The runs of a sweep or a search: each with a topic of its own, which is gone afterwards, so that
//! none finds what another left; and a line for each.

use anyhow::Result;

use crate::{
    load::{Kind, Load},
    results::RunResult,
    run::{Stage, run_once},
    units::{show_bytes, show_count, show_rounded, show_us},
    workload::Writing,
};

/// Topics of such runs, unless one is named: a number follows.
const TOPIC: &str = "loadgen-point";

/// Runs one after another.
#[derive(Debug)]
pub struct Points<'a, 'b> {
    stage: &'a mut Stage<'b>,
    base: Load,
    /// What was measured.
    pub results: Vec<RunResult>,
}

impl<'a, 'b> Points<'a, 'b> {
    /// Runs that differ from this load in how it writes.
    pub fn new(stage: &'a mut Stage<'b>, base: Load) -> Self {
        stage.tells_intervals = false;
        stage.console.say(&header());
        Self {
            stage,
            base,
            results: Vec::new(),
        }
    }

    /// Whether somebody wants results now.
    pub fn is_interrupted(&self) -> bool {
        self.stage.interrupted
    }

    /// Says something between the lines of the table.
    pub fn say(&self, line: &str) {
        self.stage.console.say(line);
    }

    /// Runs the load once, written in this way; nothing if it was stopped before it measured.
    ///
    /// # Errors
    /// What kept it from starting.
    pub async fn run(&mut self, writing: Writing) -> Result<Option<&RunResult>> {
        let mut load = self.base.clone();
        let name = self.base.extent.topic.as_deref().unwrap_or(TOPIC);
        let name = format!("{name}-{}", self.results.len());
        load.extent.topic = Some(name.clone());
        load.kind = Kind::Produce(writing);
        let result = run_once(&load, self.stage).await;
        for topic in load.extent.topic_names(&name) {
            // A left-over takes space and nothing else; what matters is the run.
            let _ = self.stage.admin.delete_topic(&topic).await;
        }
        let result = result?;
        let measured = result.produce.as_ref().map_or(0, |it| it.total.records);
        if self.stage.interrupted && measured == 0 {
            return Ok(None);
        }
        self.stage.console.say(&line(&result));
        self.results.push(result);
        Ok(self.results.last())
    }
}

fn header() -> String {
    format!(
        "{:>8} {:>9} {:>11} {:>11} {:>8} {:>8} {:>8} {:>8} {:>8} {:>10} {:>9}",
        "linger",
        "batch",
        "wanted/s",
        "records/s",
        "MB/s",
        "p50",
        "p99",
        "p99.9",
        "max",
        "flushes/s",
        "a flush"
    )
}

fn line(result: &RunResult) -> String {
    let settings = result.settings.produce.as_ref();
    let linger = settings.map(|it| it.linger_ms).unwrap_or_default();
    let batch = settings.map_or(0, |it| it.batch_size);
    let wanted = match settings.map_or(0, |it| it.rate) {
        0 => "max".to_owned(),
        rate => show_count(rate),
    };
    let total = result.produce.as_ref().map(|it| it.total);
    let latency = total.and_then(|total| total.latency_us);
    let us = |us: Option<u64>| us.map_or_else(|| "-".to_owned(), show_us);
    let figures = result.broker_figures.as_ref();
    let flushes = figures.map(|it| show_rounded(it.flushes_per_second));
    let each = figures.and_then(|it| it.bytes_per_flush).map(show_bytes);
    let absent = || "-".to_owned();
    format!(
        "{:>8} {:>9} {wanted:>11} {:>11} {:>8.1} {:>8} {:>8} {:>8} {:>8} {:>10} {:>9}{}",
        linger,
        show_size(batch),
        total.map_or_else(absent, |it| show_rounded(it.records_per_second)),
        total.map_or(0.0, |it| it.mb_per_second),
        us(latency.map(|it| it.p50)),
        us(latency.map(|it| it.p99)),
        us(latency.map(|it| it.p99_9)),
        us(latency.map(|it| it.max)),
        flushes.unwrap_or_else(absent),
        each.unwrap_or_else(absent),
        match (keeps_up(result), result.is_ok()) {
            (_, false) => "  FAILED",
            (false, true) => "  behind",
            (true, true) => "",
        }
    )
}

/// Whether the broker took records as fast as they came due.
pub fn keeps_up(result: &RunResult) -> bool {
    let rate = result.settings.produce.as_ref().map_or(0, |it| it.rate);
    let reached = result
        .produce
        .as_ref()
        .map(|it| it.total.records_per_second);
    #[expect(clippy::cast_precision_loss, reason = "rates are far below 2^53")]
    let wanted = rate as f64;
    reached.is_some_and(|reached| reached >= wanted * KEPT_UP)
}

/// Records under way at the start and the end, and chance, make a rate this inexact.
const KEPT_UP: f64 = 0.97;

/// `64 KiB` where that is exact, else bytes.
#[must_use]
pub fn show_size(bytes: u64) -> String {
    match bytes {
        0 => "0 B".to_owned(),
        _ if bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        _ if bytes.is_multiple_of(1 << 10) => format!("{} KiB", bytes >> 10),
        _ => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_short() {
        assert_eq!(show_size(65_536), "64 KiB");
        assert_eq!(show_size(1 << 20), "1 MiB");
        assert_eq!(show_size(1000), "1000 B");
    }
}
