//! The same seed takes the same path, to the byte: a failure can be replayed.

use crate::{
    faults::Fault,
    scenario::{Scenario, play},
    seeds,
};

#[test]
fn determinism_of_every_choice() {
    seeds::each("determinism_of_every_choice", 1, |seed| {
        let scenario = Scenario {
            faults: [Fault::POWER, Fault::NETWORK].concat(),
            ..Scenario::default()
        };
        let first = play(seed, scenario.clone());
        assert_eq!(first, play(seed, scenario.clone()));
        assert_ne!(first.trace_hash, play(seed + 1000, scenario).trace_hash);
    });
}
