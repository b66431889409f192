//! Segments that go while somebody is about to read them, at every moment of it.

use std::{path::PathBuf, rc::Rc, time::Duration};

use futures_util::future::join;
use millstream::{
    io::{
        Clock, Disk,
        sim::{DiskTimes, Sim, SimDisk, SimIo},
    },
    storage::{Log, ReadError, ShardStorage},
};
use millstream_protocol::{LeaderEpoch, Offset};

use crate::oracle::{
    Opened, Shared, append, batch, disk, id, open, options, snapshot, storage_with_cache,
};

/// Time of every operation on the disk.
const STEP: Duration = Duration::from_millis(10);

fn dir() -> PathBuf {
    let (topic, partition) = (id().topic.to_string(), id().partition.to_string());
    ["/data", "topics", &topic, &partition].iter().collect()
}

fn times(metadata: Duration) -> DiskTimes {
    DiskTimes {
        transfer: (STEP, STEP),
        flush: (STEP, STEP),
        metadata: (metadata, metadata),
    }
}

/// Reads a record at `wanted`, whose file takes its time to open, and does `change` meanwhile.
async fn read_during<T>(
    (io, disk): (&SimIo, &SimDisk),
    log: &Log<SimIo>,
    wanted: Offset,
    opens_in: Duration,
    change: impl Future<Output = T>,
) -> (Result<(), ReadError>, T) {
    disk.set_times(times(opens_in));
    let read = log.read(wanted, log.log_end(), 1);
    let change = async {
        // The file is being opened.
        io.sleep(Duration::from_millis(1)).await;
        disk.set_times(times(STEP));
        change.await
    };
    let (read, changed) = join(read, change).await;
    (read.map(drop), changed)
}

/// Half a step, so that what is tried never ends at the same moment as something else.
fn moment(number: usize) -> Duration {
    STEP * u32::try_from(number).expect("few") + STEP / 2
}

/// Segments of a few batches each, and a checkpoint beyond them all.
async fn fill(io: SimIo) {
    let shared = Shared::default();
    let (log, _, _) = open(&storage_with_cache(&io, 0), options(), &shared).await;
    for salt in 0..400 {
        let batch = batch(log.log_end(), LeaderEpoch(0), 1, 30_000, salt);
        append(&shared, &log, batch).expect("an append");
        io.sleep(Duration::from_millis(3)).await;
    }
    log.close(snapshot(log.log_end())).await.expect("a stop");
}

async fn indexes(io: &SimIo) -> Vec<PathBuf> {
    let files = io.read_dir(&dir()).await.expect("a directory");
    let is_index = |path: &PathBuf| path.extension().is_some_and(|it| it == "index");
    files.into_iter().filter(is_index).collect()
}

/// Nothing is in memory, and nobody wrote an index.
async fn open_cold(io: &SimIo, storage: &Rc<ShardStorage<SimIo>>) -> Opened {
    for index in indexes(io).await {
        io.remove_file(&index).await.expect("a file");
    }
    open(storage, options(), &Shared::default()).await
}

#[test]
fn a_trimmed_segment_leaves_neither_descriptor_nor_index() {
    let disk = disk();
    let mut sim = Sim::new(3).with_disk(&disk);
    sim.run(fill);
    sim.run(|io| async move {
        let storage = storage_with_cache(&io, 0);
        let (log, _, _) = open_cold(&io, &storage).await;
        let segments = log.stats().segments;
        assert!(segments.len() > 120, "{} segments", segments.len());
        // Every other one is read: nobody takes that for a reader in order.
        for (at, pair) in segments.chunks(2).take(60).enumerate() {
            let segment = pair[0];
            let before = storage.counters().open_files;
            // The first record needs no index, the second does.
            let wanted = Offset(segment.base_offset.0 + i64::from(at % 2 == 1));
            let trim = log.set_log_start(pair[1].next_offset);
            let (read, trimmed) =
                read_during((&io, &disk), &log, wanted, moment(at / 2), trim).await;
            trimmed.expect("a trim");
            let fine = matches!(&read, Ok(()) | Err(ReadError::OutOfRange { .. }));
            assert!(fine, "{at}: {read:?}");
            // An index that was begun is done by now.
            io.sleep(STEP * 10).await;
            assert_eq!(storage.counters().open_files, before, "{at}");
            let left = indexes(&io).await;
            let name = format!("{:020}.index", segment.base_offset.0);
            assert!(
                left.iter().all(|path| !path.ends_with(&name)),
                "{at}: {left:?}"
            );
        }
    });
}

#[test]
fn who_reads_a_log_that_is_removed_hears_that_it_is_closed() {
    for number in 0..20 {
        let disk = disk();
        let mut sim = Sim::new(4).with_disk(&disk);
        sim.run(fill);
        sim.run(|io| async move {
            let (log, _, _) = open_cold(&io, &storage_with_cache(&io, 0)).await;
            let wanted = Offset(number % 2);
            let opens_in = moment(usize::try_from(number / 2).expect("few"));
            let (read, removed) =
                read_during((&io, &disk), &log, wanted, opens_in, log.remove()).await;
            removed.expect("a removal");
            let fine = matches!(&read, Ok(()) | Err(ReadError::Closed));
            assert!(fine, "{number}: {read:?}");
            let gone = io.read_dir(&dir()).await.is_err();
            assert!(gone, "{number}: the directory is still there");
        });
    }
}
