//! One or more valid frames of every API, about a topic that exists, so that a frame that is only
//! a little wrong reaches as deep as a right one.

use millstream_protocol::{
    FRAME_HEADER_SIZE, LeaderEpoch, Offset, PartitionIndex, TopicId, TopicPartition,
    batch::{BatchBuilder, Compression, NO_HEADERS},
    headers,
    messages::{
        AlterTopicRequest, Api, CancelDelayed, CancelDelayedRequest, CreatePartitionsRequest,
        CreateTopicsRequest, DeleteGroupsRequest, DeleteRecordsPartition, DeleteRecordsRequest,
        DeleteTopicsRequest, DescribeClusterRequest, DescribeDelayedRequest, DescribeGroupsRequest,
        DescribePartitionsRequest, FetchRequest, GroupHeartbeatRequest, HandshakeRequest,
        InitProducerIdRequest, ListDelayedPartition, ListDelayedRequest, ListGroupsRequest,
        ListOffsetsPartition, ListOffsetsRequest, MemberState, MetadataRequest, NewTopic,
        OffsetCommitPartition, OffsetCommitRequest, OffsetFetchRequest, ProduceRequest, Request,
        decode_body, encode_body,
    },
};

use crate::{
    peer::{frame_of, plain_handshake},
    topics::{fetch_of, produce_of},
};

/// A valid frame.
pub struct Sample {
    pub api: Api,
    pub bytes: Vec<u8>,
    /// Where the records begin, if their checksum shall be repaired after a change.
    pub repair_from: Option<usize>,
}

fn sample<R: Request>(request: &R) -> Sample {
    with_records(request, &[], false)
}

fn with_records<R: Request>(request: &R, records: &[u8], repair: bool) -> Sample {
    let body = encode_body(request);
    Sample {
        api: R::API,
        bytes: frame_of(R::API as u16, 77, &body, records),
        repair_from: repair.then_some(FRAME_HEADER_SIZE + body.len()),
    }
}

/// Samples of every API about partition 0 and 1 of `topic`, which is called `name`.
pub fn samples(topic: TopicId, name: &str) -> Vec<Sample> {
    let mut all = vec![
        sample(&plain_handshake()),
        sample(&HandshakeRequest {
            wanted_shard: 1,
            ordered_replies: true,
            ..plain_handshake()
        }),
        sample(&MetadataRequest::default()),
        sample(&MetadataRequest {
            topics: Some(vec![name.to_owned(), "absent".to_owned()]),
            include_internal: true,
        }),
        sample(&InitProducerIdRequest::default()),
        sample(&DescribeClusterRequest {}),
        sample(&DescribePartitionsRequest {
            partitions: partitions(topic).collect(),
        }),
    ];
    all.extend(changes(name));
    all.extend(of_records(topic));
    all.extend(of_groups(topic, name));
    all.extend(of_delays(topic));
    for api in Api::ALL {
        assert!(all.iter().any(|s| s.api == *api), "a frame of {api}");
    }
    all
}

fn partitions(topic: TopicId) -> impl Iterator<Item = TopicPartition> {
    [0, 1]
        .map(|number| TopicPartition {
            topic,
            partition: PartitionIndex(number),
        })
        .into_iter()
}

fn changes(name: &str) -> Vec<Sample> {
    vec![
        sample(&CreateTopicsRequest {
            topics: vec![NewTopic {
                name: "made".to_owned(),
                partitions: 1,
                replication_factor: 1,
                configs: vec![("retention.ms".to_owned(), "60000".to_owned())],
            }],
            validate_only: false,
        }),
        sample(&DeleteTopicsRequest {
            names: vec!["made".to_owned(), "absent".to_owned()],
        }),
        sample(&AlterTopicRequest {
            name: name.to_owned(),
            configs: vec![
                ("segment.bytes".to_owned(), Some("16777216".to_owned())),
                ("retention.ms".to_owned(), None),
            ],
            force: false,
        }),
        sample(&CreatePartitionsRequest {
            name: name.to_owned(),
            total: 3,
        }),
    ]
}

fn of_records(topic: TopicId) -> Vec<Sample> {
    let records = records();
    let two = {
        let mut request = produce_of(topic, 0, &records);
        request
            .partitions
            .extend(produce_of(topic, 1, &records).partitions);
        request
    };
    let twice = [records.as_slice(), &records].concat();
    vec![
        with_records(&produce_of(topic, 0, &records), &records, false),
        with_records(&two, &twice, false),
        with_records(&produce_of(topic, 1, &records), &records, true),
        sample(&fetch_of(topic, 0, 0, 100)),
        sample(&fetch_of(topic, 1, 1, 100)),
        sample(&ListOffsetsRequest {
            partitions: [0, -1, -2]
                .map(|timestamp_ms| ListOffsetsPartition {
                    topic,
                    partition: PartitionIndex(0),
                    timestamp_ms,
                })
                .into(),
        }),
        sample(&DeleteRecordsRequest {
            partitions: partitions(topic)
                .map(|id| DeleteRecordsPartition {
                    topic: id.topic,
                    partition: id.partition,
                    before_offset: Offset(0),
                })
                .collect(),
        }),
    ]
}

fn of_groups(topic: TopicId, name: &str) -> Vec<Sample> {
    let group = || "group".to_owned();
    let member_id = || "member".to_owned();
    vec![
        sample(&GroupHeartbeatRequest {
            group: group(),
            member_id: member_id(),
            member_epoch: 0,
            max_wait_ms: 100,
            state: Some(MemberState {
                instance_id: Some("instance".to_owned()),
                topics: vec![name.to_owned()],
                pattern: Some("tar.*".to_owned()),
                assignor: "range".to_owned(),
                session_timeout_ms: 1_000,
                rebalance_timeout_ms: 1_000,
                owned: partitions(topic).collect(),
            }),
        }),
        sample(&GroupHeartbeatRequest {
            group: group(),
            member_id: member_id(),
            member_epoch: 1,
            max_wait_ms: 100,
            state: None,
        }),
        sample(&OffsetCommitRequest {
            group: "others".to_owned(),
            member_id: String::new(),
            member_epoch: -1,
            partitions: partitions(topic)
                .map(|id| OffsetCommitPartition {
                    topic: id.topic,
                    partition: id.partition,
                    offset: Offset(1),
                    leader_epoch: LeaderEpoch(0),
                    metadata: "so far".to_owned(),
                })
                .collect(),
        }),
        sample(&OffsetFetchRequest {
            group: group(),
            partitions: Some(partitions(topic).collect()),
        }),
        sample(&ListGroupsRequest {}),
        sample(&DescribeGroupsRequest {
            groups: vec![group(), "absent".to_owned()],
        }),
        sample(&DeleteGroupsRequest {
            groups: vec!["others".to_owned()],
        }),
    ]
}

fn of_delays(topic: TopicId) -> Vec<Sample> {
    let records = {
        let mut builder = BatchBuilder::new();
        let due = [(headers::DELIVER_AFTER, Some(&b"3600000"[..]))];
        builder
            .push(1_700_000_000_000, None, Some(b"later"), &due)
            .expect("a small record");
        builder.finish(None, Compression::None)
    };
    let delayed = |repair: bool| {
        let body = encode_body(&produce_of(topic, 0, &records));
        Sample {
            api: Api::ProduceDelayed,
            bytes: frame_of(Api::ProduceDelayed as u16, 77, &body, &records),
            repair_from: repair.then_some(FRAME_HEADER_SIZE + body.len()),
        }
    };
    vec![
        delayed(false),
        delayed(true),
        sample(&ListDelayedRequest {
            partitions: partitions(topic)
                .map(|id| ListDelayedPartition {
                    topic: id.topic,
                    partition: id.partition,
                    after_ms: 0,
                    after_delay_id: Offset(-1),
                    max_records: 10,
                })
                .collect(),
        }),
        sample(&CancelDelayedRequest {
            records: vec![CancelDelayed {
                topic,
                partition: PartitionIndex(0),
                delay_id: Offset(0),
                id: String::new(),
            }],
        }),
        sample(&DescribeDelayedRequest {
            partitions: partitions(topic).collect(),
        }),
    ]
}

fn records() -> Vec<u8> {
    let mut builder = BatchBuilder::new();
    for value in [&b"first"[..], b"second"] {
        builder
            .push(1_700_000_000_000, Some(b"key"), Some(value), NO_HEADERS)
            .expect("a small record");
    }
    builder.finish(None, Compression::None)
}

/// Whether a changed frame asks for more than these tests want to pay for: thousands of partitions
/// are within the limits, and slow to make.
pub fn asks_for_much(frame: &[u8]) -> bool {
    let Some(body) = frame.get(FRAME_HEADER_SIZE..) else {
        return false;
    };
    let many = |count: u32| (17..=10_000).contains(&count);
    let number = u16::from_le_bytes([frame[4], frame[5]]);
    match Api::from_number(number) {
        Some(Api::CreateTopics) => decode_body::<CreateTopicsRequest>(body)
            .is_ok_and(|request| request.topics.iter().any(|topic| many(topic.partitions))),
        Some(Api::CreatePartitions) => {
            decode_body::<CreatePartitionsRequest>(body).is_ok_and(|request| many(request.total))
        }
        _ => false,
    }
}

/// A produce whose batch claims to be for this epoch.
pub fn produce_of_epoch(topic: TopicId, epoch: i32, records: &[u8]) -> ProduceRequest {
    let mut request = produce_of(topic, 0, records);
    request.partitions[0].leader_epoch = LeaderEpoch(epoch);
    request
}

/// A fetch of the same partition many times over.
pub fn fetch_of_many(topic: TopicId, count: usize, max_wait_ms: u32) -> FetchRequest {
    let mut request = fetch_of(topic, 0, 0, max_wait_ms);
    let one = request.partitions.remove(0);
    request.partitions = vec![one; count];
    request
}
