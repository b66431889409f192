//! Which partitions to ask for, of whom, and for how much.

use std::{sync::Arc, time::Duration};

use millstream_protocol::{
    TopicPartition,
    limits::{MAX_FETCH_SIZE, MAX_PARTITIONS_PER_REQUEST},
    messages::{FetchPartition, FetchRequest},
};

use super::{Action, FetchId, Machine, UnderWay};
use crate::metadata::Node;

/// With less room than this, reading ahead waits until something is taken.
const MIN_FETCH_BYTES: usize = 64 << 10;

impl Machine {
    /// Asks for every partition that wants more, within the budget.
    pub(super) fn fetch(&mut self, now: Duration, actions: &mut Vec<Action>) {
        // A partition reads ahead up to its share, so that a busy one leaves room for the others.
        let share = (self.config.prefetch_bytes / self.partitions.len().max(1)).max(1);
        // In the order of their first partition: whoever is turned to first has the first choice.
        let mut groups: Vec<(Node, Vec<TopicPartition>)> = Vec::new();
        for at in &self.order {
            let partition = &self.partitions[at];
            if !partition.wants_fetch(now, share) {
                continue;
            }
            let Some(leader) = partition.leader else {
                self.lookups.want(at.topic);
                continue;
            };
            match groups.iter_mut().find(|(node, _)| *node == leader.node) {
                Some((_, group)) => group.push(*at),
                None => groups.push((leader.node, vec![*at])),
            }
        }
        for (node, mut group) in groups {
            group.truncate(MAX_PARTITIONS_PER_REQUEST);
            let Some(max_bytes) = self.room_for(node, &mut group) else {
                continue;
            };
            actions.push(self.ask(node, group, max_bytes));
            // What is asked for first gets the reply's room first: take turns.
            self.order.rotate_left(1);
        }
        for id in self.lookups.start_due(now) {
            let name = self.partitions.iter().find(|(at, _)| at.topic == id);
            match name {
                Some((_, partition)) => actions.push(Action::RefreshTopic {
                    name: Arc::clone(&partition.topic),
                    id,
                }),
                None => self.lookups.done(id),
            }
        }
    }

    /// Bytes that the next reply may bring; none if it has to wait. Half of what is left, so that
    /// long polls under way never take all of it from partitions that have data.
    fn room_for(&self, node: Node, group: &mut Vec<TopicPartition>) -> Option<usize> {
        let used = self.buffered + self.reserved;
        let left = self.config.prefetch_bytes.saturating_sub(used);
        if used > 0 && left < MIN_FETCH_BYTES.min(self.config.prefetch_bytes / 8 + 1) {
            // However little room there is, a shard that is not being asked may be asked for
            // partitions of which nothing is here: none starves while others fill the buffer.
            if self.fetches.values().any(|it| it.node == node) {
                return None;
            }
            group.retain(|at| self.partitions[at].buffered == 0);
            let least = MIN_FETCH_BYTES.min(self.config.prefetch_bytes);
            return (!group.is_empty()).then_some(least);
        }
        let wanted = group.len().saturating_mul(self.config.fetch_bytes);
        let most = (MAX_FETCH_SIZE as usize).min(left.div_ceil(2));
        Some(wanted.min(most).max(1))
    }

    fn ask(&mut self, node: Node, group: Vec<TopicPartition>, max_bytes: usize) -> Action {
        let id = self.next_fetch;
        self.next_fetch.0 += 1;
        // Whose end is unknown learns it at once.
        let mut waits = true;
        let mut partitions = Vec::with_capacity(group.len());
        for at in &group {
            let partition = self.partitions.get_mut(at).expect("an assigned partition");
            let leader = partition.leader.expect("partitions are grouped by leader");
            partition.in_flight = Some(id);
            waits &= partition.high_watermark.is_some();
            partitions.push(FetchPartition {
                topic: at.topic,
                partition: at.partition,
                leader_epoch: leader.epoch,
                fetch_offset: partition.fetch_offset,
                last_fetched_epoch: partition.last_fetched_epoch,
                max_bytes: wire_size(max_bytes.min(self.config.fetch_bytes)),
            });
        }
        self.reserved += max_bytes;
        let under_way = UnderWay {
            node,
            partitions: group,
            reserved: max_bytes,
        };
        self.fetches.insert(id, under_way);
        let request = FetchRequest {
            max_wait_ms: if waits { self.config.max_wait_ms } else { 0 },
            min_bytes: u32::from(waits),
            max_bytes: wire_size(max_bytes),
            partitions,
        };
        Action::Fetch { id, node, request }
    }

    /// The partitions of a fetch that ended and still wait for it.
    pub(super) fn fetch_ended(&mut self, id: FetchId) -> Vec<TopicPartition> {
        let Some(ended) = self.fetches.remove(&id) else {
            return Vec::new();
        };
        self.reserved -= ended.reserved;
        let mut waiting = ended.partitions;
        waiting.retain(|at| match self.partitions.get_mut(at) {
            Some(partition) if partition.in_flight == Some(id) => {
                partition.in_flight = None;
                true
            }
            // Unassigned or moved meanwhile.
            Some(_) | None => false,
        });
        waiting
    }
}

fn wire_size(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
