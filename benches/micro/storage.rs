//! What a log does in memory for each write and each read: sealing and verifying chunks, finding a place.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use millstream::storage::inspect::{
    CHUNK_HEADER_SIZE, ChunkHeader,
    bench::{IndexEntryV1, IndexV1, SegmentIndex},
};
use millstream_protocol::{LeaderEpoch, Offset, PartitionIndex, TopicId, TopicPartition};

/// Payload sizes of chunks, in bytes: one record, a producer's batch, several producers' batches.
const PAYLOAD_SIZES: [u32; 3] = [1000, 64 << 10, 1 << 20];
/// Entries of a full segment's index: 256 MiB, one for each 64 KiB.
const ENTRY_COUNT: i64 = 4096;

pub fn benchmarks(criterion: &mut Criterion) {
    chunks(criterion);
    index(criterion);
}

fn header(payload_size: u32) -> ChunkHeader {
    ChunkHeader {
        payload_size,
        id: TopicPartition {
            topic: TopicId::default(),
            partition: PartitionIndex(0),
        },
        epoch: LeaderEpoch(1),
        incarnation: 1,
        base: Offset(10),
        next: Offset(11),
        flushed: Offset(10),
        append_time_ms: 1,
        max_timestamp_ms: 1,
        batch_count: 1,
        flags: 0,
    }
}

fn chunks(criterion: &mut Criterion) {
    for (name, verifies) in [("chunk/seal", false), ("chunk/verify", true)] {
        let mut group = criterion.benchmark_group(name);
        for size in PAYLOAD_SIZES {
            let header = header(size);
            let end = CHUNK_HEADER_SIZE + size as usize;
            let mut chunk = vec![0x5a; header.disk_size()];
            header.seal(&mut chunk[..end]);
            group.throughput(Throughput::Bytes(u64::from(size)));
            group.bench_function(
                BenchmarkId::from_parameter(size),
                |bencher| match verifies {
                    true => bencher.iter(|| ChunkHeader::verified(black_box(&chunk))),
                    false => bencher.iter(|| header.seal(black_box(&mut chunk[..end]))),
                },
            );
        }
        group.finish();
    }
}

fn index(criterion: &mut Criterion) {
    let entry = |number: i64| IndexEntryV1 {
        offset: number * 64,
        position: number.unsigned_abs() * (64 << 10),
        max_timestamp_before_ms: number,
    };
    let archived = IndexV1 {
        end: ENTRY_COUNT.unsigned_abs() * (64 << 10),
        entries: (0..ENTRY_COUNT).map(entry).collect(),
        ..IndexV1::default()
    };
    let index = SegmentIndex::new(archived.entries.clone());
    let mut group = criterion.benchmark_group("index");
    let mut offset = 0;
    group.bench_function("lookup", |bencher| {
        bencher.iter(|| {
            // Steps that no predictor of branches learns.
            offset = (offset + 0x9e37_79b9) % (ENTRY_COUNT * 64);
            index.find(Offset(black_box(offset)))
        });
    });
    let mut time_ms = 0;
    group.bench_function("lookup_time", |bencher| {
        bencher.iter(|| {
            time_ms = (time_ms + 0x9e37_79b9) % ENTRY_COUNT;
            index.find_time(black_box(time_ms))
        });
    });
    let bytes = archived.encode();
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("encode", |bencher| bencher.iter(|| archived.encode()));
    group.bench_function("decode", |bencher| {
        bencher.iter(|| IndexV1::decode(black_box(&bytes)));
    });
    group.finish();
}
