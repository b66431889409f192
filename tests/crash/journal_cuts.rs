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

use crate::{
    journal_failures::{put, settled},
    oracle::{Batch, Seen, batch, disk, id, options, read_all, snapshot, storage_with_journal},
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

    fn refused(&self, _end: Offset, error: &LogError) {
        panic!("the disk has space: {error}");
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

/// The process is killed, and the power goes while its successor recovers: what the successor found in
/// a journal without a flush may be gone, and must not have been believed.
#[test]
fn what_a_killed_process_left_in_a_journal_is_made_durable() {
    for seed in [1_u64, 5] {
        for cut in (60..500).step_by(41) {
            for later in (1..90).step_by(5) {
                let disk = disk();
                let shared = nothing_known();
                disk.cut_after(cut);
                let of_life = Rc::clone(&shared);
                Sim::new(seed)
                    .with_disk(&disk)
                    .run_until_cut(|io| life(io, of_life, seed, 500, Rc::default()));
                disk.remount();
                disk.cut_after(later);
                let known = Rc::clone(&shared);
                Sim::new(seed + 100)
                    .with_disk(&disk)
                    .run_until_cut(|io| async move {
                        let _ = open_all(&io, &known, false).await;
                    });
                disk.crash(policy(cut + later));
                let known = Rc::clone(&shared);
                Sim::new(seed + 200).with_disk(&disk).run(|io| async move {
                    let opened = open_all(&io, &known, true).await;
                    opened.expect("what is left can be opened");
                });
            }
        }
    }
}

/// A crash in the middle of the removal of a journal whose files were used again.
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

/// The same at the start that removes it.
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

/// The first frame of a file that is used again is torn, and no frame said yet that the file was
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
