//! A disk that fills up: the reserve is left alone, and what needs no space goes on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use millstream::{
    io::{
        Clock as _, Disk as _, DiskFile as _, OpenMode,
        sim::{CrashPolicy, Errno, Fault, Operation, Sim, SimDisk, SimIo},
    },
    storage::reserve::{is_short, reserve},
};
use millstream_protocol::{ErrorCode, Offset};
use tracing::{Event, Metadata, Subscriber, span};

use crate::{broker::BROKER, scenario::topic, small::Small};

/// Longer than the pause between two looks at the disk.
pub const LOOK: Duration = Duration::from_secs(3);

/// Size of the disk.
const TOTAL: u64 = 64 << 20;

/// Takes space by a file of its own until so much is free beyond the reserve.
pub async fn set_free(small: &Small, io: &SimIo, beyond: i64) {
    let disk = small.world.broker.disk();
    fill(&io.node(BROKER, disk), disk, beyond).await;
}

async fn fill(node: &SimIo, disk: &SimDisk, beyond: i64) {
    let path = "/data/filler".as_ref();
    disk.set_capacity(TOTAL);
    let _ = node.remove_file(path).await;
    let space = node.space("/data".as_ref()).await;
    let space = space.expect("it can be measured");
    let size = (space.free - reserve(&space)).saturating_add_signed(-beyond);
    let filler = node.open(path, OpenMode::CreateNew).await;
    let filler = filler.expect("it can be made");
    filler.allocate(size).await.expect("there is space");
    let space = node.space("/data".as_ref()).await;
    let space = space.expect("it can be measured");
    assert_eq!(is_short(&space, 0), beyond < 0, "{space:?}");
}

#[test]
fn what_needs_no_space_goes_on_and_produce_comes_back() {
    Sim::new(1).run(|io| async move {
        let mut small = Small::start(io.clone(), topic("t", 1, "flushed")).await;
        for sequence in 0..4 {
            small.produce(sequence, 30_000).await;
        }
        set_free(&small, &io, -(1 << 20)).await;
        small.sleep(LOOK).await;
        let begun = io.now();
        let refused = small.produce(4, 30_000).await;
        assert_eq!(refused.error, ErrorCode::DiskFull);
        assert!(io.now().since(begun) < Duration::from_millis(10), "at once");
        assert!(small.fetch(Offset(2)).await > 60_000);
        small.trim(Offset(2)).await;
        assert_eq!(small.range().await, (Offset(2), Offset(4)));
        set_free(&small, &io, 4 << 20).await;
        small.sleep(LOOK).await;
        let taken = small.produce(4, 30_000).await;
        assert_eq!(
            (taken.error, taken.base_offset),
            (ErrorCode::None, Offset(4))
        );
        // A topic can be deleted as well.
        set_free(&small, &io, -(1 << 20)).await;
        small.sleep(LOOK).await;
        small.world.delete("t").await;
        small.world.broker.stop().await;
    });
}

/// The disk is full before anybody looked: what was accepted and cannot be written is refused, and its offset
/// goes to whoever comes when there is space, the same record or another.
#[test]
fn what_was_accepted_and_has_no_space_is_refused() {
    Sim::new(1).run(|io| async move {
        let mut small = Small::start(io.clone(), topic("t", 1, "flushed")).await;
        assert_eq!(small.produce(0, 40_000).await.error, ErrorCode::None);
        let full = Fault::always(Operation::Allocate, Errno::NoSpace);
        small.world.broker.disk().fail(full);
        let begun = io.now();
        let mut sequence = 1;
        let refused = loop {
            let answered = small.produce(sequence, 40_000).await;
            if answered.error != ErrorCode::None {
                break answered;
            }
            sequence += 1;
        };
        assert_eq!(refused.error, ErrorCode::DiskFull);
        assert!(io.now().since(begun) < Duration::from_secs(1), "at once");
        assert!(small.fetch(Offset(0)).await > 0);
        let end = Offset(sequence.into());
        assert_eq!(small.range().await, (Offset(0), end));
        small.world.broker.disk().heal();
        small.sleep(LOOK).await;
        let taken = small.produce(sequence, 30_000).await;
        assert_eq!((taken.error, taken.base_offset), (ErrorCode::None, end));
        small.world.cut_power(CrashPolicy::KeepAll).await;
        small.world.broker.ready().await;
        let next = small.produce(sequence + 1, 300).await;
        assert_eq!(
            (next.error, next.base_offset),
            (ErrorCode::None, end.plus(1))
        );
    });
}

/// Each shard wants a file for its journal, and there is space for all of them, but not beside the reserve.
#[test]
fn shards_that_start_leave_the_reserve_alone() {
    Sim::new(1).run(|io| async move {
        let mut small = Small::start(io.clone(), topic("t", 1, "flushed")).await;
        small.world.broker.stop().await;
        let disk = small.world.broker.disk().clone();
        let node = io.node(BROKER, &disk);
        // Two and a half files of the journal fit beside the reserve.
        fill(&node, &disk, 400 << 10).await;
        small.world.broker.start(3);
        small.world.broker.ready().await;
        let space = node.space("/data".as_ref()).await.unwrap();
        assert!(!is_short(&space, 0), "{space:?}");
        small.world.broker.stop().await;
    });
}

/// Counts log lines that say that the disk is full.
struct Lines(Arc<AtomicU32>);

impl Subscriber for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut said = Said(String::new());
        event.record(&mut said);
        if said.0.contains("disk full") {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

struct Said(String);

impl tracing::field::Visit for Said {
    fn record_debug(&mut self, _: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        use std::fmt::Write as _;
        let _ = write!(self.0, "{value:?} ");
    }
}

#[test]
fn a_full_disk_is_said_once() {
    let count = Arc::new(AtomicU32::new(0));
    tracing::subscriber::with_default(Lines(Arc::clone(&count)), || {
        Sim::new(1).run(|io| async move {
            let mut small = Small::start(io.clone(), topic("t", 4, "flushed")).await;
            small.world.broker.stop().await;
            small.world.broker.start(3);
            small.world.broker.ready().await;
            set_free(&small, &io, -(1 << 20)).await;
            small.sleep(LOOK).await;
        });
    });
    assert_eq!(count.load(Ordering::Relaxed), 1);
}
