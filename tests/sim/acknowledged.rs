//! No acknowledged record is lost, and an offset names one record for ever: over power cuts at any
//! moment, during starts too.

use crate::{
    faults::Fault,
    scenario::{Scenario, play},
    seeds,
};

#[test]
fn acknowledged_records_survive_power_cuts() {
    seeds::each("acknowledged_records_survive_power_cuts", 7, |seed| {
        let outcome = play(
            seed,
            Scenario {
                faults: Fault::POWER.into(),
                fault_count: 5,
                ..Scenario::default()
            },
        );
        assert_eq!(
            outcome.sent, outcome.acknowledged,
            "every producer was patient"
        );
    });
}

#[test]
fn acknowledged_records_survive_everything_at_once() {
    seeds::each(
        "acknowledged_records_survive_everything_at_once",
        6,
        |seed| {
            let faults = [
                Fault::PowerCut,
                Fault::PowerCutAtStart,
                Fault::Restart,
                Fault::Reset,
                Fault::Close,
                Fault::Block,
                Fault::SlowDisk,
                Fault::FullDisk,
                Fault::FailingDisk,
                Fault::Trim,
                Fault::Recreate,
            ];
            play(
                seed,
                Scenario {
                    faults: faults.into(),
                    fault_count: 8,
                    ..Scenario::default()
                },
            );
        },
    );
}
