//! Delayed records: accepted, put off, taken back, delivered, through everything that may go wrong.

use std::time::Duration;

use millstream::io::{
    Random,
    sim::{CrashPolicy, Errno, Fault as DiskFault, Operation, Sim},
};
use millstream_protocol::ErrorCode;

use crate::{
    faults::Fault,
    scenario::{Scenario, play, topic},
    seeds,
    small::Small,
};

const FAULTS: [Fault; 16] = [
    Fault::PowerCut,
    Fault::PowerCut,
    Fault::PowerCutAtStart,
    Fault::PowerCutOnSlowDisk,
    Fault::Restart,
    Fault::Restart,
    Fault::NudgeClock,
    Fault::NudgeClock,
    Fault::Reset,
    Fault::Close,
    Fault::Block,
    Fault::SlowDisk,
    Fault::FullDisk,
    Fault::FailingDisk,
    Fault::FailingStart,
    Fault::Recreate,
];

fn scenario(seed: u64) -> Scenario {
    let mut random = Random::new(seed ^ 0xde_1a7e);
    let kinds = 1 + random.index(3);
    Scenario {
        topics: vec![topic("a", 2, "flushed"), topic("b", 1, "flushed")],
        producers: 1,
        delayers: 2,
        delay: Duration::from_secs([2, 12][random.index(2)]),
        records: 60,
        pause: Duration::from_millis([60, 400][random.index(2)]),
        consumers: 1,
        faults: (0..kinds)
            .map(|_| FAULTS[random.index(FAULTS.len())])
            .collect(),
        fault_count: 6,
        ..Scenario::default()
    }
}

#[test]
fn delayed_records_come_once_and_when_they_are_due() {
    seeds::each(
        "delayed_records_come_once_and_when_they_are_due",
        20,
        |seed| {
            play(seed, scenario(seed));
        },
    );
}

/// A partition that could not be opened left its delay log unopened too, and the journal that held what was
/// accepted last was removed: an accepted record was lost.
#[test]
fn a_partition_that_does_not_open_keeps_its_delayed_records() {
    Sim::new(1).run(|io| async move {
        let mut small = Small::start(io, topic("t", 1, "flushed")).await;
        // So that the partition has a file to open.
        assert_eq!(small.produce(0, 40_000).await.error, ErrorCode::None);
        let accepted = small.produce_delayed(Duration::from_secs(600)).await;
        assert_eq!(accepted.error, ErrorCode::None, "{accepted:?}");
        assert_eq!(small.pending().await, 1);
        small.world.broker.cut_power(CrashPolicy::DropAll);
        let fault = DiskFault::always(Operation::Open, Errno::Io);
        let dir = format!("topics/{}/0/", small.topic);
        small.world.broker.disk().fail(fault.on(&dir));
        small.world.start();
        small.world.broker.ready().await;
        small.world.cut_power(CrashPolicy::DropAll).await;
        small.world.broker.ready().await;
        assert_eq!(small.pending().await, 1);
    });
}
