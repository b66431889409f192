//! Results as a page that people can show: one file, no network, no script; it is drawn from the
//! document that is also written as JSON.

mod chart;
mod escape;
mod over_time;
mod scale;
mod tables;
mod trade_off;

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context, Result};

use escape::escape;

use crate::{
    durability::Durability,
    results::{Document, RunResult},
    units::{counted, show_bytes, show_count, show_rounded},
};

const STYLE: &str = include_str!("style.css");

/// Writes the page of a document.
///
/// # Errors
/// If it can't be written.
pub fn write(path: &Path, document: &Document) -> Result<()> {
    fs::write(path, page(document)).with_context(|| format!("cannot write {}", path.display()))
}

/// The page.
#[must_use]
pub fn page(document: &Document) -> String {
    let mut body = header(document);
    if let Some(run) = &document.run {
        body += &tables::tiles(run);
        for chart in over_time::charts(run) {
            body += &chart.html();
        }
    } else {
        body += &trade_off::tiles(document);
        body += &trade_off::chart(document).html();
        body += &trade_off::table(document);
    }
    body += &tables::facts(document);
    let title = escape(&document.mode);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <title>Millstream {title}</title>\n<style>\n{STYLE}</style>\n</head>\n\
         <body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )
}

fn header(document: &Document) -> String {
    let mut html = format!("<header><h1>{}</h1>", escape(headline(document)));
    let workload = workload(document);
    let _ = write!(html, "<p class=\"lead\">{}", escape(&workload));
    let host = &document.host;
    let memory = show_bytes(as_f64(host.memory_bytes));
    let lead = format!(
        "{} · {} cores, {memory} · {} · {}",
        host.cpu_model,
        host.cores,
        host.kernel,
        document.broker.disk()
    );
    let _ = write!(html, "<br>{}</p>", escape(&lead));
    let judged = document
        .runs()
        .filter_map(|run| Some((run, run.durability.as_ref()?)));
    let judged: Vec<(&RunResult, &Durability)> = judged.collect();
    // The worst of several.
    let worst = judged.iter().min_by_key(|(_, it)| match it.durable {
        Some(false) => 0,
        None => 1,
        Some(true) => 2,
    });
    if let Some((_, durability)) = worst {
        let (class, text) = badge(durability, &judged);
        let _ = write!(
            html,
            "<span class=\"badge {class}\">{}</span>",
            escape(&text)
        );
    }
    html.push_str("</header>");
    html
}

fn badge(worst: &Durability, judged: &[(&RunResult, &Durability)]) -> (&'static str, String) {
    let reason = worst.reason.as_deref().unwrap_or_default();
    match worst.durable {
        Some(false) => ("bad", format!("NOT DURABLE: {reason}")),
        None => ("open", format!("durability not observed: {reason}")),
        Some(true) => {
            let figures = judged
                .iter()
                .filter_map(|(run, _)| run.broker_figures.as_ref());
            let flushes: f64 = figures.map(|it| it.flushes).sum();
            let flushes = show_rounded(flushes);
            (
                "good",
                format!("every acknowledgement durable · {flushes} flushes"),
            )
        }
    }
}

/// What was measured.
fn headline(document: &Document) -> &str {
    match document.mode.as_str() {
        "produce" => "Produce",
        "consume" => "Consume",
        "both" => "Produce and consume",
        "end-to-end" => "End to end, one record at a time",
        "sweep" => "Batching latency against throughput",
        "saturate" => "Highest rate within a bound",
        "soak" => "Soak",
        other => other,
    }
}

/// `records of 1,000 bytes · 4 partitions · 2 connections · 20,000 records/s, poisson`.
fn workload(document: &Document) -> String {
    let Some(settings) = document.runs().next().map(|run| &run.settings) else {
        return String::new();
    };
    let mut parts = Vec::new();
    if let Some(produce) = &settings.produce {
        parts.push(match produce.record_sizes.as_str() {
            "" => format!("records of {} bytes", show_count(produce.record_size)),
            sizes => format!("records of {sizes}"),
        });
    }
    parts.push(counted(u64::from(settings.partitions), "partition"));
    parts.push(counted(u64::from(settings.connections), "connection"));
    let produce = settings.produce.as_ref().filter(|_| document.run.is_some());
    if let Some(produce) = produce {
        parts.push(match produce.rate {
            0 => "as fast as possible".to_owned(),
            rate => format!("{} records/s, {}", show_count(rate), produce.arrivals),
        });
    }
    parts.join(" · ")
}

#[expect(
    clippy::cast_precision_loss,
    reason = "figures are shown to a few digits"
)]
fn as_f64(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page of what a real run or sweep wrote, in miniature.
    fn document(mode: &str, run: &str) -> Document {
        let text = format!(
            r#"{{"format":1,"mode":"{mode}","started_at":"2026-01-01T00:00:00Z",
            "command":["/a/loadgen","{mode}","--topic","<b>"],"version":"0","revision":null,
            "host":{{"name":"h","kernel":"Linux","cpu_model":"C","cores":2,"memory_bytes":1024,
            "cpu_governor":null}},"broker":{{"spawned":true,"version":"0","shards":1,
            "memory_budget":1,"data_dir":"d","file_system":"ext4","device":"/dev/x",
            "mount_options":"rw","in_memory":false,"direct_io":true,"disk_free":1,
            "disk_total":2}},"ok":true,{run}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    fn run(rate: u32, p99: u32, durable: bool) -> String {
        let figures = format!(
            r#""seconds":1.0,"records":{rate},"bytes":{rate},"failed":0,
            "records_per_second":{rate}.0,"mb_per_second":1.0,
            "latency_us":{{"p50":100,"p90":200,"p99":{p99},"p99_9":900,"max":999}}"#
        );
        let interval = |at: u32| format!(r#"{{"at_seconds":{at}.0,"warm_up":false,{figures}}}"#);
        format!(
            r#""run":"0","topic":"t","settings":{{"connections":1,"threads":1,"partitions":1,
            "warm_up_seconds":0.0,"record_size":100,"batch_size":65536,"linger_ms":0.0,
            "buffer_memory":1,"rate":{rate},"compression":"none","durability":"flushed"}},
            "produce":{{"total":{{{figures}}},"percentiles":[{{"percent":50.0,"us":100,"count":5}},
            {{"percent":100.0,"us":999,"count":10}}],"intervals":[{},{}]}},
            "durability":{{"durable":{durable},"setting":"flushed","reason":"because"}},
            "broker_figures":null,"unanswered":0,"errors":[]"#,
            interval(1),
            interval(2)
        )
    }

    #[test]
    fn a_run_has_its_charts_and_needs_nothing_else() {
        let page = page(&document("produce", &run(1_000, 300, true)));
        for part in [
            "Throughput over time",
            "Latency by percentile",
            "Latency over time",
            "every acknowledgement durable",
            "loadgen produce --topic &lt;b&gt;",
        ] {
            assert!(page.contains(part), "{part}");
        }
        assert!(!page.contains("<script"), "no script");
        assert!(!page.contains("http"), "no network");
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    }

    #[test]
    fn a_run_that_is_not_durable_is_marked() {
        let page = page(&document("produce", &run(1_000, 300, false)));
        assert!(page.contains("NOT DURABLE: because"), "{page}");
    }

    #[test]
    fn a_sweep_has_its_knee() {
        let points = [(100, 100), (500, 110), (900, 5_000)];
        let points = points.map(|(rate, p99)| format!("{{{}}}", run(rate, p99, true)));
        let points = format!("\"points\":[{}]", points.join(","));
        let page = page(&document("sweep", &points));
        assert!(page.contains("knee 500/s at 110 us"), "{page}");
        assert_eq!(page.matches("class=\"knee\"").count(), 1);
        assert_eq!(page.matches("class=\"ring").count(), 1);
    }
}
