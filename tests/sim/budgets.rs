//! Memory that clients take is given back: with nobody connected every budget is whole again, however
//! connections ended.

use crate::{
    faults::Fault,
    scenario::{Scenario, play},
    seeds,
};

#[test]
fn budgets_are_whole_again_when_clients_have_left() {
    seeds::each(
        "budgets_are_whole_again_when_clients_have_left",
        3,
        |seed| {
            let outcome = play(
                seed,
                Scenario {
                    producers: 5,
                    consumers: 5,
                    records: 30,
                    faults: Fault::NETWORK.into(),
                    fault_count: 8,
                    ..Scenario::default()
                },
            );
            assert!(outcome.reads > 0);
        },
    );
}
