//! What a shard has in use stays within its limits, and with nobody connected nothing is in use.

use super::Findings;
use crate::history::{Facts, What};

pub fn check(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    for event in &facts.history.events {
        if let What::InUse {
            shard,
            what,
            used,
            limit,
        } = &event.what
            && used > limit
        {
            let message = format!("shard {shard} uses {used} bytes of {what}, and may use {limit}");
            findings.add(None, message);
        }
    }
}
