//! A shard's cleaner: compacts its logs one at a time, the dirtiest first, in the background and within a
//! budget of bytes.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::Duration,
};

use millstream_protocol::TopicPartition;

use crate::{
    io::{Io, Monotonic},
    partition::{Clean, SegmentDirt, compaction_due},
    shard::{Shard, catalog::Slot, partition::PartitionShell},
    storage::{CompactionOptions, CompactionReport, LogError, Pace, SegmentStats},
    types::{Ratio, TopicConfig},
};

/// Between two looks, when there is nothing to do.
const ROUND: Duration = Duration::from_secs(1);
/// Bytes that compaction reads and writes in a second, on each shard.
const BYTES_PER_SECOND: u64 = 64 << 20;
/// A log that could not be compacted is left alone for so long.
const RETRY_AFTER: Duration = Duration::from_secs(60);
/// The part of a shard's memory that the keys of a pass may take ...
const MEMORY_PART: usize = 16;
/// ... and the most.
const MEMORY_MAX: usize = 64 << 20;

/// A partition of a compacted topic.
struct Candidate<I: Io> {
    shell: Rc<PartitionShell<I>>,
    config: TopicConfig,
}

impl<I: Io> Shard<I> {
    /// Compacts until the shard stops.
    pub(super) async fn clean(self: Rc<Self>) {
        let pace = Rc::new(Pace::new(BYTES_PER_SECOND));
        let mut failed: BTreeMap<TopicPartition, Monotonic> = BTreeMap::new();
        loop {
            self.io.sleep(ROUND).await;
            // They wait for a checkpoint, or for a flush; the others do not wait for them.
            let mut not_ready = BTreeSet::new();
            while !self.stop.get() {
                let now = self.io.now();
                failed.retain(|_, at| now.since(*at) < RETRY_AFTER);
                let Some(candidate) = self.dirtiest(&mut failed, &not_ready).await else {
                    break;
                };
                let id = candidate.shell.log().id();
                match self.compact(&candidate, &pace).await {
                    Ok(report) if report.segments > 0 => {}
                    Ok(_) => {
                        not_ready.insert(id);
                    }
                    Err(error) => self.not_compacted(id, &error, &mut failed),
                }
            }
            if self.stop.get() {
                return;
            }
        }
    }

    fn not_compacted(
        &self,
        id: TopicPartition,
        error: &LogError,
        failed: &mut BTreeMap<TopicPartition, Monotonic>,
    ) {
        tracing::warn!(partition = %self.name_of(id), %error, "not compacted");
        failed.insert(id, self.io.now());
    }

    /// The log that wants it most.
    async fn dirtiest(
        self: &Rc<Self>,
        failed: &mut BTreeMap<TopicPartition, Monotonic>,
        not_ready: &BTreeSet<TopicPartition>,
    ) -> Option<Candidate<I>> {
        let mut dirtiest: Option<(Ratio, Candidate<I>)> = None;
        for candidate in self.compacted_partitions() {
            let log = candidate.shell.log();
            if failed.contains_key(&log.id()) || not_ready.contains(&log.id()) {
                continue;
            }
            if let Err(error) = log.know_compaction().await {
                self.not_compacted(log.id(), &error, failed);
                continue;
            }
            let segments: Vec<SegmentDirt> = log.stats().segments.iter().map(dirt_of).collect();
            let due = compaction_due(&segments, &candidate.config, self.io.wall_ms());
            if let Some(due) = due
                && dirtiest.as_ref().is_none_or(|(ratio, _)| *ratio < due)
            {
                dirtiest = Some((due, candidate));
            }
            self.io.yield_if_needed().await;
        }
        dirtiest.map(|(_, candidate)| candidate)
    }

    fn compacted_partitions(&self) -> Vec<Candidate<I>> {
        let image = self.image.borrow();
        let partitions = self.partitions.borrow();
        let candidates = partitions.iter().filter_map(|(id, slot)| {
            let topic = image.topic(id.topic)?;
            match slot {
                Slot::Open(shell) if topic.config.cleanup_policy.compacts() => Some(Candidate {
                    shell: Rc::clone(shell),
                    config: topic.config.clone(),
                }),
                Slot::Open(_) | Slot::Loading | Slot::Failed(_) => None,
            }
        });
        candidates.collect()
    }

    async fn compact(
        &self,
        candidate: &Candidate<I>,
        pace: &Rc<Pace>,
    ) -> Result<CompactionReport, LogError> {
        let Candidate { shell, config } = candidate;
        let signed = |period_ms: u64| i64::try_from(period_ms).unwrap_or(i64::MAX);
        let remembered = |machine: &crate::partition::Partition<_>| {
            machine.producers().remembered_batches().collect()
        };
        let options = CompactionOptions {
            delete_retention_ms: signed(config.delete_retention_ms),
            min_lag_ms: signed(config.min_compaction_lag_ms),
            memory: (self.config.memory / MEMORY_PART).min(MEMORY_MAX),
            remembered: shell.with_machine(remembered),
        };
        let started = self.io.now();
        let report = shell.log().compact(options, pace).await?;
        let counters = self.counters();
        counters.compacted_segments.add(report.segments);
        counters.compacted_records.add(report.removed_records);
        if report.segments > 0 {
            let partition = self.name_of(shell.log().id());
            let (before, after) = (report.bytes_before >> 10, report.bytes_after >> 10);
            let took = self.io.now().since(started);
            tracing::info!(
                %partition,
                "compacted {} segments from {before} to {after} KiB, {} records gone, in {took:.1?}",
                report.segments,
                report.removed_records,
            );
        }
        if report.unreadable_batches > 0 {
            let partition = self.name_of(shell.log().id());
            let count = report.unreadable_batches;
            tracing::warn!(%partition, "{count} batches cannot be read and stay as they are");
        }
        Ok(report)
    }
}

/// What the plan needs to know of a segment.
pub(super) fn dirt_of(segment: &SegmentStats) -> SegmentDirt {
    SegmentDirt {
        next_offset: segment.next_offset,
        size: segment.size,
        first_append_ms: segment.first_append_ms,
        last_append_ms: segment.last_append_ms,
        clean: segment.compaction.map(|mark| Clean {
            end: mark.clean_end,
            since_ms: mark.clean_since_ms,
            has_tombstones: mark.tombstones > 0,
        }),
    }
}
