//! A repair leaves a log without what its checkpoints said. What was delivered is asked of the partition's own
//! records then; and what nobody knows is not delivered again.

use std::time::Duration;

use millstream::io::{
    Clock, Disk, Random,
    sim::{Sim, SimDisk, SimIo},
};

use crate::{
    delay_world::{Delivered, Place, Shared, open},
    oracle::disk,
};

/// Records that come early, and those that come late.
const SOON: usize = 6;
const LATE: usize = 4;

/// Some records are delivered, the delay log's checkpoint knows, and the partition has forgotten them; others
/// wait.
async fn live(io: SimIo, shared: Shared, with_retention: bool) {
    let place = open(&io, 0, false).await.expect("a partition");
    for number in 0..SOON {
        let id = format!("soon-{number}");
        place.send_one(&shared, &id, 50).await;
    }
    io.sleep(Duration::from_secs(2)).await;
    assert_eq!(place.shell.delay().status().0, 0);
    place.shell.delay().checkpoint_soon();
    io.sleep(Duration::from_secs(1)).await;
    if with_retention {
        let mut random = Random::new(5);
        (0..40).for_each(|_| place.produce(&mut random));
        io.sleep(Duration::from_secs(1)).await;
        let stats = place.shell.log().stats();
        let first = stats.segments.first().expect("segments").next_offset;
        place.shell.delete_records(first).await.expect("deleted");
    }
    place.shell.checkpoint_soon();
    io.sleep(Duration::from_secs(1)).await;
    for number in 0..LATE {
        let id = format!("late-{number}");
        place.send_one(&shared, &id, 100_000).await;
    }
    io.sleep(Duration::from_secs(1)).await;
    place.shell.close().await.expect("closed");
}

/// As a repair does: the log is there, and its checkpoints say nothing of what goes with it.
async fn forget(io: SimIo, in_delay_log: bool) {
    let place = open(&io, 1, false).await.expect("a partition");
    place.shell.close().await.expect("closed");
    let delay_dir = place.delay_dir();
    let dir = match in_delay_log {
        true => delay_dir.as_path(),
        false => delay_dir.parent().expect("the partition's"),
    };
    let mut count = 0;
    for path in io.read_dir(dir).await.expect("a directory") {
        if path.to_string_lossy().contains("checkpoint") {
            io.remove_file(&path).await.expect("removed");
            count += 1;
        }
    }
    assert!(count > 0, "there are checkpoints");
    io.sync_dir(dir).await.expect("flushed");
}

async fn what_comes(io: SimIo, shared: Shared) -> Vec<Delivered> {
    let place: Place = open(&io, 2, false).await.expect("a partition");
    place.send_one(&shared, "new", 1_000).await;
    let delivered = place.delivered_all(&io).await.expect("all delivered");
    place.shell.close().await.expect("closed");
    delivered
}

fn delivered_after(in_delay_log: bool, with_retention: bool) -> Vec<usize> {
    let disk: SimDisk = disk();
    let shared = Shared::default();
    let told = shared.clone();
    let run = |seed| Sim::new(seed).with_disk(&disk);
    run(1).run(|io| live(io, told, with_retention));
    run(2).run(|io| forget(io, in_delay_log));
    let delivered = run(3).run(|io| what_comes(io, shared));
    delivered.iter().map(|it| it.number).collect()
}

#[test]
fn a_delay_log_that_was_mended_delivers_nothing_twice() {
    let all: Vec<usize> = (0..SOON)
        .chain([SOON + LATE])
        .chain(SOON..SOON + LATE)
        .collect();
    assert_eq!(delivered_after(true, false), all);
    assert_eq!(delivered_after(false, false), all);
}

#[test]
fn what_retention_took_from_a_partition_is_not_delivered_again() {
    let rest: Vec<usize> = [SOON + LATE].into_iter().chain(SOON..SOON + LATE).collect();
    assert_eq!(delivered_after(true, true), rest);
}
