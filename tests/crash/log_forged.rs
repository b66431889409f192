//! Records of a producer that look like chunks, in a tail that the power cut spoiled: they say that more
//! was durable than there is, and must not be believed.

use std::time::Duration;

use millstream::io::{
    Clock,
    sim::{CrashPolicy, Sim},
};
use millstream_protocol::{
    LeaderEpoch, Offset, ProducerEpoch, ProducerId,
    batch::{BatchBuilder, Compression, NO_HEADERS, crc32c, place},
};

use crate::oracle::{
    Batch, FIRST_LIFE, Shared, append, batch, disk, id, open, options, recover, storage,
};

const BLOCK: usize = 4096;
const FILLER: u8 = 0xab;

/// A sealing chunk of a life of the log that says that a million records were durable.
fn forged(life: u64) -> [u8; 96] {
    let mut chunk = [0; 96];
    chunk[0..4].copy_from_slice(b"MSCK");
    chunk[4..6].copy_from_slice(&1u16.to_le_bytes());
    chunk[6..8].copy_from_slice(&96u16.to_le_bytes());
    chunk[16..32].copy_from_slice(id().topic.0.as_bytes());
    chunk[32..36].copy_from_slice(&id().partition.0.to_le_bytes());
    chunk[36..40].copy_from_slice(&(-1i32).to_le_bytes());
    chunk[40..48].copy_from_slice(&life.to_le_bytes());
    for at in [48, 56, 64] {
        chunk[at..at + 8].copy_from_slice(&1_000_000i64.to_le_bytes());
    }
    chunk[80..88].copy_from_slice(&i64::MIN.to_le_bytes());
    let crc = crc32c(&chunk[12..]);
    chunk[8..12].copy_from_slice(&crc.to_le_bytes());
    chunk
}

fn one_record(value: &[u8], base: Offset) -> Vec<u8> {
    let mut builder = BatchBuilder::new();
    let pushed = builder.push(5, None, Some(value), NO_HEADERS);
    pushed.expect("a small record");
    let producer = (ProducerId(1), ProducerEpoch(0), 0);
    let mut bytes = builder.finish(Some(producer), Compression::None);
    place(&mut bytes, base, LeaderEpoch(0));
    bytes
}

/// A record with such chunks where blocks begin, as it will lie in its own chunk on disk.
fn hostile(base: Offset, life: u64) -> Batch {
    let mut value = vec![FILLER; 10 * BLOCK];
    let plain = one_record(&value, base);
    let before = plain.windows(64).position(|bytes| bytes == [FILLER; 64]);
    let start = 96 + before.expect("the value");
    for block in 1..10 {
        let at = block * BLOCK - start;
        value[at..at + 96].copy_from_slice(&forged(life));
    }
    Batch {
        base,
        next: base.plus(1),
        epoch: LeaderEpoch(0),
        bytes: one_record(&value, base),
    }
}

/// In how many of the cuts the log was taken for damaged, and in how many its tail was cut.
fn cuts(life: u64) -> (u32, u32) {
    let (mut damaged, mut cut) = (0, 0);
    for seed in 0..60 {
        let disk = disk();
        let shared = Shared::default();
        let listener = shared.clone();
        Sim::new(seed).with_disk(&disk).run(|io| async move {
            let (log, _, _) = open(&storage(&io), options(), &listener).await;
            let first = batch(Offset(0), LeaderEpoch(0), 2, 200, 1);
            append(&listener, &log, first).expect("an append");
            io.sleep(Duration::from_millis(400)).await;
            assert_eq!(log.durable_end(), Offset(2));
            append(&listener, &log, hostile(Offset(2), life)).expect("an append");
            // The write is under way, or done and not flushed.
            io.sleep(Duration::from_micros(10 + seed * 5)).await;
        });
        if shared.0.borrow().acknowledged > Offset(2) {
            continue;
        }
        disk.crash(CrashPolicy::Random { seed });
        let found = Sim::new(9).with_disk(&disk).run(recover);
        damaged += u32::from(found.recovered.damage.is_some());
        cut += u32::from(found.recovered.log_end == Offset(2));
    }
    (damaged, cut)
}

#[test]
fn records_that_look_like_chunks_prove_nothing() {
    let (damaged, cut) = cuts(1);
    assert!(cut > 10, "{cut} tails cut");
    assert_eq!(damaged, 0, "nothing acknowledged was harmed");
    let (damaged, _) = cuts(FIRST_LIFE);
    assert!(
        damaged > 0,
        "who knows the number can forge: the test sees it"
    );
}
