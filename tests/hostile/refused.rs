//! Requests that make no sense, or ask for what may not be: each is told so in a sentence, or the
//! connection ends at once where the frame's boundaries can't be believed.

use std::{fs, path::Path, time::Instant};

use millstream_protocol::{
    ClusterId, ErrorCode, FRAME_HEADER_SIZE, FrameFlags, FrameHeader, Offset, TopicId,
    batch::{BatchBuilder, Compression, NO_HEADERS, crc32c},
    limits,
    messages::{
        AlterTopicRequest, Api, CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest,
        HandshakeRequest, MetadataRequest, NewTopic, encode_body,
    },
};

use crate::{
    broker::Broker,
    bystander::Bystander,
    frames::{fetch_of_many, produce_of_epoch},
    memory::Watch,
    peer::{Outcome, Peer, frame_of, plain_handshake},
    topics,
};

/// A refusal must not wait for anybody's timeout.
const AT_ONCE_MS: u128 = 3000;

fn header(length: u32, body_size: u32) -> [u8; FRAME_HEADER_SIZE] {
    let mut bytes = FrameHeader {
        api: Api::Metadata as u16,
        ..FrameHeader::default()
    }
    .encode();
    bytes[0..4].copy_from_slice(&length.to_le_bytes());
    bytes[12..16].copy_from_slice(&body_size.to_le_bytes());
    bytes
}

#[test]
fn lengths_that_cannot_be_end_the_connection_at_once() {
    let Some(mut broker) = Broker::start(&[]) else {
        return;
    };
    let memory = Watch::begin(broker.pid());
    let bystander = Bystander::begin(broker.address(), "bystander");
    let largest = limits::MAX_FRAME_SIZE;
    let absurd = [
        header(0, 0),
        header(19, 0),
        header(20, 1),
        header(1000, 981),
        header(100, u32::MAX),
        header(largest - 3, 10),
        header(limits::MAX_BODY_SIZE + 21, limits::MAX_BODY_SIZE + 1),
        header(0x7fff_ffff, 0),
        header(u32::MAX, 0),
        header(u32::MAX, u32::MAX - 20),
        {
            let mut reserved = header(20, 0);
            reserved[10] = 1;
            reserved
        },
    ];
    for greeted in [false, true] {
        for bytes in &absurd {
            let mut peer = if greeted {
                Peer::ready(broker.address())
            } else {
                Peer::silent(broker.address())
            };
            peer.send(bytes);
            let begun = Instant::now();
            peer.expect_end();
            assert!(begun.elapsed().as_millis() < AT_ONCE_MS, "{bytes:02x?}");
        }
    }
    // Too large before the handshake, and allowed after it: begun, it is waited for.
    let mut peer = Peer::silent(broker.address());
    peer.send(&header(limits::MAX_FRAME_SIZE_BEFORE_HANDSHAKE, 10));
    peer.expect_end();
    bystander.finish("absurd lengths");
    memory.check();
    assert!(broker.is_alive());
}

#[test]
fn what_comes_at_the_wrong_time_is_told_so() {
    let Some(broker) = Broker::start(&[]) else {
        return;
    };
    let address = broker.address();
    let metadata = encode_body(&MetadataRequest::default());
    for greeted in [false, true] {
        let mut peer = if greeted {
            Peer::ready(address)
        } else {
            Peer::silent(address)
        };
        peer.send(&frame_of(999, 1, &[1, 2, 3], &[]));
        peer.expect_error(ErrorCode::UnknownApi);
        let newer = FrameHeader {
            api: Api::Handshake as u16,
            version: 9,
            ..FrameHeader::default()
        };
        peer.send(&newer.encode());
        peer.expect_error(ErrorCode::UnsupportedVersion);
        let reply = FrameHeader {
            flags: FrameFlags::RESPONSE,
            ..FrameHeader::default()
        };
        peer.send(&reply.encode());
        peer.expect_error(ErrorCode::MalformedRequest);
        peer.expect_end();
    }
    let mut peer = Peer::silent(address);
    peer.send(&frame_of(Api::Metadata as u16, 1, &metadata, &[]));
    peer.expect_error(ErrorCode::HandshakeRequired);
    peer.expect_end();

    let mut peer = Peer::ready(address);
    let again = peer.ask(&plain_handshake()).expect_err("one is enough");
    assert_eq!(again.error, ErrorCode::InvalidRequest);
    peer.send(&frame_of(Api::Metadata as u16, 2, &[7; 30], &[]));
    peer.expect_error(ErrorCode::MalformedRequest);
    peer.send(&frame_of(
        Api::Metadata as u16,
        3,
        &metadata,
        b"no records here",
    ));
    peer.expect_error(ErrorCode::MalformedRequest);
    peer.ask(&MetadataRequest::default()).expect("still open");
}

/// An unknown request answered while the handshake that moves the connection is on its heels.
#[test]
fn a_connection_that_is_answered_before_it_moves_is_not_lost() {
    let Some(broker) = Broker::start(&[]) else {
        return;
    };
    for wanted_shard in [0, 1].repeat(20) {
        let handshake = HandshakeRequest {
            wanted_shard,
            ..plain_handshake()
        };
        let mut peer = Peer::silent(broker.address());
        let unknown = frame_of(999, 1, &[], &[]);
        let greeting = frame_of(Api::Handshake as u16, 2, &encode_body(&handshake), &[]);
        peer.send(&[unknown, greeting].concat());
        peer.expect_error(ErrorCode::UnknownApi);
        match peer.receive() {
            Outcome::Answered(frame) => assert_eq!(frame.header.correlation_id, 2),
            other => panic!("a welcome was expected, not {other:?}"),
        }
        peer.ask(&MetadataRequest::default()).expect("an answer");
    }
}

#[test]
fn handshakes_that_are_refused_end_the_connection() {
    let Some(broker) = Broker::start(&[]) else {
        return;
    };
    let refused = [
        HandshakeRequest {
            client_name: "x".repeat(limits::MAX_CLIENT_NAME + 1),
            ..plain_handshake()
        },
        HandshakeRequest {
            auth_mechanism: "\u{1}\n\0".repeat(20_000),
            ..plain_handshake()
        },
    ];
    for handshake in refused {
        let mut peer = Peer::silent(broker.address());
        let error = peer.ask(&handshake).expect_err("refused");
        assert!(error.message.len() < 1000, "{}", error.message.len());
        peer.expect_end();
    }
    for wanted_shard in [0, 1] {
        let elsewhere = HandshakeRequest {
            cluster_id: Some(ClusterId::default()),
            wanted_shard,
            ..plain_handshake()
        };
        let (mut peer, welcome) = Peer::greeting(broker.address(), &elsewhere);
        assert_eq!(welcome.error, ErrorCode::InvalidRequest);
        peer.expect_end();
    }
}

fn files_below(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| 1 + files_below(&entry.path())).sum()
}

#[test]
fn names_that_are_no_names_are_refused() {
    let Some(mut broker) = Broker::start(&[]) else {
        return;
    };
    let mut peer = Peer::ready(broker.address());
    let topics_dir = broker.scratch().join("data").join("topics");
    let before = files_below(&topics_dir);
    let names = [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "../up".to_owned(),
        "../../../../tmp/up".to_owned(),
        "/etc/passwd".to_owned(),
        "a\0b".to_owned(),
        "\u{1}\n\u{1b}[31m".to_owned(),
        "\u{fc}mlaut".to_owned(),
        "a b".to_owned(),
        "x".repeat(250),
        "x".repeat(10_000),
        "\0".repeat(65_535),
    ];
    for name in names {
        let shown: String = name.escape_debug().take(40).collect();
        let create = CreateTopicsRequest {
            topics: vec![NewTopic {
                name: name.clone(),
                partitions: 1,
                ..NewTopic::default()
            }],
            validate_only: false,
        };
        let created = peer.ask(&create).expect("an answer").topics.remove(0);
        assert_eq!(created.error, ErrorCode::InvalidTopicName, "{shown}");
        assert!(
            created.message.len() < 2000,
            "{shown}: {}",
            created.message.len()
        );
        let delete = DeleteTopicsRequest {
            names: vec![name.clone()],
        };
        let deleted = peer.ask(&delete).expect("an answer").topics.remove(0);
        assert_ne!(deleted.error, ErrorCode::None, "{shown}");
        let alter = AlterTopicRequest {
            name: name.clone(),
            configs: vec![("retention.ms".to_owned(), Some("1000".to_owned()))],
            force: false,
        };
        let altered = peer.ask(&alter).expect("an answer").topic;
        assert_ne!(altered.error, ErrorCode::None, "{shown}");
        let more = CreatePartitionsRequest {
            name: name.clone(),
            total: 2,
        };
        let more = peer.ask(&more).expect("an answer").topic;
        assert_ne!(more.error, ErrorCode::None, "{shown}");
        let info = topics::describe(&mut peer, &name);
        assert_eq!(info.error, ErrorCode::UnknownTopic, "{shown}");
    }
    assert_eq!(files_below(&topics_dir), before, "nothing was made");
    assert!(broker.is_alive());
}

#[test]
fn a_small_request_cannot_ask_for_a_huge_answer() {
    let Some(mut broker) = Broker::start(&[]) else {
        return;
    };
    let memory = Watch::begin(broker.pid());
    let info = topics::create(broker.address(), "wide", 100);
    let mut peer = Peer::ready(broker.address());
    let repeats = MetadataRequest {
        topics: Some(vec!["wide".to_owned(); 10_000]),
        include_internal: false,
    };
    let refused = peer.ask(&repeats).expect_err("34 MiB for 60 KiB");
    assert_eq!(refused.error, ErrorCode::InvalidRequest);
    let many = fetch_of_many(info.id, 10_001, 0);
    let refused = peer.ask(&many).expect_err("one too many");
    assert_eq!(refused.error, ErrorCode::MalformedRequest);
    let many = fetch_of_many(info.id, 10_000, 10);
    let answer = peer.ask(&many).expect("within the limits");
    assert_eq!(answer.partitions.len(), 10_000);
    memory.check();
    assert!(broker.is_alive());
}

fn batch_with(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut batch = topics::batch(&[b"one", b"two"]);
    batch[at..at + bytes.len()].copy_from_slice(bytes);
    let crc = crc32c(&batch[21..]).to_be_bytes();
    batch[17..21].copy_from_slice(&crc);
    batch
}

fn ahead_of_time() -> Vec<u8> {
    let mut builder = BatchBuilder::new();
    let pushed = builder.push(i64::MAX / 2, None, Some(b"late"), NO_HEADERS);
    pushed.expect("a small record");
    builder.finish(None, Compression::None)
}

#[test]
fn batches_that_are_wrong_are_refused_and_right_ones_go_on() {
    let Some(mut broker) = Broker::start(&[]) else {
        return;
    };
    let info = topics::create(broker.address(), "target", 1);
    let mut peer = Peer::ready(broker.address());
    let good = topics::batch(&[b"one", b"two"]);
    let size = u32::try_from(good.len()).expect("small");
    let wrong_crc = {
        let mut batch = good.clone();
        batch[18] ^= 1;
        batch
    };
    // Offsets of fields in Kafka's batch: length at 8, magic at 16, attributes at 21, last offset
    // delta at 23, max timestamp at 35, producer id at 43, record count at 57.
    let cases: Vec<(&str, Vec<u8>, ErrorCode)> = vec![
        ("nothing", Vec::new(), ErrorCode::InvalidBatch),
        ("a byte", vec![0], ErrorCode::InvalidBatch),
        ("checksum", wrong_crc, ErrorCode::CorruptBatch),
        ("magic 1", batch_with(16, &[1]), ErrorCode::InvalidBatch),
        ("magic 3", batch_with(16, &[3]), ErrorCode::InvalidBatch),
        ("length 0", batch_with(8, &[0; 4]), ErrorCode::InvalidBatch),
        (
            "length -1",
            batch_with(8, &[0xff; 4]),
            ErrorCode::InvalidBatch,
        ),
        (
            "too long",
            batch_with(8, &(size - 11).to_be_bytes()),
            ErrorCode::InvalidBatch,
        ),
        (
            "too short",
            batch_with(8, &(size - 13).to_be_bytes()),
            ErrorCode::CorruptBatch,
        ),
        (
            "2 GiB",
            batch_with(8, &[0x7f, 0xff, 0xff, 0xff]),
            ErrorCode::InvalidBatch,
        ),
        ("codec 7", batch_with(21, &[0, 7]), ErrorCode::InvalidBatch),
        (
            "control",
            batch_with(21, &[0, 0x20]),
            ErrorCode::InvalidBatch,
        ),
        (
            "transaction",
            batch_with(21, &[0, 0x10]),
            ErrorCode::InvalidBatch,
        ),
        (
            "append time",
            batch_with(21, &[0, 8]),
            ErrorCode::InvalidTimestamp,
        ),
        (
            "delta -1",
            batch_with(23, &[0xff; 4]),
            ErrorCode::InvalidBatch,
        ),
        ("count 0", batch_with(57, &[0; 4]), ErrorCode::InvalidBatch),
        (
            "count max",
            batch_with(57, &[0x7f, 0xff, 0xff, 0xff]),
            ErrorCode::InvalidBatch,
        ),
        (
            "producer -2",
            batch_with(43, &(-2_i64).to_be_bytes()),
            ErrorCode::InvalidBatch,
        ),
        (
            "timestamp -2",
            batch_with(35, &(-2_i64).to_be_bytes()),
            ErrorCode::InvalidTimestamp,
        ),
        ("far ahead", ahead_of_time(), ErrorCode::InvalidTimestamp),
        (
            "good, then bad",
            [good.as_slice(), &[9; 10]].concat(),
            ErrorCode::InvalidBatch,
        ),
    ];
    for (what, records, error) in &cases {
        let result = topics::produce(&mut peer, info.id, 0, records);
        // The exact code of a length depends on which rule sees it first.
        let told = result.error;
        let sound = told == *error
            || (what.starts_with("too") || *what == "2 GiB") && told != ErrorCode::None;
        assert!(sound, "{what}: {result:?}");
        assert!(!result.message.is_empty(), "{what}: a sentence");
    }
    let elsewhere = topics::produce(&mut peer, TopicId::default(), 0, &good);
    assert_eq!(elsewhere.error, ErrorCode::UnknownTopic);
    let elsewhere = topics::produce(&mut peer, info.id, 7, &good);
    assert_eq!(elsewhere.error, ErrorCode::UnknownPartition);
    for (epoch, error) in [
        (i32::MAX, ErrorCode::UnknownLeaderEpoch),
        (0, ErrorCode::FencedLeaderEpoch),
    ] {
        let request = produce_of_epoch(info.id, epoch, &good);
        let answer = peer.ask_with(&request, &good).expect("an answer").0;
        let told = answer.partitions[0].error;
        assert!(
            told == error || epoch == 0 && told == ErrorCode::None,
            "{epoch}: {told:?}"
        );
    }
    let last = topics::produce(&mut peer, info.id, 0, &good);
    assert_eq!(last.error, ErrorCode::None);
    assert!(
        last.base_offset <= Offset(2),
        "nothing wrong was kept: {last:?}"
    );
    assert!(broker.is_alive());
}

#[test]
fn replies_come_in_order_where_that_is_asked_for() {
    let Some(broker) = Broker::start(&[]) else {
        return;
    };
    let info = topics::create(broker.address(), "empty", 1);
    for ordered in [false, true] {
        let handshake = HandshakeRequest {
            ordered_replies: ordered,
            ..plain_handshake()
        };
        let (mut peer, _) = Peer::greeting(broker.address(), &handshake);
        let waits = peer.post(&topics::fetch_of(info.id, 0, 0, 300), &[]);
        let quick: Vec<u64> = (0..50)
            .map(|_| peer.post(&MetadataRequest::default(), &[]))
            .collect();
        let mut came = Vec::new();
        for _ in 0..=quick.len() {
            match peer.receive() {
                Outcome::Answered(frame) => came.push(frame.header.correlation_id),
                other => panic!("{other:?}"),
            }
        }
        let mut expected = quick;
        let place = if ordered { 0 } else { expected.len() };
        expected.insert(place, waits);
        assert_eq!(came, expected, "ordered {ordered}");
    }
}
