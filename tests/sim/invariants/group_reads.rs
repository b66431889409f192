//! A group sees every record at least once, and commits none that it has not seen.

use std::collections::BTreeMap;

use millstream_protocol::{ErrorCode, Offset, TopicPartition};

use super::Findings;
use crate::history::{CommitId, Facts, GroupWhat, RecordId, What};

/// When a group first saw each record of a partition.
type FirstSeen = BTreeMap<Offset, usize>;

pub fn check(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    let mut seen: BTreeMap<u32, BTreeMap<TopicPartition, FirstSeen>> = BTreeMap::new();
    let mut sent: BTreeMap<CommitId, (u32, TopicPartition, Offset, usize)> = BTreeMap::new();
    let mut committed = Vec::new();
    let mut logs: BTreeMap<TopicPartition, &Vec<(Offset, RecordId)>> = BTreeMap::new();
    for (index, event) in facts.history.events.iter().enumerate() {
        match &event.what {
            What::Whole(at, _, log) => _ = logs.insert(*at, log),
            What::Group(event) => match &event.what {
                GroupWhat::Reads(at, offset, _) => {
                    let seen = seen.entry(event.group).or_default();
                    let first = seen.entry(*at).or_default().entry(*offset);
                    first.or_insert(index);
                }
                GroupWhat::Commits { id, at, offset, .. } => {
                    sent.insert(*id, (event.group, *at, *offset, index));
                }
                GroupWhat::CommitAnswered(id, ErrorCode::None) => committed.push(*id),
                // Whoever is there at all reads everything.
                GroupWhat::HeartbeatSent { .. } => _ = seen.entry(event.group).or_default(),
                _ => {}
            },
            _ => {}
        }
    }
    for (at, log) in &logs {
        if facts.is_buffered(*at) {
            continue;
        }
        for (group, seen) in &seen {
            let seen = seen.get(at);
            for (offset, id) in *log {
                if !seen.is_some_and(|it| it.contains_key(offset)) {
                    findings.add(
                        *at,
                        format!("{offset}: group {group} never saw record {id}"),
                    );
                }
            }
        }
    }
    for id in committed {
        let (group, at, up_to, when) = sent[&id];
        let Some(log) = logs.get(&at).filter(|_| !facts.is_buffered(at)) else {
            continue;
        };
        let seen = seen.get(&group).and_then(|seen| seen.get(&at));
        let below = log.iter().take_while(|(offset, _)| *offset < up_to);
        for (offset, record) in below {
            let before = seen
                .and_then(|it| it.get(offset))
                .is_some_and(|it| *it < when);
            if !before {
                let message = format!(
                    "{offset}: commit {id} of group {group} covers record {record}, which it had not seen"
                );
                findings.add(at, message);
            }
        }
    }
}
