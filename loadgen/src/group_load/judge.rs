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
    /// Its owner was killed then.
    orphan_since_us: Option<i64>,
    moved: bool,
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
                for it in self.partitions.values_mut() {
                    if it.owner == Some(fact.member) {
                        it.orphan_since_us = Some(fact.at_us);
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
        if let Some(since) = it.orphan_since_us.take() {
            self.takeovers_us.push(fact.at_us - since);
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
