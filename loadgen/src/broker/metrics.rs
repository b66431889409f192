//! The broker's own counters: fetched over HTTP from its admin port, summed over shards, and told as
//! what happened between two looks.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Longest wait for the broker's answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// More text than this is no broker's.
const MAX_REPLY_SIZE: u64 = 8 << 20;
/// What the shards' counters are called in the text.
const SHARD_PREFIX: &str = "millstream_shard_";
const HEARTBEAT: &str = "millstream_shard_heartbeat_total";

/// Every number that the broker shows, each summed over its labels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scrape {
    values: BTreeMap<String, f64>,
    /// Which of them only grow.
    counters: Vec<String>,
    /// Each shard's: it rises when the shard has published its counters.
    heartbeats: BTreeMap<String, f64>,
}

/// What the broker did meanwhile.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BrokerFigures {
    /// For how long it was looked at, in seconds.
    pub seconds: f64,
    /// Flushes of the disk.
    pub flushes: f64,
    /// A second.
    pub flushes_per_second: f64,
    /// Bytes written to the disk for each of them, padding included.
    pub bytes_per_flush: Option<f64>,
    /// Part of the flushes that were the journal's: one for all partitions written at once.
    #[serde(default)]
    pub journal_ratio: Option<f64>,
    /// Bytes written for each byte of record batches appended.
    pub write_amplification: Option<f64>,
    /// Part of all reads that were answered from memory.
    pub cache_hit_ratio: Option<f64>,
    /// Requests that reached another shard than the one that serves them.
    pub forwarded_requests: f64,
    /// Processor time in seconds.
    pub cpu_seconds: f64,
    /// Processor time for each 10^9 bytes received and sent.
    pub cpu_seconds_per_gb: Option<f64>,
    /// Memory in use at the end, in bytes.
    pub resident_bytes: f64,
    /// By how much each counter of the shards rose.
    pub counters: BTreeMap<String, f64>,
}

impl Scrape {
    /// Reads OpenMetrics text.
    pub(super) fn parse(text: &str) -> Self {
        let mut values = BTreeMap::new();
        let mut counters = Vec::new();
        let mut heartbeats = BTreeMap::new();
        for line in text.lines() {
            if let Some(comment) = line.strip_prefix('#') {
                let counter = comment.trim().strip_prefix("TYPE ");
                let counter = counter.and_then(|it| it.strip_suffix(" counter"));
                counters.extend(counter.map(|name| format!("{name}_total")));
                continue;
            }
            // name{labels} value
            let Some((series, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let name = series.split('{').next().unwrap_or(series);
            if let Ok(value) = value.parse::<f64>() {
                *values.entry(name.to_owned()).or_insert(0.0) += value;
                if name == HEARTBEAT {
                    heartbeats.insert(series.to_owned(), value);
                }
            }
        }
        Self {
            values,
            counters,
            heartbeats,
        }
    }

    /// A number by its whole name, or 0.
    fn value(&self, name: &str) -> f64 {
        self.values.get(name).copied().unwrap_or(0.0)
    }

    /// Whether every shard has published its counters since an earlier look. One that has begun anew
    /// has, too.
    #[must_use]
    pub fn is_newer_than(&self, earlier: &Self) -> bool {
        let mut heartbeats = self.heartbeats.iter();
        heartbeats.all(|(shard, value)| earlier.heartbeats.get(shard) != Some(value))
    }

    /// What happened since an earlier look, so many seconds ago.
    #[must_use]
    pub fn since(&self, earlier: &Self, seconds: f64) -> BrokerFigures {
        let rose = |name: &str| (self.value(name) - earlier.value(name)).max(0.0);
        let shard = |name: &str| rose(&format!("{SHARD_PREFIX}{name}_total"));
        let ratio = |part: f64, whole: f64| (whole > 0.0).then(|| part / whole);
        let reads = shard("cache_hits") + shard("cache_misses");
        let moved_gb = (shard("received_bytes") + shard("sent_bytes")) / 1e9;
        // Both lanes: into segments at once, and into the journal first.
        let written = shard("written_bytes") + shard("journal_bytes");
        let cpu_seconds = rose("process_cpu_seconds_total");
        let counters = self.counters.iter().filter_map(|name| {
            let short = name.strip_prefix(SHARD_PREFIX)?.strip_suffix("_total")?;
            Some((short.to_owned(), rose(name)))
        });
        BrokerFigures {
            seconds,
            flushes: shard("flushes"),
            flushes_per_second: shard("flushes") / seconds,
            bytes_per_flush: ratio(written, shard("flushes")),
            journal_ratio: ratio(shard("journal_frames"), shard("flushes")),
            write_amplification: ratio(written, shard("appended_bytes")),
            cache_hit_ratio: ratio(shard("cache_hits"), reads),
            forwarded_requests: shard("forwarded_requests"),
            cpu_seconds,
            cpu_seconds_per_gb: ratio(cpu_seconds, moved_gb),
            resident_bytes: self.value("process_resident_memory_bytes"),
            counters: counters.collect(),
        }
    }
}

/// Fetches `/metrics` from an admin address.
///
/// # Errors
/// If nothing answers in time, or not with metrics.
pub async fn scrape(admin: &str) -> Result<Scrape> {
    let reply = timeout(PATIENCE, fetch(admin, "/metrics"));
    let reply = reply.await.context("no answer in time")??;
    Ok(Scrape::parse(&reply))
}

/// Memory that the broker has in use, in bytes.
///
/// # Errors
/// If nothing answers in time, or not with metrics.
pub async fn resident_bytes(admin: &str) -> Result<u64> {
    let bytes = scrape(admin).await?.value("process_resident_memory_bytes");
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates; memory is positive and far below 2^64"
    )]
    Ok(bytes as u64)
}

/// One HTTP/1.1 request; the body, which ends with the connection.
async fn fetch(address: &str, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    // HTTP/1.0: no chunks and no connection that stays.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut reply = String::new();
    stream
        .take(MAX_REPLY_SIZE)
        .read_to_string(&mut reply)
        .await?;
    let (head, body) = reply.split_once("\r\n\r\n").context("no HTTP reply")?;
    let status = head.lines().next().unwrap_or_default();
    ensure!(status.contains(" 200"), "{address} answered {status:?}");
    Ok(body.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrape_of(flushes: u32, written: u32) -> Scrape {
        Scrape::parse(&format!(
            "# HELP millstream_shard_flushes Flushes.\n\
             # TYPE millstream_shard_flushes counter\n\
             millstream_shard_flushes_total{{shard=\"0\"}} {flushes}.0\n\
             millstream_shard_flushes_total{{shard=\"1\"}} 5.0\n\
             millstream_shard_written_bytes_total{{shard=\"0\"}} {written}\n\
             millstream_shard_journal_bytes_total{{shard=\"0\"}} {written}\n\
             millstream_shard_journal_frames_total{{shard=\"1\"}} {}\n\
             millstream_shard_appended_bytes_total{{shard=\"0\"}} {}\n\
             millstream_shard_received_bytes_total{{shard=\"0\"}} {}\n\
             millstream_shard_disk_total 7\n\
             process_cpu_seconds_total {}\n\
             process_resident_memory_bytes 4096\n# EOF\n",
            flushes / 2,
            written / 2,
            u64::from(written) * 1_000_000,
            f64::from(flushes) / 10.0,
        ))
    }

    #[test]
    fn what_happened_between_two_looks() {
        let figures = scrape_of(30, 9_000).since(&scrape_of(10, 1_000), 4.0);
        assert_eq!(figures.flushes, 20.0);
        assert_eq!(figures.flushes_per_second, 5.0);
        assert_eq!(figures.bytes_per_flush, Some(800.0));
        assert_eq!(figures.journal_ratio, Some(0.5));
        assert_eq!(figures.write_amplification, Some(4.0));
        assert_eq!(figures.cache_hit_ratio, None);
        assert_eq!(figures.cpu_seconds, 2.0);
        assert_eq!(figures.cpu_seconds_per_gb, Some(0.25));
        assert_eq!(figures.resident_bytes, 4096.0);
        assert_eq!(figures.counters["flushes"], 20.0);
        assert_eq!(figures.counters.len(), 1, "a gauge may end in _total too");
    }

    #[test]
    fn a_restart_in_between_gives_nothing_negative() {
        let figures = scrape_of(1, 100).since(&scrape_of(10, 1_000), 4.0);
        assert_eq!(figures.flushes, 0.0);
        assert_eq!(figures.counters["flushes"], 0.0);
    }

    #[test]
    fn counters_are_new_once_every_shard_has_published_them() {
        let beats = |first: u32, second: u32| {
            Scrape::parse(&format!(
                "{HEARTBEAT}{{shard=\"0\"}} {first}\n{HEARTBEAT}{{shard=\"1\"}} {second}\n"
            ))
        };
        assert!(!beats(2, 1).is_newer_than(&beats(1, 1)));
        assert!(beats(2, 2).is_newer_than(&beats(1, 1)));
        assert!(beats(0, 0).is_newer_than(&beats(9, 9)), "a restart");
    }
}
