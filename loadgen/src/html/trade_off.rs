//! Latency against throughput: the chart and the table of a sweep or a search.

use std::fmt::Write as _;

use super::{
    as_f64,
    chart::{Axis, Chart, Line, Mark, Style},
    escape::escape,
    scale::Scale,
    tables::tile,
};
use crate::{
    modes::{curves, show_size, throughput},
    results::{Document, RunResult},
    units::{show_axis_us, show_bytes, show_count, show_rounded, show_short, show_us},
};

/// Higher than others: it is what people look at.
const HEIGHT: f64 = 430.0;
/// More labels than this would hide the lines; the legend has the figures in any case.
const MOST_LABELS: usize = 2;

fn p99_us(run: &RunResult) -> Option<u64> {
    Some(run.produce.as_ref()?.total.latency_us?.p99)
}

/// The figures that matter most.
pub fn tiles(document: &Document) -> String {
    let mut html = String::from("<div class=\"tiles\">");
    if let Some(saturation) = &document.saturation {
        let bound = show_us(saturation.p99_bound_us);
        let rate = saturation
            .rate
            .map_or_else(|| "none".to_owned(), show_count);
        html += &tile(&rate, &format!("records/s with a p99 of at most {bound}"));
    }
    let fastest = document
        .points
        .iter()
        .max_by(|a, b| throughput(a).total_cmp(&throughput(b)));
    if let Some(total) = fastest.and_then(|run| Some(run.produce.as_ref()?.total)) {
        html += &tile(&show_rounded(total.records_per_second), "records/s at most");
        html += &tile(&format!("{:.1} MB/s", total.mb_per_second), "at most");
    }
    if let Some(us) = document.points.iter().filter_map(p99_us).min() {
        html += &tile(&show_us(us), "p99 at best");
    }
    if document.saturation.is_none() {
        let curves = curves(&document.points);
        let knees = curves.iter().filter_map(|curve| curve.knee());
        let best = knees.max_by(|a, b| throughput(a).total_cmp(&throughput(b)));
        if let Some((rate, us)) = best.and_then(|run| Some((throughput(run), p99_us(run)?))) {
            let text = format!("records/s at the highest knee, p99 {}", show_us(us));
            html += &tile(&show_rounded(rate), &text);
        }
    }
    html.push_str("</div>");
    html
}

/// Latency against throughput, a line for each way to batch.
pub fn chart(document: &Document) -> Chart {
    let curves = curves(&document.points);
    let mut lines = Vec::new();
    let mut marks = Vec::new();
    for (colour, curve) in curves.iter().enumerate() {
        let point = |run: &&RunResult| {
            let us = p99_us(run)?;
            let (rate, label) = (show_rounded(throughput(run)), curve.label());
            let told = format!("{label}: {rate} records/s, p99 {}", show_us(us));
            Some((throughput(run), as_f64(us), told))
        };
        // A search has its own mark.
        let knee = curve.knee().filter(|_| document.saturation.is_none());
        let knee = knee.and_then(|run| Some((throughput(run), p99_us(run)?)));
        let mut label = curve.label();
        if let Some((rate, us)) = knee {
            let told = format!("knee {}/s at {}", show_short(rate), show_us(us));
            label = format!("{label}: {told}");
            marks.push(Mark {
                x: rate,
                y: as_f64(us),
                label: if curves.len() > MOST_LABELS {
                    String::new()
                } else {
                    told
                },
                colour,
            });
        }
        lines.push(Line {
            label,
            colour,
            points: curve.points.iter().filter_map(point).collect(),
            style: match document.saturation {
                // A search jumps to and fro, and tries a rate twice.
                Some(_) => Style::Apart,
                None => Style::Joined,
            },
        });
    }
    marks.extend(found(document));
    let points = || lines.iter().flat_map(|line: &Line| &line.points);
    let bound = document.saturation.as_ref().map(|it| it.p99_bound_us);
    let us = points().map(|point| point.1).chain(bound.map(as_f64));
    Chart {
        title: "Latency against throughput",
        note: match document.saturation {
            Some(_) => {
                "Each point is a run of its own; the ring is the highest rate found".to_owned()
            }
            None => {
                "Each point is a run of its own; rings are where latency begins to climb faster \
                     than throughput"
                    .to_owned()
            }
        },
        height: HEIGHT,
        x: Axis {
            label: "records/s acknowledged",
            scale: Scale::from_zero(points().map(|point| point.0)),
            show: show_short,
        },
        y: Axis {
            label: "p99 latency",
            scale: Scale::log_around(us),
            show: show_axis_us,
        },
        marks,
        band: None,
        rule: bound.map(|us| (as_f64(us), format!("bound {}", show_us(us)))),
        lines,
    }
}

/// The rate that a search found.
fn found(document: &Document) -> Option<Mark> {
    let rate = document.saturation.as_ref()?.rate?;
    let of_rate = |run: &&RunResult| {
        run.settings
            .produce
            .as_ref()
            .is_some_and(|it| it.rate == rate)
    };
    let run = document.points.iter().rfind(of_rate)?;
    Some(Mark {
        x: throughput(run),
        y: as_f64(p99_us(run)?),
        label: format!("{} records/s", show_count(rate)),
        colour: 2,
    })
}

/// Every point.
pub fn table(document: &Document) -> String {
    let mut html = String::from(
        "<section><h2>Every point</h2><div class=\"scroll\"><table><tr><th>linger</th>\
         <th>batch</th><th>wanted/s</th><th>records/s</th><th>MB/s</th><th>p50</th><th>p99</th>\
         <th>p99.9</th><th>max</th><th>flushes/s</th><th>a flush</th><th></th></tr>",
    );
    for curve in curves(&document.points) {
        let knee = curve.knee().filter(|_| document.saturation.is_none());
        for run in &curve.points {
            let is_knee = knee.is_some_and(|knee| std::ptr::eq(*run, knee));
            row(&mut html, run, is_knee);
        }
    }
    html.push_str("</table></div></section>");
    html
}

fn row(html: &mut String, run: &RunResult, is_knee: bool) {
    let settings = run.settings.produce.as_ref();
    let wanted = match settings.map_or(0, |it| it.rate) {
        0 => "max".to_owned(),
        rate => show_count(rate),
    };
    let total = run.produce.as_ref().map(|it| it.total);
    let latency = total.and_then(|total| total.latency_us);
    let figures = run.broker_figures.as_ref();
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "–".to_owned());
    let remark = match (run.is_ok(), is_knee) {
        (false, _) => "failed",
        (true, true) => "knee",
        (true, false) => "",
    };
    let cells = [
        settings.map_or_else(String::new, |it| it.linger_ms.to_string()),
        show_size(settings.map_or(0, |it| it.batch_size)),
        wanted,
        or_dash(total.map(|it| show_rounded(it.records_per_second))),
        or_dash(total.map(|it| format!("{:.1}", it.mb_per_second))),
        or_dash(latency.map(|it| show_us(it.p50))),
        or_dash(latency.map(|it| show_us(it.p99))),
        or_dash(latency.map(|it| show_us(it.p99_9))),
        or_dash(latency.map(|it| show_us(it.max))),
        or_dash(figures.map(|it| show_rounded(it.flushes_per_second))),
        or_dash(figures.and_then(|it| it.bytes_per_flush).map(show_bytes)),
        remark.to_owned(),
    ];
    let class = if is_knee { " class=\"knee\"" } else { "" };
    let _ = write!(html, "<tr{class}>");
    for cell in &cells {
        let _ = write!(html, "<td>{}</td>", escape(cell));
    }
    html.push_str("</tr>");
}
