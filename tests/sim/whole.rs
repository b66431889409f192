//! Everything together: topics that keep, compact and delete, under a few kinds of faults that the seed
//! picks. Fewer kinds at a time find more than all of them: a fault does not hide what another brings out.

use std::time::Duration;

use millstream::io::Random;
use millstream_protocol::messages::NewTopic;

use crate::{
    faults::Fault,
    scenario::{Scenario, play, topic},
    seeds,
};

/// Every kind of fault that a flushed log stands without loss.
const FAULTS: [Fault; 24] = [
    Fault::PowerCut,
    Fault::PowerCut,
    Fault::PowerCutAtStart,
    Fault::PowerCutOnSlowDisk,
    Fault::PowerCutOnUnevenDisk,
    Fault::PowerCutAfterReset,
    Fault::Restart,
    Fault::Reset,
    Fault::Close,
    Fault::Block,
    Fault::SlowDisk,
    Fault::Stall,
    Fault::FullDisk,
    Fault::FailingDisk,
    Fault::FailingStart,
    Fault::Spoil,
    Fault::Spoil,
    Fault::Trim,
    Fault::Recreate,
    Fault::StepClock,
    Fault::WobbleClock,
    Fault::Alter,
    Fault::Member,
    Fault::NudgeClock,
];

/// What a seed stands for.
pub fn scenario(seed: u64) -> Scenario {
    let mut random = Random::new(seed ^ 0x3ead_0b5e);
    let mut topics: Vec<NewTopic> = vec![
        any_compacted("compacted", &mut random),
        any_retained("retained", &mut random),
        topic("plain", 2, "flushed"),
        topic("buffered", 1, "buffered"),
    ];
    while topics.len() > 2 {
        topics.swap_remove(random.index(topics.len()));
    }
    let kinds = 1 + random.index(4);
    Scenario {
        topics,
        producers: 2 + u32::try_from(random.below(2)).expect("small"),
        records: 60,
        pause: Duration::from_millis([60, 500, 1_500][random.index(3)]),
        large_one_in: [8, 2][random.index(2)],
        consumers: 2,
        faults: (0..kinds)
            .map(|_| FAULTS[random.index(FAULTS.len())])
            .collect(),
        fault_count: 5,
        rest: Duration::from_secs([5, 45][random.index(2)]),
        ..Scenario::default()
    }
}

fn with(mut topic: NewTopic, settings: &[(&str, &str)]) -> NewTopic {
    let settings = settings.iter();
    let settings = settings.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    topic.configs.extend(settings);
    topic
}

fn any_compacted(name: &str, random: &mut Random) -> NewTopic {
    let policy = ["compact", "compact,delete"][random.index(2)];
    let lags = [
        ["0", "1000"],
        ["0", "10000"],
        ["1500", "2000"],
        ["12000", "15000"],
    ][random.index(4)];
    let settings = [
        ("cleanup.policy", policy),
        (
            "min.cleanable.dirty.ratio",
            ["0.01", "0.3"][random.index(2)],
        ),
        (
            "delete.retention.ms",
            ["0", "2000", "30000"][random.index(3)],
        ),
        ("min.compaction.lag.ms", lags[0]),
        ("max.compaction.lag.ms", lags[1]),
        ("retention.ms", "25000"),
    ];
    with(topic(name, 2, "flushed"), &settings)
}

fn any_retained(name: &str, random: &mut Random) -> NewTopic {
    let settings = [
        [("retention.ms", "8000"), ("retention.bytes", "-1")],
        [("retention.ms", "24000"), ("retention.bytes", "-1")],
        [("retention.ms", "-1"), ("retention.bytes", "600000")],
        [("retention.ms", "15000"), ("retention.clock", "record")],
    ];
    with(topic(name, 2, "flushed"), &settings[random.index(4)])
}

#[test]
fn whole_histories_break_no_invariant() {
    seeds::each("whole_histories_break_no_invariant", 30, |seed| {
        play(seed, scenario(seed));
    });
}

/// The histories of the seeds that always run are worth judging: the cleaner works, and logs lose their
/// beginnings.
#[test]
fn whole_histories_see_compaction_and_retention() {
    let mut met = (0, 0);
    for seed in 0..6 {
        let outcome = play(seed, scenario(seed));
        met.0 += outcome.compacted_segments;
        met.1 += outcome.moved_starts;
    }
    assert!(met.0 > 10 && met.1 > 2, "{met:?}");
}
