//! Nothing is there twice: idempotent producers try again over reset, closed and silent connections,
//! restarts and slow disks, and each record is written once, in order.

use std::time::Duration;

use crate::{
    faults::Fault,
    scenario::{Scenario, play},
    seeds,
};

#[test]
fn idempotent_retries_write_once() {
    seeds::each("idempotent_retries_write_once", 7, |seed| {
        let faults = [
            Fault::NETWORK.as_slice(),
            &[Fault::SlowDisk, Fault::PowerCut],
        ]
        .concat();
        let outcome = play(
            seed,
            Scenario {
                faults,
                fault_count: 8,
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
fn idempotent_producers_that_give_up_are_told_the_truth() {
    seeds::each(
        "idempotent_producers_that_give_up_are_told_the_truth",
        4,
        |seed| {
            let faults = [
                Fault::NETWORK.as_slice(),
                &[Fault::SlowDisk, Fault::Restart],
            ]
            .concat();
            play(
                seed,
                Scenario {
                    faults,
                    fault_count: 8,
                    delivery_timeout: Duration::from_millis(700),
                    ..Scenario::default()
                },
            );
        },
    );
}
