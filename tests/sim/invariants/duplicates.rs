//! What an idempotent producer sends is written once, however often it tries, and in its order.

use std::collections::{BTreeMap, BTreeSet};

use millstream_protocol::{Offset, TopicPartition};

use super::Findings;
use crate::history::{Facts, RecordId, What};

pub fn check(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    for (id, sent, record) in facts.each() {
        if facts.is_buffered(sent.at) || sent.delayed.is_some() {
            // Its end may be lost, and is then sent again.
            continue;
        }
        if let [(first, _), (second, _), ..] = record.offsets[..] {
            findings.add(
                sent.at,
                format!("record {id} is at {first} and at {second}"),
            );
        }
    }
    for event in &facts.history.events {
        if let What::Whole(at, _, log) = &event.what {
            whole(facts, findings, *at, log);
        }
    }
}

fn whole(
    facts: &Facts<'_>,
    findings: &mut Findings<'_>,
    at: TopicPartition,
    log: &[(Offset, RecordId)],
) {
    let mut seen = BTreeSet::new();
    let mut last: BTreeMap<u32, RecordId> = BTreeMap::new();
    for (offset, id) in log {
        if !seen.insert(*id) {
            findings.add(at, format!("{offset}: record {id} is there again"));
        }
        if facts.is_buffered(at) || facts.sent(*id).delayed.is_some() {
            // What it knew of a producer may be lost with its end, and then any batch may come first.
            continue;
        }
        let producer = facts.sent(*id).producer;
        if let Some(before) = last.insert(producer, *id)
            && before > *id
        {
            let message = format!("{offset}: producer {producer} sent record {id} before {before}");
            findings.add(at, message);
        }
    }
}
