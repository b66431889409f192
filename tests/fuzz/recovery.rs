//! A data directory on which a bad disk changed, lost, moved or cut what it likes: segments, indexes, checkpoints,
//! journals. Whatever is found of it, nothing is served that was not appended, and a second start finds what
//! the first one left.

use std::{collections::BTreeMap, path::PathBuf, rc::Rc, time::Duration};

use millstream::{
    io::{
        Buffer as _, Clock as _, Disk, DiskFile as _, OpenMode,
        sim::{CrashPolicy, DiskImage, Sim, SimDisk, SimIo},
    },
    storage::ReadError,
};
use millstream_protocol::{LeaderEpoch, Offset, batch::Batches};

use crate::{
    Edits, TIME, Tally, cases,
    oracle::{Shared, append, batch, disk, options, snapshot, storage_with_journal, try_open},
};

static TALLY: Tally = Tally::new();
const BLOCK: usize = 4096;

/// An image, its files, and every batch in it by its first offset.
struct Sample {
    image: DiskImage,
    files: Vec<(PathBuf, usize)>,
    batches: BTreeMap<Offset, Vec<u8>>,
}

thread_local! {
    static SAMPLE: Rc<Sample> = Rc::new(written());
}

fn written() -> Sample {
    let disk = disk();
    let shared = Shared::default();
    let listener = shared.clone();
    Sim::new(5).with_disk(&disk).run(|io| async move {
        let storage = storage_with_journal(&io, true).await.unwrap();
        let (log, ..) = try_open(&storage, options(), &listener).await.unwrap();
        for round in 0..14_u32 {
            let size = [300, 40_000, 2_000][round as usize % 3];
            let next = batch(log.log_end(), LeaderEpoch(0), 2, size, round.into());
            append(&listener, &log, next).unwrap();
            io.sleep(Duration::from_millis(4)).await;
            if round == 6 {
                log.checkpoint(snapshot(log.durable_end())).await.unwrap();
            }
        }
    });
    disk.crash(CrashPolicy::KeepAll);
    let files = Sim::new(1).with_disk(&disk).run(|io| async move {
        let mut files = Vec::new();
        for dir in dirs() {
            for path in io.read_dir(&dir).await.unwrap() {
                let file = io.open(&path, OpenMode::Read).await.unwrap();
                let size = usize::try_from(file.size().await.unwrap()).unwrap();
                files.push((path, size));
            }
        }
        files
    });
    let batches = &shared.0.borrow().batches;
    Sample {
        image: disk.image(),
        files,
        batches: batches
            .iter()
            .map(|it| (it.base, it.bytes.clone()))
            .collect(),
    }
}

fn dirs() -> [PathBuf; 2] {
    let id = crate::oracle::id();
    let log = format!("/data/topics/{}/{}", id.topic, id.partition);
    [log.into(), "/data/journal".into()]
}

/// Does to the disk what the input says.
fn damage(disk: &SimDisk, sample: &Sample, input: &[u8]) {
    let edits: Vec<(u8, usize, u8)> = Edits(input).within(1 << 24).take(8).collect();
    let files = sample.files.clone();
    let of_run = disk.clone();
    Sim::new(1).with_disk(disk).run(|io| async move {
        for (how, place, value) in edits {
            let (path, size) = &files[usize::from(value) % files.len()];
            let place = place % (*size).max(1);
            let _ = one(&io, &of_run, path, (how, place, value)).await;
        }
    });
    disk.crash(CrashPolicy::KeepAll);
}

async fn one(
    io: &SimIo,
    disk: &SimDisk,
    path: &std::path::Path,
    (how, place, value): (u8, usize, u8),
) -> std::io::Result<()> {
    let block = (place / BLOCK * BLOCK) as u64;
    let file = io.open(path, OpenMode::Write).await?;
    match how % 6 {
        0 | 1 => disk.corrupt(path, place as u64, 1 << (value % 8))?,
        2 => {
            let mut zeros = io.buffer(BLOCK);
            zeros.bytes_mut().fill(0);
            file.write_at(Rc::new(zeros), block).await?;
        }
        // What lies at the start of the file, or in its middle, comes there.
        3 | 4 => {
            let from = if how % 6 == 3 {
                BLOCK as u64
            } else {
                block / 2 / 4096 * 4096
            };
            let other = file.read_at(from, BLOCK).await?;
            file.write_at(Rc::new(other), block).await?;
        }
        _ => file.truncate(block).await?,
    }
    file.sync_data().await
}

/// What a start finds: the log's end, whether it is damaged, and the batches that can be read.
type Found = (Offset, bool, Vec<Vec<u8>>);

fn start(disk: &SimDisk) -> Result<Found, String> {
    Sim::new(2).with_disk(disk).run(|io| async move {
        let said = |error: millstream::storage::LogError| error.to_string();
        let storage = storage_with_journal(&io, true).await.map_err(said)?;
        let opened = try_open(&storage, options(), &Shared::default()).await;
        let (log, found, _) = opened.map_err(said)?;
        let mut read = Vec::new();
        let mut at = found.log_start;
        while at < found.log_end {
            match log.read(at, found.log_end, 1).await {
                Ok(slices) if slices.is_empty() => panic!("nothing at {at}"),
                Ok(slices) => {
                    for batch in slices
                        .iter()
                        .flat_map(|slice| Batches::checked(slice.bytes()))
                    {
                        let (header, bytes) = batch.expect("only whole batches are served");
                        at = header.next_offset();
                        read.push(bytes.to_vec());
                    }
                }
                Err(ReadError::Damaged { .. }) => break,
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok((found.log_end, found.damage.is_some(), read))
    })
}

fn target(input: &[u8]) {
    TALLY.case();
    let sample = SAMPLE.with(Rc::clone);
    let disk = sample.image.to_disk();
    disk.crash(CrashPolicy::KeepAll);
    damage(&disk, &sample, input);
    let Ok((end, damaged, read)) = start(&disk) else {
        return;
    };
    TALLY.deep();
    for bytes in &read {
        let (header, _) = Batches::checked(bytes).next().unwrap().unwrap();
        let appended = sample.batches.get(&header.base_offset);
        assert!(
            appended == Some(bytes),
            "offset {} was never appended so",
            header.base_offset
        );
    }
    disk.crash(CrashPolicy::DropAll);
    let again = start(&disk).expect("it opened once");
    assert_eq!((again.0, again.1), (end, damaged), "the second start");
    assert!(again.2 == read, "the second start reads the same");
}

#[test]
fn recovery() {
    assert_eq!(
        start(&{
            let disk = SAMPLE.with(|sample| sample.image.to_disk());
            disk.crash(CrashPolicy::KeepAll);
            disk
        })
        .expect("it opens")
        .2
        .len(),
        14
    );
    let count = cases(1_500);
    bolero::check!(name = "recovery")
        .with_iterations(count)
        .with_test_time(TIME)
        .with_max_len(48)
        .for_each(target);
    TALLY.finish("recovery", count);
}
