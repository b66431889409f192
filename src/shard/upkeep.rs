//! What a shard does now and then: measures the disk, deletes expired segments, forgets silent
//! producers, publishes its counters.

use std::{rc::Rc, time::Duration};

use millstream_protocol::ErrorCode;

use crate::{
    io::Io,
    partition::{SegmentAge, retained_start},
    shard::{Shard, catalog::Slot, partition::PartitionShell},
    storage::{
        SegmentStats,
        reserve::{is_short, reserve},
    },
};

/// Between two rounds.
const ROUND: Duration = Duration::from_secs(1);

/// Rounds between two looks at retention and at silent producers.
const ROUNDS_BETWEEN_EXPIRY: u64 = 10;

impl<I: Io> Shard<I> {
    pub(super) async fn upkeep(self: Rc<Self>) {
        for round in 1u64.. {
            self.io.sleep(ROUND).await;
            if self.stop.get() {
                return;
            }
            self.measure_disk().await;
            if !self.stop.get() {
                self.storage.prepare_space();
            }
            self.publish();
            if round.is_multiple_of(ROUNDS_BETWEEN_EXPIRY) {
                self.expire().await;
                self.expire_groups();
            }
        }
    }

    pub(super) async fn measure_disk(&self) {
        // The shards of a broker share one disk, so one of them speaks.
        let speaks = self.id().0 == 0;
        let data_dir = &self.config.storage.data_dir;
        let mut space = self.io.space(data_dir).await;
        if space.as_ref().is_ok_and(|space| is_short(space, 0))
            && self.storage.release_prepared().await
        {
            space = self.io.space(data_dir).await;
        }
        match space {
            Ok(space) => {
                let full = is_short(&space, 0);
                let changed = full != self.disk_full.replace(full);
                if changed {
                    self.disk_changed.raise();
                }
                if changed && speaks {
                    let (free, least) = (space.free >> 20, reserve(&space) >> 20);
                    if full {
                        tracing::error!("disk full: {free} MiB free, produce needs {least} MiB");
                    } else {
                        tracing::info!("disk has room again: {free} MiB free");
                    }
                }
                self.counters().disk_free.set(space.free);
                self.counters().disk_total.set(space.total);
            }
            Err(error) if speaks => {
                tracing::warn!(%error, "free disk space could not be measured");
            }
            Err(_) => {}
        }
    }

    /// Shows the rest of the process how this shard fares.
    pub(super) fn publish(&self) {
        let counters = self.counters();
        let storage = self.storage.counters();
        counters.sent_bytes.set(self.sent_bytes.get());
        counters.appended_bytes.set(storage.appended_bytes);
        counters.chunks_written.set(storage.chunks_written);
        counters.written_bytes.set(storage.written_bytes);
        counters.flushes.set(storage.flushes);
        counters.journal_frames.set(storage.frames_written);
        counters.journal_bytes.set(storage.journal_bytes);
        counters.journal_failures.set(storage.journal_failures);
        counters.cache_hits.set(storage.cache_hits);
        counters.cache_misses.set(storage.cache_misses);
        counters.read_bytes.set(storage.read_bytes);
        counters.cached_bytes.set(storage.cached_bytes);
        counters.unflushed_bytes.set(storage.unflushed_bytes);
        counters.open_files.set(storage.open_files);
        counters.prepared_bytes.set(storage.prepared_bytes);
        counters
            .receive_buffer_bytes
            .set(self.buffers.used() as u64);
        counters.reply_bytes.set(self.reply_budget.used() as u64);
        let partitions = self.partitions.borrow();
        let failed = partitions.values().filter(|slot| match slot {
            Slot::Failed(_) => true,
            Slot::Loading => false,
            Slot::Open(shell) => shell.with_machine(|machine| machine.trouble() != ErrorCode::None),
        });
        counters.partitions_failed.set(failed.count() as u64);
        counters.partitions.set(partitions.len() as u64);
        counters.heartbeat.add(1);
    }

    async fn expire(self: &Rc<Self>) {
        let set_by_ms = self.clock.look(self.io.now(), self.io.wall_ms());
        self.tell_of_clock(set_by_ms);
        let open: Vec<Rc<PartitionShell<I>>> = self
            .partitions
            .borrow()
            .values()
            .filter_map(|slot| match slot {
                Slot::Open(shell) => Some(Rc::clone(shell)),
                Slot::Loading | Slot::Failed(_) => None,
            })
            .collect();
        for shell in open {
            shell.expire_producers(set_by_ms);
            shell.log().roll_old();
            shell.log().trim_idle().await;
            shell.delay().clean().await;
            self.retain(&shell).await;
            self.io.yield_if_needed().await;
        }
    }

    fn tell_of_clock(&self, set_by_ms: i64) {
        // The shards of a broker share one clock, so one of them speaks.
        if set_by_ms == 0 || self.id().0 != 0 {
            return;
        }
        let seconds = set_by_ms / 1000;
        if self.clock.is_doubted(self.io.now()) {
            tracing::warn!("the clock was set by {seconds} s: retention by time waits for an hour");
        } else {
            tracing::warn!("the clock was set by {seconds} s");
        }
    }

    /// Lets go what a log has held for as long, or as much, as it should.
    async fn retain(&self, shell: &Rc<PartitionShell<I>>) {
        let topic = self.image.borrow().topic(shell.log().id().topic).cloned();
        let Some(topic) = topic else { return };
        let stats = shell.log().stats();
        let segments: Vec<SegmentAge> = stats.segments.iter().map(age_of).collect();
        let mut config = topic.config.clone();
        if self.clock.is_doubted(self.io.now()) {
            config.retention_ms = None;
        }
        let keep = retained_start(&segments, &config, self.io.wall_ms());
        if let Some(keep) = keep
            && keep > shell.log().log_start()
            && let Err(error) = shell.delete_records(keep).await
        {
            tracing::warn!(partition = %self.name_of(shell.log().id()), %error, "retention");
        }
    }
}

/// What retention needs to know of a segment.
fn age_of(segment: &SegmentStats) -> SegmentAge {
    SegmentAge {
        next_offset: segment.next_offset,
        size: segment.size,
        max_timestamp_ms: segment.max_timestamp_ms,
        last_append_ms: segment.last_append_ms,
    }
}
