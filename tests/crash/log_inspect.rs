//! What `log verify` says of a log agrees with what the next start makes of it.

use std::{fs, path::PathBuf};

use millstream::{
    io::{
        Buffer as _, Disk as _, DiskFile as _, OpenMode,
        sim::{CrashPolicy, Sim, SimDisk},
    },
    storage::{
        Durability,
        inspect::{Finding, Journals, Summary, Verdict, inspect, partition_dirs},
    },
};
use millstream_protocol::{LeaderEpoch, Offset};

use crate::{
    log_damage::{files, written},
    oracle::{Shared, disk, id, recover},
    workload::Workload,
};

/// The files of journals with their bytes.
fn journal_files(disk: &SimDisk) -> Vec<(PathBuf, Vec<u8>)> {
    Sim::new(1).with_disk(disk).run(|io| async move {
        let mut files = Vec::new();
        let paths = io.read_dir("/data/journal".as_ref()).await;
        for path in paths.unwrap_or_default() {
            let file = io.open(&path, OpenMode::Read).await.unwrap();
            let size = file.size().await.unwrap();
            let size = usize::try_from(size).unwrap().next_multiple_of(4_096);
            let bytes = file.read_at(0, size.max(4_096)).await.unwrap();
            files.push((path, bytes.bytes().to_vec()));
        }
        files
    })
}

/// Copies the partition's files and the journals out of the simulation and inspects them.
fn look(disk: &SimDisk) -> (Summary, Vec<u8>) {
    let dir = tempfile::tempdir().expect("a directory");
    let partition = dir.path().join(format!("topics/{}/3", id().topic));
    fs::create_dir_all(&partition).unwrap();
    fs::create_dir(dir.path().join("journal")).unwrap();
    for (path, bytes) in journal_files(disk) {
        let name = path.file_name().unwrap();
        fs::write(dir.path().join("journal").join(name), bytes).unwrap();
    }
    let files = files(disk);
    for (path, bytes) in &files {
        fs::write(partition.join(path.file_name().unwrap()), bytes).unwrap();
    }
    if !files.is_empty() {
        let found = partition_dirs(dir.path()).unwrap();
        assert_eq!(found.as_slice(), std::slice::from_ref(&partition));
    }
    let mut records = Vec::new();
    let journals = Journals::read(dir.path()).expect("the journals can be read");
    assert_eq!(journals.damage().count(), 0, "a crash damages no journal");
    let summary = inspect(&partition, &journals, &mut |finding| {
        if let Finding::Chunk { payload, .. } | Finding::Journaled { payload, .. } = finding {
            records.extend_from_slice(payload);
        }
    });
    (summary.expect("the files can be read"), records)
}

#[test]
fn a_good_log_is_good() {
    let (disk, shared) = written(Some(5));
    let (summary, records) = look(&disk);
    assert_eq!(summary.verdict, Verdict::Good);
    let oracle = shared.0.borrow();
    let expected: Vec<u8> = oracle
        .batches
        .iter()
        .flat_map(|b| b.bytes.clone())
        .collect();
    assert!(records == expected);
    assert_eq!(summary.batch_count, oracle.batches.len() as u64);
    assert_eq!(
        (summary.log_start, summary.log_end),
        (Offset::ZERO, oracle.end())
    );
}

#[test]
fn damage_is_damage() {
    let (disk, _) = written(None);
    let (paths, mut cases) = (files(&disk), 0);
    for (path, bytes) in paths
        .iter()
        .filter(|(path, _)| path.extension().unwrap() == "log")
    {
        for position in (4096 + 200..bytes.len() as u64).step_by(8192) {
            let damaged = disk.image().to_disk();
            damaged.corrupt(path, position, 1).unwrap();
            damaged.crash(CrashPolicy::DropAll);
            let (summary, _) = look(&damaged);
            let found = Sim::new(1).with_disk(&damaged).run(recover).recovered;
            if let Some(damage) = found.damage {
                let Verdict::Damaged {
                    below, position, ..
                } = summary.verdict
                else {
                    panic!("{:?} where {damage:?}", summary.verdict);
                };
                assert_eq!((below, position), (damage.below, damage.position));
                cases += 1;
            }
        }
    }
    assert!(cases > 5, "only {cases} cases");
}

#[test]
fn a_torn_tail_is_no_damage() {
    let (mut torn, mut journaled) = (0, 0);
    for (cut, life) in (10..80).flat_map(|cut| [(cut, 1), (cut, 2)]) {
        let disk = disk();
        disk.cut_after(cut);
        let workload = Workload {
            // One life with a journal, and one without.
            seed: cut * 3 + life,
            steps: 20,
            durability: Durability::Flushed,
            epoch: LeaderEpoch(0),
        };
        let shared = Shared::default();
        Sim::new(cut)
            .with_disk(&disk)
            .run_until_cut(|io| workload.run(io, shared));
        disk.crash(CrashPolicy::Random { seed: cut });
        let copy = disk.image().to_disk();
        copy.crash(CrashPolicy::DropAll);
        let found = Sim::new(1).with_disk(&copy).run(recover).recovered;
        if found.log_end == Offset::ZERO {
            continue;
        }
        let cut = format!("{cut} in life {life}");
        let (summary, _) = look(&disk);
        torn += u32::from(matches!(summary.verdict, Verdict::TornTail { .. }));
        journaled += u32::from(summary.journal_batch_count > 0);
        assert!(
            !matches!(summary.verdict, Verdict::Damaged { .. }),
            "cut {cut}"
        );
        assert_eq!(summary.log_end, found.log_end, "cut {cut}");
        let (after, _) = look(&copy);
        assert_eq!(after.verdict, Verdict::Good, "cut {cut}");
    }
    assert!(torn > 5, "only {torn} torn tails");
    assert!(journaled > 10, "only {journaled} with a journal");
}
