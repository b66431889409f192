//! Consumer groups: members that die, hang, are cut off, leave and come, a coordinator that is cut and
//! restarted, and all that may go wrong beside.

use std::time::Duration;

use millstream::io::Random;

use crate::{
    faults::Fault,
    scenario::{Scenario, play, topic},
    seeds,
};

const FAULTS: [Fault; 13] = [
    Fault::PowerCut,
    Fault::PowerCutAtStart,
    Fault::PowerCutOnSlowDisk,
    Fault::Restart,
    Fault::Reset,
    Fault::Close,
    Fault::Block,
    Fault::SlowDisk,
    Fault::FullDisk,
    Fault::FailingDisk,
    Fault::Trim,
    Fault::Recreate,
    Fault::StepClock,
];

fn scenario(seed: u64) -> Scenario {
    let mut random = Random::new(seed ^ 0x6e0_0b5e);
    let mut faults = vec![
        Fault::Member,
        [Fault::Member, Fault::Takeover][random.index(2)],
        [Fault::PowerCutOnSlowDisk, Fault::PowerCutOnUnevenDisk][random.index(2)],
    ];
    for _ in 0..random.index(3) {
        faults.push(FAULTS[random.index(FAULTS.len())]);
    }
    Scenario {
        topics: vec![topic("a", 3, "flushed"), topic("b", 1, "flushed")],
        groups: 1 + u32::try_from(random.below(2)).expect("small"),
        members: 1 + u32::try_from(random.below(3)).expect("small"),
        producers: 2,
        records: 60,
        pause: Duration::from_millis([200, 800][random.index(2)]),
        consumers: 1,
        faults,
        fault_count: 8,
        ..Scenario::default()
    }
}

#[test]
fn groups_read_everything_and_keep_their_commits() {
    seeds::each(
        "groups_read_everything_and_keep_their_commits",
        20,
        |seed| {
            play(seed, scenario(seed));
        },
    );
}
