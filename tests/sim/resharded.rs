//! The number of shards may change at every start; records deleted on request stay deleted.

use crate::{
    faults::Fault,
    scenario::{Scenario, play},
    seeds,
};

#[test]
fn resharded_brokers_keep_everything() {
    seeds::each("resharded_brokers_keep_everything", 4, |seed| {
        play(
            seed,
            Scenario {
                faults: vec![Fault::Restart, Fault::PowerCut, Fault::Trim],
                fault_count: 9,
                ..Scenario::default()
            },
        );
    });
}
