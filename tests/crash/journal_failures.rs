//! A journal whose logs fail, cannot be opened, go away, or leave a hole: nothing that was acknowledged is
//! lost, and the others go on.

use std::{rc::Rc, time::Duration};

use millstream::{
    io::{
        Clock as _,
        sim::{CrashPolicy, Sim, SimDisk, SimIo},
    },
    storage::{Log, LogError, LogListener, ShardStorage},
};
use millstream_protocol::{LeaderEpoch, Offset, PartitionIndex, TopicPartition};

use crate::oracle::{Seen, batch, disk, id, options, storage_with_journal};

/// Tells nothing.
struct Quiet;

impl LogListener for Quiet {
    fn persisted(&self, _up_to: Offset) {}

    fn refused(&self, _end: Offset, _error: &LogError) {}

    fn failed(&self, _error: &LogError) {}

    fn checkpoint_wanted(&self) {}
}

pub async fn open_quiet(
    storage: &Rc<ShardStorage<SimIo>>,
    number: u32,
    options: millstream::storage::LogOptions,
) -> Result<(Rc<Log<SimIo>>, millstream::storage::Recovered), LogError> {
    let id = TopicPartition {
        partition: PartitionIndex(number),
        ..id()
    };
    let mut seen = Seen::default();
    Log::open(storage, id, options, Rc::new(Quiet), &mut seen).await
}

pub fn put(log: &Log<SimIo>, size: usize) -> Result<(), LogError> {
    let next = batch(log.log_end(), LeaderEpoch(0), 1, size, 7);
    let max = next.max_timestamp_ms();
    log.append(&next.bytes, next.base, next.next, LeaderEpoch(0), max, 1)
}

pub async fn settled(io: &SimIo, log: &Log<SimIo>) {
    while log.durable_end() < log.log_end() {
        io.sleep(Duration::from_micros(20)).await;
    }
}

/// Log 0 opens, and holds what it acknowledged.
fn check_log_0(disk: &SimDisk, acknowledged: Offset) {
    let end = Sim::new(3).with_disk(disk).run(|io| async move {
        let storage = storage_with_journal(&io, true).await.unwrap();
        let (_log, recovered) = open_quiet(&storage, 0, options()).await.unwrap();
        recovered.log_end
    });
    assert!(
        end >= acknowledged,
        "acknowledged {acknowledged}, found {end}"
    );
}

/// A large chunk is written and flushed while the one before it, which only the journal holds, is
/// still being written: it is acknowledged over a hole.
#[test]
fn nothing_is_acknowledged_beyond_a_hole_in_the_segment() {
    let mut lost = Vec::new();
    for seed in 0..200 {
        // Some of these numbers is where the chunk is large enough to be written.
        let count = 40 + seed % 5;
        let disk = disk();
        let whole = || millstream::storage::LogOptions::default();
        let acknowledged = Sim::new(seed).with_disk(&disk).run(|io| async move {
            let storage = storage_with_journal(&io, true).await.unwrap();
            let (log, _) = open_quiet(&storage, 0, whole()).await.unwrap();
            for _ in 0..4 {
                put(&log, 300_000).unwrap();
                settled(&io, &log).await;
            }
            for _ in 0..count {
                put(&log, 1_500).unwrap();
                settled(&io, &log).await;
            }
            put(&log, 300_000).unwrap();
            settled(&io, &log).await;
            // Whatever is in flight has time to end; nothing is flushed by that.
            io.sleep(Duration::from_millis(20)).await;
            log.durable_end()
        });
        disk.crash(CrashPolicy::DropAll);
        let found = Sim::new(seed).with_disk(&disk).run(|io| async move {
            let storage = storage_with_journal(&io, true).await.unwrap();
            let (_log, recovered) = open_quiet(&storage, 0, whole()).await.unwrap();
            recovered
        });
        if found.log_end < acknowledged || found.damage.is_some() {
            lost.push((seed, acknowledged, found.log_end, found.damage.is_some()));
        }
    }
    assert!(
        lost.is_empty(),
        "seed, acknowledged, found, damaged: {lost:?}"
    );
}

/// A log that cannot be opened at a start loses what only the journal holds.
#[test]
fn what_a_log_could_not_take_stays_in_the_journal() {
    use millstream::io::sim::{Errno, Fault, Operation};
    let disk = disk();
    let acknowledged = Sim::new(1).with_disk(&disk).run(|io| async move {
        let storage = storage_with_journal(&io, true).await.unwrap();
        let (log, _) = open_quiet(&storage, 0, options()).await.unwrap();
        put(&log, 50_000).unwrap();
        settled(&io, &log).await;
        put(&log, 100).unwrap();
        settled(&io, &log).await;
        log.durable_end()
    });
    disk.crash(CrashPolicy::DropAll);
    disk.fail(Fault::always(Operation::Open, Errno::Io).on("topics"));
    Sim::new(2).with_disk(&disk).run(|io| async move {
        // As `Shard::load` does it: the partition is offline, the others go on.
        let storage = storage_with_journal(&io, true).await.unwrap();
        let opened = open_quiet(&storage, 0, options()).await;
        assert!(opened.is_err(), "the disk refuses");
        storage.finish_replay().await.unwrap();
    });
    disk.crash(CrashPolicy::DropAll);
    check_log_0(&disk, acknowledged);
}

/// Log 0 fails with something in the journal that no segment holds; the others go on. Gives the records of
/// the others that are not acknowledged after a minute, and what log 0 had acknowledged.
fn with_a_failed_log(disk: &SimDisk, has_segment: bool) -> (Vec<i64>, Offset) {
    use millstream::io::sim::{Errno, Fault, Operation};
    let of_run = disk.clone();
    Sim::new(1).with_disk(disk).run(|io| async move {
        let storage = storage_with_journal(&io, true).await.unwrap();
        let mut logs = Vec::new();
        for number in 0..4 {
            let (log, _) = open_quiet(&storage, number, options()).await.unwrap();
            logs.push(log);
        }
        if has_segment {
            put(&logs[0], 50_000).unwrap();
            settled(&io, &logs[0]).await;
        }
        for log in &logs {
            put(log, 1_500).unwrap();
            settled(&io, log).await;
        }
        let acknowledged = logs[0].durable_end();
        of_run.fail(Fault::always(Operation::Write, Errno::Io).on("/0/"));
        put(&logs[0], 40_000).unwrap();
        io.sleep(Duration::from_millis(50)).await;
        assert!(put(&logs[0], 10).is_err(), "it failed");
        of_run.heal();
        for _ in 0..400 {
            for log in &logs[1..] {
                put(log, 1_500).unwrap();
            }
            io.sleep(Duration::from_millis(2)).await;
        }
        io.sleep(Duration::from_secs(60)).await;
        let left = logs[1..]
            .iter()
            .map(|log| log.log_end().0 - log.durable_end().0);
        (left.collect(), acknowledged)
    })
}

/// A log failed that needs the oldest file for ever.
#[test]
fn a_failed_log_does_not_stop_the_others() {
    let (stuck, _) = with_a_failed_log(&disk(), true);
    assert_eq!(stuck, [0, 0, 0], "records not acknowledged after a minute");
}

/// What a failed log had acknowledged is overwritten in the ring.
#[test]
fn what_a_failed_log_acknowledged_survives() {
    let disk = disk();
    let (_, acknowledged) = with_a_failed_log(&disk, false);
    disk.crash(CrashPolicy::KeepAll);
    check_log_0(&disk, acknowledged);
}

/// The log that the ring waits for is removed.
#[test]
fn a_removed_log_does_not_stop_the_others() {
    use millstream::io::sim::{Errno, Fault, Operation};
    let disk = disk();
    let of_run = disk.clone();
    let stuck = Sim::new(1).with_disk(&disk).run(|io| async move {
        let storage = storage_with_journal(&io, true).await.unwrap();
        let mut logs = Vec::new();
        for number in 0..5 {
            let (log, _) = open_quiet(&storage, number, options()).await.unwrap();
            logs.push(log);
        }
        let gone = logs.remove(0);
        // Descriptors have run out for its segment, for now.
        of_run.fail(Fault::always(Operation::Create, Errno::TooManyFiles).on("/0/"));
        for _ in 0..3 {
            put(&gone, 20_000).unwrap();
            settled(&io, &gone).await;
        }
        for _ in 0..100 {
            for log in &logs {
                if log.durable_end() == log.log_end() {
                    put(log, 20_000).unwrap();
                }
            }
            io.sleep(Duration::from_millis(2)).await;
        }
        gone.remove().await.unwrap();
        of_run.heal();
        io.sleep(Duration::from_secs(60)).await;
        let left = logs.iter().map(|log| log.log_end().0 - log.durable_end().0);
        left.collect::<Vec<_>>()
    });
    assert_eq!(
        stuck,
        [0, 0, 0, 0],
        "records not acknowledged after a minute"
    );
}
