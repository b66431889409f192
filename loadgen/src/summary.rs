//! What people read at the end of a run.

use std::{fs, io, io::Write, path::Path};

use anyhow::{Context, Result};

use crate::{
    broker::{BrokerFacts, BrokerFigures},
    console::Console,
    durability::Durability,
    results::{Document, RunResult},
    units::{show_bytes, show_count, show_rounded},
    verify::Verdict,
};

/// Says how a run went.
pub fn say_run(console: &Console, result: &RunResult, broker: &BrokerFacts) {
    console.say("");
    for (name, stream) in result.streams() {
        let total = &stream.total;
        console.say(&format!("   total  {name:<7} {total}"));
        console.say(&format!(
            "          {} records, {} bytes in {:.1} s",
            show_count(total.records),
            show_count(total.bytes),
            total.seconds
        ));
    }
    if result.unanswered > 0 {
        let count = show_count(result.unanswered);
        console.say(&format!(
            "          {count} records were sent and not answered"
        ));
    }
    console.say(&format!("  broker  {}", broker.disk()));
    if let Some(durability) = &result.durability {
        console.say(&format!("          {}", flushing(result, durability)));
    }
    for line in result.broker_figures.iter().flat_map(broker_lines) {
        console.say(&format!("          {line}"));
    }
    if let Some(mark) = result.durability.as_ref().and_then(not_durable) {
        console.say(&mark);
    }
    if let Some(verdict) = &result.verify {
        say_verdict(console, verdict);
    }
}

/// Says what all runs of a sweep or a search had in common: the broker, and whether it was durable.
pub fn say_broker(console: &Console, runs: &[RunResult], broker: &BrokerFacts) {
    console.say(&format!("  broker  {}", broker.disk()));
    let judged: Vec<&Durability> = runs
        .iter()
        .filter_map(|run| run.durability.as_ref())
        .collect();
    if let Some(first) = judged.first() {
        console.say(&format!("          durability={}", first.setting));
    }
    if let Some(mark) = judged.into_iter().find_map(not_durable) {
        console.say(&mark);
    }
}

/// The mark of a run whose acknowledgements are not durable.
fn not_durable(durability: &Durability) -> Option<String> {
    let reason = durability.reason.as_deref().unwrap_or_default();
    match durability.durable {
        Some(true) => None,
        Some(false) => Some(format!("NOT DURABLE: {reason}")),
        None => Some(format!("durability not observed: {reason}")),
    }
}

/// `durability=flushed: 12,345 flushes (2,469/s), 64.0 KiB each`.
fn flushing(result: &RunResult, durability: &Durability) -> String {
    let setting = &durability.setting;
    let Some(figures) = &result.broker_figures else {
        return format!("durability={setting}, flushes unknown");
    };
    let each = match figures.bytes_per_flush {
        Some(bytes) => format!(", {} each", show_bytes(bytes)),
        None => String::new(),
    };
    let journal = match figures.journal_ratio {
        Some(ratio) => format!(", {:.0} % of them the journal's", ratio * 100.0),
        None => String::new(),
    };
    format!(
        "durability={setting}: {} flushes ({}/s){each}{journal}",
        show_rounded(figures.flushes),
        show_rounded(figures.flushes_per_second)
    )
}

fn broker_lines(figures: &BrokerFigures) -> Vec<String> {
    let mut disk = Vec::new();
    if let Some(factor) = figures.write_amplification {
        disk.push(format!("{factor:.2} bytes written for each appended"));
    }
    if let Some(ratio) = figures.cache_hit_ratio {
        let percent = ratio * 100.0;
        disk.push(format!("{percent:.1} % of reads from memory"));
    }
    let mut process = vec![format!("processor {:.2} s", figures.cpu_seconds)];
    if let Some(seconds) = figures.cpu_seconds_per_gb {
        process.push(format!("{seconds:.2} s/GB"));
    }
    process.push(format!("memory {}", show_bytes(figures.resident_bytes)));
    if figures.forwarded_requests > 0.0 {
        let count = show_rounded(figures.forwarded_requests);
        process.push(format!("{count} requests forwarded"));
    }
    let lines = [disk, process].into_iter().filter(|it| !it.is_empty());
    lines.map(|parts| parts.join(", ")).collect()
}

fn say_verdict(console: &Console, verdict: &Verdict) {
    let known = match verdict.acknowledged {
        Some(count) => format!(" of {} acknowledged", show_count(count)),
        None => String::new(),
    };
    console.say(&format!(
        "  verify  received {}{known}: lost {}, repeated {}, reordered {}, corrupt {}, moved {}{}",
        show_count(verdict.received),
        show_count(verdict.lost),
        show_count(verdict.repeated),
        show_count(verdict.reordered),
        show_count(verdict.corrupt),
        show_count(verdict.moved),
        if verdict.is_clean() {
            "; all is well"
        } else {
            ""
        },
    ));
    let missing = verdict.acknowledged.unwrap_or(0);
    let missing = missing.saturating_sub(verdict.received + verdict.lost);
    if missing > 0 {
        console.say(&format!(
            "          at least {} acknowledged below the log start, trimmed or expired: not judged",
            show_count(missing)
        ));
    }
    if verdict.foreign > 0 {
        let count = show_count(verdict.foreign);
        console.say(&format!(
            "          {count} records are not of this run: not judged"
        ));
    }
    for example in &verdict.examples {
        console.say(&format!("          {example}"));
    }
}

/// Writes the document as JSON to a file, or to standard output for `-`.
///
/// # Errors
/// If it can't be written.
pub fn write_json(path: &Path, document: &Document) -> Result<()> {
    let mut json = serde_json::to_vec_pretty(document)?;
    json.push(b'\n');
    if path == Path::new("-") {
        return match io::stdout().write_all(&json) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
            _ => Ok(()),
        };
    }
    fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_durable_is_marked() {
        let judged = |durable, reason: Option<&str>| Durability {
            durable,
            setting: "flushed".to_owned(),
            reason: reason.map(str::to_owned),
        };
        assert_eq!(not_durable(&judged(Some(true), None)), None);
        let mark = not_durable(&judged(Some(false), Some("why"))).unwrap();
        assert_eq!(mark, "NOT DURABLE: why");
        assert!(not_durable(&judged(None, Some("why"))).is_some());
    }

    #[test]
    fn the_brokers_figures_in_words() {
        let figures = BrokerFigures {
            flushes: 1_000.0,
            write_amplification: Some(1.046),
            cache_hit_ratio: Some(0.9987),
            cpu_seconds: 2.5,
            cpu_seconds_per_gb: Some(0.75),
            resident_bytes: f64::from(180 << 20),
            ..BrokerFigures::default()
        };
        assert_eq!(
            broker_lines(&figures),
            [
                "1.05 bytes written for each appended, 99.9 % of reads from memory",
                "processor 2.50 s, 0.75 s/GB, memory 180 MiB"
            ]
        );
    }
}
