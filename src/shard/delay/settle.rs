//! The end of a recovery: what was delivered is asked of the partition's own records where no checkpoint tells.

use millstream_protocol::{Offset, batch::Batches};

use super::Delay;
use crate::{
    delay::{Deliveries, Recovered, Schedule},
    io::Io,
    shard::partition::PartitionShell,
};

/// Bytes of the partition that are read at once.
const READ_SIZE: usize = 1 << 20;

impl<I: Io> Delay<I> {
    /// What the partition has is over. False if that cannot be known now: then nothing is delivered.
    pub(super) async fn settle(
        &self,
        partition: &PartitionShell<I>,
        log: &PartitionShell<I>,
        schedule: &mut Schedule,
    ) -> bool {
        let partition_end = partition.log().log_end();
        let wanted = schedule.deliveries_wanted(partition_end);
        let covered_from = self.deliveries.borrow().covered_from();
        let mut trouble = None;
        if wanted < covered_from {
            match self.read_deliveries(partition, wanted, covered_from).await {
                Ok(part) => schedule.delivered_before(&part, covered_from),
                Err(error) => trouble = Some(error),
            }
        }
        let recovered = Recovered {
            start: log.log().log_start(),
            end: log.log().log_end(),
            partition_end,
        };
        let known = schedule.settle(recovered, &self.deliveries.borrow());
        if !known {
            let why = trouble.unwrap_or_else(|| "the partition ends before".to_owned());
            let trouble = format!(
                "which delayed records were delivered is not known, and none is delivered, so that none is \
                 twice: {why}"
            );
            tracing::error!(partition = %partition.log().id(), "{trouble}");
            self.trouble.replace(Some(trouble));
        }
        known
    }

    /// Reads what a part of the partition says was delivered. What retention has taken of it is unknown.
    async fn read_deliveries(
        &self,
        partition: &PartitionShell<I>,
        from: Offset,
        up_to: Offset,
    ) -> Result<Deliveries, String> {
        let log = partition.log();
        let segments = log.stats().segments;
        let written_by_ms = |offset: Offset| {
            let segment = segments.iter().find(|it| offset < it.next_offset);
            segment.map_or_else(|| self.io.wall_ms(), |it| it.last_append_ms)
        };
        let start = log.log_start();
        let mut part = Deliveries::of_part(from, start);
        let mut at = from.max(start);
        while at < up_to {
            let read = log.read_some(at, up_to, READ_SIZE).await;
            let (slices, next) = read.map_err(|error| error.to_string())?;
            let before = at;
            for slice in slices {
                for batch in Batches::trusted(slice.bytes()) {
                    let (header, bytes) = batch.map_err(|error| error.to_string())?;
                    part.batch(&header, bytes, written_by_ms(header.base_offset));
                    at = at.max(header.next_offset());
                }
                self.io.yield_if_needed().await;
            }
            at = at.max(next);
            if at == before {
                return Err(format!("the partition gives nothing at {at}"));
            }
        }
        part.all_read(written_by_ms(up_to));
        Ok(part)
    }

    /// Every record was looked at, in the index too.
    pub(super) fn tell_of_doubt(&self) {
        let mut schedule = self.schedule.borrow_mut();
        if schedule.index_is_lost() {
            // The rest is looked at when the index is made.
            return;
        }
        let count = schedule.all_certain();
        drop(schedule);
        if count > 0
            && let Some(log) = self.log.get()
        {
            log.checkpoint_soon();
            tracing::error!(
                partition = %log.log().id(),
                "{count} delayed records may have been delivered where the partition lost what it had, and count \
                 as delivered"
            );
        }
    }
}
