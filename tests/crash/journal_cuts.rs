//! Many logs share a journal of small files that are used again and again, and the power goes.

use std::{cell::RefCell, rc::Rc, time::Duration};

use millstream::{
    io::{
        Clock as _, Random,
        sim::{CrashPolicy, Sim, SimDisk, SimIo},
    },
    storage::{Log, LogError, LogListener, ShardStorage},
};
use millstream_protocol::{LeaderEpoch, Offset, PartitionIndex, TopicPartition};

use crate::oracle::{
    Batch, Seen, batch, disk, id, options, read_all, snapshot, storage_with_journal,
};

const LOGS: u32 = 10;

/// One log as its user knows it.
#[derive(Default)]
struct Known {
    batches: Vec<Batch>,
    acknowledged: Offset,
}

type Shared = Rc<RefCell<Vec<Known>>>;

struct Listener {
    shared: Shared,
    log: usize,
}

impl LogListener for Listener {
    fn persisted(&self, up_to: Offset) {
        let known = &mut self.shared.borrow_mut()[self.log];
        assert!(up_to > known.acknowledged, "acknowledgements only grow");
        known.acknowledged = up_to;
    }

    fn failed(&self, error: &LogError) {
        panic!("nothing fails here: {error}");
    }

    fn checkpoint_wanted(&self) {}
}

fn nothing_known() -> Shared {
    Rc::new(RefCell::new((0..LOGS).map(|_| Known::default()).collect()))
}

/// Opens every log and checks that it holds what its user counts on; that is what is known from now on.
async fn open_all(
    io: &SimIo,
    shared: &Shared,
    check: bool,
) -> Result<(Rc<ShardStorage<SimIo>>, Vec<Rc<Log<SimIo>>>), LogError> {
    let storage = storage_with_journal(io, true).await?;
    let mut logs = Vec::new();
    for number in 0..LOGS {
        let id = TopicPartition {
            partition: PartitionIndex(number),
            ..id()
        };
        let log = number as usize;
        let listener = Rc::new(Listener {
            shared: Rc::clone(shared),
            log,
        });
        let mut seen = Seen::default();
        let opened = Log::open(&storage, id, options(), listener, &mut seen).await;
        let (opened, recovered) = opened?;
        assert_eq!(recovered.damage, None);
        let read = read_all(&opened, recovered.log_start, recovered.log_end).await;
        let known = &mut shared.borrow_mut()[log];
        if check {
            let (end, acknowledged) = (recovered.log_end, known.acknowledged);
            assert!(
                end >= acknowledged,
                "log {number}: {acknowledged} acknowledged, ends at {end}"
            );
            known.batches.retain(|batch| batch.next <= end);
            let kept = known.batches.iter().flat_map(|batch| batch.bytes.clone());
            assert!(
                read.expect("it can be read").eq(&kept.collect::<Vec<_>>()),
                "log {number}"
            );
            assert_eq!(
                seen.batches.last().map_or(end, |last| last.next_offset()),
                end
            );
        }
        known.acknowledged = recovered.log_end;
        logs.push(opened);
    }
    let finished = storage.finish_replay().await;
    finished.map_err(|error| LogError::Io {
        operation: "removing",
        path: "/data/journal".into(),
        error: std::sync::Arc::new(error),
    })?;
    Ok((storage, logs))
}

/// Appends here and there, now and then waits, seldom reads; gives the frames that were written.
async fn life(io: SimIo, shared: Shared, seed: u64, steps: u32, frames: Rc<RefCell<u64>>) {
    let Ok((storage, logs)) = open_all(&io, &shared, false).await else {
        return;
    };
    let mut random = Random::new(seed);
    let epoch = LeaderEpoch(i32::try_from(seed % 1000).unwrap());
    for _ in 0..steps {
        // Some logs are hot, one is written almost never: its record is the oldest in the journal.
        let number = random.index(LOGS as usize).min(random.index(LOGS as usize));
        if number + 1 == LOGS as usize && random.chance(90) {
            continue;
        }
        let log = &logs[number];
        let size = if random.chance(4) { 50_000 } else { 1_500 };
        let next = batch(log.log_end(), epoch, 1, size, random.next_u64());
        shared.borrow_mut()[number].batches.push(next.clone());
        let appended = log.append(
            &next.bytes,
            next.base,
            next.next,
            epoch,
            next.max_timestamp_ms(),
            1,
        );
        if appended.is_err() {
            return;
        }
        *frames.borrow_mut() = storage.counters().frames_written;
        if random.chance(30) {
            io.sleep(Duration::from_micros(random.below(800))).await;
        }
        if random.chance(3) {
            let _ = log.read(log.log_start(), log.durable_end(), 100_000).await;
        }
        if random.chance(1) {
            io.sleep(Duration::from_millis(150)).await;
        }
    }
    io.sleep(Duration::from_secs(2)).await;
    for (log, known) in logs.iter().zip(shared.borrow().iter()) {
        assert_eq!(
            log.durable_end(),
            log.log_end(),
            "all is acknowledged in the end"
        );
        assert_eq!(known.acknowledged, log.log_end());
    }
    assert_eq!(storage.counters().unflushed_bytes, 0);
    if seed.is_multiple_of(2) {
        for log in &logs {
            let end = log.log_end();
            let _ = log.close(snapshot(end)).await;
        }
        let _ = storage.close(true).await;
    }
}

fn policy(seed: u64) -> CrashPolicy {
    match seed % 4 {
        0 => CrashPolicy::DropAll,
        1 => CrashPolicy::KeepAll,
        _ => CrashPolicy::Random { seed },
    }
}

/// One life that the power ends after `cut` changes, and what its successor finds.
fn cut_life(disk: &SimDisk, shared: &Shared, seed: u64, cut: Option<u64>) -> u64 {
    if let Some(cut) = cut {
        disk.cut_after(cut);
    }
    let frames = Rc::new(RefCell::new(0));
    let (of_life, counted) = (Rc::clone(shared), Rc::clone(&frames));
    Sim::new(seed)
        .with_disk(disk)
        .run_until_cut(|io| life(io, of_life, seed, 500, counted));
    disk.crash(policy(seed ^ cut.unwrap_or(0)));
    let checked = Rc::clone(shared);
    Sim::new(seed ^ 0x5eed_0000)
        .with_disk(disk)
        .run(|io| async move {
            let opened = open_all(&io, &checked, true).await;
            opened.expect("what is left can be opened");
        });
    disk.remount();
    frames.take()
}

#[test]
fn what_a_journal_acknowledged_survives() {
    let whole = disk();
    let before = whole.operations();
    let frames = cut_life(&whole, &nothing_known(), 7, None);
    let changes = whole.operations() - before;
    assert!(
        frames > 100,
        "only {frames} frames: the journal is not used again"
    );
    for seed in 0..6 {
        for cut in (seed..changes).step_by(23) {
            let disk = disk();
            cut_life(&disk, &nothing_known(), seed, Some(cut));
        }
    }
}

#[test]
fn journals_follow_each_other() {
    for seed in 0..12_u64 {
        let disk = disk();
        let shared = nothing_known();
        for life in 0..6 {
            let salt = seed << 8 | life;
            let cut = 100 + salt.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 600;
            cut_life(&disk, &shared, salt, Some(cut));
        }
    }
}

/// Tells nothing.
struct Quiet;

impl LogListener for Quiet {
    fn persisted(&self, _up_to: Offset) {}

    fn failed(&self, _error: &LogError) {}

    fn checkpoint_wanted(&self) {}
}

async fn open_quiet(
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

fn put(log: &Log<SimIo>, size: usize) -> Result<(), LogError> {
    let next = batch(log.log_end(), LeaderEpoch(0), 1, size, 7);
    let max = next.max_timestamp_ms();
    log.append(&next.bytes, next.base, next.next, LeaderEpoch(0), max, 1)
}

async fn settled(io: &SimIo, log: &Log<SimIo>) {
    while log.durable_end() < log.log_end() {
        io.sleep(Duration::from_micros(20)).await;
    }
}

/// a large chunk is written and flushed while the one before it, which only the journal holds, is
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

/// a log that cannot be opened at a start loses what only the journal holds.
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
    let end = Sim::new(3).with_disk(&disk).run(|io| async move {
        let storage = storage_with_journal(&io, true).await.unwrap();
        let (_log, recovered) = open_quiet(&storage, 0, options()).await.unwrap();
        recovered.log_end
    });
    assert!(
        end >= acknowledged,
        "acknowledged {acknowledged}, found {end}"
    );
}

/// a crash in the middle of the removal of a journal whose files were used again.
#[test]
fn a_removal_may_be_cut_anywhere() {
    let seed = 8;
    let whole = disk();
    let before = whole.operations();
    cut_life_only(&whole, &nothing_known(), seed, None);
    let changes = whole.operations() - before;
    let mut refused = Vec::new();
    for cut in changes - 12..changes {
        let disk = disk();
        let shared = nothing_known();
        cut_life_only(&disk, &shared, seed, Some(cut));
        disk.crash(CrashPolicy::KeepAll);
        let opened = Sim::new(seed).with_disk(&disk).run(|io| async move {
            let opened = open_all(&io, &shared, true).await;
            opened.map(|_| ())
        });
        if let Err(error) = opened {
            refused.push((changes - cut, error.to_string()));
        }
    }
    assert!(refused.is_empty(), "{refused:#?}");
}

fn cut_life_only(disk: &SimDisk, shared: &Shared, seed: u64, cut: Option<u64>) {
    if let Some(cut) = cut {
        disk.cut_after(cut);
    }
    let of_life = Rc::clone(shared);
    Sim::new(seed)
        .with_disk(disk)
        .run_until_cut(|io| life(io, of_life, seed, 500, Rc::default()));
}

/// the same at the start that removes it.
#[test]
fn a_removal_at_a_start_may_be_cut_anywhere() {
    let seed = 7;
    let whole = disk();
    let shared = nothing_known();
    cut_life_only(&whole, &shared, seed, None);
    let image = whole.image();
    let mut refused = Vec::new();
    for cut in 0..400 {
        let disk = image.to_disk();
        disk.crash(CrashPolicy::KeepAll);
        disk.cut_after(cut);
        let known = Rc::clone(&shared);
        let ended = Sim::new(seed)
            .with_disk(&disk)
            .run_until_cut(|io| async move {
                let _ = open_all(&io, &known, false).await;
            });
        disk.crash(CrashPolicy::KeepAll);
        let known = Rc::clone(&shared);
        let opened = Sim::new(seed)
            .with_disk(&disk)
            .run(|io| async move { open_all(&io, &known, false).await.map(|_| ()) });
        if let Err(error) = opened {
            refused.push((cut, error.to_string()));
        }
        if ended.is_some() {
            break;
        }
    }
    assert!(refused.is_empty(), "{refused:#?}");
}

/// the first frame of a file that is used again is torn, and no frame said yet that the file was
/// not needed any more.
#[test]
fn the_first_frame_of_a_file_used_again_may_be_torn() {
    let mut refused = Vec::new();
    for seed in [1_u64, 3, 5] {
        for cut in (100..700).step_by(9) {
            let disk = disk();
            let shared = nothing_known();
            disk.cut_after(cut);
            let of_life = Rc::clone(&shared);
            Sim::new(seed)
                .with_disk(&disk)
                .run_until_cut(|io| async move {
                    let Ok((_storage, logs)) = open_all(&io, &of_life, false).await else {
                        return;
                    };
                    // Every log has as much as goes into a frame, so the ring is full again and again.
                    for _ in 0..60 {
                        for log in &logs {
                            if put(log, 12_000).is_err() {
                                return;
                            }
                        }
                        for log in &logs {
                            settled(&io, log).await;
                        }
                    }
                });
            disk.crash(CrashPolicy::Random { seed: seed ^ cut });
            let known = Rc::clone(&shared);
            let opened = Sim::new(seed)
                .with_disk(&disk)
                .run(|io| async move { open_all(&io, &known, false).await.map(|_| ()) });
            if let Err(error) = opened {
                refused.push((seed, cut, error.to_string()));
            }
        }
    }
    assert!(
        refused.is_empty(),
        "{} refused, {:#?}",
        refused.len(),
        refused.first()
    );
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

/// a log failed that needs the oldest file for ever.
#[test]
fn a_failed_log_does_not_stop_the_others() {
    let (stuck, _) = with_a_failed_log(&disk(), true);
    assert_eq!(stuck, [0, 0, 0], "records not acknowledged after a minute");
}

/// what a failed log had acknowledged is overwritten in the ring.
#[test]
fn what_a_failed_log_acknowledged_survives() {
    let disk = disk();
    let (_, acknowledged) = with_a_failed_log(&disk, false);
    disk.crash(CrashPolicy::KeepAll);
    let end = Sim::new(3).with_disk(&disk).run(|io| async move {
        let storage = storage_with_journal(&io, true).await.unwrap();
        let (_log, recovered) = open_quiet(&storage, 0, options()).await.unwrap();
        recovered.log_end
    });
    assert!(
        end >= acknowledged,
        "acknowledged {acknowledged}, found {end}"
    );
}

/// the log that the ring waits for is removed.
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
