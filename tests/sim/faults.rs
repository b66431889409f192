//! What may go wrong in a history.

mod members;
mod spoil;

use std::time::Duration;

use millstream::io::{
    Clock as _,
    sim::{CrashPolicy, DiskTimes, Errno, Fault as DiskFault, Operation},
};
use millstream_protocol::{
    ErrorCode, Offset, PartitionIndex, TopicPartition,
    messages::{ANY_SHARD, DeleteRecordsPartition, DeleteRecordsRequest, DeleteTopicsRequest},
};

use crate::{history::What, world::World};

/// A kind of fault; the seed fills in the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The power goes: what was not flushed is lost, kept, torn, reordered.
    PowerCut,
    /// The power goes while the broker starts.
    PowerCutAtStart,
    /// The power goes while the disk is slow: much is under way.
    PowerCutOnSlowDisk,
    /// The power goes while some writes take a thousand times as long as others: what was written later
    /// is there, what was written before is not.
    PowerCutOnUnevenDisk,
    /// Connections are reset while the disk is slow, clients try again, and then the power goes.
    PowerCutAfterReset,
    /// A clean stop and start.
    Restart,
    /// Every connection is reset.
    Reset,
    /// Clients close their connections with requests under way.
    Close,
    /// Nothing gets through for a while.
    Block,
    /// The disk is slow for a while.
    SlowDisk,
    /// The disk takes seconds for everything, for a while.
    Stall,
    /// An operation of the disk fails; later the broker is restarted.
    FailingDisk,
    /// The files of a partition can't be opened when the broker starts; the next start finds them well.
    FailingStart,
    /// A bit of a file is wrong at a start, and right again at the next: nothing may be cut for it.
    Spoil,
    /// The wall clock is set, forwards or back.
    StepClock,
    /// The wall clock is set by seconds, forwards or back.
    NudgeClock,
    /// The wall clock is set back, and a moment later forward again.
    WobbleClock,
    /// A topic's retention is changed.
    Alter,
    /// Nothing can be allocated for a while.
    FullDisk,
    /// A topic is deleted and created again.
    Recreate,
    /// Records are deleted.
    Trim,
    /// A member of a consumer group dies, hangs, is cut off, leaves or comes.
    Member,
    /// A member dies while all else is well.
    Takeover,
}

impl Fault {
    /// Faults of the network alone.
    pub const NETWORK: [Self; 3] = [Self::Reset, Self::Close, Self::Block];
    /// Faults of the power, and restarts.
    pub const POWER: [Self; 3] = [Self::PowerCut, Self::PowerCutAtStart, Self::Restart];

    /// Strikes, and returns when the worst is over.
    pub async fn strike(self, world: &mut World) {
        match self {
            Self::PowerCut => {
                work(world).await;
                let policy = any_policy(world);
                world.cut_power(policy).await;
            }
            Self::PowerCutAtStart => {
                let policy = any_policy(world);
                world.cut_power(policy).await;
                pause(world, 20).await;
                let policy = any_policy(world);
                world.cut_power(policy).await;
            }
            Self::PowerCutOnSlowDisk => {
                let factor = 16 << world.random.below(6);
                let times = DiskTimes::default().slower(factor);
                cut_on_disk(world, times, 1_500).await;
            }
            Self::PowerCutOnUnevenDisk => {
                let slowest = Duration::from_millis(1 << (3 + world.random.below(6)));
                let times = DiskTimes {
                    transfer: (Duration::from_micros(20), slowest),
                    ..DiskTimes::default()
                };
                cut_on_disk(world, times, 800).await;
            }
            Self::PowerCutAfterReset => {
                let factor = 64 << world.random.below(6);
                let times = DiskTimes::default().slower(factor);
                world.broker.disk().set_times(times);
                pause(world, 500).await;
                world.reset_clients();
                cut_on_disk(world, times, 600).await;
            }
            Self::Restart => {
                world.broker.stop().await;
                world.start();
            }
            Self::Reset => world.reset_clients(),
            Self::Close => close_some(world),
            Self::Block => {
                world.block_clients();
                pause(world, 6_000).await;
                world.io.sim_net().unblock_all();
            }
            Self::SlowDisk => {
                let factor = 1 << world.random.below(8);
                let times = DiskTimes::default().slower(factor);
                world.broker.disk().set_times(times);
                pause(world, 2_000).await;
                world.broker.disk().set_times(DiskTimes::default());
            }
            Self::Stall => {
                world
                    .broker
                    .disk()
                    .set_times(DiskTimes::default().slower(4_096));
                pause(world, 5_000).await;
                world.broker.disk().set_times(DiskTimes::default());
            }
            Self::FailingDisk => failing_disk(world).await,
            Self::FailingStart => failing_start(world).await,
            Self::Spoil => spoil::strike(world).await,
            Self::StepClock => step_clock(world, &[1_000, 20_000, 3_000_000]).await,
            Self::NudgeClock => step_clock(world, &[200, 2_000, 10_000]).await,
            Self::WobbleClock => wobble_clock(world).await,
            Self::Alter => alter(world).await,
            Self::FullDisk => {
                let full = DiskFault::always(Operation::Allocate, Errno::NoSpace);
                world.broker.disk().fail(full);
                pause(world, 2_000).await;
                world.broker.disk().heal();
            }
            Self::Recreate => recreate(world).await,
            Self::Trim => trim(world).await,
            Self::Member => members::strike(world).await,
            Self::Takeover => members::takeover(world).await,
        }
    }
}

/// Cuts the power after a while on a disk that takes such times.
async fn cut_on_disk(world: &mut World, times: DiskTimes, most_ms: u64) {
    world.broker.disk().set_times(times);
    pause(world, most_ms).await;
    let policy = any_policy(world);
    world.cut_power(policy).await;
    world.broker.disk().set_times(DiskTimes::default());
}

/// Lets the disk do a few things more, so that what follows strikes amid them.
async fn work(world: &mut World) {
    let until = world.broker.disk().operations() + world.random.below(40);
    for _ in 0..5_000 {
        if world.broker.disk().operations() >= until {
            return;
        }
        world.io.sleep(Duration::from_micros(20)).await;
    }
}

async fn pause(world: &mut World, most_ms: u64) {
    let pause = Duration::from_micros(world.random.below(most_ms * 1_000));
    world.io.sleep(pause).await;
}

fn any_policy(world: &mut World) -> CrashPolicy {
    match world.random.below(4) {
        0 => CrashPolicy::DropAll,
        1 => CrashPolicy::KeepAll,
        _ => CrashPolicy::Random {
            seed: world.random.next_u64(),
        },
    }
}

fn close_some(world: &mut World) {
    for producer in &world.producers {
        if world.random.chance(60) {
            producer.connections().close();
        }
    }
    for consumer in &world.consumers {
        if world.random.chance(60) {
            consumer.connections().close();
        }
    }
    for member in &world.members {
        if world.random.chance(60) {
            member.connections().close();
        }
    }
}

async fn failing_disk(world: &mut World) {
    let operations = [
        Operation::Write,
        Operation::SyncData,
        Operation::Create,
        Operation::SyncDir,
        Operation::Allocate,
    ];
    let operation = operations[world.random.index(operations.len())];
    let nth = 1 + world.random.below(6);
    let fault = DiskFault::nth(operation, nth, Errno::Io);
    world.broker.disk().fail(fault.on("topics"));
    pause(world, 2_000).await;
    // What failed stays failed until someone has looked after the disk and started again.
    let policy = any_policy(world);
    world.cut_power(policy).await;
}

async fn failing_start(world: &mut World) {
    let topics = world.topics();
    let topic = &topics[world.random.index(topics.len())];
    let partition = world.random.index(topic.partitions.len());
    let policy = any_policy(world);
    work(world).await;
    world.broker.cut_power(policy);
    let dir = format!("topics/{}/{partition}/", topic.id);
    let fault = DiskFault::always(Operation::Open, Errno::Io);
    world.broker.disk().fail(fault.on(&dir));
    world.start();
    pause(world, 3_000).await;
    let policy = any_policy(world);
    world.cut_power(policy).await;
}

/// Sets the clock a few times, as a quarrel between two time servers would.
async fn step_clock(world: &mut World, ranges_ms: &[u64]) {
    for _ in 0..=world.random.below(4) {
        let range = ranges_ms[world.random.index(ranges_ms.len())];
        let by_ms = i64::try_from(world.random.below(range)).expect("small");
        let by_ms = if world.random.chance(50) {
            by_ms
        } else {
            -by_ms
        };
        // Both ends of the step are known.
        world.recorder.say("the clock is about to be set");
        world.io.step_wall(by_ms);
        world
            .recorder
            .say(format!("the clock is set by {by_ms} ms"));
        pause(world, 1_500).await;
    }
}

/// What is appended meanwhile has times that lie before those of what was appended earlier.
async fn wobble_clock(world: &mut World) {
    let by_ms = i64::try_from(5_000 + world.random.below(45_000)).expect("small");
    for by_ms in [-by_ms, by_ms] {
        world.recorder.say("the clock is about to be set");
        world.io.step_wall(by_ms);
        world
            .recorder
            .say(format!("the clock is set by {by_ms} ms"));
        pause(world, 3_000).await;
    }
}

async fn alter(world: &mut World) {
    let count = world.scenario.topics.len();
    let name = world.scenario.topics[world.random.index(count)]
        .name
        .clone();
    world.broker.ready().await;
    let (setting, values) = match world.random.below(2) {
        0 => ("retention.ms", ["6000", "20000", "-1"]),
        _ => ("retention.bytes", ["300000", "900000", "-1"]),
    };
    let value = values[world.random.index(values.len())];
    world.alter(&name, setting, value).await;
}

async fn recreate(world: &mut World) {
    let count = world.scenario.topics.len();
    let topic = world.scenario.topics[world.random.index(count)].clone();
    world.broker.ready().await;
    if world.random.chance(50) {
        // The power goes while it is deleted: before, between, or after its files.
        world.about_to_delete(&topic.name);
        let names = vec![topic.name.clone()];
        let request = DeleteTopicsRequest { names };
        let _unheard = world.admin.request(ANY_SHARD, &request, &[]);
        pause(world, 8).await;
        let policy = any_policy(world);
        world.cut_power(policy).await;
    }
    world.delete(&topic.name).await;
    // At once, or when its clients have noticed.
    if world.random.chance(50) {
        pause(world, 500).await;
    }
    world.create(&topic).await;
}

async fn trim(world: &mut World) {
    let image = world.broker.metadata().image();
    let count = world.scenario.topics.len();
    let name = &world.scenario.topics[world.random.index(count)].name;
    let topic = image.topic_named(name).expect("every topic is there");
    let partition = PartitionIndex(
        u32::try_from(world.random.below(topic.partitions.len() as u64)).expect("few"),
    );
    let at = TopicPartition {
        topic: topic.id,
        partition,
    };
    let end = world.shown(at);
    let before_offset = match world.random.chance(50) {
        true => end,
        false => {
            Offset(i64::try_from(world.random.below(end.0.unsigned_abs() + 1)).expect("small"))
        }
    };
    world.recorder.note(What::Trimming(at, before_offset));
    let entry = DeleteRecordsPartition {
        topic: at.topic,
        partition,
        before_offset,
    };
    let request = DeleteRecordsRequest {
        partitions: vec![entry],
    };
    if world.random.chance(50) {
        // The power goes meanwhile: before the new start is durable, before the files go, or after.
        let _unheard = world.admin.request(ANY_SHARD, &request, &[]);
        pause(world, 12).await;
        let policy = any_policy(world);
        return world.cut_power(policy).await;
    }
    let done = world.ask(&request).await;
    let done = &done.partitions[0];
    let may_fail = done.error.is_retriable();
    assert!(
        done.error == ErrorCode::None || may_fail,
        "{:?} {}",
        done.error,
        done.message
    );
}
