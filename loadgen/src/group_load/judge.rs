//! Judges what members say that they took, read and let go.
//!
//! A member that lives tells of a loss only when its poll returns, so another may have taken the
//! partition by then. What counts: once another took it, the former owner reads nothing of it any more
//! until it took it again.

use std::collections::{BTreeMap, BTreeSet};

use millstream_client::{Offset, PartitionIndex};

/// What a member did.
#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    Took(PartitionIndex),
    LetGo(PartitionIndex),
    Read(PartitionIndex, Offset),
    Killed,
}

/// Who did what when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fact {
    pub(super) at_us: i64,
    pub(super) group: usize,
    pub(super) member: u64,
    pub(super) what: What,
}

#[derive(Debug, Default)]
struct Partition {
    /// Who took it last.
    owner: Option<u64>,
    seen: BTreeSet<i64>,
    /// All below was seen.
    seen_to: i64,
    read_at_us: Option<i64>,
    orphan: Option<Orphan>,
    moved: bool,
}

/// A partition whose owner was killed, and which nobody has read since.
#[derive(Debug)]
struct Orphan {
    since_us: i64,
    /// Another member of the group was killed meanwhile. It may have been to have the partition: then its
    /// session has to end as well.
    heir_killed: bool,
}

/// Everything heard so far.
#[derive(Debug, Default)]
pub(super) struct Judge {
    partitions: BTreeMap<(usize, PartitionIndex), Partition>,
    records: u64,
    repeated: u64,
    by_others: u64,
    kills: u64,
    moves: u64,
    takeovers_us: Vec<i64>,
    /// Those during which another member was killed, from that on.
    second_takeovers_us: Vec<i64>,
    /// Longest time between two records of a partition that stayed where it was.
    longest_gap_us: i64,
}

impl Judge {
    pub(super) fn hear(&mut self, fact: Fact) {
        match fact.what {
            What::Took(partition) => {
                let it = self.partitions.entry((fact.group, partition)).or_default();
                self.moves += u64::from(it.owner.is_some_and(|owner| owner != fact.member));
                it.moved = true;
                it.owner = Some(fact.member);
            }
            What::LetGo(partition) => {
                let it = self.partitions.entry((fact.group, partition)).or_default();
                it.moved = true;
            }
            What::Read(partition, offset) => self.read(&fact, partition, offset),
            What::Killed => {
                self.kills += 1;
                let its = self.partitions.iter_mut();
                for (_, it) in its.filter(|((group, _), _)| *group == fact.group) {
                    if it.owner == Some(fact.member) || it.orphan.is_some() {
                        it.orphan = Some(Orphan {
                            since_us: fact.at_us,
                            heir_killed: it.orphan.is_some(),
                        });
                    }
                }
            }
        }
    }

    fn read(&mut self, fact: &Fact, partition: PartitionIndex, offset: Offset) {
        self.records += 1;
        let it = self.partitions.entry((fact.group, partition)).or_default();
        if it.owner != Some(fact.member) {
            self.by_others += 1;
            println!(
                "member {} read {partition}@{offset} of group {}, which member {:?} took",
                fact.member, fact.group, it.owner
            );
            return;
        }
        if let Some(orphan) = it.orphan.take() {
            let takeovers_us = match orphan.heir_killed {
                true => &mut self.second_takeovers_us,
                false => &mut self.takeovers_us,
            };
            takeovers_us.push(fact.at_us - orphan.since_us);
        }
        let gap = it.read_at_us.map_or(0, |before| fact.at_us - before);
        if !it.moved {
            self.longest_gap_us = self.longest_gap_us.max(gap);
        }
        it.moved = false;
        it.read_at_us = Some(fact.at_us);
        if offset.0 < it.seen_to || !it.seen.insert(offset.0) {
            self.repeated += 1;
        }
        while it.seen.remove(&it.seen_to) {
            it.seen_to += 1;
        }
    }

    /// Prints the verdict; true if nothing is wrong.
    pub(super) fn tell(mut self, ends: &BTreeMap<(usize, PartitionIndex), Offset>) -> bool {
        let missing = ends.iter().map(|(at, end)| {
            let seen = self.partitions.get(at).map_or(0, |it| {
                it.seen_to + i64::try_from(it.seen.len()).unwrap_or(i64::MAX)
            });
            end.0 - seen
        });
        let missing: i64 = missing.sum();
        self.takeovers_us.sort_unstable();
        let millis = |us: i64| us / 1000;
        let percentile = |part: usize| {
            let last = self.takeovers_us.len().saturating_sub(1);
            let at = self.takeovers_us.len() * part / 100;
            self.takeovers_us.get(at.min(last)).copied().unwrap_or(0)
        };
        println!(
            "{} records read: missing {missing}, by a member that no longer had the partition {}, repeated {}",
            self.records, self.by_others, self.repeated
        );
        println!(
            "{} members killed, {} partitions moved",
            self.kills, self.moves
        );
        println!(
            "takeover of a dead member's partition: p50 {} ms, p99 {} ms, longest {} ms ({} in all)",
            millis(percentile(50)),
            millis(percentile(99)),
            millis(percentile(100)),
            self.takeovers_us.len()
        );
        if let Some(longest) = self.second_takeovers_us.iter().max() {
            println!(
                "where another member was killed meanwhile, from that on: longest {} ms ({} in all)",
                millis(*longest),
                self.second_takeovers_us.len()
            );
        }
        println!(
            "longest pause of a partition that did not move: {} ms",
            millis(self.longest_gap_us)
        );
        let ok = missing == 0 && self.by_others == 0;
        println!(
            "{}",
            if ok {
                "all is well"
            } else {
                "SOMETHING IS WRONG"
            }
        );
        ok
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: PartitionIndex = PartitionIndex(0);

    fn hear(judge: &mut Judge, at_ms: i64, group: usize, member: u64, what: What) {
        judge.hear(Fact {
            at_us: at_ms * 1000,
            group,
            member,
            what,
        });
    }

    /// A dies, B is to have what it had and dies before anyone can know that A did, so C gets it.
    #[test]
    fn a_takeover_counts_from_the_last_death() {
        let mut judge = Judge::default();
        for (group, member) in [(0, 1), (7, 9)] {
            hear(&mut judge, 0, group, member, What::Took(P));
        }
        hear(&mut judge, 1_000, 0, 1, What::Killed);
        hear(&mut judge, 3_300, 0, 2, What::Killed);
        hear(&mut judge, 6_400, 0, 3, What::Took(P));
        hear(&mut judge, 6_400, 0, 3, What::Read(P, Offset(0)));
        assert!(judge.takeovers_us.is_empty());
        assert_eq!(judge.second_takeovers_us, [3_100_000]);
        // Nobody else dies: the plain case, whatever happens to other groups.
        hear(&mut judge, 7_000, 0, 3, What::Killed);
        hear(&mut judge, 8_000, 7, 9, What::Killed);
        hear(&mut judge, 10_200, 0, 4, What::Took(P));
        hear(&mut judge, 10_200, 0, 4, What::Read(P, Offset(1)));
        assert_eq!(judge.takeovers_us, [3_200_000]);
    }
}
