//! Finds records that were lost, repeated, reordered or changed. Pure: records in, a verdict out.
//!
//! Each (run, producer, partition) is a *lane* whose sequences start at 0 and are dense, so within a
//! lane every fault shows itself. A sequence that comes after a larger one is *reordered*; one that
//! comes twice is *repeated*; one that never comes is *lost* if it was acknowledged, or, when nothing
//! is known of acknowledgements, if a later one of its lane came.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::{
    acknowledged::{Acknowledged, Mark},
    gaps::Gaps,
    payload::{Head, Parsed, parse},
};

/// Faults described in words; the rest are only counted.
const MAX_EXAMPLES: usize = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct LaneId {
    run: u64,
    producer: u32,
    partition: u32,
}

impl fmt::Display for LaneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            run,
            producer,
            partition,
        } = self;
        write!(
            f,
            "run {run:016x} producer {producer} partition {partition}"
        )
    }
}

#[derive(Debug, Default)]
struct Lane {
    next: u64,
    /// Where the record before `next` is.
    last_offset: i64,
    gaps: Gaps,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Whole records of the generator that were read.
    pub received: u64,
    /// Records known to be acknowledged; `None` when nothing is known of acknowledgements.
    pub acknowledged: Option<u64>,
    /// Acknowledged and not in the log.
    pub lost: u64,
    /// In the log more than once, or read at an offset read before.
    pub repeated: u64,
    /// In the log after a record that was sent later.
    pub reordered: u64,
    /// With a wrong checksum, or in a partition they were not sent to.
    pub corrupt: u64,
    /// Acknowledged at one offset and found at another: an offset named two records.
    pub moved: u64,
    /// Of another run, or not made by the generator: not judged.
    pub foreign: u64,
    /// The first few faults in words.
    pub examples: Vec<String>,
}

impl Verdict {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.faults() == 0
    }

    /// How many records are amiss.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.lost + self.repeated + self.reordered + self.corrupt + self.moved
    }

    /// Adds what was found in other partitions.
    pub fn add(&mut self, other: Self) {
        self.received += other.received;
        self.acknowledged = match (self.acknowledged, other.acknowledged) {
            (Some(a), Some(b)) => Some(a + b),
            (a, b) => a.or(b),
        };
        self.lost += other.lost;
        self.repeated += other.repeated;
        self.reordered += other.reordered;
        self.corrupt += other.corrupt;
        self.moved += other.moved;
        self.foreign += other.foreign;
        self.examples.extend(other.examples);
        self.examples.truncate(MAX_EXAMPLES);
    }

    fn example(&mut self, text: impl FnOnce() -> String) {
        if self.examples.len() < MAX_EXAMPLES {
            self.examples.push(text());
        }
    }
}

/// Judges the records of some partitions, each partition in offset order.
#[derive(Debug, Default)]
pub struct Verifier {
    /// Judge this run alone.
    only_run: Option<u64>,
    lanes: BTreeMap<LaneId, Lane>,
    next_offsets: BTreeMap<u32, i64>,
    /// What must be where: (partition, offset) to (producer, sequence).
    anchors: BTreeMap<(u32, i64), (u32, u64)>,
    /// Partitions read from later than their first record: a lane may begin anywhere.
    begins_late: Vec<u32>,
    found: Verdict,
}

impl Verifier {
    /// Judges records of one run, or of every run that it meets.
    #[must_use]
    pub fn new(only_run: Option<u64>) -> Self {
        Self {
            only_run,
            ..Self::default()
        }
    }

    /// The partition is not read from its first record: what came before is not missed.
    pub fn begins_late(&mut self, partition: u32) {
        self.begins_late.push(partition);
    }

    /// Every partition's records are known to be acknowledged so: the last of each must be where it
    /// was said to be. Without this, only the last record of all can be judged.
    pub fn expect(&mut self, acknowledged: &Acknowledged) {
        for (&(producer, partition), mark) in &acknowledged.marks {
            if let Some((sequence, offset)) = mark.anchor() {
                self.anchors
                    .insert((partition, offset), (producer, sequence));
            }
        }
    }

    /// One record was read.
    pub fn record(&mut self, partition: u32, offset: i64, value: Option<&[u8]>) {
        let next_offset = self.next_offsets.entry(partition).or_insert(0);
        if offset < *next_offset {
            self.found.repeated += 1;
            let below = *next_offset;
            self.found.example(|| {
                format!(
                    "partition {partition}: offset {offset} was read after {}",
                    below - 1
                )
            });
            return;
        }
        *next_offset = offset + 1;
        match parse(value.unwrap_or_default()) {
            Parsed::Foreign => self.found.foreign += 1,
            Parsed::Corrupt => {
                self.found.corrupt += 1;
                self.found
                    .example(|| format!("partition {partition} offset {offset}: wrong checksum"));
            }
            Parsed::Whole(head) if self.only_run.is_some_and(|run| run != head.run) => {
                self.found.foreign += 1;
            }
            Parsed::Whole(head) if head.partition != partition => {
                self.found.corrupt += 1;
                self.found.example(|| {
                    format!(
                        "partition {partition} offset {offset}: was sent to partition {}",
                        head.partition
                    )
                });
            }
            Parsed::Whole(head) => self.whole(&head, offset),
        }
    }

    fn whole(&mut self, head: &Head, offset: i64) {
        self.found.received += 1;
        if let Some(&anchor) = self.anchors.get(&(head.partition, offset))
            && anchor != (head.producer, head.sequence)
        {
            moved(
                &mut self.found,
                head.partition,
                offset,
                anchor,
                head.sequence,
            );
        }
        let id = LaneId {
            run: head.run,
            producer: head.producer,
            partition: head.partition,
        };
        let begins_late = &self.begins_late;
        let lane = self.lanes.entry(id).or_insert_with(|| Lane {
            next: if begins_late.contains(&id.partition) {
                head.sequence
            } else {
                0
            },
            last_offset: -1,
            gaps: Gaps::default(),
        });
        let sequence = head.sequence;
        if sequence >= lane.next {
            lane.gaps.skip(lane.next, sequence);
            lane.next = sequence + 1;
            lane.last_offset = offset;
        } else if lane.gaps.fill(sequence) {
            self.found.reordered += 1;
            self.found
                .example(|| format!("{id}: sequence {sequence} came late, at offset {offset}"));
        } else {
            self.found.repeated += 1;
            self.found
                .example(|| format!("{id}: sequence {sequence} came again, at offset {offset}"));
        }
    }

    /// The whole log of these partitions was read. With `acknowledged`, every acknowledged record
    /// must have come, and a gap of records that were never acknowledged is no loss.
    #[must_use]
    pub fn finish(mut self, acknowledged: Option<&Acknowledged>, partitions: &[u32]) -> Verdict {
        let Some(acknowledged) = acknowledged else {
            for (id, lane) in &self.lanes {
                for (from, until) in lane.gaps.ranges() {
                    lost(&mut self.found, *id, from, until, until - from);
                }
                self.found.lost += lane.gaps.forgotten();
            }
            return self.found;
        };
        let mut count = 0;
        for (&(producer, partition), mark) in &acknowledged.marks {
            if !partitions.contains(&partition) {
                continue;
            }
            count += mark.acknowledged_within(0, mark.answered);
            let id = LaneId {
                run: acknowledged.run,
                producer,
                partition,
            };
            let lane = self.lanes.remove(&id).unwrap_or_default();
            judge(&mut self.found, id, &lane, mark);
        }
        self.found.acknowledged = Some(count);
        self.found
    }
}

fn judge(found: &mut Verdict, id: LaneId, lane: &Lane, mark: &Mark) {
    let tail = (lane.next, mark.answered.max(lane.next));
    for (from, until) in lane.gaps.ranges().chain([tail]) {
        let count = mark.acknowledged_within(from, until);
        lost(found, id, from, until, count);
    }
    found.lost += lane.gaps.forgotten();
    if let Some((sequence, offset)) = mark.anchor()
        && lane.next == sequence + 1
        && lane.last_offset != offset
    {
        let partition = id.partition;
        found.moved += 1;
        found.example(|| {
            format!(
                "partition {partition}: sequence {sequence} was acknowledged at offset {offset} \
                 and is at {}",
                lane.last_offset
            )
        });
    }
}

fn moved(found: &mut Verdict, partition: u32, offset: i64, anchor: (u32, u64), sequence: u64) {
    found.moved += 1;
    found.example(|| {
        let (producer, wanted) = anchor;
        format!(
            "partition {partition} offset {offset}: was acknowledged as sequence {wanted} of \
             producer {producer}, and holds sequence {sequence}"
        )
    });
}

fn lost(found: &mut Verdict, id: LaneId, from: u64, until: u64, count: u64) {
    if count > 0 {
        found.lost += count;
        found.example(|| format!("{id}: {count} lost of sequences {from}..{until}"));
    }
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
