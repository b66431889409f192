//! Topics and batches for the tests, made with plain requests.

use std::net::SocketAddr;

use millstream_protocol::{
    ErrorCode, LeaderEpoch, Offset, PartitionIndex, TopicId,
    batch::{BatchBuilder, Compression, NO_HEADERS},
    messages::{
        CreateTopicsRequest, FetchPartition, FetchPartitionResult, FetchRequest, MetadataRequest,
        NewTopic, ProducePartition, ProducePartitionResult, ProduceRequest, TopicInfo,
    },
};

use crate::peer::Peer;

/// Creates a topic and tells what metadata says of it.
pub fn create(address: SocketAddr, name: &str, partitions: u32) -> TopicInfo {
    let mut peer = Peer::ready(address);
    let request = CreateTopicsRequest {
        topics: vec![NewTopic {
            name: name.to_owned(),
            partitions,
            ..NewTopic::default()
        }],
        validate_only: false,
    };
    let created = peer.ask(&request).expect("an answer");
    assert_eq!(created.topics[0].error, ErrorCode::None, "{created:?}");
    describe(&mut peer, name)
}

/// What metadata says of a topic.
pub fn describe(peer: &mut Peer, name: &str) -> TopicInfo {
    let request = MetadataRequest {
        topics: Some(vec![name.to_owned()]),
        include_internal: false,
    };
    let mut answer = peer.ask(&request).expect("an answer");
    answer.topics.remove(0)
}

/// A batch of these values.
pub fn batch(values: &[&[u8]]) -> Vec<u8> {
    let mut builder = BatchBuilder::new();
    for value in values {
        builder
            .push(-1, None, Some(value), NO_HEADERS)
            .expect("a small record");
    }
    builder.finish(None, Compression::None)
}

/// A produce of one partition.
pub fn produce_of(topic: TopicId, partition: u32, records: &[u8]) -> ProduceRequest {
    ProduceRequest {
        timeout_ms: 0,
        partitions: vec![ProducePartition {
            topic,
            partition: PartitionIndex(partition),
            leader_epoch: LeaderEpoch::UNKNOWN,
            records_size: u32::try_from(records.len()).expect("small records"),
        }],
    }
}

/// A fetch of one partition that waits for at most so long.
pub fn fetch_of(topic: TopicId, partition: u32, offset: i64, max_wait_ms: u32) -> FetchRequest {
    FetchRequest {
        max_wait_ms,
        min_bytes: 1,
        max_bytes: 1 << 20,
        partitions: vec![FetchPartition {
            topic,
            partition: PartitionIndex(partition),
            leader_epoch: LeaderEpoch::UNKNOWN,
            fetch_offset: Offset(offset),
            last_fetched_epoch: LeaderEpoch::UNKNOWN,
            max_bytes: 1 << 20,
        }],
    }
}

/// Produces batches and waits until they are durable.
pub fn produce(
    peer: &mut Peer,
    topic: TopicId,
    partition: u32,
    records: &[u8],
) -> ProducePartitionResult {
    let mut answer = peer
        .ask_with(&produce_of(topic, partition, records), records)
        .expect("an answer")
        .0;
    answer.partitions.remove(0)
}

/// Fetches from one partition.
pub fn fetch(
    peer: &mut Peer,
    topic: TopicId,
    partition: u32,
    offset: i64,
) -> (FetchPartitionResult, Vec<u8>) {
    let (mut answer, records) = peer
        .ask_with(&fetch_of(topic, partition, offset, 5_000), &[])
        .expect("an answer");
    (answer.partitions.remove(0), records)
}
