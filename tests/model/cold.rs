//! A reader that goes through a log from its beginning, with nothing in memory.

use std::time::Duration;

use futures_util::future::join_all;
use millstream::{
    io::{
        Clock,
        sim::{DiskTimes, Operation, Sim, SimIo},
    },
    storage::{Log, LogOptions},
};
use millstream_protocol::{LeaderEpoch, Offset};

use crate::oracle::{
    Shared, append, batch, disk, open, read_all, snapshot, storage_with_cache as storage,
};

const BATCHES: usize = 1200;
/// Bytes.
const CACHE: usize = 512 << 20;
const READ_TIME: Duration = Duration::from_millis(10);

fn large_segments() -> LogOptions {
    LogOptions {
        segment_size: 128 << 20,
        ..LogOptions::default()
    }
}

fn small_segments() -> LogOptions {
    LogOptions {
        segment_size: 16 << 20,
        ..LogOptions::default()
    }
}

/// Bytes written.
async fn fill(io: SimIo, options: LogOptions, shared: Shared) -> u64 {
    let (log, _, _) = open(&storage(&io, CACHE), options, &shared).await;
    let mut size = 0;
    for salt in 0..BATCHES {
        let batch = batch(log.log_end(), LeaderEpoch(0), 1, 60_000, salt as u64);
        size += batch.bytes.len() as u64;
        append(&shared, &log, batch).expect("an append");
        if salt % 50 == 49 {
            io.sleep(Duration::from_millis(200)).await;
        }
    }
    log.close(snapshot(log.log_end())).await.expect("a stop");
    size
}

fn slow_reads() -> DiskTimes {
    DiskTimes {
        transfer: (READ_TIME, READ_TIME),
        ..DiskTimes::default()
    }
}

/// One reader for each of these offsets, all at once; each reads one batch.
async fn read_at_once(log: &Log<SimIo>, offsets: impl Iterator<Item = i64>) {
    let reads = offsets.map(|at| async move {
        let slices = log.read(Offset(at), log.log_end(), 1).await;
        assert_eq!(slices.expect("a read").len(), 1);
    });
    join_all(reads).await;
}

#[test]
fn reads_at_once_take_no_more_memory_than_there_is_for_them() {
    const READERS: u32 = 60;
    let disk = disk();
    let mut sim = Sim::new(8).with_disk(&disk);
    sim.run(|io| fill(io, large_segments(), Shared::default()));
    disk.set_times(slow_reads());
    for (cache, at_once) in [(16 << 20, 8), (CACHE, READERS)] {
        sim.run(|io| async move {
            let storage = storage(&io, cache);
            let (log, _, _) = open(&storage, large_segments(), &Shared::default()).await;
            read_at_once(&log, 1100..1101).await;
            let began = io.now();
            // A megabyte from each to the next, which is what a first read takes.
            read_at_once(&log, (0..READERS).map(|number| i64::from(number * 18))).await;
            let took = io.now().since(began);
            let least = READ_TIME * (READERS / at_once);
            assert!(took >= least, "{cache}: {READERS} reads in {took:?}");
            assert!(took < least * 4, "{cache}: {READERS} reads took {took:?}");
        });
    }
}

#[test]
fn readers_of_one_segment_load_its_index_once() {
    let disk = disk();
    let mut sim = Sim::new(9).with_disk(&disk);
    sim.run(|io| fill(io, small_segments(), Shared::default()));
    disk.set_times(slow_reads());
    sim.run(|io| async move {
        let storage = storage(&io, CACHE);
        let (log, _, _) = open(&storage, small_segments(), &Shared::default()).await;
        let opened = disk.count(Operation::Read);
        read_at_once(&log, (1..=200).step_by(4)).await;
        let reads = disk.count(Operation::Read) - opened;
        assert!((5..30).contains(&reads), "{reads} reads for 50 readers");
    });
}

#[test]
fn reads_of_a_reader_in_order_run_side_by_side_and_read_nothing_twice() {
    let disk = disk();
    let mut sim = Sim::new(7).with_disk(&disk);
    let size = sim.run(|io| fill(io, large_segments(), Shared::default()));
    disk.set_times(slow_reads());
    sim.run(|io| async move {
        let storage = storage(&io, CACHE);
        let (log, _, _) = open(&storage, large_segments(), &Shared::default()).await;
        let began = io.now();
        let opened = disk.count(Operation::Read);
        let bytes = read_all(&log, Offset::ZERO, log.log_end())
            .await
            .expect("a read");
        assert_eq!(bytes.len() as u64, size);
        let reads = u32::try_from(disk.count(Operation::Read) - opened).expect("few");
        let took = io.now().since(began);
        assert!(reads > 16, "{reads} reads");
        assert!(took < READ_TIME * reads / 2, "{reads} reads took {took:?}");
        let read = storage.counters().read_bytes;
        assert!(read < size + size / 20, "{read} bytes read for {size}");
    });
}
