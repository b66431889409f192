//! `linger = "auto"`: batches that are not full leave at once while nothing is in flight to their
//! shard, and else a quarter of a round trip behind the request before.
//!
//! Where records come one by one, none waits. Where they come faster, requests get as many as come in
//! that time, so that they cost little, and no record waits longer than a fraction of what it takes
//! anyway. A broker that is busy answers later, is then asked less often with more, and so gets less
//! busy: the round trip is the measure of both. Full batches never wait.

use std::{collections::BTreeMap, time::Duration};

use super::{Machine, batch::Batch};
use crate::{metadata::Node, producer::linger::Linger};

/// Part of a round trip that is between two requests: as many requests are in flight.
const SHARE: u32 = 4;
/// Longest time between two requests, however long a round trip takes.
const LONGEST: Duration = Duration::from_millis(5);
/// How much of what is known of the round trip is kept when another one is seen (RFC 6298).
const SMOOTHING: u32 = 8;
/// Of an open batch's records, each of the first so many, and then one in so many, asks for the time.
const STRIDE: u32 = 16;

#[derive(Debug, Default)]
pub(super) struct Pacing {
    shards: BTreeMap<Node, Pace>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    last_sent: Duration,
    round_trip: Option<Duration>,
}

impl Pacing {
    pub(super) fn sent(&mut self, now: Duration, node: Node) {
        self.shards.entry(node).or_default().last_sent = now;
    }

    pub(super) fn answered(&mut self, node: Node, took: Duration) {
        let pace = self.shards.entry(node).or_default();
        pace.round_trip = Some(match pace.round_trip {
            Some(known) => (known * (SMOOTHING - 1) + took) / SMOOTHING,
            None => took,
        });
    }

    /// When a batch that is not full may follow the last request.
    fn next_at(&self, node: Node) -> Duration {
        let Some(pace) = self.shards.get(&node) else {
            return Duration::ZERO;
        };
        let gap = pace.round_trip.unwrap_or_default() / SHARE;
        pace.last_sent + gap.min(LONGEST)
    }

    /// Whether an open batch that had to wait need not any more. Records that follow each other are
    /// a finer clock than timers, but asking for the time costs more than a record does.
    pub(super) fn is_over(
        &self,
        now: impl Fn() -> Duration,
        node: Node,
        record_count: u32,
    ) -> bool {
        let asks = record_count < STRIDE || record_count.is_multiple_of(STRIDE);
        asks && now() >= self.next_at(node)
    }
}

impl<H: Clone + Default> Machine<H> {
    /// Until when a batch that is ready waits all the same.
    pub(super) fn paced_until(
        &self,
        now: Duration,
        node: Node,
        batch: &Batch<H>,
    ) -> Option<Duration> {
        let waits = self.config.linger == Linger::Auto
            && batch.is_open()
            && !self.hurry
            && batch.id >= self.flush_before
            && self.in_flight.contains_key(&node);
        waits
            .then(|| self.pacing.next_at(node))
            .filter(|due| *due > now)
    }
}
