//! Space that was prepared in quiet moments: it becomes segments, is given back, and is never taken for data.

use std::{rc::Rc, sync::Arc, time::Duration};

use millstream::{
    io::{
        Clock, Disk as _,
        sim::{CrashPolicy, Operation, Sim, SimDisk, SimIo},
    },
    storage::{ShardStorage, StorageConfig, remove_prepared},
};

use crate::{
    cuts::{check_each, crashes_of, policies},
    log_spare::write,
    oracle::{Shared, config, disk, open, options, recover, snapshot},
};

/// Two segments' worth.
fn storage(io: &SimIo) -> Rc<ShardStorage<SimIo>> {
    let config = StorageConfig {
        prepared_size: 2 * config().prepared_file_size,
        ..config()
    };
    ShardStorage::new(io.clone(), config, Arc::default())
}

fn prepared(disk: &SimDisk) -> usize {
    Sim::new(1).with_disk(disk).run(|io| async move {
        let found = io.read_dir("/data/prepared".as_ref()).await;
        found.unwrap_or_default().len()
    })
}

async fn prepare(io: &SimIo, storage: &Rc<ShardStorage<SimIo>>) {
    storage.prepare_space();
    while storage.counters().prepared_bytes < 2 * config().prepared_file_size {
        io.sleep(Duration::from_micros(100)).await;
    }
}

/// Prepares, then writes three segments, of which two are prepared ones.
async fn workload(io: SimIo, shared: Shared) {
    let storage = storage(&io);
    prepare(&io, &storage).await;
    let (log, _, _) = open(&storage, options(), &shared).await;
    write(&io, &log, &shared, 20).await;
    log.close(snapshot(log.log_end()))
        .await
        .expect("a clean stop");
    storage.close(true).await.expect("no journal");
}

#[test]
fn it_becomes_the_next_segments() {
    let (disk, shared) = (disk(), Shared::default());
    let (seen, listener) = (disk.clone(), shared.clone());
    Sim::new(1).with_disk(&disk).run(|io| async move {
        let storage = storage(&io);
        prepare(&io, &storage).await;
        assert_eq!(prepared(&seen), 2);
        let (log, _, _) = open(&storage, options(), &listener).await;
        write(&io, &log, &listener, 5).await;
        assert_eq!(prepared(&seen), 1, "the spare segment is one of them");
        let allocated = seen.count(Operation::Allocate);
        write(&io, &log, &listener, 8).await;
        assert_eq!(log.stats().segments.len(), 2);
        // The index of the first segment alone.
        assert_eq!(seen.count(Operation::Allocate), allocated + 1);
        assert_eq!(prepared(&seen), 0);
        storage.prepare_space();
        io.sleep(Duration::from_secs(1)).await;
        assert_eq!(prepared(&seen), 0, "it was written a moment ago");
        prepare(&io, &storage).await;
        log.close(snapshot(log.log_end()))
            .await
            .expect("a clean stop");
        storage.close(true).await.expect("no journal");
        assert_eq!(prepared(&seen), 0, "nothing is left of it at a stop");
    });
    let found = Sim::new(2).with_disk(&disk).run(recover);
    shared.0.borrow().verdict(&found).expect("all is there");
}

#[test]
fn a_full_disk_takes_it_back() {
    let (disk, shared) = (disk(), Shared::default());
    let (seen, listener) = (disk.clone(), shared.clone());
    Sim::new(1).with_disk(&disk).run(|io| async move {
        let storage = storage(&io);
        prepare(&io, &storage).await;
        let small = millstream::storage::LogOptions {
            segment_size: 64 << 10,
            ..options()
        };
        let (log, _, _) = open(&storage, small, &listener).await;
        write(&io, &log, &listener, 2).await;
        let space = io.space("/data".as_ref()).await.expect("a disk");
        seen.set_capacity(space.total - space.free + (16 << 10));
        // Segments of that size cannot use it, so it is in the way.
        write(&io, &log, &listener, 9).await;
        assert_eq!(prepared(&seen), 0);
        assert_eq!(storage.counters().prepared_bytes, 0);
    });
    disk.crash(CrashPolicy::DropAll);
    assert_eq!(shared.0.borrow().refused, 0, "there was room all along");
}

/// The power goes before every operation, from the first zeros to the stop.
fn every_cut(seed: u64) -> Result<u64, String> {
    let whole = disk();
    let before = whole.operations();
    Sim::new(seed)
        .with_disk(&whole)
        .run(|io| workload(io, Shared::default()));
    let mut cases = 0;
    for cut in 0..=whole.operations() - before {
        let (disk, shared) = (disk(), Shared::default());
        disk.cut_after(cut);
        Sim::new(seed)
            .with_disk(&disk)
            .run_until_cut(|io| workload(io, shared.clone()));
        cases += check_each(seed, cut, policies(seed, cut, 2), |policy| {
            let disk = disk.image().to_disk();
            disk.crash(policy);
            let found = Sim::new(seed).with_disk(&disk).run(|io| async move {
                let removed = remove_prepared(&io, "/data".as_ref()).await;
                removed.expect("a disk that works");
                recover(io).await
            });
            if prepared(&disk) > 0 {
                return Err("prepared space outlived the start".to_owned());
            }
            shared.0.borrow().verdict(&found)
        })?;
    }
    Ok(cases)
}

#[test]
fn every_cut_of_prepared_space() {
    assert!(crashes_of(2, every_cut) > 500);
}
