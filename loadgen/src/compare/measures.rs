//! The figures of a document that can be compared, by name.

use crate::{
    modes::{curves, show_size, wanted},
    results::{Document, RunResult},
    units::{show_bytes, show_rounded, show_us},
};

/// A figure's meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measure {
    /// What it is, unique within a document.
    pub name: String,
    /// How it is shown.
    pub unit: Unit,
    /// Whether more is better; nothing if neither is.
    pub more_is_better: Option<bool>,
}

/// How a figure is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// An integer.
    Count,
    /// Microseconds.
    Us,
    /// Bytes.
    Bytes,
    /// A number with two decimals.
    Ratio,
}

impl Unit {
    /// With its unit.
    #[must_use]
    pub fn show(self, value: f64) -> String {
        match self {
            Self::Count => show_rounded(value),
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "latencies are positive and far below 2^64"
            )]
            Self::Us => show_us(value.round() as u64),
            Self::Bytes => show_bytes(value),
            Self::Ratio => format!("{value:.2}"),
        }
    }
}

/// Every figure of a document.
#[must_use]
pub fn measures(document: &Document) -> Vec<(Measure, f64)> {
    let mut found = Vec::new();
    if let Some(run) = &document.run {
        of_run(&mut found, "", run);
    }
    for curve in curves(&document.points) {
        let (linger, batch) = (curve.linger_ms, show_size(curve.batch_size));
        // Rates that are parts of the fastest differ from run to run: their order is what stays.
        for (index, run) in curve.points.iter().enumerate() {
            let rate = match wanted(run) {
                None => "max".to_owned(),
                Some(_) => format!("rate {}", index + 1),
            };
            of_run(&mut found, &format!("{linger}, {batch}, {rate}: "), run);
        }
    }
    if let Some(rate) = document.saturation.as_ref().and_then(|it| it.rate) {
        #[expect(clippy::cast_precision_loss, reason = "rates are far below 2^53")]
        let rate = rate as f64;
        add(
            &mut found,
            "highest rate within the bound",
            Unit::Count,
            Some(true),
            rate,
        );
    }
    found
}

fn of_run(found: &mut Vec<(Measure, f64)>, prefix: &str, run: &RunResult) {
    for (direction, stream) in run.streams() {
        let total = &stream.total;
        let name = |what: &str| format!("{prefix}{direction} {what}");
        let more = Some(true);
        add(found, &name("MB/s"), Unit::Ratio, more, total.mb_per_second);
        add(
            found,
            &name("records/s"),
            Unit::Count,
            more,
            total.records_per_second,
        );
        let Some(latency) = total.latency_us else {
            continue;
        };
        for (what, us) in [
            ("p50", latency.p50),
            ("p90", latency.p90),
            ("p99", latency.p99),
            ("p99.9", latency.p99_9),
            ("max", latency.max),
        ] {
            #[expect(clippy::cast_precision_loss, reason = "latencies are far below 2^53")]
            add(found, &name(what), Unit::Us, Some(false), us as f64);
        }
    }
    let Some(figures) = &run.broker_figures else {
        return;
    };
    let name = |what: &str| format!("{prefix}broker {what}");
    let less = Some(false);
    add(
        found,
        &name("flushes/s"),
        Unit::Count,
        None,
        figures.flushes_per_second,
    );
    if let Some(bytes) = figures.bytes_per_flush {
        add(found, &name("bytes a flush"), Unit::Bytes, None, bytes);
    }
    if let Some(factor) = figures.write_amplification {
        add(found, &name("written/appended"), Unit::Ratio, less, factor);
    }
    if let Some(seconds) = figures.cpu_seconds_per_gb {
        add(found, &name("processor s/GB"), Unit::Ratio, less, seconds);
    }
    add(
        found,
        &name("memory"),
        Unit::Bytes,
        less,
        figures.resident_bytes,
    );
}

fn add(
    found: &mut Vec<(Measure, f64)>,
    name: &str,
    unit: Unit,
    more_is_better: Option<bool>,
    value: f64,
) {
    let measure = Measure {
        name: name.to_owned(),
        unit,
        more_is_better,
    };
    found.push((measure, value));
}
