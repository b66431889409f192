//! What a member had that died while all else was well is read by others within its session timeout and a
//! second.

use std::collections::{BTreeMap, BTreeSet};

use millstream_protocol::TopicPartition;

use super::Findings;
use crate::history::{Facts, GroupWhat, MemberName, What};

pub fn check(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    let mut reads: BTreeMap<(u32, MemberName), BTreeSet<TopicPartition>> = BTreeMap::new();
    for event in &facts.history.events {
        let What::Group(event) = &event.what else {
            continue;
        };
        let mine = reads.entry((event.group, event.who.clone())).or_default();
        match &event.what {
            GroupWhat::Takes(at, _) => _ = mine.insert(*at),
            GroupWhat::LetsGo(at) => _ = mine.remove(at),
            GroupWhat::TakeoverDue => {
                for at in mine.clone() {
                    let mut others = reads
                        .iter()
                        .filter(|((group, who), _)| *group == event.group && *who != event.who);
                    if !others.any(|(_, reads)| reads.contains(&at)) {
                        let message = format!("nobody reads in the place of {}", event.who);
                        findings.add(at, message);
                    }
                }
            }
            _ => {}
        }
    }
}
