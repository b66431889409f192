//! Operations that fail: nothing is acknowledged after one, and nothing acknowledged is lost.

use std::time::Duration;

use millstream::{
    io::{
        Clock,
        sim::{CrashPolicy, Errno, Fault, Operation, Sim},
    },
    storage::{Durability, LogError},
};
use millstream_protocol::LeaderEpoch;

use crate::{
    oracle::{Shared, batch, disk, open, options, recover, storage},
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
                one_failure(seed, operation, nth);
                cases += 1;
            }
        }
    }
    println!("{cases} failures");
    assert!(cases > 400, "only {cases} cases");
}

fn one_failure(seed: u64, operation: Operation, nth: u64) {
    let disk = disk();
    disk.fail(Fault::nth(operation, nth, Errno::Io));
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
            panic!("seed {seed}, {operation:?} {nth} fails, {policy:?}: {problem}");
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
