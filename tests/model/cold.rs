//! A reader that goes through a log from its beginning, with nothing in memory.

use std::time::Duration;

use millstream::{
    io::{
        Clock,
        sim::{DiskTimes, Operation, Sim, SimIo},
    },
    storage::LogOptions,
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

/// Bytes written.
async fn fill(io: SimIo, shared: Shared) -> u64 {
    let (log, _, _) = open(&storage(&io, CACHE), large_segments(), &shared).await;
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

#[test]
fn reads_of_a_reader_in_order_run_side_by_side_and_read_nothing_twice() {
    let disk = disk();
    let mut sim = Sim::new(7).with_disk(&disk);
    let size = sim.run(|io| fill(io, Shared::default()));
    let within = |time| (time, time);
    disk.set_times(DiskTimes {
        transfer: within(READ_TIME),
        ..DiskTimes::default()
    });
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
