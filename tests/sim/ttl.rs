//! Time to live: readers that are late, clocks that are set, brokers that restart.

use std::time::Duration;

use millstream::io::Random;

use crate::{
    faults::Fault,
    scenario::{Scenario, play, topic},
    seeds,
};

const FAULTS: [Fault; 8] = [
    Fault::PowerCut,
    Fault::Restart,
    Fault::NudgeClock,
    Fault::NudgeClock,
    Fault::Block,
    Fault::SlowDisk,
    Fault::Trim,
    Fault::Recreate,
];

fn scenario(seed: u64) -> Scenario {
    let mut random = Random::new(seed ^ 0x7717e);
    let kinds = 1 + random.index(3);
    let mut short = topic("short", 2, "flushed");
    let ttl_ms = ["400", "2000", "8000"][random.index(3)];
    short.configs.push(("ttl.ms".to_owned(), ttl_ms.to_owned()));
    Scenario {
        topics: vec![short],
        producers: 2,
        delayers: u32::try_from(random.below(2)).expect("small"),
        delay: Duration::from_secs(4),
        records: 60,
        pause: Duration::from_millis([100, 400][random.index(2)]),
        consumers: 2,
        faults: (0..kinds)
            .map(|_| FAULTS[random.index(FAULTS.len())])
            .collect(),
        fault_count: 5,
        ..Scenario::default()
    }
}

#[test]
fn what_is_over_is_left_out_and_nothing_else() {
    seeds::each("what_is_over_is_left_out_and_nothing_else", 10, |seed| {
        play(seed, scenario(seed));
    });
}
