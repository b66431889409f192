//! In each generation of a group a partition has one owner: an epoch names one assignment, epochs only
//! grow, and a partition goes to another member only when its owner has let go, left, or was not heard of
//! for its session timeout.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::Duration,
};

use millstream_protocol::TopicPartition;

use super::Findings;
use crate::history::{Facts, GroupEvent, GroupWhat, MemberName, What};

pub fn check(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    let mut groups: BTreeMap<u32, Owners> = BTreeMap::new();
    for event in &facts.history.events {
        if let What::Group(it) = &event.what {
            let now = Duration::from_micros(event.moment.now_us);
            groups.entry(it.group).or_default().learn(now, it, findings);
        }
    }
}

/// A life of a member, as it sees itself.
#[derive(Default)]
struct Life {
    instance: Option<Rc<str>>,
    session: Duration,
    sent: BTreeMap<u64, Duration>,
    /// When the last heartbeat went out that was answered well.
    heard_at: Duration,
    epoch: i64,
    assigned: BTreeSet<TopicPartition>,
    reads: BTreeSet<TopicPartition>,
    /// When it heard that it is to let go of what it reads.
    asked_at: BTreeMap<TopicPartition, Duration>,
    left: bool,
}

#[derive(Default)]
struct Owners {
    lives: BTreeMap<MemberName, Life>,
    /// What each epoch gives, and to whom.
    epochs: BTreeMap<i64, (MemberName, BTreeSet<TopicPartition>)>,
}

impl Owners {
    fn learn(&mut self, now: Duration, event: &GroupEvent, findings: &mut Findings<'_>) {
        let life = self.lives.entry(Rc::clone(&event.who)).or_default();
        match &event.what {
            GroupWhat::HeartbeatSent {
                number,
                session,
                instance,
                leaves,
            } => {
                life.sent.insert(*number, now);
                life.session = *session;
                life.instance.clone_from(instance);
                life.left |= leaves;
            }
            GroupWhat::HeartbeatAnswered {
                number,
                epoch,
                assignment,
            } if *epoch >= 0 => {
                life.heard_at = life.sent[number];
                if *epoch < life.epoch {
                    let message = format!("{}: its epoch went back to {epoch:#x}", event.who);
                    findings.add(None, message);
                }
                life.epoch = *epoch;
                if let Some(assignment) = assignment {
                    let given = assignment.iter().copied().collect();
                    self.succeed(&event.who);
                    self.given(now, &event.who, *epoch, given, findings);
                }
            }
            GroupWhat::Takes(at, _) => _ = life.reads.insert(*at),
            GroupWhat::LetsGo(at) => {
                life.reads.remove(at);
                life.asked_at.remove(at);
            }
            _ => {}
        }
    }

    /// Earlier lives of a member with a name that survives it are over.
    fn succeed(&mut self, who: &MemberName) {
        let Some(instance) = self.lives[who].instance.clone() else {
            return;
        };
        for (other, life) in &mut self.lives {
            life.left |= other != who && life.instance.as_ref() == Some(&instance);
        }
    }

    fn given(
        &mut self,
        now: Duration,
        who: &MemberName,
        epoch: i64,
        given: BTreeSet<TopicPartition>,
        findings: &mut Findings<'_>,
    ) {
        let known = self.epochs.entry(epoch);
        let known = known.or_insert_with(|| (Rc::clone(who), given.clone()));
        if *known != (Rc::clone(who), given.clone()) {
            let message = format!(
                "epoch {epoch:#x} of {who} was another assignment, of {}",
                known.0
            );
            findings.add(None, message);
        }
        let life = self.lives.get_mut(who).expect("it was heard of");
        let new: Vec<TopicPartition> = given.difference(&life.assigned).copied().collect();
        for at in life.reads.difference(&given) {
            life.asked_at.entry(*at).or_insert(now);
        }
        life.assigned = given;
        for at in new {
            for (other, owner) in self.lives.iter().filter(|(other, _)| *other != who) {
                let asked = owner.asked_at.get(&at);
                let fenced = asked.is_some_and(|asked| now >= *asked + owner.session);
                let silent = now >= owner.heard_at + owner.session;
                if owner.reads.contains(&at) && !(owner.left || fenced || silent) {
                    let age = now.saturating_sub(owner.heard_at);
                    let message = format!(
                        "{who} was given what {other} reads, which sent a heartbeat {age:?} before that was answered"
                    );
                    findings.add(at, message);
                }
            }
        }
    }
}
