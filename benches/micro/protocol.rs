//! From bytes of a socket to a typed request, as the session machine does it.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion};
use millstream::{
    io::Monotonic,
    session::{Action, Session},
};
use millstream_protocol::{
    FRAME_HEADER_SIZE, FrameHeader, LeaderEpoch, PartitionIndex, TopicId, limits,
    messages::{ANY_SHARD, Api, HandshakeRequest, ProducePartition, ProduceRequest, encode_body},
};

/// Bytes of batches that each partition is said to have.
const RECORDS_SIZE: u32 = 1000;

pub fn benchmarks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame");
    let bytes = FrameHeader {
        api: Api::Produce as u16,
        body_size: 100,
        records_size: RECORDS_SIZE,
        ..FrameHeader::default()
    };
    let bytes = bytes.encode();
    group.bench_function("header", |bencher| {
        bencher.iter(|| FrameHeader::decode(black_box(&bytes), limits::MAX_FRAME_SIZE));
    });
    for count in [1, 16, 1000] {
        let frame = produce(count);
        let mut session = ready();
        group.bench_function(BenchmarkId::new("produce", count), |bencher| {
            bencher.iter(|| serve(&mut session, black_box(&frame)));
        });
    }
    group.finish();
}

/// A produce to so many partitions, without its records.
fn produce(count: u32) -> Vec<u8> {
    let partitions = (0..count).map(|number| ProducePartition {
        topic: TopicId::default(),
        partition: PartitionIndex(number),
        leader_epoch: LeaderEpoch(1),
        records_size: RECORDS_SIZE,
    });
    let body = encode_body(&ProduceRequest {
        timeout_ms: 30_000,
        partitions: partitions.collect(),
    });
    let header = FrameHeader {
        api: Api::Produce as u16,
        body_size: u32::try_from(body.len()).expect("a small body"),
        records_size: count * RECORDS_SIZE,
        ..FrameHeader::default()
    };
    [&header.encode()[..], &body].concat()
}

/// A session after its handshake.
fn ready() -> Session<()> {
    let mut session = Session::new(Monotonic(0));
    let body = encode_body(&HandshakeRequest {
        wanted_shard: ANY_SHARD,
        ..HandshakeRequest::default()
    });
    let header = FrameHeader {
        api: Api::Handshake as u16,
        ..FrameHeader::default()
    };
    let Action::Welcome { ticket, .. } = session.frame(&header, &body) else {
        panic!("a handshake is welcome");
    };
    session.answered(ticket, (), |()| ());
    session
}

/// One request, from its first byte to its answer.
fn serve(session: &mut Session<()>, frame: &[u8]) {
    let (header, body) = frame
        .split_first_chunk::<FRAME_HEADER_SIZE>()
        .expect("a whole header");
    let header = FrameHeader::decode(header, limits::MAX_FRAME_SIZE).expect("a header");
    let Action::Serve { ticket, request } = session.frame(&header, body) else {
        panic!("a produce is served");
    };
    black_box(request);
    session.answered(ticket, (), |()| ());
}
