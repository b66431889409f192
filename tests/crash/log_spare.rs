//! The segment that is made ahead of the roll, and what is allocated ahead of the writer: used, given back,
//! and never taken for data.

use std::{rc::Rc, time::Duration};

use millstream::{
    io::{
        Clock, TaskClass, Tasks as _,
        sim::{CrashPolicy, Operation, Sim, SimDisk, SimIo},
    },
    storage::Log,
};
use millstream_protocol::LeaderEpoch;

use crate::{
    log_damage::files,
    oracle::{Shared, append, batch, disk, open, options, recover, snapshot, storage},
};

const SPARE: &str = "next.spare";

fn has_spare(disk: &SimDisk) -> bool {
    files(disk).iter().any(|(path, _)| path.ends_with(SPARE))
}

/// Appends one large record, durably, so many times: five fill more than half a segment.
pub async fn write(io: &SimIo, log: &Log<SimIo>, shared: &Shared, count: usize) {
    for _ in 0..count {
        let next = batch(log.log_end(), LeaderEpoch(0), 1, 14_000, 1);
        append(shared, log, next).expect("an append");
        while log.durable_end() < log.log_end() {
            io.sleep(Duration::from_micros(100)).await;
        }
    }
    // Long enough for the next segment to be made.
    io.sleep(Duration::from_millis(50)).await;
}

#[test]
fn a_segment_made_ahead_becomes_the_next_one() {
    let (disk, shared) = (disk(), Shared::default());
    let (seen, listener) = (disk.clone(), shared.clone());
    Sim::new(1).with_disk(&disk).run(|io| async move {
        let (log, _, _) = open(&storage(&io), options(), &listener).await;
        write(&io, &log, &listener, 3).await;
        assert!(!has_spare(&seen));
        write(&io, &log, &listener, 2).await;
        assert!(has_spare(&seen), "half of the segment is full");
        let made = seen.count(Operation::Allocate);
        write(&io, &log, &listener, 4).await;
        assert_eq!(log.stats().segments.len(), 2);
        // The index of the first segment alone.
        let allocated = seen.count(Operation::Allocate);
        assert_eq!(allocated, made + 1, "the spare was taken");
        assert!(!has_spare(&seen));
        write(&io, &log, &listener, 2).await;
        assert!(has_spare(&seen), "the next one");
        log.close(snapshot(log.log_end()))
            .await
            .expect("a clean stop");
        assert!(!has_spare(&seen), "nothing is left of it at a stop");
    });
    let found = Sim::new(2).with_disk(&disk).run(recover);
    shared.0.borrow().verdict(&found).expect("all is there");
}

#[test]
fn a_segment_made_ahead_is_gone_after_a_crash() {
    let disk = disk();
    let shared = Shared::default();
    let listener = shared.clone();
    Sim::new(1).with_disk(&disk).run(|io| async move {
        let (log, _, _) = open(&storage(&io), options(), &listener).await;
        write(&io, &log, &listener, 5).await;
    });
    disk.crash(CrashPolicy::KeepAll);
    assert!(has_spare(&disk));
    let found = Sim::new(2).with_disk(&disk).run(recover);
    shared.0.borrow().verdict(&found).expect("all is there");
    assert!(!has_spare(&disk));
}

#[test]
fn an_idle_log_gives_back_what_was_allocated_ahead() {
    let (disk, shared) = (disk(), Shared::default());
    let (seen, listener) = (disk.clone(), shared.clone());
    Sim::new(1).with_disk(&disk).run(|io| async move {
        let (log, _, _) = open(&storage(&io), options(), &listener).await;
        write(&io, &log, &listener, 5).await;
        log.trim_idle().await;
        assert!(has_spare(&seen), "it was written a moment ago");
        assert_eq!(log.stats().physical_bytes, 2 * (128 << 10));
        io.sleep(Duration::from_secs(600)).await;
        let trimmed = Rc::clone(&log);
        io.spawn(
            TaskClass::Background,
            async move { trimmed.trim_idle().await },
        );
        while has_spare(&seen) {
            io.sleep(Duration::from_nanos(100)).await;
        }
        // An append in the middle of it waits for space, and gets it.
        write(&io, &log, &listener, 1).await;
        io.sleep(Duration::from_secs(600)).await;
        log.trim_idle().await;
        let stats = log.stats();
        assert_eq!(
            stats.physical_bytes, stats.logical_bytes,
            "all it takes is data"
        );
        write(&io, &log, &listener, 1).await;
    });
    disk.crash(CrashPolicy::DropAll);
    let found = Sim::new(2).with_disk(&disk).run(recover);
    shared.0.borrow().verdict(&found).expect("all is there");
}
