//! From who is to have what, to who has it: takes first, gives what is free, tells those concerned.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use millstream_protocol::TopicPartition;

use super::{
    Action, Assignor, Group, Member,
    assignor::{Subscriber, assign},
};
use crate::io::Monotonic;

impl<T> Group<T> {
    /// Brings what members have closer to what they are to have, as far as that goes now.
    pub(super) fn settle(&mut self, now: Monotonic, actions: &mut Vec<Action<T>>) {
        if self.is_recovering() {
            // Someone may come back with what looks free.
            return;
        }
        if std::mem::take(&mut self.unbalanced) {
            self.note_topics();
            self.balance();
            self.freed.clear();
            let ids: Vec<Rc<str>> = self.members.keys().map(|id| id.as_str().into()).collect();
            for id in &ids {
                let taken = self.take_back(id, now);
                let free = self.free_for(id);
                if taken || !free.is_empty() {
                    self.change(id, free, actions);
                }
            }
            return;
        }
        // Nothing else can have become free: what it costs is what was let go.
        let mut free: BTreeMap<Rc<str>, Vec<TopicPartition>> = BTreeMap::new();
        for partition in std::mem::take(&mut self.freed) {
            if let Some(heir) = self.heirs.get(&partition) {
                free.entry(Rc::clone(heir)).or_default().push(partition);
            }
        }
        for (id, free) in free {
            self.change(&id, free, actions);
        }
    }

    /// Gives what is free, under a new epoch. A member whose heartbeat waits hears of it.
    fn change(&mut self, id: &Rc<str>, free: Vec<TopicPartition>, actions: &mut Vec<Action<T>>) {
        let epoch = self.next_epoch();
        let member = self.members.get_mut(id.as_ref()).expect("a member");
        for partition in free {
            self.owners.insert(partition, Rc::clone(id));
            member.owned.insert(partition, epoch);
        }
        let before = std::mem::replace(&mut member.epoch, epoch);
        if let Some(parked) = member.parked.take() {
            let result = Ok(self.reply_to(id, before));
            let token = parked.token;
            actions.push(Action::Answer { token, result });
        }
    }

    /// Asks for what the member is not to have any more. True if that changed.
    fn take_back(&mut self, id: &str, now: Monotonic) -> bool {
        let member = self.members.get_mut(id).expect("a member");
        let surplus = member.owned.keys();
        let surplus = surplus.filter(|it| !member.target.contains(it));
        let surplus: BTreeSet<TopicPartition> = surplus.copied().collect();
        if surplus == member.revoking {
            return false;
        }
        member.revoking = surplus;
        member.revoke_by = match member.revoking.is_empty() {
            true => None,
            false => Some(now + member.wants.rebalance_timeout),
        };
        true
    }

    /// What the member is to have and nobody has.
    fn free_for(&self, id: &str) -> Vec<TopicPartition> {
        let target = self.members[id].target.iter();
        target
            .filter(|partition| !self.owners.contains_key(partition))
            .copied()
            .collect()
    }

    /// Finds out who is to have what.
    fn balance(&mut self) {
        let assignor = self.assignor();
        // Static members keep their place over restarts, whatever they are called then.
        let mut order: Vec<(&str, &str, &Member<T>)> = self
            .members
            .iter()
            .map(|(id, it)| {
                (
                    it.wants.instance_id.as_deref().unwrap_or(id),
                    id.as_str(),
                    it,
                )
            })
            .collect();
        order.sort_by_key(|(name, id, _)| (*name, *id));
        let subscribers: Vec<Subscriber<'_>> = order
            .iter()
            .map(|(_, _, member)| Subscriber {
                topics: &member.topics,
                holds: &member.target,
            })
            .collect();
        let targets = assign(assignor, &subscribers, &self.topics);
        let ids: Vec<Rc<str>> = order.iter().map(|(_, id, _)| (*id).into()).collect();
        self.heirs.clear();
        for (id, target) in ids.iter().zip(targets) {
            let heirs = target.iter().map(|partition| (*partition, Rc::clone(id)));
            self.heirs.extend(heirs);
            self.members.get_mut(id.as_ref()).expect("a member").target = target;
        }
    }

    /// What most members ask for.
    pub(super) fn assignor(&self) -> Assignor {
        let mut votes: BTreeMap<Assignor, usize> = BTreeMap::new();
        for member in self.members.values() {
            *votes.entry(member.wants.assignor).or_default() += 1;
        }
        let most = votes.into_iter().max_by_key(|(_, count)| *count);
        most.map_or_else(Assignor::default, |(assignor, _)| assignor)
    }

    /// Remembers how many partitions each topic had when the group first saw it: those that come later
    /// are read from their beginning. Of a topic that came while it was waited for, all are.
    fn note_topics(&mut self) {
        for member in self.members.values() {
            for topic in &member.topics {
                if self.record.seen.contains_key(topic) {
                    continue;
                }
                let count = match self.born.contains(topic) {
                    true => 0,
                    false => self.topics.partition_count(*topic),
                };
                self.record.seen.insert(*topic, count);
                self.record_changed = true;
            }
        }
    }
}
