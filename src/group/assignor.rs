//! Who gets which partition: pure functions of members, subscriptions and what each member holds.
//!
//! All three give every partition of every subscribed topic to exactly one of its subscribers.
//! `range` puts equal numbers of different topics together, `uniform` evens out the counts from
//! nothing, `sticky` evens them out with as few moves as can be.

use std::collections::{BTreeMap, BTreeSet};

use millstream_protocol::{TopicId, TopicPartition};

use super::{even_out, topics::Topics};

/// How partitions are handed out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Assignor {
    /// Of each topic, a run of neighbours to each member, so that equal numbers of several topics meet.
    Range,
    /// Evenly, whatever was before.
    Uniform,
    /// Evenly, and everyone keeps what can be kept.
    #[default]
    Sticky,
}

impl Assignor {
    /// Every assignor.
    pub const ALL: [Self; 3] = [Self::Range, Self::Uniform, Self::Sticky];

    /// Its name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Range => "range",
            Self::Uniform => "uniform",
            Self::Sticky => "sticky",
        }
    }

    /// The assignor of a name; the empty name is the default.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "" => Some(Self::default()),
            _ => Self::ALL.into_iter().find(|it| it.name() == name),
        }
    }
}

/// A member as an assignor sees it.
#[derive(Clone, Copy, Debug)]
pub struct Subscriber<'a> {
    /// The topics it wants.
    pub topics: &'a BTreeSet<TopicId>,
    /// What it was to have before; no two hold the same.
    pub holds: &'a BTreeSet<TopicPartition>,
}

/// The partitions of each subscriber, in their order.
pub type Assignment = Vec<BTreeSet<TopicPartition>>;

/// Hands out every partition that anyone subscribes to.
#[must_use]
pub fn assign(assignor: Assignor, members: &[Subscriber<'_>], topics: &Topics) -> Assignment {
    if members.is_empty() {
        return Vec::new();
    }
    match assignor {
        Assignor::Range => range(members, topics),
        Assignor::Uniform => evenly(members, topics, vec![BTreeSet::new(); members.len()]),
        Assignor::Sticky => {
            let kept = members.iter().map(|member| kept(member, topics));
            let kept = kept.collect();
            evenly(members, topics, kept)
        }
    }
}

fn subscribers(members: &[Subscriber<'_>]) -> BTreeMap<TopicId, Vec<usize>> {
    let mut subscribers: BTreeMap<TopicId, Vec<usize>> = BTreeMap::new();
    for (at, member) in members.iter().enumerate() {
        for topic in member.topics {
            subscribers.entry(*topic).or_default().push(at);
        }
    }
    subscribers
}

fn range(members: &[Subscriber<'_>], topics: &Topics) -> Assignment {
    let mut assignment = vec![BTreeSet::new(); members.len()];
    for (topic, subscribers) in subscribers(members) {
        let count = topics.partition_count(topic) as usize;
        let (each, extra) = (count / subscribers.len(), count % subscribers.len());
        let mut partitions = topics.partitions(topic);
        for (place, at) in subscribers.into_iter().enumerate() {
            let share = each + usize::from(place < extra);
            assignment[at].extend(partitions.by_ref().take(share));
        }
    }
    assignment
}

fn kept(member: &Subscriber<'_>, topics: &Topics) -> BTreeSet<TopicPartition> {
    let holds = member.holds.iter().copied();
    holds
        .filter(|held| topics.has(*held) && member.topics.contains(&held.topic))
        .collect()
}

/// Hands out what nobody has in `assignment`, and moves what must move for it to be even.
fn evenly(members: &[Subscriber<'_>], topics: &Topics, mut assignment: Assignment) -> Assignment {
    let subscribers = subscribers(members);
    let alike = members.iter().all(|it| it.topics == members[0].topics);
    if alike {
        let total = members[0].topics.iter();
        let total: usize = total.map(|it| topics.partition_count(*it) as usize).sum();
        give_up_surplus(&mut assignment, total);
    }
    let taken: BTreeSet<TopicPartition> = assignment.iter().flatten().copied().collect();
    assert_eq!(
        taken.len(),
        assignment.iter().map(BTreeSet::len).sum::<usize>(),
        "no two members hold the same partition"
    );
    // Topics that few want first: what they leave open, the others can even out.
    let mut order: Vec<(&TopicId, &Vec<usize>)> = subscribers.iter().collect();
    order.sort_by_key(|(_, who)| who.len());
    let mut loads: Vec<usize> = assignment.iter().map(BTreeSet::len).collect();
    let mut least: BTreeSet<(usize, usize)> = loads.iter().copied().zip(0..).collect();
    for (topic, who) in order {
        let free = topics.partitions(*topic).filter(|it| !taken.contains(it));
        let mut free = free.peekable();
        if !alike && free.peek().is_some() {
            least = who.iter().map(|at| (loads[*at], *at)).collect();
        }
        for partition in free {
            let (_, at) = least.pop_first().expect("there are subscribers");
            loads[at] += 1;
            least.insert((loads[at], at));
            assignment[at].insert(partition);
        }
    }
    if !alike {
        even_out::even_out(&mut assignment, &loads, members, &subscribers);
    }
    assignment
}

/// With subscriptions that are all alike: who holds more than an even share gives up the rest, so
/// that nothing else has to move.
fn give_up_surplus(assignment: &mut Assignment, total: usize) {
    let (each, extra) = (total / assignment.len(), total % assignment.len());
    // Those with most may have one more than the others.
    let mut order: Vec<usize> = (0..assignment.len()).collect();
    order.sort_by_key(|at| std::cmp::Reverse(assignment[*at].len()));
    for (place, at) in order.into_iter().enumerate() {
        let most = each + usize::from(place < extra);
        while assignment[at].len() > most {
            assignment[at].pop_last();
        }
    }
}

#[cfg(test)]
#[path = "assignor_tests.rs"]
mod tests;
