//! A segment that was begun before a crash and holds no record: it goes on, and is not made again.

use std::time::Duration;

use millstream::{
    io::{
        Clock,
        sim::{CrashPolicy, Sim, SimDisk, SimIo},
    },
    storage::{Log, LogOptions},
};
use millstream_protocol::{LeaderEpoch, Offset};

use crate::{
    log_damage::files,
    oracle::{Shared, append, batch, disk, open, options, recover, snapshot, storage},
};

/// Too large for what is left of a segment.
const LARGE: usize = 126_000;

fn has_segment(disk: &SimDisk, base: Offset) -> bool {
    let name = format!("{:020}.log", base.0);
    files(disk).iter().any(|(path, _)| path.ends_with(&name))
}

async fn until_durable(io: &SimIo, log: &Log<SimIo>, offset: Offset) {
    while log.durable_end() < offset {
        io.sleep(Duration::from_micros(100)).await;
    }
}

/// What was acknowledged up to `acknowledged` outlives a power cut.
fn check(disk: &SimDisk, acknowledged: Offset, case: u64) {
    disk.crash(CrashPolicy::DropAll);
    let found = Sim::new(4).with_disk(disk).run(recover).recovered;
    assert_eq!(found.damage, None, "case {case}");
    assert!(
        found.log_end >= acknowledged,
        "case {case}: {acknowledged} was acknowledged, {found:?}"
    );
}

/// A log whose next segment is there, without a record: the broker died while it rolled.
fn died_while_rolling(case: u64) -> Option<SimDisk> {
    let disk = disk();
    let shared = Shared::default();
    let listener = shared.clone();
    Sim::new(1).with_disk(&disk).run(|io| async move {
        let (log, _, _) = open(&storage(&io), options(), &listener).await;
        let first = batch(Offset(0), LeaderEpoch(0), 2, 200, 1);
        append(&listener, &log, first).expect("an append");
        until_durable(&io, &log, Offset(2)).await;
        let large = batch(Offset(2), LeaderEpoch(0), 1, LARGE, 2);
        append(&listener, &log, large).expect("an append");
        io.sleep(Duration::from_micros(case * 3)).await;
    });
    disk.crash(CrashPolicy::KeepAll);
    let rolled = has_segment(&disk, Offset(2)) && shared.0.borrow().acknowledged == Offset(2);
    rolled.then_some(disk)
}

#[test]
fn a_segment_without_records_is_not_made_twice_for_a_large_batch() {
    let mut cases = 0;
    for case in 0..300 {
        let Some(disk) = died_while_rolling(case) else {
            continue;
        };
        // Starts again, seals what is there, and is stopped.
        let end = Sim::new(2).with_disk(&disk).run(|io| async move {
            let (log, _, _) = open(&storage(&io), options(), &Shared::default()).await;
            io.sleep(Duration::from_millis(400)).await;
            let end = log.log_end();
            log.close(snapshot(end)).await.expect("a clean stop");
            end
        });
        if end != Offset(2) || !has_segment(&disk, Offset(2)) {
            continue;
        }
        cases += 1;
        Sim::new(3).with_disk(&disk).run(|io| async move {
            let shared = Shared::default();
            let (log, _, _) = open(&storage(&io), options(), &shared).await;
            let large = batch(Offset(2), LeaderEpoch(1), 1, LARGE, 3);
            append(&shared, &log, large).expect("an append");
            until_durable(&io, &log, Offset(3)).await;
        });
        check(&disk, Offset(3), case);
    }
    assert!(cases > 10, "{cases} cases");
}

#[test]
fn a_segment_without_records_is_not_made_twice_when_it_is_old() {
    let by_age = || LogOptions {
        segment_roll_ms: 1_000,
        ..LogOptions::default()
    };
    let mut cases = 0;
    for case in 0..200 {
        let disk = disk();
        let shared = Shared::default();
        let listener = shared.clone();
        Sim::new(1).with_disk(&disk).run(|io| async move {
            let (log, _, _) = open(&storage(&io), by_age(), &listener).await;
            // Never idle for 100 ms, so nothing seals it; the last append rolls.
            for _ in 0..22 {
                let next = batch(log.log_end(), LeaderEpoch(0), 1, 100, 1);
                append(&listener, &log, next).expect("an append");
                if log.log_end() < Offset(22) {
                    io.sleep(Duration::from_millis(49)).await;
                }
            }
            io.sleep(Duration::from_micros(case * 3)).await;
        });
        disk.crash(CrashPolicy::KeepAll);
        if shared.0.borrow().acknowledged > Offset(21) || !has_segment(&disk, Offset(21)) {
            continue;
        }
        let appended = Sim::new(3).with_disk(&disk).run(|io| async move {
            let shared = Shared::default();
            let (log, _, _) = open(&storage(&io), by_age(), &shared).await;
            if log.log_end() != Offset(21) {
                return false;
            }
            io.sleep(Duration::from_millis(400)).await;
            // As when retention took what lies before.
            let stored = log.checkpoint(snapshot(log.log_end())).await;
            stored.expect("a checkpoint");
            io.sleep(Duration::from_millis(1_500)).await;
            let next = batch(Offset(21), LeaderEpoch(1), 1, 100, 3);
            append(&shared, &log, next).expect("an append");
            until_durable(&io, &log, Offset(22)).await;
            true
        });
        if appended {
            cases += 1;
            check(&disk, Offset(22), case);
        }
    }
    assert!(cases > 10, "{cases} cases");
}
