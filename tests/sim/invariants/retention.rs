//! The start of a log moves only over records that are older than `retention.ms`, or lie beyond
//! `retention.bytes`, or that someone asked to delete; and it never moves back.

use std::collections::BTreeMap;

use millstream_protocol::{Offset, TopicPartition};

use super::Findings;
use crate::history::{Facts, RecordId, What};

/// A record takes this much beside its value at most, with the headers of its batch and its chunk ...
const OVERHEAD: u64 = 1 << 10;
/// ... in whole blocks, and a block more that says how far the log is flushed.
const BLOCK: u64 = 4 << 10;
/// Segments go whole: so much more than the limit may be there before one goes.
const SEGMENT: u64 = 128 << 10;

pub fn check(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    let mut starts: BTreeMap<TopicPartition, Offset> = BTreeMap::new();
    let mut at_start = starts.clone();
    let mut asked: BTreeMap<TopicPartition, Offset> = BTreeMap::new();
    for (index, event) in facts.history.events.iter().enumerate() {
        let (at, start) = match &event.what {
            What::Trimming(at, before) => {
                let asked = asked.entry(*at).or_default();
                *asked = (*asked).max(*before);
                continue;
            }
            What::Replied { at, log_start, .. } => (*at, *log_start),
            What::OutOfRange(_, at, offset, log_start) if offset < log_start => (*at, *log_start),
            What::Whole(at, start, _) => (*at, *start),
            What::Started(_) => {
                at_start.clone_from(&starts);
                continue;
            }
            _ => continue,
        };
        let least = at_start.get(&at).copied().unwrap_or(Offset::ZERO);
        if start < least && !facts.is_buffered(at) {
            findings.add(
                at,
                format!("it starts at {start}, and did at {least} before the last start"),
            );
        }
        let before = starts.get(&at).copied().unwrap_or(Offset::ZERO);
        if start <= before {
            continue;
        }
        starts.insert(at, start);
        let asked = asked.get(&at).copied().unwrap_or(Offset::ZERO);
        let gone = facts.names.get(&at).into_iter();
        let gone = gone.flat_map(|names| names.range(before.max(asked)..start.max(asked)));
        for (offset, ids) in gone {
            for id in ids {
                let known = facts.record(*id).known;
                if known.is_some_and(|known| known <= index)
                    && !may_go(facts, at, *offset, *id, index)
                {
                    let age_ms = facts.age_ms(*id, index);
                    let message = format!(
                        "it starts at {start}, and record {id} at {offset} was at most {age_ms} ms old"
                    );
                    findings.add(at, message);
                }
            }
        }
    }
}

fn may_go(
    facts: &Facts<'_>,
    at: TopicPartition,
    offset: Offset,
    id: RecordId,
    index: usize,
) -> bool {
    let age_ms = facts.age_ms(id, index);
    facts.configs(at.topic, index).any(|config| {
        let old = |limit: u64| age_ms > limit;
        let large = |limit: u64| most_bytes(facts, at, offset, index) > limit;
        config.cleanup_policy.deletes()
            && (config.retention_ms.is_some_and(old) || config.retention_bytes.is_some_and(large))
    })
}

/// The most that a log can have taken from the segment of `offset` on.
fn most_bytes(facts: &Facts<'_>, at: TopicPartition, offset: Offset, index: usize) -> u64 {
    let behind = facts.each().filter(|(_, sent, record)| {
        let below = record
            .offsets
            .first()
            .is_some_and(|(seen, _)| *seen < offset);
        sent.at == at && record.sent <= index && !below
    });
    let size = |size: usize| (size as u64 + OVERHEAD).next_multiple_of(BLOCK) + BLOCK;
    behind.map(|(_, sent, _)| size(sent.size)).sum::<u64>() + SEGMENT
}
