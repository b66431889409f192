//! A topic that was deleted and created again is empty, and nothing of the old one ever shows in it:
//! not through clients that were busy with it, and not after power cuts.

use crate::{
    faults::Fault,
    scenario::{Scenario, play},
    seeds,
};

#[test]
fn deleted_topics_come_back_empty() {
    seeds::each("deleted_topics_come_back_empty", 6, |seed| {
        play(
            seed,
            Scenario {
                faults: vec![
                    Fault::Recreate,
                    Fault::Recreate,
                    Fault::PowerCut,
                    Fault::Reset,
                    Fault::Restart,
                ],
                fault_count: 7,
                ..Scenario::default()
            },
        );
    });
}
