//! Every single operation of two lives of a shard fails once: both lanes, segments that roll, compaction, a log
//! whose start moves, a start after a kill. One log may fail by it, or those of one frame of the journal; the others
//! go on, nothing is acknowledged after a failure, and nothing acknowledged is lost.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, time::Duration};

use millstream::{
    io::{
        Clock as _, Random,
        sim::{CrashPolicy, DiskTimes, Errno, Fault, Operation, Sim, SimDisk, SimIo},
    },
    storage::{CompactionOptions, Log, LogError, LogListener, LogOptions, Pace, ShardStorage},
};
use millstream_protocol::{LeaderEpoch, Offset, PartitionIndex, TopicPartition};

use crate::{
    compaction_cuts::{Records, random_batch, records_of},
    oracle::{Batch, Seen, batch, disk, id, read_all, snapshot, storage_with_journal},
};

const LOGS: usize = 4;
/// The one that is compacted.
const KEYED: usize = 2;
const ALL: [Operation; 11] = [
    Operation::Open,
    Operation::Create,
    Operation::Read,
    Operation::Write,
    Operation::SyncData,
    Operation::Allocate,
    Operation::Truncate,
    Operation::Rename,
    Operation::Remove,
    Operation::CreateDir,
    Operation::SyncDir,
];

/// A log as its user knows it.
#[derive(Default)]
struct Known {
    batches: Vec<Batch>,
    acknowledged: Offset,
    log_start: Offset,
    /// Why it failed, in this life.
    failed: Option<String>,
    refused: u32,
}

type Shared = Rc<RefCell<Vec<Known>>>;

struct Listener(Shared, usize);

impl LogListener for Listener {
    fn persisted(&self, up_to: Offset) {
        let known = &mut self.0.borrow_mut()[self.1];
        assert!(
            known.failed.is_none(),
            "log {}: acknowledged after its failure",
            self.1
        );
        assert!(up_to > known.acknowledged);
        known.acknowledged = up_to;
    }

    fn refused(&self, end: Offset, error: &LogError) {
        assert!(matches!(error, LogError::DiskFull { .. }), "{error}");
        let known = &mut self.0.borrow_mut()[self.1];
        assert!(end >= known.acknowledged);
        known.batches.retain(|batch| batch.next <= end);
        known.refused += 1;
    }

    fn failed(&self, error: &LogError) {
        self.0.borrow_mut()[self.1].failed = Some(error.to_string());
    }

    fn checkpoint_wanted(&self) {}
}

fn options() -> LogOptions {
    LogOptions {
        segment_size: 64 << 10,
        ..LogOptions::default()
    }
}

fn partition(number: usize) -> TopicPartition {
    TopicPartition {
        partition: PartitionIndex(u32::try_from(number).unwrap()),
        ..id()
    }
}

async fn open(
    storage: &Rc<ShardStorage<SimIo>>,
    shared: &Shared,
    number: usize,
) -> Result<Rc<Log<SimIo>>, LogError> {
    let listener = Rc::new(Listener(Rc::clone(shared), number));
    let mut seen = Seen::default();
    let (log, found) =
        Log::open(storage, partition(number), options(), listener, &mut seen).await?;
    assert_eq!(found.damage, None, "log {number}: an error is no damage");
    let known = &mut shared.borrow_mut()[number];
    assert!(
        found.log_end >= known.acknowledged,
        "log {number} lost something"
    );
    known.batches.retain(|batch| batch.next <= found.log_end);
    known.acknowledged = found.log_end;
    known.failed = None;
    Ok(log)
}

fn put(shared: &Shared, log: &Log<SimIo>, number: usize, random: &mut Random) {
    let base = log.log_end();
    let size = [300, 40_000, 0, 2_000][number];
    let next = match number {
        KEYED => random_batch(base, 0, random),
        _ => batch(base, LeaderEpoch(0), 2, size, random.next_u64()),
    };
    // The log may persist it before append returns.
    shared.borrow_mut()[number].batches.push(next.clone());
    let max = next.max_timestamp_ms();
    if log
        .append(&next.bytes, base, next.next, LeaderEpoch(0), max, 1)
        .is_err()
    {
        shared.borrow_mut()[number].batches.pop();
    }
}

/// One life. What fails is given up; everything else goes on.
async fn life(io: SimIo, shared: Shared, stops: bool) -> Result<(), LogError> {
    let storage = storage_with_journal(&io, true).await?;
    let mut random = Random::new(3);
    let mut logs = BTreeMap::new();
    for number in 0..LOGS {
        // A log that cannot be opened is offline; the others work.
        if let Ok(log) = open(&storage, &shared, number).await {
            logs.insert(number, log);
        }
    }
    let _ = storage.finish_replay().await;
    for round in 0..6 {
        for (number, log) in &logs {
            // Enough of the compacted one that it rolls.
            for _ in 0..if *number == KEYED { 4 } else { 1 } {
                put(&shared, log, *number, &mut random);
            }
        }
        io.sleep(Duration::from_millis(4)).await;
        if round == 3 {
            for (number, log) in &logs {
                let end = log.durable_end();
                let _ = log.checkpoint(snapshot(end)).await;
                if *number == 1 {
                    // As retention does.
                    shared.borrow_mut()[1].log_start = Offset(4).max(log.log_start());
                    let _ = log.set_log_start(Offset(4)).await;
                }
            }
        }
    }
    if let Some(log) = logs.get(&KEYED) {
        let pace = Rc::new(Pace::new(1 << 30));
        let options = CompactionOptions {
            delete_retention_ms: i64::MAX,
            memory: 1 << 20,
            ..CompactionOptions::default()
        };
        while log
            .compact(options.clone(), &pace)
            .await
            .is_ok_and(|done| done.more)
        {}
    }
    io.sleep(Duration::from_secs(15)).await;
    check_others_went_on(&shared, &logs);
    if stops {
        let mut all = true;
        for log in logs.values() {
            all &= log.close(snapshot(log.durable_end())).await.is_ok();
        }
        let _ = storage.close(all && logs.len() == LOGS).await;
    }
    Ok(())
}

fn check_others_went_on(shared: &Shared, logs: &BTreeMap<usize, Rc<Log<SimIo>>>) {
    let shared = shared.borrow();
    for (number, log) in logs {
        let known = &shared[*number];
        if known.failed.is_none() {
            assert_eq!(log.durable_end(), log.log_end(), "log {number} goes on");
        }
    }
    let failed = shared.iter().filter_map(|known| known.failed.as_ref());
    let failed: Vec<&String> = failed.collect();
    let of_journal = failed.iter().all(|why| why.contains(".journal"));
    assert!(failed.len() <= 1 || of_journal, "{failed:?}");
}

/// What a start without failures finds.
async fn check(io: SimIo, shared: Shared) {
    let storage = storage_with_journal(&io, true).await;
    let storage = storage.expect("the journals can be read");
    for number in 0..LOGS {
        let log = open(&storage, &shared, number).await;
        let log = log.expect("it opens");
        let start = log.log_start();
        let kept = {
            let known = &shared.borrow()[number];
            assert!(start <= known.log_start, "log {number} begins at {start}");
            let kept = known.batches.iter().filter(|batch| batch.next > start);
            kept.flat_map(|batch| batch.bytes.clone())
                .collect::<Vec<u8>>()
        };
        let read = read_all(&log, start, log.log_end()).await;
        let read = read.expect("it can be read");
        if number == KEYED {
            assert_eq!(
                last_of_keys(records_of(&read)),
                last_of_keys(records_of(&kept))
            );
        } else {
            assert!(
                read == kept,
                "log {number}: other records than were appended"
            );
        }
    }
}

fn last_of_keys(records: Records) -> BTreeMap<Vec<u8>, (i64, Option<Vec<u8>>)> {
    let last = records
        .into_iter()
        .map(|(offset, key, value)| (key, (offset, value)));
    last.collect()
}

/// Two lives with this fault somewhere in them.
fn lives(disk: &SimDisk) -> Shared {
    let shared: Shared = Rc::new(RefCell::new((0..LOGS).map(|_| Known::default()).collect()));
    for (seed, stops) in [(1, false), (2, true)] {
        let of_life = Rc::clone(&shared);
        Sim::new(seed).with_disk(disk).run(|io| async move {
            // Journals that cannot be read refuse the start, and are read at the next.
            let _ = life(io, of_life, stops).await;
        });
        disk.crash(CrashPolicy::KeepAll);
    }
    shared
}

fn one_failure(operation: Operation, nth: u64, errno: Errno) {
    let disk = disk();
    disk.fail(Fault::nth(operation, nth, errno));
    let shared = lives(&disk);
    disk.heal();
    disk.crash(CrashPolicy::DropAll);
    Sim::new(9).with_disk(&disk).run(|io| check(io, shared));
}

#[test]
fn every_operation_of_a_shards_lives_may_fail() {
    let whole = disk();
    let before = ALL.map(|operation| whole.count(operation));
    let shared = lives(&whole);
    assert!(shared.borrow().iter().all(|known| known.failed.is_none()));
    Sim::new(9).with_disk(&whole).run(|io| check(io, shared));
    let mut counts = Vec::new();
    for (operation, before) in ALL.into_iter().zip(before) {
        let count = whole.count(operation) - before;
        for nth in 1..=count {
            // A failed write leaves any part of it, as a short one does.
            one_failure(operation, nth, Errno::Io);
            if matches!(
                operation,
                Operation::Allocate | Operation::Write | Operation::Create
            ) {
                one_failure(operation, nth, Errno::NoSpace);
            }
        }
        counts.push((operation, count));
    }
    let all: u64 = counts.iter().map(|(_, count)| count).sum();
    println!("{all} operations failed, one by one: {counts:?}");
    for (operation, count) in counts {
        assert!(count > 0, "no {operation:?} in it");
    }
}

/// Space runs out at each allocation and comes back: what was refused can be sent again, and nothing failed.
#[test]
fn a_full_disk_at_each_allocation_heals() {
    let whole = disk();
    let before = whole.count(Operation::Allocate);
    lives(&whole);
    let count = whole.count(Operation::Allocate) - before;
    for nth in 1..=count {
        let disk = disk();
        disk.fail(Fault::nth(Operation::Allocate, nth, Errno::NoSpace));
        let shared = lives(&disk);
        for (number, known) in shared.borrow().iter().enumerate() {
            assert_eq!(known.failed, None, "log {number}, allocation {nth}");
            assert_eq!(
                known.batches.last().map(|batch| batch.next),
                Some(known.acknowledged),
                "log {number}, allocation {nth}"
            );
        }
    }
    println!("{count} allocations refused, one by one");
    assert!(count > 10);
}

/// A disk that answers a thousand times slower for a while: everything waits, nothing fails.
#[test]
fn a_disk_that_stalls_for_seconds_loses_nothing() {
    for stall_ms in [500, 3_000, 20_000] {
        let disk = disk();
        let of_run = disk.clone();
        let shared: Shared = Rc::new(RefCell::new((0..LOGS).map(|_| Known::default()).collect()));
        let known = Rc::clone(&shared);
        Sim::new(4).with_disk(&disk).run(|io| async move {
            let storage = storage_with_journal(&io, true).await.unwrap();
            let mut random = Random::new(1);
            let mut logs = Vec::new();
            for number in 0..LOGS {
                logs.push(open(&storage, &known, number).await.unwrap());
            }
            for round in 0..8 {
                if round == 2 {
                    let transfer = Duration::from_millis(stall_ms);
                    let stalled = (transfer, transfer);
                    of_run.set_times(DiskTimes {
                        transfer: stalled,
                        flush: stalled,
                        metadata: stalled,
                    });
                }
                if round == 4 {
                    of_run.set_times(DiskTimes::default());
                }
                for (number, log) in logs.iter().enumerate() {
                    put(&known, log, number, &mut random);
                }
                io.sleep(Duration::from_millis(3)).await;
            }
            io.sleep(Duration::from_secs(200)).await;
            for (number, log) in logs.iter().enumerate() {
                assert_eq!(log.durable_end(), log.log_end(), "log {number}");
            }
        });
        disk.crash(CrashPolicy::DropAll);
        Sim::new(9).with_disk(&disk).run(|io| check(io, shared));
    }
}
