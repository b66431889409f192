//! Once another member was told that a partition is its own, no commit that a former owner sends for it is
//! taken.

use std::collections::BTreeMap;

use millstream_protocol::{ErrorCode, TopicPartition};

use super::Findings;
use crate::history::{CommitId, Facts, GroupWhat, MemberName, What};

/// A commit that was sent: who, under which epoch, for what, and the newest epoch in which it was known to
/// be another's.
struct Sent {
    who: MemberName,
    epoch: i64,
    at: TopicPartition,
    taken: Option<(i64, MemberName)>,
}

pub fn check(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    // The newest epoch in which each member was told that it has a partition.
    let mut owners: BTreeMap<(u32, TopicPartition), BTreeMap<MemberName, i64>> = BTreeMap::new();
    let mut commits: BTreeMap<CommitId, Sent> = BTreeMap::new();
    for event in &facts.history.events {
        let What::Group(event) = &event.what else {
            continue;
        };
        match &event.what {
            GroupWhat::HeartbeatAnswered {
                epoch, assignment, ..
            } => {
                for at in assignment.iter().flatten() {
                    let owners = owners.entry((event.group, *at)).or_default();
                    owners.insert(event.who.clone(), *epoch);
                }
            }
            GroupWhat::Commits { id, epoch, at, .. } => {
                let owners = owners.get(&(event.group, *at)).into_iter().flatten();
                let others = owners.filter(|(who, _)| **who != event.who);
                let taken = others.map(|(who, epoch)| (*epoch, who.clone())).max();
                let sent = Sent {
                    who: event.who.clone(),
                    epoch: *epoch,
                    at: *at,
                    taken,
                };
                commits.insert(*id, sent);
            }
            GroupWhat::CommitAnswered(id, ErrorCode::None) => {
                let sent = &commits[id];
                if let Some((since, owner)) = &sent.taken
                    && *since > sent.epoch
                {
                    let message = format!(
                        "commit {id} of {} in epoch {:#x} was taken, and {owner} had it in epoch {since:#x}",
                        sent.who, sent.epoch
                    );
                    findings.add(sent.at, message);
                }
            }
            _ => {}
        }
    }
}
