//! A disk that fails or fills up: what cannot be made durable is not acknowledged, what was stays, and
//! a full disk heals without a restart.

use crate::{
    faults::Fault,
    scenario::{Scenario, play},
    seeds,
};

#[test]
fn disk_failures_lose_nothing_acknowledged() {
    seeds::each("disk_failures_lose_nothing_acknowledged", 4, |seed| {
        play(
            seed,
            Scenario {
                faults: vec![
                    Fault::FailingDisk,
                    Fault::FailingDisk,
                    Fault::SlowDisk,
                    Fault::PowerCut,
                ],
                fault_count: 6,
                ..Scenario::default()
            },
        );
    });
}

#[test]
fn disk_failures_for_want_of_space_heal() {
    seeds::each("disk_failures_for_want_of_space_heal", 7, |seed| {
        let outcome = play(
            seed,
            Scenario {
                faults: vec![Fault::FullDisk, Fault::FullDisk, Fault::Reset],
                fault_count: 6,
                ..Scenario::default()
            },
        );
        assert_eq!(
            outcome.sent, outcome.acknowledged,
            "every producer was patient"
        );
    });
}
