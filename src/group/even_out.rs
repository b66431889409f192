//! Evens out who has how many partitions where members subscribe to different topics, by single moves.
//!
//! A partition moves from who has more to who has at least two fewer. Each move makes the sum of squares
//! smaller, so it ends; but moves may go along chains of members, each of which shares a topic with the
//! next, so a limit on the work keeps a large group from holding its shard. Past it the group is less even
//! than it might be, and every partition still has one owner.

use std::collections::{BTreeMap, BTreeSet};

use millstream_protocol::{PartitionIndex, TopicId, TopicPartition};

use super::assignor::{Assignment, Subscriber};

/// Work for each subscription and each partition, on average: looks at who has what, and moves.
const WORK: usize = 64;

/// Who has how much.
struct Balance<'a> {
    assignment: &'a mut Assignment,
    loads: Vec<usize>,
}

/// Moves what makes it more even, until nothing does or it has been too much. The work that it was.
pub(super) fn even_out(
    assignment: &mut Assignment,
    loads: &[usize],
    members: &[Subscriber<'_>],
    subscribers: &BTreeMap<TopicId, Vec<usize>>,
) -> usize {
    let subscriptions: usize = subscribers.values().map(Vec::len).sum();
    let partitions: usize = loads.iter().sum();
    let limit = WORK * (subscriptions + partitions);
    let mut balance = Balance {
        assignment,
        loads: loads.to_vec(),
    };
    let mut work = 0;
    // Topics whose subscribers have more or less than when it was last looked at.
    let mut uneven: BTreeSet<TopicId> = subscribers.keys().copied().collect();
    while let Some(topic) = uneven.pop_first() {
        let who = &subscribers[&topic];
        let (moves, touched) = balance.level(topic, who);
        work += who.len() + moves;
        for at in touched {
            work += members[at].topics.len();
            uneven.extend(members[at].topics);
        }
        // It is level itself.
        uneven.remove(&topic);
        if work > limit {
            break;
        }
    }
    work
}

impl Balance<'_> {
    /// Moves partitions of one topic among its subscribers until none can. How many moved, and who has
    /// more or less than before.
    fn level(&mut self, topic: TopicId, who: &[usize]) -> (usize, BTreeSet<usize>) {
        let mut touched = BTreeSet::new();
        let least = who.iter().map(|at| self.loads[*at]).min().unwrap_or(0);
        let above = who.iter().filter(|at| self.loads[**at] >= least + 2);
        let holders = above.filter(|at| self.last_of(topic, **at).is_some());
        let mut from: BTreeSet<(usize, usize)> = holders.map(|at| (self.loads[*at], *at)).collect();
        if from.is_empty() {
            return (0, touched);
        }
        let mut to: BTreeSet<(usize, usize)> =
            who.iter().map(|at| (self.loads[*at], *at)).collect();
        let mut moves = 0;
        while let (Some(&(more, giver)), Some(&(less, taker))) = (from.last(), to.first()) {
            if more < less + 2 {
                break;
            }
            from.remove(&(more, giver));
            let Some(moved) = self.last_of(topic, giver) else {
                continue;
            };
            self.assignment[giver].remove(&moved);
            self.assignment[taker].insert(moved);
            to.remove(&(more, giver));
            to.remove(&(less, taker));
            self.loads[giver] -= 1;
            self.loads[taker] += 1;
            from.insert((more - 1, giver));
            to.insert((more - 1, giver));
            to.insert((less + 1, taker));
            touched.extend([giver, taker]);
            moves += 1;
        }
        (moves, touched)
    }

    /// The last partition of a topic that someone has.
    fn last_of(&self, topic: TopicId, at: usize) -> Option<TopicPartition> {
        let of = |number| TopicPartition {
            topic,
            partition: PartitionIndex(number),
        };
        let mut range = self.assignment[at].range(of(0)..=of(u32::MAX));
        range.next_back().copied()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    /// Members that all hold the same.
    fn holding<'a>(
        holds: &'a BTreeSet<TopicPartition>,
        topics: &'a [BTreeSet<TopicId>],
    ) -> Vec<Subscriber<'a>> {
        let members = topics.iter();
        members.map(|topics| Subscriber { topics, holds }).collect()
    }

    /// Members that each share a topic with the next, and one that has everything of a large one: moves
    /// go all along the chain.
    #[test]
    fn a_large_group_is_evened_out_in_bounded_work() {
        const MEMBERS: usize = 300;
        const EACH: u32 = 200;
        let topic = |number: usize| TopicId(Uuid::from_u128(number as u128));
        let topics: Vec<BTreeSet<TopicId>> = (0..MEMBERS)
            .map(|at| BTreeSet::from([topic(at), topic(at + 1)]))
            .collect();
        let none = BTreeSet::new();
        let members = holding(&none, &topics);
        let mut subscribers: BTreeMap<TopicId, Vec<usize>> = BTreeMap::new();
        for (at, topics) in topics.iter().enumerate() {
            for topic in topics {
                subscribers.entry(*topic).or_default().push(at);
            }
        }
        // The first half has everything.
        let mut assignment: Assignment = vec![BTreeSet::new(); MEMBERS];
        for number in 0..=MEMBERS / 2 {
            for partition in (0..EACH).map(PartitionIndex) {
                let topic = topic(number);
                assignment[number.saturating_sub(1)].insert(TopicPartition { topic, partition });
            }
        }
        let before: BTreeSet<TopicPartition> = assignment.iter().flatten().copied().collect();
        let loads: Vec<usize> = assignment.iter().map(BTreeSet::len).collect();
        let work = even_out(&mut assignment, &loads, &members, &subscribers);
        assert!(work < 2 * before.len(), "{work}");
        let after: BTreeSet<TopicPartition> = assignment.iter().flatten().copied().collect();
        assert_eq!(before, after);
        assert_eq!(
            assignment.iter().map(BTreeSet::len).sum::<usize>(),
            before.len()
        );
        let most = |it: &[usize]| it.iter().max().copied();
        let loads_after: Vec<usize> = assignment.iter().map(BTreeSet::len).collect();
        assert!(most(&loads_after) < most(&loads), "{work}: {loads_after:?}");
        for (at, has) in assignment.iter().enumerate() {
            assert!(has.iter().all(|it| topics[at].contains(&it.topic)));
        }
    }

    /// A thousand members want a large topic, and half of them another one too: the time is what it takes
    /// to look at each partition a few times.
    #[test]
    fn thousands_of_partitions_move_at_once() {
        let [a, b] = [1, 2].map(|number| TopicId(Uuid::from_u128(number)));
        let topics: Vec<BTreeSet<TopicId>> = (0..1000)
            .map(|at| match at % 2 {
                0 => BTreeSet::from([a]),
                _ => BTreeSet::from([a, b]),
            })
            .collect();
        let none = BTreeSet::new();
        let members = holding(&none, &topics);
        let subscribers = BTreeMap::from([
            (a, (0..1000).collect::<Vec<usize>>()),
            (b, (1..1000).step_by(2).collect()),
        ]);
        let mut assignment: Assignment = vec![BTreeSet::new(); 1000];
        for topic in [a, b] {
            for partition in (0..10_000).map(PartitionIndex) {
                assignment[1].insert(TopicPartition { topic, partition });
            }
        }
        let loads: Vec<usize> = assignment.iter().map(BTreeSet::len).collect();
        let work = even_out(&mut assignment, &loads, &members, &subscribers);
        assert!(assignment.iter().all(|it| (19..=21).contains(&it.len())));
        assert!(work < 3 * 20_000, "{work}");
    }
}
