//! Partitions that the caller wants nothing of for now: what was read ahead is kept, outside the queue
//! so that nobody has to search past it, and counts as read ahead all the while.

use std::{collections::VecDeque, mem, sync::Arc};

use millstream_protocol::TopicPartition;

use super::{Item, Machine};

impl Machine {
    pub(super) fn pause_reading(&mut self, at: TopicPartition) {
        let Some(partition) = self.partitions.get_mut(&at) else {
            return;
        };
        if partition.paused {
            return;
        }
        partition.paused = true;
        let is_its = |item: &Item| item.partition() == at;
        let queue = mem::take(&mut self.queue);
        (partition.held, self.queue) = queue.into_iter().partition(is_its);
    }

    /// What was held comes next: it has waited longest.
    pub(super) fn resume_reading(&mut self, at: TopicPartition) {
        let Some(partition) = self.partitions.get_mut(&at) else {
            return;
        };
        partition.paused = false;
        for item in mem::take(&mut partition.held).into_iter().rev() {
            self.queue.push_front(item);
        }
    }

    pub fn paused(&self) -> Vec<(Arc<str>, TopicPartition)> {
        let paused = self.partitions.iter().filter(|(_, it)| it.paused);
        paused
            .map(|(at, it)| (Arc::clone(&it.topic), *at))
            .collect()
    }

    /// Where what is read ahead of a partition is, besides that of others.
    pub(super) fn queue_of(&mut self, at: TopicPartition) -> &mut VecDeque<Item> {
        match self.partitions.get_mut(&at) {
            Some(partition) if partition.paused => &mut partition.held,
            Some(_) | None => &mut self.queue,
        }
    }
}
