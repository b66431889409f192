//! One simulated history: a broker comes up, clients work, faults strike, then all is quiet and
//! everything is read as a whole, before and after one more power cut. What was recorded is judged by
//! every invariant.

use std::{
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use millstream::{
    controller::TopicImage,
    io::{
        Clock as _, Disk as _,
        sim::{CrashPolicy, DiskTimes, Sim, SimIo},
    },
};
use millstream_protocol::messages::NewTopic;

use crate::{
    broker::within,
    faults::Fault,
    history::{Facts, Fate, History, What},
    verdict,
    world::World,
};

/// What happens in a history, apart from what the seed chooses.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub topics: Vec<NewTopic>,
    pub producers: u32,
    /// Producers of delayed records, and their longest delay.
    pub delayers: u32,
    pub delay: Duration,
    /// Records of each producer.
    pub records: u32,
    /// Longest pause of a producer between two records.
    pub pause: Duration,
    pub delivery_timeout: Duration,
    /// Sizes of values to draw from; none is any size.
    pub sizes: Vec<usize>,
    /// One record in so many may be large.
    pub large_one_in: u64,
    pub consumers: u32,
    /// Consumer groups, and the members of each at first.
    pub groups: u32,
    pub members: u32,
    pub session: Duration,
    /// Faults to draw from, and how many strike.
    pub faults: Vec<Fault>,
    pub fault_count: u32,
    /// How long all is left alone before it is read a second time.
    pub rest: Duration,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            topics: vec![topic("a", 3, "flushed"), topic("b", 1, "flushed")],
            producers: 3,
            delayers: 0,
            delay: Duration::from_secs(8),
            records: 100,
            pause: Duration::from_millis(120),
            delivery_timeout: Duration::from_secs(600),
            sizes: Vec::new(),
            large_one_in: 8,
            consumers: 2,
            groups: 0,
            members: 3,
            session: Duration::from_secs(3),
            faults: Vec::new(),
            fault_count: 4,
            rest: Duration::ZERO,
        }
    }
}

/// A topic in small segments.
pub fn topic(name: &str, partitions: u32, durability: &str) -> NewTopic {
    let configs = [("segment.bytes", "65536"), ("durability", durability)];
    NewTopic {
        name: name.to_owned(),
        partitions,
        replication_factor: 1,
        configs: configs
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
    }
}

/// What came of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub trace_hash: u64,
    pub sent: usize,
    pub acknowledged: usize,
    pub reads: usize,
    /// Segments that compaction wrote anew, as far as the runs lived to tell.
    pub compacted_segments: u64,
    /// Partitions that did not start at offset 0 at the end.
    pub moved_starts: usize,
    /// Every event, a line each.
    pub trace: String,
}

/// Plays a history.
///
/// # Panics
/// If it breaks an invariant; the message names it.
pub fn play(seed: u64, scenario: Scenario) -> Outcome {
    let history = Rc::new(RefCell::new(History::default()));
    let mut sim = Sim::new(seed);
    let kept = Rc::clone(&history);
    // A panic may come of what an invariant has a better name for.
    let ran = catch_unwind(AssertUnwindSafe(|| {
        sim.run(move |io| async move { live(io, seed, scenario, &kept).await })
    }));
    let history = history.borrow();
    verdict::on(&history, ran.as_ref().err());
    let compacted_segments = ran.unwrap_or_default();
    let facts = Facts::of(&history);
    let acknowledged = |fate: Fate| matches!(fate, Fate::Acknowledged(_));
    let count = |which: fn(&What) -> bool| {
        let events = history.events.iter();
        events.filter(|event| which(&event.what)).count()
    };
    Outcome {
        trace_hash: sim.trace_hash(),
        sent: history.records.len(),
        acknowledged: facts
            .records
            .iter()
            .filter(|it| acknowledged(it.fate))
            .count(),
        reads: count(|what| matches!(what, What::Read(..))),
        compacted_segments,
        moved_starts: count(|what| matches!(what, What::Whole(_, start, _) if start.0 > 0)),
        trace: history.trace(),
    }
}

/// Gives how many segments compaction wrote.
async fn live(io: SimIo, seed: u64, scenario: Scenario, history: &Rc<RefCell<History>>) -> u64 {
    let mut world = World::new(io, seed, scenario, history).await;
    let strikes = world.scenario.fault_count;
    for _ in 0..strikes {
        world.strike().await;
    }
    world.settle().await;
    world.read_whole().await;
    world.io.sleep(world.scenario.rest).await;
    world.read_whole().await;
    world.cut_power(CrashPolicy::DropAll).await;
    world.broker.ready().await;
    world.read_whole().await;
    world.find_commits().await;
    world.be_quiet().await;
    world.broker.compacted_segments()
}

impl World {
    async fn strike(&mut self) {
        let faults = &self.scenario.faults;
        if faults.is_empty() {
            return;
        }
        let fault = faults[self.random.index(faults.len())];
        let calm = Duration::from_micros(self.random.below(800_000));
        self.io.sleep(calm).await;
        self.recorder.say(format!("{fault:?}"));
        fault.strike(self).await;
        self.recorder.say(format!("{fault:?} is over"));
    }

    /// The faults end, and every producer hears of all that it sent.
    async fn settle(&mut self) {
        self.recorder.say("the faults are over");
        self.io.sim_net().unblock_all();
        self.broker.disk().heal();
        self.broker.disk().set_times(DiskTimes::default());
        self.broker.ready().await;
        for producer in &self.producers {
            within(&self.io, "delivery", || producer.done.get()).await;
        }
        for consumer in &self.consumers {
            consumer.restless.set(false);
        }
        for group in 0..self.scenario.groups {
            let mut members = self.members.iter();
            if !members.any(|it| it.plan.group == group && !it.stop.get() && !it.done.get()) {
                self.add_member(group, None);
            }
        }
        self.deliver_all().await;
        // Whoever waits or backs off has come to know what there is.
        self.io.sleep(Duration::from_secs(5)).await;
        self.recorder
            .say("every producer has heard of all that it sent");
    }

    /// Clients leave; the memory that they took is given back, and no file of what is gone stays.
    pub async fn be_quiet(&mut self) {
        for consumer in &self.consumers {
            consumer.stop.set(true);
        }
        for member in &self.members {
            member.stop.set(true);
        }
        self.stop_watching.set(true);
        for member in &self.members {
            within(&self.io, "a member's leave", || member.done.get()).await;
        }
        // Once more for what they began when they lost the first ones.
        for _ in 0..2 {
            self.reset_clients();
            self.io.sleep(Duration::from_secs(5)).await;
        }
        for (shard, counters) in self.broker.counters().iter().enumerate() {
            let left = |what, used: u64| {
                self.recorder.note(What::InUse {
                    shard,
                    what,
                    used,
                    limit: 0,
                });
            };
            left(
                "connections, with nobody there",
                counters.connections.value(),
            );
            left(
                "receive buffers at rest",
                counters.receive_buffer_bytes.value(),
            );
            left("replies at rest", counters.reply_bytes.value());
            left("unflushed at rest", counters.unflushed_bytes.value());
            let failed = counters.partitions_failed.value();
            if failed > 0 {
                let said =
                    format!("shard {shard}: {failed} partitions take nothing though all is well");
                self.recorder.note(What::Unexplained(said));
            }
        }
        let image = self.broker.metadata().image();
        let listed = self.clients.read_dir("/data/topics".as_ref()).await;
        // A topic that nothing was written to has no directory.
        for dir in listed.unwrap_or_default() {
            let live = |topic: &Arc<TopicImage>| dir.ends_with(topic.id.to_string());
            assert!(
                image.topics().any(live),
                "{dir:?} is left of a deleted topic"
            );
        }
        assert_eq!(
            image.deleted().count(),
            0,
            "a deleted topic is not forgotten"
        );
    }
}
