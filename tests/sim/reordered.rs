//! Writes that change places: records of the same sizes, so that whatever is written after a cut fits where
//! something older lies, small and large ones, so that both lanes are under way at once, and power cuts on a
//! disk that takes its time with some writes and not with others.

use std::time::Duration;

use millstream::io::Random;
use millstream_protocol::messages::NewTopic;

use crate::{
    faults::Fault,
    scenario::{Scenario, play},
    seeds,
};

const FAULTS: [Fault; 6] = [
    Fault::PowerCutOnUnevenDisk,
    Fault::PowerCutOnUnevenDisk,
    Fault::PowerCutOnSlowDisk,
    Fault::PowerCutAfterReset,
    Fault::PowerCut,
    Fault::Spoil,
];

fn scenario(seed: u64) -> Scenario {
    let mut random = Random::new(seed ^ 0x4e0_4de4);
    // One log in large segments: a cut is followed by more of the same segment.
    let one = NewTopic {
        name: "one".to_owned(),
        partitions: 1,
        replication_factor: 1,
        configs: vec![("segment.bytes".to_owned(), "524288".to_owned())],
    };
    let kinds = 1 + random.index(3);
    Scenario {
        topics: vec![one],
        producers: 3,
        records: 50,
        pause: Duration::from_millis([20, 200][random.index(2)]),
        delivery_timeout: Duration::from_secs([2, 600][random.index(2)]),
        sizes: [vec![33_000], vec![300, 33_000], vec![300, 3_000]][random.index(3)].clone(),
        consumers: 1,
        faults: (0..kinds)
            .map(|_| FAULTS[random.index(FAULTS.len())])
            .collect(),
        fault_count: 7,
        ..Scenario::default()
    }
}

#[test]
fn what_is_written_out_of_order_is_lost_or_whole() {
    seeds::each(
        "what_is_written_out_of_order_is_lost_or_whole",
        10,
        |seed| {
            play(seed, scenario(seed));
        },
    );
}
