//! What else happens to a partition's delayed records: it is removed while their log opens, a disk fails for a
//! while, producers fall silent, someone lists very much.

use std::time::Duration;

use millstream::{
    delay::Target,
    io::{
        Clock, Disk, Random,
        sim::{Errno, Fault, Operation, Sim, SimDisk, SimIo},
    },
};
use millstream_protocol::{
    ErrorCode, LeaderEpoch, Offset, ProducerEpoch, ProducerId,
    batch::{BatchBuilder, Compression},
    headers,
    messages::CancelOutcome,
};

use crate::{
    delay_world::{Place, Shared, open},
    oracle::disk,
};

/// One delayed record, as a batch.
fn batch(key: &[u8], delay_ms: u64, sequence: Option<i32>) -> Vec<u8> {
    let mut builder = BatchBuilder::new();
    let delay = delay_ms.to_string();
    let headers = [(headers::DELIVER_AFTER, Some(delay.as_bytes()))];
    let pushed = builder.push(77, Some(key), Some(b"0"), &headers);
    pushed.expect("it fits");
    let producer = sequence.map(|sequence| (ProducerId(9), ProducerEpoch(0), sequence));
    builder.finish(producer, Compression::Lz4)
}

async fn send(place: &Place, batch: &[u8]) -> ErrorCode {
    let (produced, answer) = place.told();
    let delay = place.shell.delay();
    delay.accept(batch, LeaderEpoch::UNKNOWN, produced);
    answer.await.expect("an answer").error
}

#[test]
fn a_partition_that_is_removed_while_its_delay_log_opens_leaves_nothing() {
    Sim::new(1).with_disk(&disk()).run(|io: SimIo| async move {
        let place = open(&io, 0, false).await.expect("a partition");
        for sequence in 0..3 {
            let (produced, answer) = place.told();
            let batch = batch(b"key", 1_000, Some(sequence));
            let delay = place.shell.delay();
            delay.accept(&batch, LeaderEpoch::UNKNOWN, produced);
            drop(answer);
        }
        place.shell.remove().await.expect("removed");
        let (produced, answer) = place.told();
        let late = batch(b"key", 1_000, Some(3));
        let delay = place.shell.delay();
        delay.accept(&late, LeaderEpoch::UNKNOWN, produced);
        let refused = answer.await.expect("an answer");
        assert_eq!(refused.error, ErrorCode::UnknownPartition);
        io.sleep(Duration::from_secs(5)).await;
        let left = io.read_dir(&place.delay_dir()).await;
        assert!(left.is_err(), "{left:?}");
    });
}

/// Accepts records that are due far away, so that an index on disk holds them; closes.
async fn far_away(io: SimIo) {
    let place = open(&io, 0, false).await.expect("a partition");
    let shared = Shared::default();
    for number in 0..20 {
        let id = format!("id-{number}");
        place.send_one(&shared, &id, 9_000_000).await;
        place.shell.delay().spill_beyond(3);
    }
    io.sleep(Duration::from_millis(500)).await;
    place.shell.close().await.expect("closed");
}

/// Starts on a disk of which the index and, from the `nth` read on, the delay log cannot be read for a
/// while; whether nothing was accepted then.
async fn start_in_trouble(io: SimIo, disk: &SimDisk, nth: u64) -> bool {
    disk.fail(Fault::always(Operation::Read, Errno::Io).on(".due"));
    for nth in nth..nth + 20 {
        disk.fail(Fault::nth(Operation::Read, nth, Errno::Io).on("delay/0"));
    }
    let Ok(place) = open(&io, 1, false).await else {
        return false;
    };
    let refused = send(&place, &batch(b"key", 9_000_000, None)).await;
    let cancelled = place.shell.delay().cancel(Target::Id("id-7")).await;
    if let Ok((outcome, _)) = cancelled {
        assert_eq!(
            outcome,
            CancelOutcome::Cancelled,
            "an id that waits is known"
        );
    }
    disk.heal();
    io.sleep(Duration::from_secs(40)).await;
    let taken = send(&place, &batch(b"key", 9_000_000, None)).await;
    assert_eq!(taken, ErrorCode::None, "it is over");
    refused == ErrorCode::PartitionLoading
}

#[test]
fn trouble_is_over_when_nothing_is_held_up_by_it() {
    let disk = disk();
    Sim::new(1).with_disk(&disk).run(far_away);
    let refused = (1..9).filter(|&nth| {
        let disk = disk.image().to_disk();
        let faults = disk.clone();
        let start = |io| async move { start_in_trouble(io, &faults, nth).await };
        Sim::new(2).with_disk(&disk).run(start)
    });
    assert!(
        refused.count() > 0,
        "the index could not be made again at first"
    );
}

#[test]
fn silent_producers_of_delayed_records_are_forgotten() {
    Sim::new(1).with_disk(&disk()).run(|io: SimIo| async move {
        let place = open(&io, 0, false).await.expect("a partition");
        let day = Duration::from_secs(25 * 60 * 60);
        assert_eq!(
            send(&place, &batch(b"key", 10, Some(0))).await,
            ErrorCode::None
        );
        let skipped = batch(b"key", 10, Some(77));
        assert_eq!(send(&place, &skipped).await, ErrorCode::OutOfOrderSequence);
        io.sleep(day).await;
        place.shell.expire_producers(0);
        // A producer that nobody knows may begin anywhere.
        assert_eq!(send(&place, &skipped).await, ErrorCode::None);
    });
}

#[test]
fn a_page_ends_where_it_becomes_large() {
    Sim::new(1).with_disk(&disk()).run(|io: SimIo| async move {
        let place = open(&io, 0, false).await.expect("a partition");
        let mut random = Random::new(3);
        for _ in 0..40 {
            let byte = |random: &mut Random| u8::try_from(random.below(256)).expect("a byte");
            let key: Vec<u8> = (0..50_000).map(|_| byte(&mut random)).collect();
            let taken = send(&place, &batch(&key, 1_000_000, None)).await;
            assert_eq!(taken, ErrorCode::None);
        }
        send(&place, &batch(&vec![7; 300_000], 2_000_000, None)).await;
        let delay = place.shell.delay();
        let (mut after, mut pages, mut count) = ((i64::MIN, Offset(-1)), 0, 0);
        loop {
            let (page, more) = delay.list(after, 1_000, 1 << 20).await.expect("a page");
            let keys = page.iter().map(|it| it.key.as_ref().map_or(0, Vec::len));
            let size: usize = keys.sum();
            assert!(size <= 1 << 20, "{size} bytes");
            (pages, count) = (pages + 1, count + page.len());
            let last = page.last().expect("a page has something");
            after = (last.due_ms, last.delay_id);
            if !more {
                break;
            }
        }
        assert_eq!((pages, count), (3, 41));
    });
}
