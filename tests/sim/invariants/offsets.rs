//! Offsets are dense as appended and never name another record: not after a crash, and not after a cut.

use std::collections::BTreeMap;

use millstream_protocol::{Offset, TopicPartition};

use super::Findings;
use crate::history::{Facts, RecordId, What};

pub fn check(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    for (at, names) in &facts.names {
        if facts.is_buffered(*at) {
            continue;
        }
        for (offset, ids) in names {
            if let [first, second, ..] = ids[..] {
                findings.add(
                    *at,
                    format!("{offset} named record {first}, and record {second}"),
                );
            }
        }
    }
    let mut sent: BTreeMap<TopicPartition, i64> = BTreeMap::new();
    for event in &facts.history.events {
        match &event.what {
            What::Sent(id) => *sent.entry(facts.sent(*id).at).or_default() += 1,
            What::Acknowledged(id, Some(offset)) | What::Read(_, _, offset, id) => {
                let at = facts.sent(*id).at;
                let count = sent.get(&at).copied().unwrap_or(0);
                if offset.0 >= count {
                    let message =
                        format!("record {id} has offset {offset}, and only {count} were sent");
                    findings.add(at, message);
                }
            }
            What::Whole(at, _, log) => dense(facts, findings, *at, log),
            _ => {}
        }
    }
}

fn dense(
    facts: &Facts<'_>,
    findings: &mut Findings<'_>,
    at: TopicPartition,
    log: &[(Offset, RecordId)],
) {
    for pair in log.windows(2) {
        let (before, after) = (pair[0].0, pair[1].0);
        let fine = match facts.has_gaps(at) {
            true => before < after,
            false => before.plus(1) == after,
        };
        if !fine {
            findings.add(at, format!("{after} follows {before}"));
        }
    }
}
