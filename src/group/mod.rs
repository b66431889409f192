//! The group coordinator machine: one consumer group, its members, who owns which partition. Pure.
//!
//! The broker decides, as in KIP-848. A member's heartbeat says which assignment it has taken on, by
//! its epoch; the answer, which may wait for news, brings a newer one if there is. A partition that
//! moves is first taken from its owner's assignment, and given to the next only when the owner says
//! that it has let go, or is gone: so each has one owner at any time, and nobody else stops.
//!
//! Every assignment has an epoch of its own, and every owner holds a partition *since* one: a commit
//! counts if it comes from the owner, with an epoch no older than that.
//!
//! Members are kept in the log, their assignments are not. After a restart those that are known and
//! come back with what they hold keep it; until all are back, or their sessions are over, nothing is
//! handed out.

pub mod assignor;
pub mod event;
pub mod format;
pub mod offsets;
pub mod topics;

mod describe;
mod even_out;
mod heartbeat;
mod member;
mod reconcile;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, rc::Rc};

use millstream_protocol::{ErrorCode, TopicId, TopicPartition};

use self::member::{MAP_ENTRY_SIZE, MEMBER_SIZE, Member};
pub use self::{
    assignor::Assignor,
    describe::{Description, MemberDescription, State},
    event::{Action, Assigned, Epoch, Event, Heartbeat, Moment, Refusal, Reply, Speaker, Wants},
    format::{GroupRecord, MemberRecord},
    topics::{Pattern, Topics, TopicsChange},
};
use crate::io::Monotonic;

/// The most members of one group.
pub const MAX_MEMBERS: usize = millstream_protocol::limits::MAX_GROUP_MEMBERS;

/// One group.
#[derive(Debug)]
pub struct Group<T> {
    id: Rc<str>,
    /// The newest that an earlier coordinator may have handed out.
    start: Epoch,
    /// The newest that was handed out.
    epoch: Epoch,
    members: BTreeMap<String, Member<T>>,
    /// Members with an instance id, by it.
    instances: BTreeMap<String, String>,
    /// Who owns each partition that anyone owns, or may still own.
    owners: BTreeMap<TopicPartition, Rc<str>>,
    /// Who is to have each partition, as the members' targets say.
    heirs: BTreeMap<TopicPartition, Rc<str>>,
    topics: Rc<Topics>,
    record: GroupRecord,
    /// The record differs from what was last kept.
    record_changed: bool,
    /// Who is to have what must be found anew.
    unbalanced: bool,
    /// Let go since, so that it may be given.
    freed: Vec<TopicPartition>,
    /// Topics that came with the newest table.
    born: Vec<TopicId>,
}

impl<T> Group<T> {
    /// A new group, or one of which the log holds a record. Every epoch that it hands out is newer than
    /// `start`, and every one that was handed out before must not be.
    #[must_use]
    pub fn new(id: Rc<str>, start: Epoch, topics: Rc<Topics>, record: GroupRecord) -> Self {
        Self {
            id,
            start,
            epoch: start,
            members: BTreeMap::new(),
            instances: BTreeMap::new(),
            owners: BTreeMap::new(),
            heirs: BTreeMap::new(),
            topics,
            record,
            record_changed: false,
            unbalanced: false,
            freed: Vec::new(),
            born: Vec::new(),
        }
    }

    /// Takes a member from the log: it may come back with what it holds.
    pub fn remember(&mut self, member_id: String, record: MemberRecord, now: Monotonic) {
        if let Some(instance) = &record.instance_id {
            self.instances.insert(instance.clone(), member_id.clone());
        }
        let member = Member::absent(record, self.epoch, now);
        self.members.insert(member_id, member);
    }

    /// Decides what to do about an event, and about everything that is due.
    pub fn apply(&mut self, now: Moment, event: Event<T>, actions: &mut Vec<Action<T>>) {
        match event {
            Event::Heartbeat { token, heartbeat } => {
                self.expire(now, actions);
                self.heartbeat(now, token, *heartbeat, actions);
            }
            Event::Topics(topics, change) => self.take_topics(topics, &change),
            Event::Ticked => self.expire(now, actions),
        }
        self.settle(now.monotonic, actions);
        self.born.clear();
        if std::mem::take(&mut self.record_changed) {
            actions.push(Action::KeepGroup(self.record.clone()));
        }
    }

    /// Takes the tokens of all heartbeats that wait: the coordinator ends.
    pub fn release(&mut self) -> Vec<T> {
        let parked = self.members.values_mut();
        parked
            .filter_map(|it| Some(it.parked.take()?.token))
            .collect()
    }

    /// When something is due although nothing happens.
    #[must_use]
    pub fn deadline(&self) -> Option<Monotonic> {
        self.members.values().map(Member::deadline).min()
    }

    /// The group's name.
    #[must_use]
    pub fn id(&self) -> &Rc<str> {
        &self.id
    }

    /// The newest epoch that was handed out.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// How many members it has, those that are expected back too.
    #[must_use]
    pub fn member_count(&self) -> usize {
        self.members.len()
    }

    /// About how much memory it takes besides its name, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        let members = self.members.iter();
        let members = members.map(|(id, member)| MAP_ENTRY_SIZE + id.len() + member.size());
        members.sum::<usize>() + self.record.seen.len() * MAP_ENTRY_SIZE
    }

    /// By how much a heartbeat would make it larger, in bytes.
    #[must_use]
    pub fn growth(&self, heartbeat: &Heartbeat) -> usize {
        let said = heartbeat.wants.as_ref().map_or(0, Wants::size);
        match self.members.get(&heartbeat.member_id) {
            Some(member) => said.saturating_sub(member.wants_size()),
            None => MEMBER_SIZE + said,
        }
    }

    /// Whether a heartbeat would have something of its member kept, besides that it is gone.
    #[must_use]
    pub fn would_keep(&self, heartbeat: &Heartbeat) -> bool {
        let Some(wants) = &heartbeat.wants else {
            return false;
        };
        match self.members.get(&heartbeat.member_id) {
            Some(member) => member.wants.session_timeout != wants.session_timeout,
            None => heartbeat.epoch == Epoch::JOIN,
        }
    }

    /// What is kept of it.
    #[must_use]
    pub fn record(&self) -> &GroupRecord {
        &self.record
    }

    /// A member from before the restart may still come back, so nothing is handed out.
    #[must_use]
    pub fn is_recovering(&self) -> bool {
        self.members.values().any(|member| member.absent)
    }

    /// Whether a member may commit for a partition with the epoch it knows.
    ///
    /// # Errors
    /// The partition is not that member's, or was not in that epoch.
    pub fn may_commit(
        &self,
        member_id: &str,
        epoch: Epoch,
        partition: TopicPartition,
    ) -> Result<(), Refusal> {
        let Some(member) = self.members.get(member_id) else {
            return Err(Refusal::no_member());
        };
        if member.absent {
            let message = "the group's coordinator started anew: send a heartbeat first";
            return Err(Refusal::new(ErrorCode::CoordinatorLoading, message));
        }
        if epoch > member.epoch {
            let message = format!("epoch {} was never given to this member", epoch.0);
            return Err(Refusal::new(ErrorCode::FencedMemberEpoch, message));
        }
        match member.owned.get(&partition) {
            Some(since) if *since <= epoch => Ok(()),
            Some(_) | None => Err(Refusal::new(
                ErrorCode::StaleMemberEpoch,
                format!("the partition is not this member's in epoch {}", epoch.0),
            )),
        }
    }

    /// Whether someone who is no member may commit: only for a group that has none.
    ///
    /// # Errors
    /// [`ErrorCode::GroupNotEmpty`], naming who to stop.
    pub fn may_commit_from_outside(&self) -> Result<(), Refusal> {
        if self.members.is_empty() {
            return Ok(());
        }
        let names = self.members.iter().take(3).map(|(id, member)| {
            let (client, host) = (&member.speaker.client, &member.speaker.host);
            match member.absent {
                true => format!("{id} (expected back)"),
                false => format!("{id} ({client} at {host})"),
            }
        });
        let names = names.collect::<Vec<_>>().join(", ");
        let more = self.members.len().saturating_sub(3);
        let more = match more {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        Err(Refusal::new(
            ErrorCode::GroupNotEmpty,
            format!("group {} has members: stop {names}{more} first", self.id),
        ))
    }

    fn take_topics(&mut self, topics: Rc<Topics>, change: &TopicsChange) {
        self.topics = topics;
        for (name, id) in &change.born {
            let mut wanted = false;
            for member in self.members.values_mut().filter(|it| !it.absent) {
                if member.means(name) {
                    member.topics.insert(*id);
                    wanted = true;
                }
            }
            if wanted {
                self.born.push(*id);
                self.unbalanced = true;
            }
        }
        for id in &change.touched {
            let gone = self.topics.name(*id).is_none();
            for member in self.members.values_mut() {
                if member.topics.contains(id) {
                    self.unbalanced = true;
                }
                if gone {
                    member.topics.remove(id);
                }
            }
            if gone && self.record.seen.remove(id).is_some() {
                self.record_changed = true;
            }
        }
    }

    fn is_new(&self, partition: TopicPartition) -> bool {
        let seen = self.record.seen.get(&partition.topic);
        seen.is_some_and(|count| partition.partition.0 >= *count)
    }

    fn next_epoch(&mut self) -> Epoch {
        self.epoch = self.epoch.next();
        self.epoch
    }

    /// Asserts what must always hold.
    pub fn check(&self) {
        let mut owned = 0;
        let mut targets = std::collections::BTreeSet::new();
        for (id, member) in &self.members {
            assert!(member.epoch <= self.epoch, "no epoch from the future");
            for (partition, since) in &member.owned {
                assert_eq!(self.owners[partition].as_ref(), id, "one owner");
                assert!(*since <= member.epoch);
                owned += 1;
            }
            assert!(
                member
                    .revoking
                    .iter()
                    .all(|it| member.owned.contains_key(it))
            );
            assert_eq!(member.revoke_by.is_some(), !member.revoking.is_empty());
            if let Some(instance) = &member.wants.instance_id {
                assert_eq!(self.instances.get(instance), Some(id));
            }
            for partition in &member.target {
                assert!(targets.insert(*partition), "one member is to have it");
                let is_new = self.unbalanced || self.is_recovering();
                assert!(is_new || self.heirs[partition].as_ref() == id);
            }
        }
        assert_eq!(owned, self.owners.len(), "every owner is a member");
        assert!(
            self.instances
                .values()
                .all(|id| self.members.contains_key(id))
        );
        if self.is_recovering() {
            return;
        }
        let topics = self.members.values().flat_map(|member| &member.topics);
        for topic in topics {
            let mut partitions = self.topics.partitions(*topic);
            assert!(
                partitions.all(|it| targets.contains(&it)),
                "all are assigned"
            );
        }
        for (id, member) in &self.members {
            for partition in &member.target {
                let owner = self.owners.get(partition).expect("what is free is given");
                let owner: &str = owner;
                let moves = owner != id && self.members[owner].revoking.contains(partition);
                assert!(owner == id || moves, "who holds it is asked to let go");
            }
        }
    }
}
