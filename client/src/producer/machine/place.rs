//! Which partition a record goes to: the one it names, or what the topic's partitioner says.

use std::fmt;

use super::{Partition, Refusal, TopicState};
use crate::producer::{
    partitioner::{Observed, PartitionChoice, RecordView, TopicPartitions},
    record::ProducerRecord,
};

/// Where a record goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub index: usize,
    /// It goes where all do that have no place of their own.
    pub sticks: bool,
}

impl<H: Clone + Default> TopicState<H> {
    pub(super) fn place(
        &mut self,
        record: &ProducerRecord,
        size: usize,
        batch_size: usize,
    ) -> Result<Place, Refusal> {
        let choice = match record.partition {
            Some(partition) => PartitionChoice::Partition(partition),
            None if self.partitions.is_empty() => return Err(Refusal::UnknownTopic),
            None => self.partitioner.partition(
                &RecordView::of(record),
                &TopicPartitions::live(&Observer(&self.partitions)),
            ),
        };
        match choice {
            PartitionChoice::Partition(partition) => {
                let (index, count) = (partition.0 as usize, self.partitions.len());
                match index < count {
                    true => Ok(Place {
                        index,
                        sticks: false,
                    }),
                    false => Err(Refusal::UnknownPartition { partition, count }),
                }
            }
            PartitionChoice::Sticky => Ok(Place {
                index: self.stick(size, batch_size),
                sticks: true,
            }),
        }
    }

    /// The partition visited, until the batch there is done; then the next.
    fn stick(&mut self, size: usize, batch_size: usize) -> usize {
        if let Some((index, Some(visited))) = self.sticky.visited()
            && self.partitions[index].is_available()
            && let Some(last) = self.partitions[index].batches.back()
            && last.id == visited
            && last.is_open()
            && last.size + size <= batch_size
        {
            return index;
        }
        let partitions = &self.partitions;
        self.sticky.move_on(
            |index| partitions[index].is_available(),
            |index| partitions[index].batches.len(),
        )
    }
}

impl<H> Partition<H> {
    /// Whether what is sent to it may be expected to arrive soon.
    fn is_available(&self) -> bool {
        // With nothing left to try, only another record can tell whether it works again.
        let fails = self.failures > 0 && !self.batches.is_empty();
        self.leader.is_some() && !fails
    }
}

/// A topic's partitions, for its partitioner.
struct Observer<'a, H>(&'a [Partition<H>]);

impl<H> fmt::Debug for Observer<'_, H> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} partitions", self.0.len())
    }
}

impl<H> Observed for Observer<'_, H> {
    fn count(&self) -> u32 {
        u32::try_from(self.0.len()).expect("a topic has few partitions")
    }

    fn is_available(&self, index: u32) -> bool {
        self.0[index as usize].is_available()
    }

    fn queued_batches(&self, index: u32) -> usize {
        self.0[index as usize].batches.len()
    }
}
