//! The power goes before every single write, flush and change of a name while a log is compacted. Each
//! segment is then the old one or the new one, and the last record of every key is there.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use millstream::{
    io::{
        Clock, Random,
        sim::{CrashPolicy, Sim, SimDisk, SimIo},
    },
    storage::{CompactionOptions, Log, LogError, LogOptions, Pace},
};
use millstream_protocol::{
    LeaderEpoch, Offset, ProducerEpoch, ProducerId,
    batch::{BatchBuilder, BatchHeader, Batches, Compression, DecodedBatch, NO_HEADERS, place},
};

use crate::{
    cuts::{check_each, crashes_of, policies},
    oracle::{
        Batch, Shared, append, disk, open, read_all, snapshot, storage_with_journal, try_open,
    },
};

const KEYS: u64 = 12;
const SEEDS: u64 = 2;

fn options() -> LogOptions {
    LogOptions {
        segment_size: 64 << 10,
        ..LogOptions::default()
    }
}

/// Offset, key and value of each record.
pub type Records = Vec<(i64, Vec<u8>, Option<Vec<u8>>)>;

pub fn records_of(bytes: &[u8]) -> Records {
    let mut records = Vec::new();
    for batch in Batches::checked(bytes) {
        let (_, batch) = batch.expect("a batch");
        let opened = DecodedBatch::open(batch).expect("a batch");
        for record in opened.records() {
            let record = record.expect("a record");
            let key = record.key.expect("a key").to_vec();
            records.push((record.offset.0, key, record.value.map(<[u8]>::to_vec)));
        }
    }
    records
}

pub fn random_batch(base: Offset, epoch: i32, random: &mut Random) -> Batch {
    let mut builder = BatchBuilder::new();
    for _ in 0..=random.below(3) {
        let key = random.below(KEYS).to_le_bytes();
        let size = usize::try_from(random.below(6000)).expect("small");
        let value: Vec<u8> = (0..size)
            .map(|_| random.next_u64().to_le_bytes()[0])
            .collect();
        let value = (random.below(6) > 0).then_some(&value[..]);
        let pushed = builder.push(base.0, Some(&key), value, NO_HEADERS);
        pushed.expect("a small record");
    }
    let producer = (ProducerId(1), ProducerEpoch(0), 0);
    let codec = Compression::ALL[usize::try_from(random.below(5)).expect("small")];
    let mut bytes = builder.finish(Some(producer), codec);
    place(&mut bytes, base, LeaderEpoch(epoch));
    let next = BatchHeader::decode(&bytes).expect("a batch").next_offset();
    Batch {
        base,
        next,
        epoch: LeaderEpoch(epoch),
        bytes,
    }
}

/// What the workload tells about itself while it runs.
#[derive(Clone, Default)]
struct Told {
    shared: Shared,
    /// Changes of the disk when the first pass began.
    compacting_from: Rc<std::cell::Cell<u64>>,
    remembered: Rc<std::cell::RefCell<BTreeSet<Offset>>>,
}

/// Fills some segments and compacts them, twice.
async fn workload(io: SimIo, seed: u64, disk: SimDisk, told: Told) -> Result<(), LogError> {
    let storage = storage_with_journal(&io, seed.is_multiple_of(2)).await?;
    let (log, ..) = try_open(&storage, options(), &told.shared).await?;
    let mut random = Random::new(seed);
    let pace = Rc::new(Pace::new(1 << 30));
    for round in 0..2 {
        for count in 0..32 {
            let batch = random_batch(log.log_end(), round, &mut random);
            append(&told.shared, &log, batch)?;
            if count % 4 == 0 {
                // What is appended in one go makes one chunk, and so one segment.
                io.sleep(std::time::Duration::from_millis(5)).await;
            }
        }
        let end = log.log_end();
        log.checkpoint(snapshot(end)).await?;
        io.sleep(std::time::Duration::from_millis(50)).await;
        if round == 0 {
            told.compacting_from.set(disk.operations());
        }
        let bases: Vec<Offset> = {
            let oracle = told.shared.0.borrow();
            oracle.batches.iter().map(|batch| batch.base).collect()
        };
        // A producer that wrote every tenth batch and nothing since.
        let remembered: BTreeSet<Offset> = bases.into_iter().step_by(10).collect();
        told.remembered.borrow_mut().extend(&remembered);
        let options = CompactionOptions {
            delete_retention_ms: i64::MAX,
            memory: [0, 1 << 20][usize::try_from(seed % 2).expect("small")],
            remembered,
            ..CompactionOptions::default()
        };
        while log.compact(options.clone(), &pace).await?.more {}
    }
    let end = log.log_end();
    log.close(snapshot(end)).await
}

/// Runs the workload until `cut` changes were begun, or to its end.
fn run(seed: u64, disk: &SimDisk, cut: Option<u64>) -> Told {
    let told = Told::default();
    if let Some(cut) = cut {
        disk.cut_after(cut);
    }
    let (for_io, for_disk) = (told.clone(), disk.clone());
    Sim::new(seed)
        .with_disk(disk)
        .run_until_cut(|io| async move {
            let _ = workload(io, seed, for_disk, for_io).await;
        });
    told
}

struct Found {
    log_end: Offset,
    bytes: Vec<u8>,
    /// Each closed segment: its offsets, and how far it says that it is clean.
    segments: Vec<(Offset, Offset, Option<Offset>)>,
}

async fn recover(io: SimIo) -> Result<Found, String> {
    let storage = storage_with_journal(&io, true).await;
    let storage = storage.map_err(|error| error.to_string())?;
    let (log, recovered, _) = open(&storage, options(), &Shared::default()).await;
    if let Some(damage) = recovered.damage {
        return Err(format!("damage where there is none: {damage:?}"));
    }
    let bytes = read_all(&log, recovered.log_start, recovered.log_end).await;
    let known = log.know_compaction().await;
    known.map_err(|error| error.to_string())?;
    let segments = closed(&log);
    Ok(Found {
        log_end: recovered.log_end,
        bytes: bytes.map_err(|error| error.to_string())?,
        segments,
    })
}

fn closed(log: &Log<SimIo>) -> Vec<(Offset, Offset, Option<Offset>)> {
    let mut segments = log.stats().segments;
    segments.pop();
    let segments = segments.into_iter().map(|it| {
        let clean_end = it.compaction.map(|mark| mark.clean_end);
        (it.base_offset, it.next_offset, clean_end)
    });
    segments.collect()
}

/// What is wrong with a recovered log, if anything.
fn verdict(told: &Told, found: &Found) -> Result<(), String> {
    let oracle = told.shared.0.borrow();
    if found.log_end < oracle.acknowledged {
        return Err(format!(
            "ends at {}, acknowledged {}",
            found.log_end, oracle.acknowledged
        ));
    }
    let kept = oracle.batches.iter().filter(|it| it.next <= found.log_end);
    let appended: Records = kept.flat_map(|batch| records_of(&batch.bytes)).collect();
    let present = records_of(&found.bytes);
    if !present.is_sorted_by(|a, b| a.0 < b.0) {
        return Err("the order is another".to_owned());
    }
    let appended_at: BTreeMap<i64, _> = appended.iter().map(|it| (it.0, it)).collect();
    if let Some(other) = present.iter().find(|it| appended_at.get(&it.0) != Some(it)) {
        return Err(format!("offset {} is another record", other.0));
    }
    let present_at: BTreeSet<i64> = present.iter().map(|it| it.0).collect();
    let last: BTreeMap<&Vec<u8>, i64> = appended.iter().map(|it| (&it.1, it.0)).collect();
    if let Some(lost) = last.values().find(|offset| !present_at.contains(offset)) {
        return Err(format!("offset {lost}, the last of its key, is lost"));
    }
    for (base, next, clean_end) in &found.segments {
        let within = |offset: i64| base.0 <= offset && offset < next.0;
        let superseded = |it: &(i64, Vec<u8>, Option<Vec<u8>>), below: Offset| {
            let later = appended
                .iter()
                .filter(|other| other.0 > it.0 && other.0 < below.0);
            later.into_iter().any(|other| other.1 == it.1)
        };
        let wrong = match clean_end {
            None => appended
                .iter()
                .find(|it| within(it.0) && !present_at.contains(&it.0)),
            Some(clean_end) => present
                .iter()
                .find(|it| within(it.0) && superseded(it, *clean_end)),
        };
        if let Some(wrong) = wrong {
            let offset = wrong.0;
            return Err(format!(
                "segment {base}, clean to {clean_end:?}: offset {offset}"
            ));
        }
    }
    let batches = Batches::checked(&found.bytes).map(|batch| batch.expect("a batch").0);
    let bases: BTreeSet<Offset> = batches.map(|header| header.base_offset).collect();
    let remembered = told.remembered.borrow();
    match remembered
        .iter()
        .find(|base| **base < found.log_end && !bases.contains(base))
    {
        Some(gone) => Err(format!("the remembered batch at {gone} is gone")),
        None => Ok(()),
    }
}

fn check(seed: u64, disk: &SimDisk, policy: CrashPolicy, told: &Told) -> Result<(), String> {
    let disk = disk.image().to_disk();
    disk.crash(policy);
    let first = Sim::new(seed ^ 7).with_disk(&disk).run(recover)?;
    verdict(told, &first)?;
    disk.crash(CrashPolicy::DropAll);
    let second = Sim::new(seed ^ 7).with_disk(&disk).run(recover)?;
    if (first.log_end, first.bytes) != (second.log_end, second.bytes) {
        return Err("a second recovery found another log".to_owned());
    }
    Ok(())
}

fn every_cut(seed: u64, ignore_flushes: bool) -> Result<u64, String> {
    let whole = disk();
    let before = whole.operations();
    let told = run(seed, &whole, None);
    let found = Sim::new(seed).with_disk(&whole).run(recover)?;
    verdict(&told, &found)?;
    let marked = found.segments.iter().filter(|it| it.2.is_some()).count();
    assert!(
        marked > 3,
        "the passes had something to do: {marked} segments"
    );
    let changes = told.compacting_from.get() - before..=whole.operations() - before;
    let mut cases = 0;
    for cut in changes {
        let disk = disk();
        disk.ignore_flushes(ignore_flushes);
        let told = run(seed, &disk, Some(cut));
        let check = |policy| check(seed, &disk, policy, &told);
        cases += check_each(seed, cut, policies(seed, cut, 1), check)?;
    }
    Ok(cases)
}

#[test]
fn every_cut_of_a_compaction_leaves_the_old_segment_or_the_new() {
    let cases = crashes_of(SEEDS, |seed| every_cut(seed, false));
    assert!(cases > 300, "only {cases} cases");
}

#[test]
fn without_flushes_the_test_fails() {
    let problems = (0..SEEDS).filter(|seed| every_cut(*seed, true).is_err());
    assert_eq!(problems.count() as u64, SEEDS);
}
