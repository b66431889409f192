//! A delayed record is not delivered early by any clock that the broker can have had, and among those that
//! waited together the one that was due first comes first.

use std::collections::BTreeMap;

use millstream_protocol::{Offset, TopicPartition};

use super::Findings;
use crate::history::{DelayEvent, Due, Facts, RecordId, What};

/// Wall clocks show whole milliseconds.
const CLOCK_GRAIN_MS: i64 = 2;

pub fn check(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    let latest = facts.latest_clocks_ms();
    let mut delivered: BTreeMap<TopicPartition, Vec<(Offset, RecordId)>> = BTreeMap::new();
    let mut accepted: BTreeMap<RecordId, usize> = BTreeMap::new();
    for (index, event) in facts.history.events.iter().enumerate() {
        let What::Delay(event) = &event.what else {
            continue;
        };
        match event {
            DelayEvent::Accepted(id, _) => _ = accepted.insert(*id, index),
            DelayEvent::Seen {
                id,
                offset,
                timestamp_ms,
                due_ms,
                ..
            } => {
                let at = facts.sent(*id).at;
                let due = least_due_ms(facts, *id, index);
                let said = due_ms.unwrap_or(i64::MAX);
                let early = [
                    (
                        due > latest[index] + CLOCK_GRAIN_MS,
                        "before any clock can have said so",
                    ),
                    (due > *timestamp_ms + CLOCK_GRAIN_MS, "by its own timestamp"),
                    (said > *timestamp_ms, "by its own header"),
                ];
                for (_, how) in early.iter().filter(|(early, _)| *early) {
                    let message = format!("{offset}: record {id} came early, {how}");
                    findings.add(at, message);
                }
                delivered.entry(at).or_default().push((*offset, *id));
            }
            _ => {}
        }
    }
    for (at, mut records) in delivered {
        records.sort_unstable();
        in_order(facts, findings, at, &records, &accepted, &latest);
    }
}

/// The earliest time at which a record may be due.
fn least_due_ms(facts: &Facts<'_>, id: RecordId, by: usize) -> i64 {
    let delayed = facts.sent(id).delayed.as_ref().expect("it is delayed");
    match delayed.due {
        Due::At(at_ms) => at_ms,
        Due::After(after_ms) => {
            let sent = facts.record(id).sent;
            facts.wall_ms(sent, by.max(sent)).0 + after_ms
        }
    }
}

/// One that is due at a known time, and was accepted before the clock can have reached that of another, comes
/// before it if it is due before it.
fn in_order(
    facts: &Facts<'_>,
    findings: &mut Findings<'_>,
    at: TopicPartition,
    records: &[(Offset, RecordId)],
    accepted: &BTreeMap<RecordId, usize>,
    latest: &[i64],
) {
    let due_of = |id: RecordId| match facts.sent(id).delayed.as_ref()?.due {
        Due::At(at_ms) => Some(at_ms),
        Due::After(_) => None,
    };
    for (index, (before, first)) in records.iter().enumerate() {
        let Some(first_due) = due_of(*first) else {
            continue;
        };
        for (after, second) in &records[index + 1..] {
            let waited = accepted
                .get(second)
                .is_some_and(|accepted| latest[*accepted] + CLOCK_GRAIN_MS < first_due);
            if waited && due_of(*second).is_some_and(|due| due < first_due) {
                let message = format!(
                    "record {first} at {before} was delivered before record {second} at {after}, which was due sooner"
                );
                findings.add(at, message);
            }
        }
    }
}
