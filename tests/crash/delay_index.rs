//! The index of what waits is lost, with a file of it or for a moment: no record and no id goes with it.

use std::time::Duration;

use millstream::{
    delay::Target,
    io::{
        Clock, Disk,
        sim::{CrashPolicy, Sim, SimDisk, SimIo},
    },
};
use millstream_protocol::messages::CancelOutcome;

use crate::{
    delay_world::{Place, Shared, open},
    oracle::disk,
};

const IDS: usize = 40;

/// Files of the index.
async fn runs(io: &SimIo, place: &Place) -> Vec<std::path::PathBuf> {
    let dir = place.delay_dir();
    let files = io.read_dir(&dir).await.expect("a directory");
    let due = |path: &std::path::PathBuf| path.extension().is_some_and(|it| it == "due");
    files.into_iter().filter(due).collect()
}

/// Accepts records under ids, far away, so that they are in the index on disk alone; closes.
async fn far_away(io: SimIo, shared: Shared) {
    let place = open(&io, 0, true).await.expect("a partition");
    for number in 0..IDS {
        let id = format!("id-{number}");
        let delay_ms = 60_000 + number as u64;
        place.send_one(&shared, &id, delay_ms).await;
        place.shell.delay().spill_beyond(3);
    }
    io.sleep(Duration::from_millis(500)).await;
    assert!(!runs(&io, &place).await.is_empty(), "an index on disk");
    place.shell.close().await.expect("closed");
}

async fn lose_the_index(io: SimIo, shared: Shared) {
    let place = open(&io, 1, false).await.expect("a partition");
    place.shell.close().await.expect("closed");
    for path in runs(&io, &place).await {
        io.remove_file(&path).await.expect("removed");
    }
    io.sync_dir(&place.delay_dir()).await.expect("flushed");
    let place = open(&io, 2, true).await.expect("a partition");
    // At once: an id that waits is known.
    for number in 0..IDS / 2 {
        place
            .send_one(&shared, &format!("id-{number}"), 50_000)
            .await;
    }
    let target = Target::Id("id-30");
    let (outcome, _) = place.shell.delay().cancel(target).await.expect("an answer");
    assert_eq!(outcome, CancelOutcome::Cancelled);
    {
        let taken_back = &mut shared.borrow_mut().sent[30];
        (taken_back.leaving, taken_back.cancelled) = (true, true);
    }
    place.shell.delay().checkpoint_soon();
    io.sleep(Duration::from_millis(200)).await;
}

async fn all_delivered(io: SimIo, epoch: i32) -> Vec<crate::delay_world::Delivered> {
    let place = open(&io, epoch, true).await.expect("a partition");
    let delivered = place.delivered_all(&io).await.expect("all delivered");
    place.shell.close().await.expect("closed");
    delivered
}

#[test]
fn no_id_and_no_record_goes_with_the_index() {
    let disk: SimDisk = disk();
    let shared = Shared::default();
    let told = shared.clone();
    Sim::new(1).with_disk(&disk).run(|io| far_away(io, told));
    let told = shared.clone();
    Sim::new(2)
        .with_disk(&disk)
        .run(|io| lose_the_index(io, told));
    disk.crash(CrashPolicy::DropAll);
    let delivered = Sim::new(3).with_disk(&disk).run(|io| all_delivered(io, 3));
    shared
        .borrow()
        .verdict(&delivered)
        .expect("each of them once");
    assert_eq!(delivered.len(), IDS - 1);
}
