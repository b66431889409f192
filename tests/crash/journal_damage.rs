//! Bits of a journal flip after it was flushed: one that names partitions is put right, one in a record makes its
//! partition alone read-only, and nothing acknowledged is gone without a word.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use millstream::{
    io::{
        Buffer as _, Clock as _, Disk as _, DiskFile as _, OpenMode, Random,
        sim::{CrashPolicy, Sim, SimDisk, SimIo},
    },
    storage::{Damage, LogError},
};
use millstream_protocol::{LeaderEpoch, Offset};

use crate::{
    journal_failures::{open_quiet, put, settled},
    oracle::{Batch, batch, disk, options, read_all, storage_with_journal},
};

const LOGS: u32 = 6;
const BLOCK: usize = 4096;

/// What each log acknowledged.
type Known = Vec<Vec<Batch>>;

/// Six logs with something in the journal that no segment has, then killed, after or before the last frame was
/// sealed.
fn written(sealed: bool) -> (SimDisk, Known) {
    let disk = disk();
    let known = Sim::new(11).with_disk(&disk).run(|io| async move {
        let storage = storage_with_journal(&io, true).await.unwrap();
        let mut logs = Vec::new();
        for number in 0..LOGS {
            logs.push(open_quiet(&storage, number, options()).await.unwrap().0);
        }
        let mut known = vec![Vec::new(); LOGS as usize];
        for round in 0..5_u32 {
            // Frames of several logs, of one, and at last of the first four only.
            for (number, log) in (0..).zip(&logs) {
                if round % 2 == 1 && number > 1 || round == 4 && number > 3 {
                    continue;
                }
                let size = if number == 1 { 6_000 } else { 300 };
                let next = batch(
                    log.log_end(),
                    LeaderEpoch(0),
                    2,
                    size,
                    u64::from(round << 8 | number),
                );
                known[number as usize].push(next.clone());
                let max = next.max_timestamp_ms();
                log.append(&next.bytes, next.base, next.next, LeaderEpoch(0), max, 1)
                    .unwrap();
            }
            for log in &logs {
                settled(&io, log).await;
            }
        }
        if sealed {
            io.sleep(Duration::from_millis(250)).await;
        }
        known
    });
    disk.crash(CrashPolicy::DropAll);
    (disk, known)
}

fn journal_files(disk: &SimDisk) -> Vec<(PathBuf, Vec<u8>)> {
    Sim::new(1).with_disk(disk).run(|io| async move {
        let mut files = Vec::new();
        for path in io.read_dir(Path::new("/data/journal")).await.unwrap() {
            let file = io.open(&path, OpenMode::Read).await.unwrap();
            let size = usize::try_from(file.size().await.unwrap()).unwrap();
            let bytes = file.read_at(0, size).await.unwrap().bytes().to_vec();
            files.push((path, bytes));
        }
        files
    })
}

/// Where something begins in a file, as `docs/format/journal.md` has it, and whether it is the directory of
/// a frame: with that gone nobody can tell whose records were in it.
fn boundaries(bytes: &[u8]) -> BTreeMap<usize, bool> {
    let mut places = BTreeMap::new();
    places.extend([0, 4, 8, 12, 16, 31, 32].map(|at| (at, false)));
    let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    for frame in (BLOCK..bytes.len()).step_by(BLOCK) {
        if !bytes[frame..].starts_with(b"MSJR") {
            continue;
        }
        places.extend([0, 4, 6, 8].map(|at| (frame + at, false)));
        places.extend([12, 16, 32, 40, 48, 56, 60, 63].map(|at| (frame + at, true)));
        let mut entry = frame + 64;
        for _ in 0..number(frame + 56) {
            let fields = [0, 4, 6, 8, 12, 16, 32, 36, 40, 48, 56, 64, 72, 80, 88, 92];
            places.extend(fields.map(|at| (entry + at, true)));
            let end = entry + 96 + number(entry + 12);
            // The batch's own fields: base offset, size, epoch, magic, checksum, and its records.
            let batch = [0, 8, 12, 16, 17, 21, 23, 27, 57, 61].map(|at| (entry + 96 + at, false));
            places.extend(batch);
            places.extend([(end - 1, false), (end, false)]);
            entry = end.next_multiple_of(8);
        }
        places.insert(frame + number(frame + 12), false);
    }
    places.retain(|at, _| *at < bytes.len());
    places
}

/// What came of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// Nothing was lost.
    Whole,
    /// Some partitions are read-only, the others work.
    Told,
    /// The start was refused.
    Refused,
}

fn check_refused(error: &LogError, path: &Path) {
    let said = error.to_string();
    assert!(said.contains(path.to_str().unwrap()), "{said}");
    assert!(
        said.contains("millstream log repair --dry-run /data"),
        "{said}"
    );
}

fn check_damage(damage: &Damage, path: &Path, bytes: &[u8]) {
    assert_eq!(damage.path, path);
    let at = usize::try_from(damage.position).unwrap();
    assert!(bytes[at..].starts_with(b"MSCK"), "an entry begins at {at}");
    assert!(damage.acknowledged > damage.below);
    assert!(damage.reason.contains("of the journal"), "{damage}");
}

/// Starts on a damaged disk, twice; the second start must know what the first one knew.
fn start(disk: &SimDisk, known: &Known, path: &Path, good: &[u8]) -> Outcome {
    let mut outcomes = Vec::new();
    for life in 0..2 {
        let (known, path, good) = (known.clone(), path.to_owned(), good.to_vec());
        let outcome = Sim::new(life).with_disk(disk).run(|io| async move {
            let storage = match storage_with_journal(&io, true).await {
                Ok(storage) => storage,
                Err(error) => {
                    check_refused(&error, &path);
                    return Outcome::Refused;
                }
            };
            let mut outcome = Outcome::Whole;
            let mut logs = Vec::new();
            for (number, batches) in (0..).zip(&known) {
                let (log, found) = open_quiet(&storage, number, options()).await.unwrap();
                let kept = batches.iter().filter(|batch| batch.next <= found.log_end);
                let expected: Vec<u8> = kept.flat_map(|batch| batch.bytes.clone()).collect();
                let known_end = batches.last().map_or(Offset::ZERO, |batch| batch.next);
                let read = read_all(&log, Offset::ZERO, found.log_end.min(known_end)).await;
                assert!(
                    read.unwrap() == expected,
                    "log {number}: what is below is served"
                );
                match &found.damage {
                    Some(damage) => {
                        check_damage(damage, &path, &good);
                        assert_eq!(damage.below, found.log_end);
                        outcome = Outcome::Told;
                    }
                    None => {
                        let end = found.log_end;
                        assert!(
                            end >= known_end,
                            "log {number}: {known_end} acknowledged, {end}"
                        );
                        logs.push(log);
                    }
                }
            }
            storage.finish_replay().await.unwrap();
            for log in logs {
                put(&log, 100).unwrap();
                settled(&io, &log).await;
            }
            outcome
        });
        outcomes.push(outcome);
        disk.crash(CrashPolicy::DropAll);
    }
    assert_eq!(outcomes[0], outcomes[1], "the second start finds the same");
    outcomes[0]
}

#[test]
fn a_flipped_bit_in_a_journal_is_told_and_concerns_whose_records_it_was() {
    let (disk, known) = written(true);
    let mut random = Random::new(5);
    let mut outcomes: BTreeMap<Outcome, u32> = BTreeMap::new();
    let mut file_count = 0;
    for (path, bytes) in journal_files(&disk) {
        let mut places = boundaries(&bytes);
        if places.len() < 20 {
            continue;
        }
        file_count += 1;
        let end = *places.last_key_value().unwrap().0;
        for _ in 0..150 {
            places.entry(random.index(end)).or_insert(false);
        }
        for at in places.into_keys() {
            let damaged = disk.image().to_disk();
            let mask = 1 << random.index(8);
            damaged.corrupt(&path, at as u64, mask).unwrap();
            damaged.crash(CrashPolicy::DropAll);
            let outcome = start(&damaged, &known, &path, &bytes);
            assert_ne!(outcome, Outcome::Refused, "a bit of byte {at}");
            *outcomes.entry(outcome).or_default() += 1;
        }
    }
    println!("journal: {outcomes:?} of bits flipped in {file_count} files");
    assert!(file_count > 0, "a journal was written");
    let cases = |outcome| outcomes.get(&outcome).copied().unwrap_or(0);
    assert!(cases(Outcome::Whole) > 50, "{outcomes:?}");
    assert!(cases(Outcome::Told) > 50, "{outcomes:?}");
}

/// With more than one wrong byte where the partitions are named nobody can tell whose records are lost.
#[test]
fn a_directory_with_two_wrong_bytes_is_not_guessed_at() {
    let (disk, known) = written(true);
    let mut outcomes: BTreeMap<Outcome, u32> = BTreeMap::new();
    for (path, bytes) in journal_files(&disk) {
        let places = boundaries(&bytes);
        for (at, _) in places.into_iter().filter(|(_, of_directory)| *of_directory) {
            let damaged = disk.image().to_disk();
            for (at, mask) in [(at, 0x10), (at + 1, 0x21)] {
                damaged.corrupt(&path, at as u64, mask).unwrap();
            }
            damaged.crash(CrashPolicy::DropAll);
            let outcome = start(&damaged, &known, &path, &bytes);
            assert_ne!(outcome, Outcome::Told, "byte {at}");
            *outcomes.entry(outcome).or_default() += 1;
        }
    }
    println!("journal: {outcomes:?} of two bytes spoiled in a directory");
    let cases = |outcome| outcomes.get(&outcome).copied().unwrap_or(0);
    // Where the frame's own header alone is hit, all of it is there.
    assert!(cases(Outcome::Whole) > 10, "{outcomes:?}");
    assert!(cases(Outcome::Refused) > 20, "{outcomes:?}");
}

/// What follows in the journal behind a loss is no older life's: it must not be cut away, and what comes
/// before it is served.
#[test]
fn only_the_log_whose_records_are_damaged_is_read_only() {
    let (disk, known) = written(true);
    let mut cases = 0;
    for (path, bytes) in journal_files(&disk) {
        let frames = (BLOCK..bytes.len()).step_by(BLOCK);
        let frames = frames.filter(|at| bytes[*at..].starts_with(b"MSJR"));
        for frame in frames.filter(|at| bytes[at + 56] > 2) {
            let damaged = disk.image().to_disk();
            // In the batch of the first entry.
            damaged
                .corrupt(&path, frame as u64 + 64 + 96 + 70, 1)
                .unwrap();
            damaged.crash(CrashPolicy::DropAll);
            let found = damaged_logs(&damaged);
            assert_eq!(found.len(), 1, "{found:?}");
            let (number, damage) = &found[0];
            assert_eq!(damage.position, frame as u64 + 64);
            let below = known[*number as usize]
                .iter()
                .any(|batch| batch.base == damage.below);
            assert!(below, "{damage:?}");
            cases += 1;
        }
    }
    assert!(cases >= 2, "{cases} frames of several logs");
}

/// Nothing says that the last frame was durable, so what is damaged of it is cut as torn: that alone.
#[test]
fn what_is_intact_of_a_damaged_last_frame_is_kept() {
    let (disk, known) = written(false);
    let frames = journal_files(&disk).into_iter().flat_map(|(path, bytes)| {
        let frames = (BLOCK..bytes.len()).step_by(BLOCK);
        let frames = frames.filter(|at| bytes[*at..].starts_with(b"MSJR"));
        let number = |at: usize| u64::from_le_bytes(bytes[at + 32..at + 40].try_into().unwrap());
        let said = |at| {
            (
                number(at),
                bytes[at + 56],
                bytes[at + 64 + 32],
                path.clone(),
                at,
            )
        };
        frames.map(said).collect::<Vec<_>>()
    });
    let (_, entry_count, hit, path, frame) = frames.max().expect("frames");
    assert!(entry_count > 1, "there are others in it");
    let damaged = disk.image().to_disk();
    // In the batch of the first entry.
    damaged
        .corrupt(&path, frame as u64 + 64 + 96 + 70, 1)
        .unwrap();
    damaged.crash(CrashPolicy::DropAll);
    for life in 0..2 {
        let known = known.clone();
        Sim::new(life).with_disk(&damaged).run(|io| async move {
            let storage = storage_with_journal(&io, true).await.unwrap();
            for (number, batches) in (0..).zip(&known) {
                let (_, found) = open_quiet(&storage, number, options()).await.unwrap();
                assert!(found.damage.is_none(), "log {number}: {:?}", found.damage);
                let last = batches.last().unwrap();
                let end = if number == u32::from(hit) {
                    last.base
                } else {
                    last.next
                };
                assert_eq!(found.log_end, end, "log {number}");
            }
            storage.finish_replay().await.unwrap();
        });
        damaged.crash(CrashPolicy::DropAll);
    }
}

fn damaged_logs(disk: &SimDisk) -> Vec<(u32, Damage)> {
    Sim::new(1).with_disk(disk).run(|io: SimIo| async move {
        let storage = storage_with_journal(&io, true).await.unwrap();
        let storage = Rc::clone(&storage);
        let mut damaged = Vec::new();
        for number in 0..LOGS {
            let (_, found) = open_quiet(&storage, number, options()).await.unwrap();
            damaged.extend(found.damage.map(|damage| (number, damage)));
        }
        damaged
    })
}
