//! Operations that fail: nothing is acknowledged after one, and nothing acknowledged is lost.

use std::time::Duration;

use millstream::{
    io::{
        Clock, Disk,
        sim::{CrashPolicy, Errno, Fault, Operation, Sim, SimIo},
    },
    storage::{Durability, Log, LogError},
};
use millstream_protocol::{LeaderEpoch, Offset};

use crate::{
    oracle::{Shared, append, batch, disk, open, options, recover, snapshot, storage},
    workload::Workload,
};

const ALL: [Operation; 10] = [
    Operation::Open,
    Operation::Create,
    Operation::Read,
    Operation::Write,
    Operation::SyncData,
    Operation::Allocate,
    Operation::Truncate,
    Operation::Remove,
    Operation::CreateDir,
    Operation::SyncDir,
];

fn workload(seed: u64) -> Workload {
    Workload {
        seed,
        steps: 26,
        durability: Durability::Flushed,
        epoch: LeaderEpoch(0),
    }
}

#[test]
fn every_operation_may_fail_once() {
    let mut cases = 0;
    for seed in 0..4 {
        let whole = disk();
        let before = ALL.map(|operation| whole.count(operation));
        let shared = Shared::default();
        Sim::new(seed)
            .with_disk(&whole)
            .run(|io| workload(seed).run(io, shared));
        for (operation, before) in ALL.into_iter().zip(before) {
            for nth in 1..=whole.count(operation) - before {
                one_failure(seed, operation, nth, Errno::Io);
                cases += 1;
                if operation == Operation::Allocate {
                    one_failure(seed, operation, nth, Errno::NoSpace);
                }
            }
        }
    }
    println!("{cases} failures");
    assert!(cases > 400, "only {cases} cases");
}

fn one_failure(seed: u64, operation: Operation, nth: u64, errno: Errno) {
    let disk = disk();
    disk.fail(Fault::nth(operation, nth, errno));
    let shared = Shared::default();
    let listener = shared.clone();
    Sim::new(seed)
        .with_disk(&disk)
        .run(|io| workload(seed).run(io, listener));
    for policy in [
        CrashPolicy::DropAll,
        CrashPolicy::KeepAll,
        CrashPolicy::Random { seed: nth },
    ] {
        let disk = disk.image().to_disk();
        disk.crash(policy);
        let found = Sim::new(seed).with_disk(&disk).run(recover);
        if let Err(problem) = shared.0.borrow().verdict(&found) {
            panic!("seed {seed}, {operation:?} {nth}: {errno:?}, {policy:?}: {problem}");
        }
    }
}

#[test]
fn a_full_disk_refuses_and_heals() {
    let disk = disk();
    disk.set_capacity(1 << 20);
    let shared = Shared::default();
    let listener = shared.clone();
    Sim::new(1).with_disk(&disk).run(|io| async move {
        let (log, _, _) = open(&storage(&io), options(), &listener).await;
        let mut refused = false;
        for round in 0..200 {
            let base = log.log_end();
            let batch = batch(base, LeaderEpoch(0), 1, 30_000, round);
            listener.0.borrow_mut().batches.push(batch.clone());
            match log.append(&batch.bytes, base, batch.next, batch.epoch, 0, 1) {
                Ok(()) => {}
                Err(LogError::DiskFull { .. }) => {
                    listener.0.borrow_mut().batches.pop();
                    refused = true;
                    break;
                }
                Err(error) => panic!("{error}"),
            }
            io.sleep(Duration::from_millis(2)).await;
        }
        assert!(refused, "a full disk refuses");
        assert!(!listener.0.borrow().failed, "and is no failure");
        {
            // What waited for space was refused as well, and nothing waits any more.
            let oracle = listener.0.borrow();
            assert!(oracle.refused > 0);
            assert_eq!(oracle.acknowledged, log.log_end());
            assert_eq!(log.stats().unflushed_bytes, 0);
        }
        io.sim_disk().set_capacity(1 << 30);
        io.sleep(Duration::from_secs(2)).await;
        assert_eq!(listener.0.borrow().acknowledged, log.log_end());
        let base = log.log_end();
        let more = batch(base, LeaderEpoch(0), 1, 30_000, 1);
        listener.0.borrow_mut().batches.push(more.clone());
        log.append(&more.bytes, base, more.next, more.epoch, 0, 1)
            .expect("there is space again");
        io.sleep(Duration::from_secs(2)).await;
        assert_eq!(listener.0.borrow().acknowledged, log.log_end());
    });
    disk.crash(CrashPolicy::DropAll);
    let found = Sim::new(2).with_disk(&disk).run(recover);
    assert_eq!(shared.0.borrow().verdict(&found), Ok(()));
}

#[test]
fn after_a_failed_flush_nothing_is_acknowledged() {
    let disk = disk();
    let listener = Shared::default();
    Sim::new(1).with_disk(&disk).run(|io| async move {
        let (log, _, _) = open(&storage(&io), options(), &listener).await;
        let append = |round| {
            let base = log.log_end();
            let batch = batch(base, LeaderEpoch(0), 1, 3_000, round);
            listener.0.borrow_mut().batches.push(batch.clone());
            log.append(&batch.bytes, base, batch.next, batch.epoch, 0, 1)
        };
        append(1).unwrap();
        io.sleep(Duration::from_millis(50)).await;
        let acknowledged = listener.0.borrow().acknowledged;
        assert_eq!(acknowledged, log.log_end());
        let fault = Fault::nth(Operation::SyncData, 1, Errno::Io).on(".log");
        io.sim_disk().fail(fault);
        append(2).unwrap();
        io.sleep(Duration::from_millis(50)).await;
        assert!(listener.0.borrow().failed);
        assert!(matches!(append(3), Err(LogError::Failed { .. })));
        io.sleep(Duration::from_secs(1)).await;
        assert_eq!(listener.0.borrow().acknowledged, acknowledged);
        assert!(log.close(Vec::new()).await.is_err());
        assert_eq!(log.stats().unflushed_bytes, 0);
    });
}

#[test]
fn a_lack_of_descriptors_passes() {
    let disk = disk();
    let listener = Shared::default();
    Sim::new(1).with_disk(&disk).run(|io| async move {
        let (log, _, _) = open(&storage(&io), options(), &listener).await;
        let lack = Fault::always(Operation::Create, Errno::TooManyFiles).on(".log");
        io.sim_disk().fail(lack);
        let base = log.log_end();
        append(&listener, &log, batch(base, LeaderEpoch(0), 1, 3_000, 1)).unwrap();
        io.sleep(Duration::from_secs(1)).await;
        assert!(
            !listener.0.borrow().failed,
            "no descriptor is no failed write"
        );
        assert_eq!(
            listener.0.borrow().acknowledged,
            base,
            "and no acknowledgement"
        );
        io.sim_disk().heal();
        io.sleep(Duration::from_secs(1)).await;
        assert_eq!(listener.0.borrow().acknowledged, log.log_end());
        assert!(log.log_end() > base);
    });
}

/// Appends until the disk refuses.
async fn fill(log: &Log<SimIo>, io: &SimIo, listener: &Shared) {
    for round in 0..200 {
        let base = log.log_end();
        match append(listener, log, batch(base, LeaderEpoch(0), 1, 30_000, round)) {
            Ok(()) => io.sleep(Duration::from_millis(2)).await,
            Err(LogError::DiskFull { .. }) => return,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("a full disk refuses");
}

#[test]
fn a_log_closes_on_a_full_disk() {
    let disk = disk();
    disk.set_capacity(1 << 20);
    let shared = Shared::default();
    let listener = shared.clone();
    Sim::new(1).with_disk(&disk).run(|io| async move {
        let (log, _, _) = open(&storage(&io), options(), &listener).await;
        fill(&log, &io, &listener).await;
        let closed = log.close(Vec::new()).await;
        assert!(
            matches!(closed, Err(LogError::DiskFull { .. })),
            "{closed:?}"
        );
    });
    disk.set_capacity(1 << 30);
    let found = Sim::new(2).with_disk(&disk).run(recover);
    assert_eq!(shared.0.borrow().verdict(&found), Ok(()));
}

#[test]
fn a_trim_makes_room_on_a_full_disk() {
    let disk = disk();
    let shared = Shared::default();
    let listener = shared.clone();
    Sim::new(1).with_disk(&disk).run(|io| async move {
        let (log, _, _) = open(&storage(&io), options(), &listener).await;
        append(
            &listener,
            &log,
            batch(log.log_end(), LeaderEpoch(0), 1, 30_000, 1),
        )
        .unwrap();
        log.checkpoint(snapshot(log.log_end())).await.unwrap();
        for round in 0..12 {
            let base = log.log_end();
            append(
                &listener,
                &log,
                batch(base, LeaderEpoch(0), 1, 30_000, round),
            )
            .unwrap();
            io.sleep(Duration::from_millis(2)).await;
        }
        log.checkpoint(snapshot(log.log_end())).await.unwrap();
        let space = io.space("/data".as_ref()).await.unwrap();
        io.sim_disk().set_capacity(space.total - space.free);
        fill(&log, &io, &listener).await;
        let to = listener.0.borrow().acknowledged;
        listener.0.borrow_mut().log_start_asked = to;
        log.set_log_start(to).await.expect("a trim needs no room");
        listener.0.borrow_mut().log_start = to;
        io.sleep(Duration::from_secs(2)).await;
        assert_eq!(listener.0.borrow().acknowledged, log.log_end());
        let base = log.log_end();
        append(&listener, &log, batch(base, LeaderEpoch(0), 1, 3_000, 1))
            .expect("there is space again");
        io.sleep(Duration::from_secs(2)).await;
    });
    disk.crash(CrashPolicy::DropAll);
    let found = Sim::new(2).with_disk(&disk).run(recover);
    assert_eq!(shared.0.borrow().verdict(&found), Ok(()));
}

/// The timer that seals an idle log runs out while the log is being cut.
#[test]
fn a_seal_waits_for_a_truncation() {
    for idle_us in (97_000..101_000).step_by(50) {
        let disk = disk();
        let shared = Shared::default();
        let listener = shared.clone();
        Sim::new(1).with_disk(&disk).run(|io| async move {
            let (log, _, _) = open(&storage(&io), options(), &listener).await;
            for round in 0..4 {
                let base = log.log_end();
                append(
                    &listener,
                    &log,
                    batch(base, LeaderEpoch(0), 1, 3_000, round),
                )
                .unwrap();
            }
            io.sleep(Duration::from_micros(idle_us)).await;
            listener.0.borrow_mut().cutting = Some(Offset(2));
            log.truncate(Offset(2)).await.unwrap();
            let oracle = &mut *listener.0.borrow_mut();
            oracle.batches.truncate(2);
            oracle.acknowledged = Offset(2);
        });
        disk.crash(CrashPolicy::DropAll);
        let found = Sim::new(2).with_disk(&disk).run(recover);
        assert_eq!(shared.0.borrow().verdict(&found), Ok(()));
    }
}

/// Only one of the two checkpoints that a truncation writes has room.
#[test]
fn a_truncation_that_is_half_durable_lets_nothing_follow() {
    for slot in ["checkpoint.0", "checkpoint.1"] {
        let disk = disk();
        let shared = Shared::default();
        let listener = shared.clone();
        Sim::new(1).with_disk(&disk).run(|io| async move {
            let (log, _, _) = open(&storage(&io), options(), &listener).await;
            for round in 0..4 {
                let base = log.log_end();
                append(
                    &listener,
                    &log,
                    batch(base, LeaderEpoch(0), 1, 3_000, round),
                )
                .unwrap();
            }
            log.checkpoint(snapshot(log.log_end())).await.unwrap();
            io.sim_disk()
                .fail(Fault::nth(Operation::Allocate, 1, Errno::NoSpace).on(slot));
            listener.0.borrow_mut().cutting = Some(Offset(2));
            let cut = log.truncate(Offset(2)).await;
            assert!(matches!(cut, Err(LogError::DiskFull { .. })), "{cut:?}");
            let more = batch(log.log_end(), LeaderEpoch(0), 1, 3_000, 9);
            if append(&listener, &log, more).is_ok() {
                listener.0.borrow_mut().cutting = None;
                io.sleep(Duration::from_secs(1)).await;
                assert_eq!(listener.0.borrow().acknowledged, log.log_end());
            }
        });
        disk.crash(CrashPolicy::DropAll);
        let found = Sim::new(2).with_disk(&disk).run(recover);
        assert_eq!(shared.0.borrow().verdict(&found), Ok(()), "{slot}");
    }
}
