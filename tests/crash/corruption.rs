//! Bits flip in any file of a partition after it was flushed: told with file and position, or without effect.
//! Never is a record served that was not appended, and none that was acknowledged goes without a word.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use millstream::{
    io::{
        Clock as _, Disk as _, Random,
        sim::{CrashPolicy, Sim, SimDisk},
    },
    storage::{LogError, ReadError},
};
use millstream_protocol::LeaderEpoch;

use crate::{
    log_damage::files,
    oracle::{Batch, Shared, batch, disk, open, options, read_all, snapshot, storage, try_open},
};

/// A log with several segments and checkpoints, killed or stopped cleanly.
fn written(stops: bool) -> (SimDisk, Vec<Batch>) {
    let disk = disk();
    let shared = Shared::default();
    let listener = shared.clone();
    Sim::new(3).with_disk(&disk).run(|io| async move {
        let (log, _, _) = open(&storage(&io), options(), &listener).await;
        for round in 0..24_u32 {
            let size = [200, 9_000, 30_000][round as usize % 3];
            let base = log.log_end();
            let batch = batch(base, LeaderEpoch(0), 2, size, u64::from(round));
            listener.0.borrow_mut().batches.push(batch.clone());
            let max = batch.max_timestamp_ms();
            log.append(&batch.bytes, base, batch.next, LeaderEpoch(0), max, 1)
                .unwrap();
            while log.durable_end() < batch.next {
                io.sleep(Duration::from_millis(1)).await;
            }
            if round % 9 == 8 {
                log.checkpoint(snapshot(batch.next)).await.unwrap();
            }
        }
        io.sleep(Duration::from_millis(250)).await;
        if stops {
            let end = log.log_end();
            log.close(snapshot(end)).await.unwrap();
        }
    });
    disk.crash(CrashPolicy::DropAll);
    let batches = shared.0.borrow().batches.clone();
    (disk, batches)
}

/// What the bytes at a place are, as `docs/format/` has it.
fn boundaries(path: &Path, bytes: &[u8]) -> BTreeMap<usize, &'static str> {
    let mut places = BTreeMap::new();
    let extension = path.extension().and_then(|it| it.to_str()).unwrap_or("");
    if extension != "log" {
        let kind = if extension == "index" {
            "index"
        } else {
            "checkpoint"
        };
        places.extend([0, 4, 6, 8, 12, 20, 28, 32].map(|at| (at, kind)));
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0);
        places.extend((32..=used).step_by(7).map(|at| (at, kind)));
        // The producers' snapshot: of these checkpoints, the end that they cover.
        if kind == "checkpoint" {
            let snapshots = (32..used).filter(|at| at % 3 == 0 && *at + 200 > used);
            places.extend(snapshots.map(|at| (at, "producer snapshot")));
        }
        return places;
    }
    places.extend([0, 4, 6, 8, 12, 16, 32, 36, 44, 51, 52, 4_095].map(|at| (at, "segment header")));
    for chunk in (4_096..bytes.len()).step_by(4_096) {
        if !bytes[chunk..].starts_with(b"MSCK") {
            continue;
        }
        let fields = [0, 4, 6, 8, 12, 16, 32, 36, 40, 48, 56, 64, 72, 80, 88, 92];
        places.extend(fields.map(|at| (chunk + at, "chunk header")));
        let size = u32::from_le_bytes(bytes[chunk + 12..chunk + 16].try_into().unwrap()) as usize;
        let kind = if size == 0 { "sealing chunk" } else { "chunk" };
        for at in [
            0,
            8,
            12,
            16,
            17,
            21,
            23,
            27,
            43,
            57,
            61,
            size / 2,
            size.saturating_sub(1),
        ] {
            places.insert(chunk + 96 + at, kind);
        }
        places.insert(chunk + 96 + size, "padding");
    }
    places.retain(|at, _| *at < bytes.len());
    places
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default)]
struct Outcomes {
    /// Without effect.
    harmless: u32,
    /// The start told of it.
    at_start: u32,
    /// A reader was told.
    when_read: u32,
    /// The partition was refused, with the file's name.
    refused: u32,
}

fn check_named(said: &str, path: &Path) {
    assert!(
        said.contains(path.to_str().unwrap()),
        "{} was damaged: {said}",
        path.display()
    );
}

/// Opens the log and reads every batch of it.
fn check(disk: &SimDisk, known: &[Batch], path: &Path, outcomes: &mut Outcomes) {
    let (known, path) = (known.to_vec(), path.to_owned());
    let end = known.last().expect("batches").next;
    let (damaged, refused, unread) = Sim::new(4).with_disk(disk).run(|io| async move {
        let opened = try_open(&storage(&io), options(), &Shared::default()).await;
        let (log, found, _) = match opened {
            Ok(opened) => opened,
            Err(error @ (LogError::NewerFormat { .. } | LogError::Io { .. })) => {
                check_named(&error.to_string(), &path);
                return (false, true, false);
            }
            Err(error) => panic!("{error}"),
        };
        let log_end = found.damage.as_ref().map_or(end, |damage| {
            check_named(&damage.to_string(), &path);
            assert!(damage.below <= end && damage.acknowledged > damage.below);
            damage.below
        });
        assert_eq!(found.log_end, log_end, "nothing acknowledged is cut away");
        let mut unread = false;
        for batch in known.iter().filter(|batch| batch.next <= log_end) {
            match read_all(&log, batch.base, batch.next).await {
                Ok(bytes) => assert!(bytes == batch.bytes, "offset {}", batch.base),
                Err(error @ ReadError::Damaged { .. }) => {
                    check_named(&error.to_string(), &path);
                    unread = true;
                }
                Err(error) => panic!("{error}"),
            }
        }
        (found.damage.is_some(), false, unread)
    });
    outcomes.at_start += u32::from(damaged);
    outcomes.refused += u32::from(refused);
    outcomes.when_read += u32::from(unread && !damaged);
    outcomes.harmless += u32::from(!damaged && !refused && !unread);
}

#[test]
fn flipped_bits_in_a_partitions_files_are_told_or_without_effect() {
    let mut told: BTreeMap<&str, Outcomes> = BTreeMap::new();
    let mut random = Random::new(12);
    for stops in [false, true] {
        let (disk, known) = written(stops);
        for (path, bytes) in files(&disk) {
            let places = boundaries(&path, &bytes);
            let anywhere = (0..40).map(|_| (random.index(bytes.len()), "anywhere"));
            let anywhere: Vec<_> = anywhere.collect();
            for (at, kind) in places.into_iter().chain(anywhere) {
                let damaged = disk.image().to_disk();
                let mask = 1 << random.index(8);
                damaged.corrupt(&path, at as u64, mask).unwrap();
                damaged.crash(CrashPolicy::DropAll);
                check(&damaged, &known, &path, told.entry(kind).or_default());
            }
        }
    }
    for (kind, outcomes) in &told {
        println!("{kind}: {outcomes:?}");
    }
    for kind in [
        "segment header",
        "chunk header",
        "chunk",
        "index",
        "checkpoint",
        "producer snapshot",
    ] {
        let outcomes = told.get(kind).copied().unwrap_or_default();
        let cases = outcomes.harmless + outcomes.at_start + outcomes.when_read + outcomes.refused;
        assert!(cases > 10, "{kind}: {outcomes:?}");
    }
    assert!(
        told["chunk"].at_start > 0 && told["chunk"].when_read > 0,
        "{told:?}"
    );
    let in_chunks = told["chunk"];
    assert_eq!(in_chunks.refused, 0, "{told:?}");
}

/// Files that are gone altogether, which the last checkpoint knew.
#[test]
fn a_file_that_is_gone_is_told_or_without_effect() {
    let mut told: BTreeMap<String, Outcomes> = BTreeMap::new();
    let (disk, known) = written(true);
    for (path, _) in files(&disk) {
        let damaged = disk.image().to_disk();
        let gone: PathBuf = path.clone();
        Sim::new(1).with_disk(&damaged).run(|io| async move {
            io.remove_file(&gone).await.unwrap();
            io.sync_dir(gone.parent().unwrap()).await.unwrap();
        });
        let kind = path.extension().unwrap().to_string_lossy().into_owned();
        check(&damaged, &known, &path, told.entry(kind).or_default());
    }
    println!("gone: {told:?}");
    assert!(told["log"].at_start > 2, "{told:?}");
}
