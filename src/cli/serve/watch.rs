//! What the admin server shows of the shards and the control plane.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    admin::{Family, Sample},
    control::Control,
    shard::metrics::{Kind, ShardCounters},
};

/// A shard whose heartbeat has not moved for so long does no work.
const STUCK_AFTER: Duration = Duration::from_secs(20);

/// The shards' counters, once there are shards, and when each heartbeat last moved.
#[derive(Default)]
pub(super) struct Watch {
    counters: OnceLock<Vec<Arc<ShardCounters>>>,
    heartbeats: Mutex<Vec<(u64, Instant)>>,
}

impl Watch {
    pub(super) fn set_counters(&self, counters: Vec<Arc<ShardCounters>>) {
        assert!(self.counters.set(counters).is_ok(), "a broker starts once");
    }

    fn counters(&self) -> &[Arc<ShardCounters>] {
        self.counters.get().map_or(&[], Vec::as_slice)
    }

    /// Every counter, with a sample for each shard.
    pub(super) fn families(&self) -> Vec<Family> {
        let mut families: Vec<Family> = Vec::new();
        for (shard, counters) in self.counters().iter().enumerate() {
            for (place, (name, help, kind, value)) in counters.each().enumerate() {
                if shard == 0 {
                    families.push(family(name, help, kind));
                }
                let sample = Sample::labelled("shard", shard, as_f64(value));
                families[place].samples.push(sample);
            }
        }
        families
    }

    /// Names a shard that makes no progress, if there is one. It takes two calls to see it.
    #[expect(
        clippy::disallowed_methods,
        reason = "the admin thread has no shard's clock"
    )]
    pub(super) fn stuck_shard(&self) -> Result<(), String> {
        let values: Vec<u64> = self
            .counters()
            .iter()
            .map(|it| it.heartbeat.value())
            .collect();
        let mut seen = self
            .heartbeats
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        judge_heartbeats(&mut seen, &values, Instant::now())
    }
}

fn judge_heartbeats(
    seen: &mut Vec<(u64, Instant)>,
    values: &[u64],
    now: Instant,
) -> Result<(), String> {
    if seen.len() != values.len() {
        *seen = values.iter().map(|value| (*value, now)).collect();
    }
    let mut stuck = None;
    for (shard, (seen, value)) in seen.iter_mut().zip(values).enumerate() {
        if seen.0 != *value {
            *seen = (*value, now);
        } else if now.duration_since(seen.1) >= STUCK_AFTER {
            stuck = Some((shard, now.duration_since(seen.1).as_secs()));
        }
    }
    match stuck {
        Some((shard, seconds)) => Err(format!("shard {shard} makes no progress for {seconds} s")),
        None => Ok(()),
    }
}

/// What the control plane has to show.
pub(super) fn control_families(control: &Control) -> Vec<Family> {
    let image = control.image();
    let partitions: usize = image.topics().map(|topic| topic.partitions.len()).sum();
    let plain = |value: u64| [Sample::plain(as_f64(value))];
    vec![
        Family::gauge(
            "millstream_metadata_index",
            "Index of the newest metadata.",
            plain(image.index),
        ),
        Family::gauge(
            "millstream_metadata_term",
            "Term of the metadata's leader.",
            plain(image.term),
        ),
        Family::gauge(
            "millstream_topics",
            "Topics.",
            plain(image.topic_count() as u64),
        ),
        Family::gauge(
            "millstream_topic_partitions",
            "Partitions of all topics.",
            plain(partitions as u64),
        ),
        Family::gauge(
            "millstream_metadata_log_failed",
            "1 once the metadata log has failed.",
            plain(u64::from(!control.is_healthy())),
        ),
    ]
}

fn family(name: &'static str, help: &'static str, kind: Kind) -> Family {
    let name = format!("millstream_shard_{name}");
    let help = help.trim_start();
    match kind {
        Kind::Counter => Family::counter(name, help, []),
        Kind::Gauge => Family::gauge(name, help, []),
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "metrics are doubles; 2^53 is exact enough"
)]
fn as_f64(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_of_every_shard() {
        let watch = Watch::default();
        assert!(watch.families().is_empty());
        let shards: Vec<Arc<ShardCounters>> = (0..2).map(|_| Arc::default()).collect();
        shards[1].requests.set(5);
        watch.set_counters(shards);
        let families = watch.families();
        let requests = families
            .iter()
            .find(|it| it.name == "millstream_shard_requests")
            .unwrap();
        let values: Vec<f64> = requests.samples.iter().map(|sample| sample.value).collect();
        assert_eq!(values, [0.0, 5.0]);
        assert_eq!(requests.samples[1].labels, [("shard", "1".to_owned())]);
        assert!(!requests.help.starts_with(' '));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn a_shard_that_stands_still_is_named() {
        let begin = Instant::now();
        let mut seen = Vec::new();
        assert_eq!(judge_heartbeats(&mut seen, &[1, 1], begin), Ok(()));
        assert_eq!(
            judge_heartbeats(&mut seen, &[2, 1], begin + STUCK_AFTER / 2),
            Ok(())
        );
        let stuck = judge_heartbeats(&mut seen, &[3, 1], begin + STUCK_AFTER);
        assert_eq!(stuck, Err("shard 1 makes no progress for 20 s".to_owned()));
        assert_eq!(
            judge_heartbeats(&mut seen, &[3, 2], begin + STUCK_AFTER),
            Ok(())
        );
    }
}
