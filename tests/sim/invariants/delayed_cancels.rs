//! A delayed record whose cancellation was acknowledged is never delivered, nor one that another of its name
//! replaced while it waited; and one of which somebody heard that it was delivered is there.

use std::collections::BTreeMap;

use millstream_protocol::{Offset, TopicPartition, messages::CancelOutcome};

use super::Findings;
use crate::history::{CancelTarget, DelayEvent, Due, Facts, RecordId, What};

type Ids = BTreeMap<(TopicPartition, Offset), RecordId>;

pub fn check(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    let (ids, accepted) = ids(facts);
    let mut under_way = BTreeMap::new();
    let events = &facts.history.events;
    for (index, event) in events.iter().enumerate() {
        let What::Delay(event) = &event.what else {
            continue;
        };
        match event {
            DelayEvent::Cancels { number, at, target } => {
                under_way.insert(*number, (*at, target, index));
            }
            DelayEvent::CancelAnswered {
                number,
                outcome,
                delay_id,
            } => {
                let (at, target, asked) = under_way[number];
                let id = ids.get(&(at, *delay_id));
                let wrong = match outcome {
                    CancelOutcome::Cancelled => id.and_then(|id| came(facts, *id)),
                    CancelOutcome::Delivered => None,
                    CancelOutcome::Unknown => unknown(&accepted, at, target, asked),
                };
                if let Some(wrong) = wrong {
                    findings.add(
                        at,
                        format!("cancellation {number} was answered {outcome:?}: {wrong}"),
                    );
                }
            }
            _ => {}
        }
    }
    replaced(facts, findings, &accepted);
}

/// An accepted record, and when its producer heard of that.
struct Accepted {
    id: RecordId,
    delay_id: Offset,
    when: usize,
}

fn ids(facts: &Facts<'_>) -> (Ids, Vec<(TopicPartition, Accepted)>) {
    let mut ids = Ids::new();
    let mut accepted = Vec::new();
    for (when, event) in facts.history.events.iter().enumerate() {
        let (id, delay_id) = match &event.what {
            What::Delay(DelayEvent::Accepted(id, Some(delay_id))) => {
                let at = facts.sent(*id).at;
                let (id, delay_id) = (*id, *delay_id);
                accepted.push((at, Accepted { id, delay_id, when }));
                (id, delay_id)
            }
            What::Delay(DelayEvent::Seen {
                id,
                delay_id: Some(delay_id),
                ..
            }) => (*id, *delay_id),
            _ => continue,
        };
        ids.insert((facts.sent(id).at, delay_id), id);
    }
    accepted.retain(|(at, _)| !facts.is_buffered(*at));
    (ids, accepted)
}

fn came(facts: &Facts<'_>, id: RecordId) -> Option<String> {
    let (offset, _) = facts.record(id).offsets.first()?;
    Some(format!("and record {id} came, at {offset}"))
}

/// Whoever was told of a delay id can ask for it.
fn unknown(
    accepted: &[(TopicPartition, Accepted)],
    at: TopicPartition,
    target: &CancelTarget,
    asked: usize,
) -> Option<String> {
    let CancelTarget::Id(delay_id) = target else {
        return None;
    };
    let mut known = accepted.iter().filter(|(of, _)| *of == at);
    let known = known.find(|(_, it)| it.delay_id == *delay_id && it.when < asked);
    known.map(|(_, it)| format!("and record {} was accepted as that", it.id))
}

/// One that was certainly waiting when a later one of its name was accepted never comes.
fn replaced(
    facts: &Facts<'_>,
    findings: &mut Findings<'_>,
    accepted: &[(TopicPartition, Accepted)],
) {
    let clocks = facts.latest_clocks_ms();
    let named = |id: RecordId| {
        facts
            .sent(id)
            .delayed
            .as_ref()
            .and_then(|it| it.name.clone())
    };
    for (at, first) in accepted {
        let Some(name) = named(first.id) else {
            continue;
        };
        let Some(Due::At(due_ms)) = facts.sent(first.id).delayed.as_ref().map(|it| it.due) else {
            continue;
        };
        let mut later = accepted.iter().filter(|(of, it)| {
            of == at && it.delay_id > first.delay_id && named(it.id).as_ref() == Some(&name)
        });
        // It cannot have been due before the other was accepted.
        let by = later.find(|(_, it)| clocks[it.when] < due_ms);
        if let (Some((_, by)), Some(came)) = (by, came(facts, first.id)) {
            let message = format!("record {} of the same name took its place, {came}", by.id);
            findings.add(*at, message);
        }
    }
}
