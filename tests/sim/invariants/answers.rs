//! Clients are told nothing that nothing explains: no damage on a disk that damages nothing, no refusal of
//! what is right.

use super::Findings;
use crate::history::{Facts, What};

pub fn check(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    for event in &facts.history.events {
        if let What::Unexplained(said) = &event.what {
            findings.add(None, said);
        }
    }
}
