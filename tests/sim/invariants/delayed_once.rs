//! A delayed record that was accepted is delivered in the end, once; and a delay id names one record.

use std::collections::{BTreeMap, BTreeSet};

use millstream_protocol::{Offset, TopicId, TopicPartition, messages::CancelOutcome};

use super::Findings;
use crate::history::{CancelTarget, DelayEvent, Facts, Fate, RecordId, What};

pub fn check(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    let known = Known::of(facts, findings);
    for event in &facts.history.events {
        if let What::Whole(at, start, log) = &event.what {
            let there: BTreeSet<RecordId> = log.iter().map(|(_, id)| *id).collect();
            let whole = *start == Offset::ZERO && facts.keeps_all(*at);
            for (id, sent, record) in facts.each() {
                let Some(delayed) = sent.delayed.as_ref().filter(|_| sent.at == *at) else {
                    continue;
                };
                if let [(first, _), (second, _), ..] = record.offsets[..] {
                    findings.add(*at, format!("record {id} is at {first} and at {second}"));
                }
                let accepted = known.accepted.contains_key(&id);
                let mentioned = known.may_be_over(*at, id, delayed.name.as_deref());
                if whole && accepted && !mentioned && !there.contains(&id) {
                    findings.add(*at, format!("record {id} was accepted, and never came"));
                }
            }
        }
    }
}

/// What was told of delay ids.
#[derive(Default)]
struct Known {
    /// The record of each, by what its producer was told, or by what came.
    accepted: BTreeMap<RecordId, Option<Offset>>,
    names: BTreeMap<(TopicPartition, Offset), RecordId>,
    /// What somebody may have taken back, and perhaps nobody knows.
    cancelled_ids: BTreeSet<(TopicPartition, Offset)>,
    cancelled_names: BTreeSet<(TopicPartition, String)>,
    /// Records of each name that its producer gave, which may have taken its place.
    named: BTreeMap<(TopicPartition, String), Vec<RecordId>>,
    deleted: BTreeSet<TopicId>,
}

impl Known {
    fn of(facts: &Facts<'_>, findings: &mut Findings<'_>) -> Self {
        let mut known = Self::default();
        for (id, sent, record) in facts.each() {
            let name = sent.delayed.as_ref().and_then(|it| it.name.clone());
            if let Some(name) = name.filter(|_| record.fate != Fate::Refused) {
                known.named.entry((sent.at, name)).or_default().push(id);
            }
        }
        let mut under_way = BTreeMap::new();
        for event in &facts.history.events {
            match &event.what {
                What::Deleting(topic) => _ = known.deleted.insert(*topic),
                What::Delay(event) => match event {
                    DelayEvent::Accepted(id, delay_id) => {
                        known.accepted.insert(*id, *delay_id);
                        known.named_so(facts, findings, *id, *delay_id);
                    }
                    DelayEvent::Seen { id, delay_id, .. } => {
                        known.named_so(facts, findings, *id, *delay_id);
                    }
                    DelayEvent::Cancels { number, at, target } => {
                        under_way.insert(*number, (*at, target.clone()));
                        match target {
                            CancelTarget::Id(id) => _ = known.cancelled_ids.insert((*at, *id)),
                            CancelTarget::Name(name) => {
                                known.cancelled_names.insert((*at, name.clone()));
                            }
                        }
                    }
                    DelayEvent::CancelAnswered {
                        number,
                        outcome: CancelOutcome::Delivered,
                        ..
                    } => {
                        // It is there, and so not over for this.
                        if let Some((at, CancelTarget::Id(id))) = under_way.get(number) {
                            known.cancelled_ids.remove(&(*at, *id));
                        }
                    }
                    DelayEvent::CancelAnswered { .. } => {}
                },
                _ => {}
            }
        }
        known
    }

    /// What the broker calls a record: nothing else may be called so, nor it by another name.
    fn named_so(
        &mut self,
        facts: &Facts<'_>,
        findings: &mut Findings<'_>,
        id: RecordId,
        delay_id: Option<Offset>,
    ) {
        let at = facts.sent(id).at;
        let Some(delay_id) = delay_id.filter(|_| !facts.is_buffered(at)) else {
            return;
        };
        let named = *self.names.entry((at, delay_id)).or_insert(id);
        if named != id {
            let message = format!("delay id {delay_id} names record {named}, and record {id}");
            findings.add(at, message);
        }
    }

    /// A record may not come for another reason than a fault: it was taken back, or another took its place.
    fn may_be_over(&self, at: TopicPartition, id: RecordId, name: Option<&str>) -> bool {
        let by_id = match self.accepted.get(&id).copied().flatten() {
            Some(delay_id) => self.cancelled_ids.contains(&(at, delay_id)),
            // Somebody may have taken back by its id what its producer could not.
            None => self.cancelled_ids.iter().any(|(of, _)| *of == at),
        };
        let by_name = name.is_some_and(|name| {
            let place = (at, name.to_owned());
            let others = self.named.get(&place).is_some_and(|ids| ids.len() > 1);
            others || self.cancelled_names.contains(&place)
        });
        by_id || by_name || self.deleted.contains(&at.topic)
    }
}
