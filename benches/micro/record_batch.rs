//! Record batches: made by a producer, validated by a broker, opened by a consumer; and their checksum.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use millstream_protocol::batch::{
    BatchBuilder, Batches, Compression, DecodedBatch, NO_HEADERS, crc32c, place_all,
};
use millstream_protocol::{LeaderEpoch, Offset};

/// Bytes of values in a batch: the client's default batch size.
const BATCH_SIZE: usize = 64 << 10;
/// Sizes of single records, in bytes.
const RECORD_SIZES: [usize; 2] = [100, 1000];

pub fn benchmarks(criterion: &mut Criterion) {
    encode(criterion);
    validate(criterion);
    decode(criterion);
    checksum(criterion);
}

fn fill(builder: &mut BatchBuilder, value: &[u8]) -> Vec<u8> {
    for number in 0..BATCH_SIZE / value.len() {
        let timestamp_ms = 1_700_000_000_000 + i64::try_from(number).unwrap_or(0);
        let pushed = builder.push(timestamp_ms, None, Some(value), NO_HEADERS);
        pushed.expect("a batch within the limits");
    }
    builder.finish(None, Compression::None)
}

/// A batch with records of this size.
pub fn batch(record_size: usize) -> Vec<u8> {
    fill(&mut BatchBuilder::new(), &vec![b'x'; record_size])
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("record_batch/encode");
    for size in RECORD_SIZES {
        let value = vec![b'x'; size];
        let mut builder = BatchBuilder::with_capacity(BATCH_SIZE * 2);
        group.throughput(Throughput::Elements((BATCH_SIZE / size) as u64));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| fill(&mut builder, black_box(&value)));
        });
    }
    group.finish();
}

/// What a broker does with each batch: every check, then the place in the log.
fn validate(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("record_batch/validate");
    for size in RECORD_SIZES {
        let mut bytes = batch(size);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| {
                for checked in Batches::produced(black_box(&bytes), 4 << 20) {
                    black_box(checked.expect("a valid batch"));
                }
                place_all(&mut bytes, Offset(7), LeaderEpoch(1))
            });
        });
    }
    group.finish();
}

/// What a consumer does: the checksum, then each record.
fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("record_batch/decode");
    for size in RECORD_SIZES {
        let bytes = batch(size);
        group.throughput(Throughput::Elements((BATCH_SIZE / size) as u64));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| {
                let opened = DecodedBatch::open(black_box(&bytes)).expect("a valid batch");
                for record in opened.records() {
                    black_box(record.expect("a valid record"));
                }
            });
        });
    }
    group.finish();
}

fn checksum(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("crc32c");
    for size in [64, 1 << 10, 64 << 10, 1 << 20] {
        let bytes = vec![0x5a; size];
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| crc32c(black_box(&bytes)));
        });
    }
    group.finish();
}
