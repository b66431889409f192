//! What a heartbeat does: join, come back, take on, leave; and what its absence does.

use std::rc::Rc;

use millstream_protocol::ErrorCode;

use super::{
    Action, Epoch, Group, Heartbeat, MAX_MEMBERS, Moment, Refusal, Reply, Wants,
    member::{Member, Parked},
};

/// Parts of a session timeout after which a waiting heartbeat is answered at the latest: the member must
/// be able to send another in time.
const SESSION_PARTS: u32 = 2;

/// Epochs that are kept for members that leave, when nobody may join any more.
const EPOCHS_KEPT: u32 = 1 << 24;

impl<T> Group<T> {
    pub(super) fn heartbeat(
        &mut self,
        now: Moment,
        token: T,
        heartbeat: Heartbeat,
        actions: &mut Vec<Action<T>>,
    ) {
        if heartbeat.epoch == Epoch::LEAVE {
            self.leave(now, token, &heartbeat.member_id, actions);
            return;
        }
        let id = heartbeat.member_id.clone();
        let max_wait = heartbeat.max_wait;
        let said = heartbeat.epoch;
        if let Err(refusal) = self.hear(now, heartbeat, actions) {
            let result = Err(refusal);
            actions.push(Action::Answer { token, result });
            return;
        }
        // Only now: what it let go may be given to others, and to itself.
        self.settle(now.monotonic, actions);
        let member = self.members.get_mut(&id).expect("just heard");
        if let Some(parked) = member.parked.take() {
            let result = Ok(Reply {
                epoch: member.epoch,
                assignment: None,
            });
            let token = parked.token;
            actions.push(Action::Answer { token, result });
        }
        if said == member.epoch && !max_wait.is_zero() {
            let longest = member.wants.session_timeout / SESSION_PARTS;
            let until = now.monotonic + max_wait.min(longest);
            member.parked = Some(Parked { token, until });
        } else {
            let result = Ok(self.reply_to(&id, said));
            actions.push(Action::Answer { token, result });
        }
    }

    /// What a member is told that has taken on the assignment of `said`.
    pub(super) fn reply_to(&self, id: &str, said: Epoch) -> Reply {
        let member = &self.members[id];
        let news = said != member.epoch;
        Reply {
            epoch: member.epoch,
            assignment: news.then(|| member.assignment(|partition| self.is_new(partition))),
        }
    }

    fn hear(
        &mut self,
        now: Moment,
        heartbeat: Heartbeat,
        actions: &mut Vec<Action<T>>,
    ) -> Result<(), Refusal> {
        let Some(member) = self.members.get_mut(&heartbeat.member_id) else {
            return self.join(now, heartbeat, actions);
        };
        if member.absent {
            return self.come_back(now, heartbeat, actions);
        }
        if heartbeat.epoch > member.epoch {
            return Err(Refusal::new(
                ErrorCode::FencedMemberEpoch,
                format!("epoch {} was never given to this member", heartbeat.epoch.0),
            ));
        }
        member.heard_at = now.monotonic;
        member.speaker = heartbeat.speaker;
        if heartbeat.epoch == member.epoch && !member.revoking.is_empty() {
            for partition in std::mem::take(&mut member.revoking) {
                member.owned.remove(&partition);
                self.owners.remove(&partition);
                self.freed.push(partition);
            }
            member.revoke_by = None;
        }
        if let Some(wants) = heartbeat.wants {
            self.want(&heartbeat.member_id, wants, actions);
        }
        Ok(())
    }

    /// Takes what a present member wants from now on.
    fn want(&mut self, id: &str, mut wants: Wants, actions: &mut Vec<Action<T>>) {
        let topics = Rc::clone(&self.topics);
        let member = self.members.get_mut(id).expect("a member");
        // It is one for its whole life.
        wants.instance_id.clone_from(&member.wants.instance_id);
        wants.owned = Vec::new();
        if member.wants == wants {
            return;
        }
        let timeout_changed = member.wants.session_timeout != wants.session_timeout;
        self.unbalanced |= member.wants.assignor != wants.assignor;
        member.set_wants(wants);
        let before = std::mem::take(&mut member.topics);
        member.resolve(&topics);
        self.unbalanced |= member.topics != before;
        if timeout_changed {
            let record = member.record();
            actions.push(Action::KeepMember(id.to_owned(), Some(record)));
        }
    }

    fn join(
        &mut self,
        now: Moment,
        heartbeat: Heartbeat,
        actions: &mut Vec<Action<T>>,
    ) -> Result<(), Refusal> {
        let Heartbeat {
            member_id: id,
            epoch,
            wants,
            speaker,
            ..
        } = heartbeat;
        if epoch != Epoch::JOIN {
            return Err(Refusal::no_member());
        }
        let Some(mut wants) = wants else {
            // It may be one that was given up before it had taken on anything: it joins as anew.
            let message = "no such member, and one that joins says what it wants";
            return Err(Refusal::new(ErrorCode::UnknownMemberId, message));
        };
        wants.owned = Vec::new();
        let instance = wants.instance_id.clone();
        let former = instance
            .as_ref()
            .and_then(|it| self.instances.get(it))
            .cloned();
        if former.is_none() && self.members.len() >= MAX_MEMBERS {
            let message = format!(
                "group {} has {MAX_MEMBERS} members, the most there may be",
                self.id
            );
            return Err(Refusal::new(ErrorCode::GroupLimitReached, message));
        }
        if self.epoch.left() < EPOCHS_KEPT {
            let message =
                "this coordinator has no epochs left for more changes: restart the broker";
            return Err(Refusal::new(ErrorCode::GroupLimitReached, message));
        }
        let epoch = self.next_epoch();
        let mut member = Member::new(wants, speaker, epoch, now.monotonic);
        member.resolve(&self.topics);
        if let Some(former) = former {
            self.take_over(&former, &id, &mut member, actions);
        }
        self.unbalanced = true;
        if let Some(instance) = instance {
            self.instances.insert(instance, id.clone());
        }
        actions.push(Action::KeepMember(id.clone(), Some(member.record())));
        self.members.insert(id, member);
        if self.record.empty_since_ms.take().is_some() {
            self.record_changed = true;
        }
        Ok(())
    }

    /// A static member's next life gets what its last one had.
    fn take_over(
        &mut self,
        former_id: &str,
        id: &str,
        member: &mut Member<T>,
        actions: &mut Vec<Action<T>>,
    ) {
        let mut former = self
            .members
            .remove(former_id)
            .expect("instances are members");
        let name: Rc<str> = id.into();
        for partition in former.owned.keys() {
            // What it was asked to let go it has let go by being gone.
            if former.revoking.contains(partition) {
                self.owners.remove(partition);
            } else {
                self.owners.insert(*partition, Rc::clone(&name));
                member.owned.insert(*partition, member.epoch);
            }
        }
        member.target = former.target;
        if let Some(parked) = former.parked.take() {
            let message = "another member came with the same instance id";
            let result = Err(Refusal::new(ErrorCode::FencedInstanceId, message));
            let token = parked.token;
            actions.push(Action::Answer { token, result });
        }
        actions.push(Action::KeepMember(former_id.to_owned(), None));
    }

    /// A member from before the restart is heard of: what it holds stays its own.
    fn come_back(
        &mut self,
        now: Moment,
        heartbeat: Heartbeat,
        actions: &mut Vec<Action<T>>,
    ) -> Result<(), Refusal> {
        let Some(mut wants) = heartbeat.wants else {
            let message = "the group's coordinator started anew: say what you want and hold";
            return Err(Refusal::new(ErrorCode::CoordinatorLoading, message));
        };
        if heartbeat.epoch > self.start {
            let message = format!("epoch {} was never given to this member", heartbeat.epoch.0);
            return Err(Refusal::new(ErrorCode::FencedMemberEpoch, message));
        }
        let id = heartbeat.member_id;
        let held = std::mem::take(&mut wants.owned);
        let epoch = self.next_epoch();
        let former = self.members.get(&id).expect("it is absent").record();
        wants.instance_id.clone_from(&former.instance_id);
        let mut member = Member::new(wants, heartbeat.speaker, epoch, now.monotonic);
        member.resolve(&self.topics);
        let name: Rc<str> = id.as_str().into();
        for partition in held {
            if self.topics.has(partition) && !self.owners.contains_key(&partition) {
                self.owners.insert(partition, Rc::clone(&name));
                // It has had it since then, or longer: what it commits meanwhile counts.
                member.owned.insert(partition, heartbeat.epoch);
                member.target.insert(partition);
            }
        }
        if member.record() != former {
            actions.push(Action::KeepMember(id.clone(), Some(member.record())));
        }
        self.members.insert(id, member);
        self.unbalanced = true;
        Ok(())
    }

    fn leave(&mut self, now: Moment, token: T, id: &str, actions: &mut Vec<Action<T>>) {
        if self.members.contains_key(id) {
            self.remove(id, now, ErrorCode::UnknownMemberId, "it left", actions);
        }
        // Who is no member has left.
        let result = Ok(Reply {
            epoch: Epoch::LEAVE,
            assignment: None,
        });
        actions.push(Action::Answer { token, result });
    }

    /// Removes who was not heard of in time or did not let go in time, and answers who waited long.
    pub(super) fn expire(&mut self, now: Moment, actions: &mut Vec<Action<T>>) {
        let mut silent = Vec::new();
        for (id, member) in &mut self.members {
            if member.expires() <= now.monotonic {
                silent.push((
                    id.clone(),
                    ErrorCode::UnknownMemberId,
                    "was not heard of for its session timeout",
                ));
            } else if member.revoke_by.is_some_and(|by| by <= now.monotonic) {
                silent.push((
                    id.clone(),
                    ErrorCode::FencedMemberEpoch,
                    "did not let go of partitions within its rebalance timeout",
                ));
            } else if member
                .parked
                .as_ref()
                .is_some_and(|it| it.until <= now.monotonic)
            {
                let parked = member.parked.take().expect("just seen");
                let result = Ok(Reply {
                    epoch: member.epoch,
                    assignment: None,
                });
                let token = parked.token;
                actions.push(Action::Answer { token, result });
            }
        }
        for (id, error, why) in silent {
            actions.push(Action::Say(format!("member {id} {why}")));
            self.remove(&id, now, error, why, actions);
        }
    }

    pub(super) fn remove(
        &mut self,
        id: &str,
        now: Moment,
        error: ErrorCode,
        why: &str,
        actions: &mut Vec<Action<T>>,
    ) {
        let Some(member) = self.members.remove(id) else {
            return;
        };
        for partition in member.owned.keys() {
            self.owners.remove(partition);
        }
        if let Some(instance) = &member.wants.instance_id {
            self.instances.remove(instance);
        }
        if let Some(parked) = member.parked {
            let result = Err(Refusal::new(error, format!("member {id}: {why}")));
            let token = parked.token;
            actions.push(Action::Answer { token, result });
        }
        // Before anything of it is given to others.
        actions.push(Action::KeepMember(id.to_owned(), None));
        self.unbalanced = true;
        if self.members.is_empty() {
            self.record.empty_since_ms = Some(now.wall_ms);
            self.record_changed = true;
        }
    }
}
