//! Time to live: a batch that is wholly past it is not served, but for the last one there is, and a record
//! that is not past it is never left out.

use std::collections::BTreeMap;

use millstream_protocol::{Offset, TopicPartition};

use super::Findings;
use crate::history::{Facts, ReaderId, RecordId, What};

/// Wall clocks show whole milliseconds.
const CLOCK_GRAIN_MS: i64 = 2;

pub fn check(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    let mut next: BTreeMap<(ReaderId, TopicPartition), Offset> = BTreeMap::new();
    for (index, event) in facts.history.events.iter().enumerate() {
        match &event.what {
            What::Served {
                reader,
                at,
                base,
                max_timestamp_ms,
                is_last: false,
                asked,
            } => {
                // By every clock since it was asked for, and by every setting.
                let longest = facts.configs(at.topic, index).map(|it| it.ttl_ms).max();
                let Some(ttl_ms) = longest.flatten().filter(|_| facts.always_lives(*at, index))
                else {
                    continue;
                };
                let (least_ms, _) = facts.wall_ms(*asked, index);
                let ttl_ms = i64::try_from(ttl_ms).expect("short");
                if max_timestamp_ms + ttl_ms + CLOCK_GRAIN_MS < least_ms {
                    let over_ms = least_ms - max_timestamp_ms - ttl_ms;
                    let message =
                        format!("{base}: reader {reader} was given what was over for {over_ms} ms");
                    findings.add(*at, message);
                }
            }
            What::Began(reader, at, offset) => _ = next.insert((*reader, *at), *offset),
            What::Read(reader, at, offset, _) => {
                let expected = next
                    .insert((*reader, *at), offset.plus(1))
                    .unwrap_or(*offset);
                if expected < *offset {
                    left_out(facts, findings, *at, (expected, *offset), index);
                }
            }
            What::Whole(at, start, log) => {
                let mut from = *start;
                for (offset, _) in log {
                    left_out(facts, findings, *at, (from, *offset), index);
                    from = offset.plus(1);
                }
                left_out(facts, findings, *at, (from, Offset(i64::MAX)), index);
            }
            _ => {}
        }
    }
}

/// Records that were not served are over by some clock since they were sent.
fn left_out(
    facts: &Facts<'_>,
    findings: &mut Findings<'_>,
    at: TopicPartition,
    (from, to): (Offset, Offset),
    index: usize,
) {
    let Some(ttl_ms) = facts.ttl_ms(at, index).filter(|_| from < to) else {
        return;
    };
    let Some(names) = facts.names.get(&at) else {
        return;
    };
    for (offset, ids) in names.range(from..to) {
        let id: RecordId = ids[0];
        let (record, sent) = (facts.record(id), facts.sent(id));
        // One that is delayed has its time from its delivery; one that was not there yet is not left out.
        if sent.delayed.is_some() || record.known.is_none_or(|known| known > index) {
            continue;
        }
        let timestamp_ms = facts.history.events[record.sent].moment.wall_ms;
        let (_, latest_ms) = facts.wall_ms(record.sent, index);
        if timestamp_ms + ttl_ms > latest_ms + CLOCK_GRAIN_MS {
            let left_ms = timestamp_ms + ttl_ms - latest_ms;
            let message =
                format!("{offset}: record {id} is left out, and has {left_ms} ms to live");
            findings.add(at, message);
        }
    }
}
