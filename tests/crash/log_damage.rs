//! A disk that forgets or changes what it had flushed: told from a torn tail, and never cut away.

use std::path::{Path, PathBuf};

use millstream::{
    io::{
        Buffer, Clock, Disk, DiskFile, OpenMode,
        sim::{CrashPolicy, Sim, SimDisk, SimIo},
    },
    storage::{LogError, LogOptions, RecoveryChecks},
};
use millstream_protocol::{LeaderEpoch, Offset};

use crate::oracle::{
    Found, Shared, batch, disk, id, open, options, read_all, recover, snapshot, storage,
    with_checks,
};

const BLOCK: usize = 4096;

/// A chunk as it lies on disk.
#[derive(Clone, Debug)]
struct OnDisk {
    path: PathBuf,
    position: u64,
    base: Offset,
    next: Offset,
    /// Header and payload.
    size: u64,
    /// Some later chunk says that this one was durable.
    covered: bool,
}

fn segments_dir() -> PathBuf {
    let id = id();
    format!("/data/topics/{}/{}", id.topic, id.partition).into()
}

async fn bytes_of(io: &SimIo, path: &Path) -> Vec<u8> {
    let file = io.open(path, OpenMode::Read).await.unwrap();
    let size = usize::try_from(file.size().await.unwrap()).unwrap();
    let read = file
        .read_at(0, size.next_multiple_of(BLOCK).max(BLOCK))
        .await;
    read.unwrap().bytes().to_vec()
}

/// Every file of the partition with its bytes; none if a journal alone has something of it.
pub fn files(disk: &SimDisk) -> Vec<(PathBuf, Vec<u8>)> {
    Sim::new(1).with_disk(disk).run(|io| async move {
        let mut files = Vec::new();
        for path in io.read_dir(&segments_dir()).await.unwrap_or_default() {
            let bytes = bytes_of(&io, &path).await;
            files.push((path, bytes));
        }
        files
    })
}

/// The chunks of all segments, found by their magic, as `docs/format/chunk.md` describes them.
fn chunks(disk: &SimDisk) -> Vec<OnDisk> {
    let mut chunks = Vec::new();
    let mut flushed = Offset::ZERO;
    for (path, bytes) in files(disk) {
        if path.extension().is_none_or(|extension| extension != "log") {
            continue;
        }
        for (index, block) in bytes.chunks(BLOCK).enumerate() {
            if !block.starts_with(b"MSCK") {
                continue;
            }
            let number = |at: usize| i64::from_le_bytes(block[at..at + 8].try_into().unwrap());
            let payload = u32::from_le_bytes(block[12..16].try_into().unwrap());
            flushed = flushed.max(Offset(number(64)));
            chunks.push(OnDisk {
                path: path.clone(),
                position: (index * BLOCK) as u64,
                base: Offset(number(48)),
                next: Offset(number(56)),
                size: 96 + u64::from(payload),
                covered: false,
            });
        }
    }
    for chunk in &mut chunks {
        chunk.covered = chunk.base < chunk.next && chunk.next <= flushed;
    }
    chunks
}

/// A log with chunks of several sizes over several segments, all acknowledged, then killed.
pub fn written(checkpoint_at: Option<u32>) -> (SimDisk, Shared) {
    let disk = disk();
    let shared = Shared::default();
    let listener = shared.clone();
    Sim::new(7).with_disk(&disk).run(|io| async move {
        let options = LogOptions { ..options() };
        let (log, _, _) = open(&storage(&io), options, &listener).await;
        for round in 0..12u32 {
            let size = [200, 9_000, 30_000][round as usize % 3];
            let base = log.log_end();
            let batch = batch(base, LeaderEpoch(0), 2, size, u64::from(round));
            listener.0.borrow_mut().batches.push(batch.clone());
            log.append(&batch.bytes, base, batch.next, LeaderEpoch(0), 0, 1)
                .unwrap();
            while log.durable_end() < batch.next {
                io.sleep(std::time::Duration::from_millis(1)).await;
            }
            if checkpoint_at == Some(round) {
                log.checkpoint(snapshot(batch.next)).await.unwrap();
            }
        }
        // The sealing chunk covers the last record too.
        io.sleep(std::time::Duration::from_millis(200)).await;
    });
    disk.crash(CrashPolicy::DropAll);
    (disk, shared)
}

fn recovered(disk: &SimDisk) -> Found {
    Sim::new(9).with_disk(disk).run(recover)
}

/// Flips a byte of each block of each covered chunk in turn.
fn each_flip(mut check: impl FnMut(&OnDisk, &SimDisk)) -> u32 {
    let (disk, _) = written(None);
    let mut cases = 0;
    for chunk in chunks(&disk).iter().filter(|chunk| chunk.covered) {
        for at in (0..chunk.size)
            .step_by(BLOCK)
            .chain([9, 20, chunk.size - 1])
        {
            let damaged = disk.image().to_disk();
            damaged
                .corrupt(&chunk.path, chunk.position + at, 0x20)
                .unwrap();
            damaged.crash(CrashPolicy::DropAll);
            check(chunk, &damaged);
            cases += 1;
        }
    }
    cases
}

#[test]
fn acknowledged_data_that_changed_is_damage_and_never_cut() {
    let (_, shared) = written(None);
    let oracle = shared.0.borrow();
    let cases = each_flip(|chunk, disk| {
        let before = files(disk);
        let found = recovered(disk);
        let damage = found.recovered.damage.clone().expect("damage");
        assert_eq!(damage.below, chunk.base, "{damage:?}");
        assert_eq!(
            (&damage.path, damage.position),
            (&chunk.path, chunk.position)
        );
        assert_eq!(found.recovered.log_end, chunk.base);
        let below = oracle
            .batches
            .iter()
            .filter(|batch| batch.next <= chunk.base);
        let below: Vec<u8> = below.flat_map(|batch| batch.bytes.clone()).collect();
        assert!(found.bytes == below, "what is below is served");
        assert!(before == files(disk), "nothing on disk was changed");
    });
    assert!(cases > 30, "only {cases} flips");
}

#[test]
fn a_damaged_log_takes_no_appends() {
    let (disk, _) = written(None);
    let chunks = chunks(&disk);
    let first = chunks.iter().find(|chunk| chunk.covered).unwrap();
    disk.corrupt(&first.path, first.position + 100, 1).unwrap();
    Sim::new(3).with_disk(&disk).run(|io| async move {
        let (log, recovered, _) = open(&storage(&io), options(), &Shared::default()).await;
        assert!(recovered.damage.is_some());
        let next = batch(Offset::ZERO, LeaderEpoch(1), 1, 10, 0);
        let appended = log.append(&next.bytes, next.base, next.next, next.epoch, 0, 1);
        assert!(matches!(appended, Err(LogError::Damaged { .. })));
        let cut = log.truncate(Offset::ZERO).await;
        assert!(matches!(cut, Err(LogError::Damaged { .. })));
        let trimmed = log.set_log_start(Offset::ZERO).await;
        assert!(matches!(trimmed, Err(LogError::Damaged { .. })));
        log.close(Vec::new()).await.unwrap();
    });
}

#[test]
fn without_the_flushed_marks_acknowledged_data_is_cut() {
    let checks = RecoveryChecks {
        flushed_marks: false,
        ..RecoveryChecks::default()
    };
    let mut cut = 0;
    let cases = with_checks(checks, || {
        each_flip(|chunk, disk| {
            let found = recovered(disk);
            assert_eq!(found.recovered.damage, None);
            cut += u32::from(found.recovered.log_end == chunk.base);
        })
    });
    assert_eq!(cut, cases, "the check makes no difference");
}

/// Zeros where there was a chunk, and segments that are gone, are damage as well.
#[test]
fn lost_blocks_and_files_are_damage() {
    let (disk, _) = written(None);
    let mut segments: Vec<PathBuf> = chunks(&disk).into_iter().map(|chunk| chunk.path).collect();
    segments.dedup();
    assert!(segments.len() > 1, "the log was rolled");
    for path in &segments[..segments.len() - 1] {
        let damaged = disk.image().to_disk();
        damaged.crash(CrashPolicy::DropAll);
        let path = path.clone();
        Sim::new(2).with_disk(&damaged).run(|io| async move {
            io.remove_file(&path).await.unwrap();
            io.sync_dir(&segments_dir()).await.unwrap();
        });
        let found = recovered(&damaged);
        // Without the first segment and any checkpoint the log begins at the second.
        let begins_later = found.recovered.log_start > Offset::ZERO;
        assert!(found.recovered.damage.is_some() || begins_later);
    }
    for chunk in chunks(&disk).iter().filter(|chunk| chunk.covered) {
        let damaged = disk.image().to_disk();
        damaged.crash(CrashPolicy::DropAll);
        let at = chunk.clone();
        Sim::new(2).with_disk(&damaged).run(|io| async move {
            let file = io.open(&at.path, OpenMode::Write).await.unwrap();
            let mut block = io.buffer(BLOCK);
            block.bytes_mut().fill(0);
            file.write_at(std::rc::Rc::new(block), at.position)
                .await
                .unwrap();
            file.sync_data().await.unwrap();
        });
        let found = recovered(&damaged);
        assert_eq!(found.recovered.damage.expect("damage").below, chunk.base);
    }
}

/// What lies before the checkpoint is not read at the start, but never served wrong.
#[test]
fn damage_before_the_checkpoint_is_met_by_its_reader() {
    let (disk, shared) = written(Some(9));
    let position = recovered(&disk).seen.snapshot;
    assert!(position > Offset::ZERO);
    let (mut before, mut cases) = (0, 0);
    let all = chunks(&disk);
    for chunk in all.iter().filter(|chunk| chunk.covered) {
        let damaged = disk.image().to_disk();
        let at = chunk.position + chunk.size / 2;
        damaged.corrupt(&chunk.path, at, 4).unwrap();
        damaged.crash(CrashPolicy::DropAll);
        let expected = shared.0.borrow().batches.clone();
        let is_before = chunk.next <= position;
        let same = all.iter().filter(|other| other.path == chunk.path);
        let same_segment: Vec<Offset> = same.map(|other| other.base).collect();
        before += u32::from(is_before);
        cases += 1;
        Sim::new(5).with_disk(&damaged).run(|io| async move {
            let (log, recovered, _) = open(&storage(&io), options(), &Shared::default()).await;
            assert_eq!(recovered.damage.is_none(), is_before);
            for batch in expected {
                if batch.next > log.log_end() {
                    continue;
                }
                let read = read_all(&log, batch.base, batch.next).await;
                match read {
                    Ok(bytes) => assert!(bytes == batch.bytes),
                    // A reader finds its place from the index entry before it, so what follows the
                    // damage up to the next entry may be out of reach; other segments are not.
                    Err(_) => assert!(is_before && same_segment.contains(&batch.base)),
                }
            }
        });
    }
    assert!(before > 3 && before < cases);
}

/// Both checkpoints lost: there is no telling which life a chunk belongs to.
#[test]
fn lost_checkpoints_are_damage() {
    let (disk, _) = written(Some(9));
    for slot in ["checkpoint.0", "checkpoint.1"] {
        disk.corrupt(&segments_dir().join(slot), 40, 1).unwrap();
    }
    let found = recovered(&disk);
    assert!(found.recovered.damage.is_some());
    assert_eq!(found.recovered.log_end, found.recovered.log_start);
    let (disk, shared) = written(Some(9));
    disk.corrupt(&segments_dir().join("checkpoint.1"), 40, 1)
        .unwrap();
    let found = recovered(&disk);
    assert_eq!(shared.0.borrow().verdict(&found), Ok(()));
}

/// The newer slot lost after a truncation: the older one knows of the cut too.
#[test]
fn a_truncation_outlives_either_checkpoint() {
    for slot in ["checkpoint.0", "checkpoint.1"] {
        let (disk, shared) = written(Some(9));
        let listener = shared.clone();
        Sim::new(4).with_disk(&disk).run(|io| async move {
            let (log, _, _) = open(&storage(&io), options(), &Shared::default()).await;
            let to = log.truncate(Offset(13)).await.unwrap();
            let oracle = &mut *listener.0.borrow_mut();
            oracle.batches.retain(|batch| batch.next <= to);
            oracle.acknowledged = to;
        });
        disk.corrupt(&segments_dir().join(slot), 40, 1).unwrap();
        disk.crash(CrashPolicy::DropAll);
        let found = recovered(&disk);
        assert_eq!(shared.0.borrow().verdict(&found), Ok(()), "without {slot}");
    }
}

/// Nothing after it says that the last record was durable, but the checkpoint does.
#[test]
fn the_checkpoint_is_proof_by_itself() {
    let (disk, _) = written(None);
    Sim::new(4).with_disk(&disk).run(|io| async move {
        let (log, _, _) = open(&storage(&io), options(), &Shared::default()).await;
        // A snapshot that its observer refuses, so that all is read again.
        log.checkpoint(vec![1, 2, 3]).await.unwrap();
    });
    let chunks = chunks(&disk);
    let last = chunks.iter().rfind(|chunk| chunk.covered).unwrap();
    let after = chunks
        .iter()
        .filter(|chunk| chunk.position >= last.position);
    for chunk in after.filter(|chunk| chunk.path == last.path) {
        disk.corrupt(&chunk.path, chunk.position + 20, 1).unwrap();
    }
    let found = recovered(&disk);
    assert_eq!(found.recovered.damage.expect("damage").below, last.base);
}
