//! The bytes of each format as they were when it was made: what fails here would not read the files
//! of brokers that run already. A format is changed by adding a version, not by changing these.

use millstream_protocol::{LeaderEpoch, Offset, PartitionIndex, TopicId, TopicPartition};

use super::{
    checkpoint::{CheckpointV1, PositionV1, SegmentV1},
    chunk::{CHUNK_HEADER_SIZE, ChunkHeader},
    index::{IndexEntryV1, IndexV1},
    segment::{CompactionMark, SegmentHeader},
};

fn id() -> TopicPartition {
    TopicPartition {
        topic: TopicId(
            "00112233-4455-6677-8899-aabbccddeeff"
                .parse()
                .expect("a UUID"),
        ),
        partition: PartitionIndex(7),
    }
}

/// Two hexadecimal digits a byte, without the zeros that fill the last block.
fn hex(bytes: &[u8]) -> String {
    let end = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1);
    bytes[..end]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn summary() -> SegmentV1 {
    SegmentV1 {
        base: 1,
        next: 2,
        end: 3,
        max_timestamp_ms: 4,
        first_append_ms: 5,
        last_append_ms: 6,
    }
}

fn entry() -> IndexEntryV1 {
    IndexEntryV1 {
        offset: 1,
        position: 4096,
        max_timestamp_before_ms: -1,
    }
}

#[test]
fn segment_header() {
    let header = SegmentHeader {
        id: id(),
        base: Offset(42),
        created_ms: 1_700_000_000_000,
        compaction: None,
    };
    let mut block = [0; 4096];
    header.encode(&mut block);
    assert_eq!(hex(&block), include_str!("golden/segment.hex").trim());
    let mark = CompactionMark {
        clean_end: Offset(50),
        clean_since_ms: 1_700_000_000_002,
        tombstones: 3,
        incarnation: 2,
    };
    let compacted = SegmentHeader {
        compaction: Some(mark),
        ..header
    };
    compacted.encode(&mut block);
    let golden = include_str!("golden/segment-compacted.hex");
    assert_eq!(hex(&block), golden.trim());
}

#[test]
fn chunk() {
    let header = ChunkHeader {
        payload_size: 5,
        id: id(),
        epoch: LeaderEpoch(3),
        incarnation: 2,
        base: Offset(42),
        next: Offset(45),
        flushed: Offset(40),
        append_time_ms: 1_700_000_000_000,
        max_timestamp_ms: 1_700_000_000_001,
        batch_count: 1,
        flags: 0,
    };
    let mut bytes = [0; CHUNK_HEADER_SIZE + 5];
    bytes[CHUNK_HEADER_SIZE..].copy_from_slice(b"bytes");
    header.seal(&mut bytes);
    assert_eq!(hex(&bytes), include_str!("golden/chunk.hex").trim());
}

#[test]
fn checkpoint() {
    let checkpoint = CheckpointV1 {
        topic: *id().topic.0.as_bytes(),
        partition: 7,
        clean: true,
        log_start: 1,
        flushed: 9,
        position: PositionV1 {
            segment: 2,
            position: 8192,
            next: 9,
        },
        incarnations: vec![(0, 1), (5, 2)],
        epochs: vec![(0, 0), (3, 4)],
        rolled: vec![summary()],
        active: summary(),
        index: vec![entry()],
        snapshot: Some(b"state".to_vec()),
    };
    let bytes = checkpoint.encode(11);
    assert_eq!(hex(&bytes), include_str!("golden/checkpoint.hex").trim());
    assert_eq!(CheckpointV1::decode(&bytes), Ok((11, checkpoint)));
}

#[test]
fn index() {
    let index = IndexV1 {
        topic: *id().topic.0.as_bytes(),
        partition: 7,
        base: 1,
        end: 12_288,
        entries: vec![entry(), entry()],
    };
    let bytes = index.encode();
    assert_eq!(hex(&bytes), include_str!("golden/index.hex").trim());
    assert_eq!(IndexV1::decode(&bytes), Ok(index));
}
