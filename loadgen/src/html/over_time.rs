//! The charts of one run: throughput and latency over time, the latency curve, the broker's work.

use super::{
    as_f64,
    chart::{Axis, Chart, HEIGHT, Line, Style},
    scale::Scale,
};
use crate::{
    figures::Latency,
    results::{Interval, Percentile, RunResult, StreamResult},
    units::{show_axis_us, show_bytes, show_percent, show_rounded, show_short, show_us},
};

/// More nines than this no run has records for.
const MOST_NINES: f64 = 6.0;
/// Fewer intervals than this make no line.
const FEWEST_INTERVALS: usize = 2;

/// Every chart that the run has figures for.
pub fn charts(run: &RunResult) -> Vec<Chart> {
    let mut charts = Vec::new();
    let longest = run.streams().map(|(_, it)| it.intervals.len()).max();
    if longest >= Some(FEWEST_INTERVALS) {
        charts.push(throughput(run));
    }
    if run
        .streams()
        .any(|(_, stream)| !stream.percentiles.is_empty())
    {
        charts.push(latency_curve(run));
        if longest >= Some(FEWEST_INTERVALS) {
            charts.push(latency_over_time(run));
        }
    }
    if run.broker_intervals.len() >= FEWEST_INTERVALS {
        charts.push(flushes(run));
        charts.push(memory(run));
    }
    charts
}

fn seconds(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").unwrap_or(&text).to_owned()
}

/// Seconds since the start.
fn time_axis(run: &RunResult) -> Axis {
    let ends = run.streams().flat_map(|(_, stream)| &stream.intervals);
    let last = ends.map(|it| it.at_seconds).fold(1.0, f64::max);
    Axis {
        label: "seconds since the start",
        scale: Scale::Linear {
            from: 0.0,
            until: last,
        },
        show: seconds,
    }
}

/// The warm-up, up to the end of the last interval that belongs to it.
fn warm_up(run: &RunResult) -> Option<(f64, f64, &'static str)> {
    let intervals = run.streams().flat_map(|(_, stream)| &stream.intervals);
    let ends = intervals.filter(|it| it.warm_up).map(|it| it.at_seconds);
    let end = ends.fold(0.0, f64::max);
    (end > 0.0).then_some((0.0, end, "warm-up"))
}

fn colour(name: &str) -> usize {
    match name {
        "produce" => 0,
        _ => 2,
    }
}

fn throughput(run: &RunResult) -> Chart {
    let lines = run.streams().map(|(name, stream)| Line {
        label: name.to_owned(),
        colour: colour(name),
        points: stream
            .intervals
            .iter()
            .map(|it| {
                let figures = &it.figures;
                let told = format!(
                    "{name} at {:.0} s: {:.1} MB/s, {} records/s",
                    it.at_seconds,
                    figures.mb_per_second,
                    show_rounded(figures.records_per_second)
                );
                (it.at_seconds, figures.mb_per_second, told)
            })
            .collect(),
        style: Style::Filled,
    });
    let lines: Vec<Line> = lines.collect();
    let values = lines
        .iter()
        .flat_map(|line| line.points.iter().map(|point| point.1));
    Chart {
        title: "Throughput over time",
        note: String::new(),
        height: HEIGHT,
        x: time_axis(run),
        y: Axis {
            label: "MB/s",
            scale: Scale::from_zero(values),
            show: show_short,
        },
        lines,
        marks: Vec::new(),
        band: warm_up(run),
        rule: None,
    }
}

fn latency_curve(run: &RunResult) -> Chart {
    let lines: Vec<Line> = run
        .streams()
        .map(|(name, stream)| curve(name, stream))
        .collect();
    let us = lines
        .iter()
        .flat_map(|line| line.points.iter().map(|point| point.1));
    let counts = run
        .streams()
        .filter_map(|(_, it)| Some(it.percentiles.last()?.count));
    let count = counts.max().unwrap_or(1);
    Chart {
        title: "Latency by percentile",
        note:
            "From the time a record was meant to be sent, so that a stall counts for every record \
               it delayed"
                .to_owned(),
        height: HEIGHT,
        x: Axis {
            label: "percent of records that were this fast",
            scale: Scale::Nines {
                count: as_f64(count).log10().clamp(1.0, MOST_NINES),
            },
            show: show_percent,
        },
        y: Axis {
            label: "latency",
            scale: Scale::log_around(us),
            show: show_axis_us,
        },
        lines,
        marks: Vec::new(),
        band: None,
        rule: None,
    }
}

fn curve(name: &str, stream: &StreamResult) -> Line {
    let point = |it: &Percentile| {
        let (percent, us) = (show_percent(it.percent), show_us(it.us));
        (
            it.percent,
            as_f64(it.us),
            format!("{name}: {percent} % within {us}"),
        )
    };
    Line {
        label: name.to_owned(),
        colour: colour(name),
        points: stream.percentiles.iter().map(point).collect(),
        style: Style::Joined,
    }
}

/// Picks a percentile.
type Part = fn(&Latency) -> u64;

fn latency_over_time(run: &RunResult) -> Chart {
    let mut lines = Vec::new();
    let percentiles: [(&str, Part); 3] = [
        ("p50", |latency| latency.p50),
        ("p99", |latency| latency.p99),
        ("p99.9", |latency| latency.p99_9),
    ];
    // The last direction is what people wait for: received, where there are readers.
    let last = run
        .streams()
        .filter(|(_, stream)| !stream.percentiles.is_empty())
        .last();
    for (index, (label, of)) in percentiles.into_iter().enumerate() {
        let Some((name, stream)) = last else { break };
        let point = |it: &Interval| {
            let us = of(&it.figures.latency_us?);
            let told = format!("{name} at {:.0} s: {label} {}", it.at_seconds, show_us(us));
            Some((it.at_seconds, as_f64(us), told))
        };
        lines.push(Line {
            label: format!("{name} {label}"),
            colour: [0, 1, 4][index],
            points: stream.intervals.iter().filter_map(point).collect(),
            style: Style::Joined,
        });
    }
    let us = lines
        .iter()
        .flat_map(|line: &Line| line.points.iter().map(|point| point.1));
    Chart {
        title: "Latency over time",
        note: String::new(),
        height: HEIGHT,
        x: time_axis(run),
        y: Axis {
            label: "latency",
            scale: Scale::log_around(us),
            show: show_axis_us,
        },
        lines,
        marks: Vec::new(),
        band: warm_up(run),
        rule: None,
    }
}

fn flushes(run: &RunResult) -> Chart {
    let points = run.broker_intervals.iter().map(|it| {
        let each = it
            .bytes_per_flush
            .map_or_else(String::new, |bytes| format!(", {} each", show_bytes(bytes)));
        let rate = show_rounded(it.flushes_per_second);
        let told = format!("at {:.0} s: {rate} flushes/s{each}", it.at_seconds);
        (it.at_seconds, it.flushes_per_second, told)
    });
    let points: Vec<(f64, f64, String)> = points.collect();
    Chart {
        title: "Flushes of the broker",
        note: "Counted by the broker, once a second".to_owned(),
        height: HEIGHT,
        x: time_axis(run),
        y: Axis {
            label: "flushes/s",
            scale: Scale::from_zero(points.iter().map(|point| point.1)),
            show: show_short,
        },
        lines: vec![Line {
            label: "flushes/s".to_owned(),
            colour: 3,
            points,
            style: Style::Filled,
        }],
        marks: Vec::new(),
        band: warm_up(run),
        rule: None,
    }
}

fn memory(run: &RunResult) -> Chart {
    let points = run.broker_intervals.iter().map(|it| {
        let memory = show_bytes(it.resident_bytes);
        let told = format!(
            "at {:.0} s: {memory}, {:.2} cores",
            it.at_seconds, it.cpu_cores
        );
        (it.at_seconds, it.resident_bytes / f64::from(1 << 20), told)
    });
    let points: Vec<(f64, f64, String)> = points.collect();
    Chart {
        title: "Memory of the broker",
        note: String::new(),
        height: HEIGHT,
        x: time_axis(run),
        y: Axis {
            label: "MiB",
            scale: Scale::from_zero(points.iter().map(|point| point.1)),
            show: show_short,
        },
        lines: vec![Line {
            label: "MiB".to_owned(),
            colour: 5,
            points,
            style: Style::Filled,
        }],
        marks: Vec::new(),
        band: warm_up(run),
        rule: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_time_axis_repeats_no_label() {
        for until in [1.0, 2.0015, 7.0, 600.0] {
            let ticks = Scale::Linear { from: 0.0, until }.ticks();
            let mut labels: Vec<String> = ticks.into_iter().map(seconds).collect();
            let count = labels.len();
            labels.dedup();
            assert_eq!(labels.len(), count, "{labels:?}");
        }
        assert_eq!([seconds(0.5), seconds(2.0)], ["0.5", "2"]);
    }
}
