//! What may be sent is sent: requests of ready batches, identities, lookups.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use millstream_protocol::TopicPartition;

use super::{
    Action, Contents, IdentityState, Machine, Parcel, ProduceSend, SentRequest,
    batch::{BatchState, Payload, RequestId, Stamp, sequence_after},
    partition::{Conditions, Readiness},
};
use crate::{metadata::Node, producer::linger::Linger};

/// Up to so many bytes a request takes several batches of a partition.
const SHARED_REQUEST_SIZE: usize = 64 << 10;
/// Beyond so many requests in flight only large ones go: what is small waits, and shares its request with
/// what comes meanwhile.
pub(super) const SMALL_REQUESTS_IN_FLIGHT: usize = 16;
/// Large is what begins with batches of so many bytes.
const LARGE_REQUEST_SIZE: usize = SHARED_REQUEST_SIZE / 2;

impl<H: Clone + Default> Machine<H> {
    pub(super) fn conditions(&self, now: Duration) -> Conditions {
        Conditions {
            now,
            linger: match self.config.linger {
                Linger::Fixed(linger) => linger,
                Linger::Auto => Duration::ZERO,
            },
            flush_before: self.flush_before,
            hurry: self.hurry,
            idempotent: self.config.idempotent,
            has_identity: matches!(self.identity, IdentityState::Known(_)),
        }
    }

    /// Sends all that may go now.
    pub(super) fn drain(&mut self, now: Duration, actions: &mut Vec<Action<H>>) {
        self.reset_drained();
        loop {
            let (groups, identity_wanted) = self.ready_groups(now);
            if identity_wanted {
                self.request_identity(now, actions);
            }
            if groups.is_empty() {
                break;
            }
            for (node, partitions) in groups {
                let send = self.send(now, node, &partitions);
                actions.push(Action::Send(send));
            }
            // What went first this time goes last next time.
            if !self.active.is_empty() {
                self.active.rotate_left(1);
            }
        }
        self.look_up_topics(now, actions);
    }

    /// Partitions whose sequences were refused begin anew once nothing of them is in flight.
    fn reset_drained(&mut self) {
        let drained = |at: &TopicPartition| {
            let partition = self.partition(*at).expect("active partitions exist");
            partition.reset_wanted && partition.in_flight == 0
        };
        let drained: Vec<TopicPartition> = self.active.iter().copied().filter(drained).collect();
        for at in drained {
            let partition = self.partition_mut(at).expect("just found");
            let old = partition.identity;
            partition.reset();
            if let (IdentityState::Known(current), Some(old)) = (self.identity, old)
                && current == old
            {
                // Its sequences are spent here; other partitions keep it.
                self.identity = IdentityState::None;
            }
        }
    }

    /// One request's worth of ready partitions for each shard that takes another request, and
    /// whether some partition only lacks an identity.
    fn ready_groups(&mut self, now: Duration) -> (BTreeMap<Node, Vec<TopicPartition>>, bool) {
        let conditions = self.conditions(now);
        let mut groups: BTreeMap<Node, (usize, Vec<TopicPartition>)> = BTreeMap::new();
        let mut identity_wanted = false;
        let mut leaderless = Vec::new();
        for at in &self.active {
            let partition = self.partition(*at).expect("active partitions exist");
            match partition.readiness(&conditions) {
                Readiness::Ready(node) => {
                    let in_flight = self.in_flight.get(&node).copied().unwrap_or(0);
                    if in_flight >= self.config.max_in_flight {
                        continue;
                    }
                    let next = &partition.batches[partition.in_flight];
                    if self.paced_until(now, node, next).is_some() {
                        continue;
                    }
                    let (size, group) = groups.entry(node).or_default();
                    if group.is_empty() || *size + next.wire_size() <= self.config.max_request_size
                    {
                        *size += next.wire_size();
                        group.push(*at);
                    }
                }
                Readiness::NoIdentity => identity_wanted = true,
                Readiness::NoLeader => leaderless.push(at.topic),
                Readiness::Blocked | Readiness::Until(_) => {}
            }
        }
        for topic in leaderless {
            self.lookups.want(topic);
        }
        let goes = |node: &Node, size: usize| {
            let in_flight = self.in_flight.get(node).copied().unwrap_or(0);
            in_flight < SMALL_REQUESTS_IN_FLIGHT || size >= LARGE_REQUEST_SIZE
        };
        let groups = groups
            .into_iter()
            .filter(|(node, (size, _))| goes(node, *size))
            .map(|(node, (_, group))| (node, group));
        (groups.collect(), identity_wanted)
    }

    fn send(&mut self, now: Duration, node: Node, partitions: &[TopicPartition]) -> ProduceSend {
        let request = self.next_request;
        self.next_request.0 += 1;
        let mut size = 0;
        let mut parcels = Vec::with_capacity(partitions.len());
        for at in partitions {
            size += self.next_size(*at);
            parcels.push(self.parcel(*at, node, request));
        }
        self.fill_up(now, node, request, (partitions, size), &mut parcels);
        let batches = parcels.iter().map(|it| (it.partition, it.batch)).collect();
        *self.in_flight.entry(node).or_default() += 1;
        self.pacing.sent(now, node);
        let sent = SentRequest {
            node,
            sent_at: now,
            batches,
        };
        self.requests.insert(request, sent);
        ProduceSend {
            request,
            node,
            parcels,
        }
    }

    /// Small batches share a request, several of a partition too: what a request costs is then shared,
    /// and a producer of many small batches has more of them in flight.
    fn fill_up(
        &mut self,
        now: Duration,
        node: Node,
        request: RequestId,
        (partitions, mut size): (&[TopicPartition], usize),
        parcels: &mut Vec<Parcel>,
    ) {
        let conditions = self.conditions(now);
        let mut any = true;
        while any {
            any = false;
            for at in partitions {
                let partition = self.partition(*at).expect("it has batches in flight");
                if partition.readiness(&conditions) != Readiness::Ready(node) {
                    continue;
                }
                let with_it = size + self.next_size(*at);
                if with_it > SHARED_REQUEST_SIZE {
                    return;
                }
                size = with_it;
                parcels.push(self.parcel(*at, node, request));
                any = true;
            }
        }
    }

    fn next_size(&self, at: TopicPartition) -> usize {
        let partition = self.partition(at).expect("a ready partition exists");
        partition.batches[partition.in_flight].wire_size()
    }

    /// Takes the next batch of a ready partition.
    fn parcel(&mut self, at: TopicPartition, node: Node, request: RequestId) -> Parcel {
        let idempotent = self.config.idempotent;
        let current = match self.identity {
            IdentityState::Known(identity) => Some(identity),
            IdentityState::None | IdentityState::Requested(_) | IdentityState::PausedUntil(..) => {
                None
            }
        };
        let partition = self.partition_mut(at).expect("a ready partition exists");
        let leader = partition.leader.expect("a ready partition has a leader");
        let next = partition.in_flight;
        partition.in_flight += 1;
        partition.in_flight_node = Some(node);
        if idempotent && partition.identity.is_none() {
            partition.identity = current;
        }
        let batch = &mut partition.batches[next];
        batch.state = BatchState::InFlight(request);
        if idempotent && batch.stamp.is_none() {
            batch.stamp = Some(Stamp {
                identity: partition.identity.expect("a ready partition has one"),
                base_sequence: partition.next_sequence,
            });
            batch.stamp_number = partition.stamp_count;
            partition.stamp_count += 1;
            partition.next_sequence = sequence_after(partition.next_sequence, batch.record_count);
        }
        let contents = match std::mem::replace(&mut batch.payload, Payload::Encoding) {
            Payload::Open(builder) | Payload::Sealed(builder) => {
                Contents::Records(builder, batch.stamp)
            }
            Payload::Encoded(bytes, encoded) => match batch.stamp {
                Some(stamp) if encoded != Some(stamp) => Contents::Restamp(bytes, stamp),
                _ => Contents::Encoded(bytes),
            },
            Payload::Encoding => unreachable!("a batch that is being encoded is in flight"),
        };
        Parcel {
            partition: at,
            leader_epoch: leader.epoch,
            batch: batch.id,
            contents,
        }
    }

    fn request_identity(&mut self, now: Duration, actions: &mut Vec<Action<H>>) {
        let failures = match self.identity {
            IdentityState::None => 0,
            IdentityState::PausedUntil(until, failures) if until <= now => failures,
            IdentityState::PausedUntil(..)
            | IdentityState::Requested(_)
            | IdentityState::Known(_) => return,
        };
        self.identity = IdentityState::Requested(failures);
        actions.push(Action::InitProducerId);
    }

    fn look_up_topics(&mut self, now: Duration, actions: &mut Vec<Action<H>>) {
        for id in self.lookups.start_due(now) {
            match self.topics.get(&id) {
                Some(topic) => actions.push(Action::RefreshTopic {
                    name: Arc::clone(&topic.name),
                    id,
                }),
                None => self.lookups.done(id),
            }
        }
    }
}
