//! Figures in large, and tables of everything that a reader may ask for.

use std::fmt::Write as _;

use super::{as_f64, escape::escape};
use crate::{
    results::{Document, ProduceSettings, RunResult, Settings},
    units::{show_bytes, show_count, show_rounded, show_us},
};

/// A figure in large.
pub fn tile(figure: &str, what: &str) -> String {
    let (figure, what) = (escape(figure), escape(what));
    format!("<div class=\"tile\"><b>{figure}</b><span>{what}</span></div>")
}

/// The figures of a run that matter most.
pub fn tiles(run: &RunResult) -> String {
    let mut html = String::from("<div class=\"tiles\">");
    for (name, stream) in run.streams() {
        let total = &stream.total;
        html += &tile(&format!("{:.1} MB/s", total.mb_per_second), name);
        let rate = show_rounded(total.records_per_second);
        html += &tile(&rate, &format!("{name}, records/s"));
        if let Some(latency) = total.latency_us {
            html += &tile(&show_us(latency.p50), &format!("{name}, p50"));
            html += &tile(&show_us(latency.p99), &format!("{name}, p99"));
            html += &tile(&show_us(latency.p99_9), &format!("{name}, p99.9"));
        }
    }
    if let Some(verdict) = &run.verify {
        let (figure, what) = match verdict.is_clean() {
            true => (show_count(verdict.received), "records verified, none amiss"),
            false => (show_count(verdict.faults()), "records amiss"),
        };
        html += &tile(&figure, what);
    }
    html.push_str("</div>");
    html
}

type Rows = Vec<(&'static str, String)>;

/// Tables of everything.
pub fn facts(document: &Document) -> String {
    let mut html = String::from("<div class=\"split\">");
    if let Some(run) = document.runs().next() {
        html += &table("Load", &load(document, &run.settings));
    }
    html += &table("Host", &host(document));
    html += &table("Broker", &broker(document));
    if let Some(run) = &document.run {
        html += &table("Results", &results(run));
        if let Some(figures) = &run.broker_figures {
            let counters = figures.counters.iter();
            let mut rows = String::new();
            for (name, value) in counters {
                let (name, value) = (escape(name), show_rounded(*value));
                let _ = write!(rows, "<tr><th>{name}</th><td>{value}</td></tr>");
            }
            let _ = write!(
                html,
                "<section><h2>Counters of the broker</h2><table class=\"facts\">{rows}</table>\
                 </section>"
            );
        }
    }
    html.push_str("</div>");
    let errors: Vec<&String> = document.runs().flat_map(|run| &run.errors).collect();
    if !errors.is_empty() {
        html.push_str("<section><h2>What went wrong</h2>");
        for error in errors {
            let _ = write!(html, "<p class=\"error\">{}</p>", escape(error));
        }
        html.push_str("</section>");
    }
    let revision = document.revision.as_deref();
    let revision = revision.map_or_else(String::new, |it| format!(" ({it})"));
    let _ = write!(
        html,
        "<footer>Millstream {}{}, {} · <code>{}</code></footer>",
        escape(&document.version),
        escape(&revision),
        escape(&document.started_at),
        escape(&command(document)),
    );
    html
}

/// The command line, without the path of the program.
fn command(document: &Document) -> String {
    let mut words = document.command.iter();
    let program = words.next().map(|it| it.rsplit('/').next().unwrap_or(it));
    let words = program.into_iter().chain(words.map(String::as_str));
    words.collect::<Vec<&str>>().join(" ")
}

fn table(title: &str, rows: &Rows) -> String {
    let title = escape(title);
    let mut html = format!("<section><h2>{title}</h2><table class=\"facts\">");
    for (name, value) in rows {
        let (name, value) = (escape(name), escape(value));
        let _ = write!(html, "<tr><th>{name}</th><td>{value}</td></tr>");
    }
    html.push_str("</table></section>");
    html
}

fn load(document: &Document, settings: &Settings) -> Rows {
    let mut rows = vec![
        ("mode", document.mode.clone()),
        ("connections", show_count(u64::from(settings.connections))),
        ("threads", show_count(u64::from(settings.threads))),
        ("topics", show_count(settings.topics as u64)),
        ("partitions", show_count(u64::from(settings.partitions))),
        ("warm-up", format!("{} s", settings.warm_up_seconds)),
    ];
    if let Some(produce) = &settings.produce {
        // What differs from point to point stands in their table.
        rows.extend(records(produce, document.run.is_some()));
    }
    rows
}

fn records(produce: &ProduceSettings, is_one: bool) -> Rows {
    let percent = produce.compressible * 100.0;
    let mut rows = vec![
        ("record size", produce.record_sizes.clone()),
        ("keys", produce.keys.clone()),
        ("compressible", format!("{percent:.0} %")),
        ("compression", produce.compression.clone()),
        ("buffer memory", show_bytes(as_f64(produce.buffer_memory))),
        ("arrivals", produce.arrivals.clone()),
        ("seed", produce.seed.to_string()),
        ("durability", produce.durability.clone()),
    ];
    if let Some(limit) = produce.in_flight {
        rows.push(("records in flight", show_count(limit)));
    }
    if is_one {
        rows.push(("batch size", show_bytes(as_f64(produce.batch_size))));
        rows.push(("linger", produce.linger_ms.to_string()));
        rows.push((
            "rate",
            match produce.rate {
                0 => "as fast as possible".to_owned(),
                rate => format!("{} records/s", show_count(rate)),
            },
        ));
    }
    rows
}

fn host(document: &Document) -> Rows {
    let host = &document.host;
    let mut rows = vec![
        ("name", host.name.clone()),
        ("processor", host.cpu_model.clone()),
        ("cores", host.cores.to_string()),
        ("memory", show_bytes(as_f64(host.memory_bytes))),
        ("kernel", host.kernel.clone()),
    ];
    rows.extend(host.cpu_governor.clone().map(|it| ("governor", it)));
    rows
}

fn broker(document: &Document) -> Rows {
    let broker = &document.broker;
    let how = if broker.spawned {
        "started for this run"
    } else {
        "was running"
    };
    let unknown = || "unknown".to_owned();
    let io = if broker.direct_io {
        "direct"
    } else {
        "buffered"
    };
    vec![
        ("version", format!("{}, {how}", broker.version)),
        ("shards", broker.shards.to_string()),
        ("memory budget", show_bytes(as_f64(broker.memory_budget))),
        (
            "file system",
            broker.file_system.clone().unwrap_or_else(unknown),
        ),
        ("device", broker.device.clone().unwrap_or_else(unknown)),
        (
            "mount options",
            broker.mount_options.clone().unwrap_or_else(unknown),
        ),
        ("I/O", io.to_owned()),
        (
            "disk",
            format!(
                "{} free of {}",
                show_bytes(as_f64(broker.disk_free)),
                show_bytes(as_f64(broker.disk_total))
            ),
        ),
    ]
}

fn results(run: &RunResult) -> Rows {
    let mut rows = Rows::new();
    for (name, stream) in run.streams() {
        let total = &stream.total;
        let (produced, us) = (name == "produce", total.latency_us);
        let pick = |write: &'static str, read: &'static str| if produced { write } else { read };
        rows.push((pick("produced", "consumed"), show_count(total.records)));
        rows.push((
            pick("produced bytes", "consumed bytes"),
            show_count(total.bytes),
        ));
        rows.push((
            pick("time of producing", "time of consuming"),
            format!("{:.1} s", total.seconds),
        ));
        if let Some(latency) = us {
            let all = [
                latency.p50,
                latency.p90,
                latency.p99,
                latency.p99_9,
                latency.max,
            ];
            rows.push((
                pick(
                    "acknowledged, p50 90 99 99.9 max",
                    "received, p50 90 99 99.9 max",
                ),
                all.map(show_us).join(" · "),
            ));
        }
        if total.failed > 0 {
            rows.push(("failed", show_count(total.failed)));
        }
    }
    rows.push(("unanswered at the end", show_count(run.unanswered)));
    if let Some(figures) = &run.broker_figures {
        rows.push(("flushes", show_rounded(figures.flushes)));
        rows.push(("flushes/s", show_rounded(figures.flushes_per_second)));
        let absent = || "–".to_owned();
        let each = figures.bytes_per_flush.map_or_else(absent, show_bytes);
        rows.push(("bytes a flush", each));
        let percent = |it: Option<f64>| match it {
            Some(part) => format!("{:.1} %", part * 100.0),
            None => absent(),
        };
        rows.push(("flushes of the journal", percent(figures.journal_ratio)));
        let ratio = |it: Option<f64>| it.map_or_else(absent, |it| format!("{it:.2}"));
        rows.push((
            "written for each appended",
            ratio(figures.write_amplification),
        ));
        rows.push(("reads from memory", percent(figures.cache_hit_ratio)));
        rows.push(("processor, s/GB", ratio(figures.cpu_seconds_per_gb)));
        rows.push((
            "requests forwarded",
            show_rounded(figures.forwarded_requests),
        ));
    }
    rows
}
