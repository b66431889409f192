//! No acknowledged record is lost, nor one that a consumer was shown; and what its producer was told is
//! not there is not there. What compaction and retention may take is judged in their own files.

use std::collections::BTreeMap;

use millstream_protocol::{Offset, TopicPartition};

use super::Findings;
use crate::history::{Facts, Fate, RecordId, What};

pub fn check(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    for event in &facts.history.events {
        match &event.what {
            What::Whole(at, start, log) => whole(facts, findings, *at, *start, log),
            What::Read(reader, at, offset, id) if facts.record(*id).fate == Fate::Refused => {
                let message = format!(
                    "{offset}: reader {reader} got record {id}, and its producer was told that it is not there"
                );
                findings.add(*at, message);
            }
            _ => {}
        }
    }
}

fn whole(
    facts: &Facts<'_>,
    findings: &mut Findings<'_>,
    at: TopicPartition,
    start: Offset,
    log: &[(Offset, RecordId)],
) {
    if facts.has_gaps(at) {
        return;
    }
    let there: BTreeMap<RecordId, Offset> = log.iter().map(|(offset, id)| (*id, *offset)).collect();
    for (id, sent, record) in facts.each() {
        if sent.at != at {
            continue;
        }
        // Where it was is not known; it may be below the start.
        let unplaced = matches!(record.fate, Fate::Acknowledged(None)) && start == Offset::ZERO;
        if unplaced && !there.contains_key(&id) {
            findings.add(at, format!("record {id} was acknowledged, and is lost"));
        }
        if facts.is_buffered(at) {
            continue;
        }
        for (offset, _) in record.offsets.iter().filter(|(offset, _)| *offset >= start) {
            if there.get(&id) != Some(offset) {
                let told = match record.fate {
                    Fate::Acknowledged(_) => "acknowledged",
                    Fate::Pending | Fate::Accepted | Fate::Uncertain | Fate::Refused => {
                        "shown to a consumer"
                    }
                };
                findings.add(at, format!("{offset}: record {id} was {told}, and is lost"));
            }
        }
    }
}
