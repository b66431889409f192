//! A buffered topic may lose its unflushed end, and whoever read it hears of that: a consumer never
//! silently holds what the log no longer does.

use crate::{
    faults::Fault,
    scenario::{Scenario, play, topic},
    seeds,
};

#[test]
fn buffered_readers_hear_of_what_was_lost() {
    seeds::each("buffered_readers_hear_of_what_was_lost", 6, |seed| {
        play(
            seed,
            Scenario {
                topics: vec![topic("a", 2, "buffered")],
                faults: vec![
                    Fault::PowerCut,
                    Fault::PowerCutAtStart,
                    Fault::Reset,
                    Fault::SlowDisk,
                ],
                fault_count: 6,
                consumers: 3,
                ..Scenario::default()
            },
        );
    });
}
