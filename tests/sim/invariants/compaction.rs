//! Compaction keeps the last record of each key, lets no older one come back, and takes away only what
//! a later record of the same key replaces, or a tombstone whose time is over.

use std::{collections::BTreeMap, ops::Range};

use millstream_protocol::{Offset, TopicPartition};

use super::Findings;
use crate::history::{Facts, Fate, ReaderId, RecordId, What};

pub fn check(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    let mut next: BTreeMap<(ReaderId, TopicPartition), Offset> = BTreeMap::new();
    for (index, event) in facts.history.events.iter().enumerate() {
        match &event.what {
            What::Began(reader, at, offset) => _ = next.insert((*reader, *at), *offset),
            What::Read(reader, at, offset, _) if facts.is_compacted(*at) => {
                let from = next.insert((*reader, *at), offset.plus(1));
                too_young(
                    facts,
                    findings,
                    *at,
                    from.unwrap_or(*offset)..*offset,
                    index,
                );
            }
            _ => {}
        }
        if let What::Whole(at, start, log) = &event.what
            && facts.is_compacted(*at)
        {
            let whole = Whole::of(facts, index, *at, *start, log);
            whole.last_values(findings);
            whole.what_is_gone(findings);
        }
    }
}

/// What a reader was not given, and somebody knew of, is older than `min.compaction.lag.ms`.
fn too_young(
    facts: &Facts<'_>,
    findings: &mut Findings<'_>,
    at: TopicPartition,
    left_out: Range<Offset>,
    index: usize,
) {
    let Some(names) = facts.names.get(&at).filter(|_| !left_out.is_empty()) else {
        return;
    };
    for (offset, ids) in names.range(left_out) {
        let known = ids.iter().filter(|id| {
            let seen = facts
                .record(**id)
                .offsets
                .iter()
                .find(|(of, _)| of == offset);
            seen.is_some_and(|(_, when)| *when <= index)
        });
        for id in known {
            let age_ms = facts.age_ms(*id, index);
            let mut configs = facts.configs(at.topic, index);
            if configs.all(|it| age_ms < it.min_compaction_lag_ms) {
                let message = format!("{offset}: record {id} is not served after {age_ms} ms");
                findings.add(at, message);
            }
        }
    }
}

/// A compacted log as it was read from its start to its end, and what is known of it otherwise.
struct Whole<'a> {
    facts: &'a Facts<'a>,
    index: usize,
    at: TopicPartition,
    start: Offset,
    there: BTreeMap<Offset, RecordId>,
    /// Records that are known to have been in it by then, by key, with their offsets.
    known: BTreeMap<u32, BTreeMap<Offset, RecordId>>,
    /// Records of each key that may be in it, at offsets that nobody knows.
    unplaced: BTreeMap<u32, Vec<RecordId>>,
}

impl<'a> Whole<'a> {
    fn of(
        facts: &'a Facts<'a>,
        index: usize,
        at: TopicPartition,
        start: Offset,
        log: &[(Offset, RecordId)],
    ) -> Self {
        let mut known: BTreeMap<u32, BTreeMap<Offset, RecordId>> = BTreeMap::new();
        let mut unplaced: BTreeMap<u32, Vec<RecordId>> = BTreeMap::new();
        for (id, sent, record) in facts.each() {
            let Some(key) = sent.key.filter(|_| sent.at == at && record.sent <= index) else {
                continue;
            };
            match record.offsets.iter().find(|(_, seen)| *seen <= index) {
                Some((offset, _)) => _ = known.entry(key).or_default().insert(*offset, id),
                None if record.fate == Fate::Refused => {}
                None => unplaced.entry(key).or_default().push(id),
            }
        }
        Self {
            facts,
            index,
            at,
            start,
            there: log.iter().copied().collect(),
            known,
            unplaced,
        }
    }

    /// A tombstone that has been there for long enough to go.
    fn may_expire(&self, id: RecordId) -> bool {
        let sent = self.facts.sent(id);
        let mut configs = self.facts.configs(self.at.topic, self.index);
        sent.tombstone
            && configs.any(|it| self.facts.age_ms(id, self.index) >= it.delete_retention_ms)
    }

    /// Some record of a key, at an offset that nobody knows, that `sees`.
    fn any_unplaced(&self, key: u32, sees: impl Fn(RecordId) -> bool) -> bool {
        let unplaced = self.unplaced.get(&key).into_iter().flatten();
        unplaced.copied().any(sees)
    }

    /// The last record of each key that is known is there, or a later one; or it is a tombstone whose time is
    /// over, and then nothing of that key is left from before it.
    fn last_values(&self, findings: &mut Findings<'_>) {
        let mut found: BTreeMap<u32, Offset> = BTreeMap::new();
        for (offset, id) in &self.there {
            if let Some(key) = self.facts.sent(*id).key {
                found.insert(key, *offset);
            }
        }
        for (key, records) in &self.known {
            let Some((last, id)) = records.last_key_value() else {
                continue;
            };
            if *last < self.start || found.get(key).is_some_and(|offset| offset >= last) {
                continue;
            }
            let expired = self.may_expire(*id) || self.any_unplaced(*key, |id| self.may_expire(id));
            match found.get(key) {
                Some(offset) => {
                    let older = self.there[offset];
                    let message = format!(
                        "key {key} was record {id} at {last}, and is the older record {older} at {offset}"
                    );
                    findings.add(self.at, message);
                }
                None if expired => {}
                None => {
                    let what = match self.facts.sent(*id).tombstone {
                        true => "a tombstone whose time is not over",
                        false => "its last record",
                    };
                    findings.add(
                        self.at,
                        format!("key {key}: {what}, {id} at {last}, is gone"),
                    );
                }
            }
        }
    }

    /// What is gone was replaced, and not sooner than it may be.
    fn what_is_gone(&self, findings: &mut Findings<'_>) {
        for (key, records) in &self.known {
            let (last, _) = records.last_key_value().expect("at least one");
            for (offset, id) in records.range(self.start..) {
                if self.there.contains_key(offset) {
                    continue;
                }
                let replaced = offset < last || self.any_unplaced(*key, |_| true);
                if !replaced && !self.may_expire(*id) {
                    let message = format!(
                        "{offset}: record {id} of key {key} is gone, and nothing replaced it"
                    );
                    findings.add(self.at, message);
                }
                let age_ms = self.facts.age_ms(*id, self.index);
                let mut configs = self.facts.configs(self.at.topic, self.index);
                if configs.all(|it| age_ms < it.min_compaction_lag_ms) {
                    let message = format!("{offset}: record {id} is gone after {age_ms} ms");
                    findings.add(self.at, message);
                }
            }
        }
    }
}
