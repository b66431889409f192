//! What must hold of every history: one file for each invariant, each a pure function of the same
//! recorded history. None knows which faults there were; what a fault excuses is in the history.

mod acknowledged;
mod answers;
mod compaction;
mod delayed_cancels;
mod delayed_once;
mod delayed_times;
mod duplicates;
mod group_commits;
mod group_fencing;
mod group_owners;
mod group_reads;
mod group_takeover;
mod memory;
mod offsets;
mod prefixes;
mod retention;
mod ttl;

use millstream_protocol::TopicPartition;

use crate::history::{Facts, History};

/// An invariant that a history breaks.
#[derive(Clone, Debug)]
pub struct Violation {
    pub invariant: &'static str,
    /// The partition it is about.
    pub at: Option<TopicPartition>,
    pub message: String,
}

/// Where an invariant's findings go.
pub struct Findings<'a> {
    invariant: &'static str,
    found: &'a mut Vec<Violation>,
}

impl Findings<'_> {
    fn add(&mut self, at: impl Into<Option<TopicPartition>>, message: impl Into<String>) {
        self.found.push(Violation {
            invariant: self.invariant,
            at: at.into(),
            message: message.into(),
        });
    }
}

type Check = fn(&Facts<'_>, &mut Findings<'_>);

/// All of them, those first that say most about a cause.
const ALL: [(&str, Check); 17] = [
    ("no acknowledged loss", acknowledged::check),
    ("offsets are dense and unique", offsets::check),
    ("reads are prefixes", prefixes::check),
    ("no duplicates from idempotent producers", duplicates::check),
    ("compaction keeps each last value", compaction::check),
    ("retention deletes only what it may", retention::check),
    ("delayed records come in the end, once", delayed_once::check),
    (
        "delayed records come neither early nor out of order",
        delayed_times::check,
    ),
    ("what was cancelled does not come", delayed_cancels::check),
    ("a partition has one owner in a group", group_owners::check),
    (
        "commits of former owners are not taken",
        group_fencing::check,
    ),
    ("acknowledged commits are kept", group_commits::check),
    ("a group sees everything", group_reads::check),
    (
        "members that die are replaced in time",
        group_takeover::check,
    ),
    ("only what is over is left out", ttl::check),
    ("memory within limits", memory::check),
    ("answers are explained", answers::check),
];

/// What a history breaks.
pub fn broken_by(history: &History) -> Vec<Violation> {
    let facts = Facts::of(history);
    let mut found = Vec::new();
    for (invariant, check) in ALL {
        let findings = &mut Findings {
            invariant,
            found: &mut found,
        };
        check(&facts, findings);
    }
    found
}
