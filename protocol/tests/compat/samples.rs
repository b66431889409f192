//! One message of each kind, with a value of its own in every field.

use millstream_protocol::{
    BrokerId, ClusterId, ErrorCode, LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId,
    ShardId, TopicId, TopicPartition,
    batch::{BatchBuilder, Compression},
    messages::*,
};
use uuid::Uuid;

pub mod delay;

const TOPIC: TopicId = TopicId(Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff));
const CLUSTER: ClusterId = ClusterId(Uuid::from_u128(0xffee_ddcc_bbaa_9988_7766_5544_3322_1100));

/// Two records from an idempotent producer.
pub fn batch() -> Vec<u8> {
    let mut builder = BatchBuilder::new();
    let headers = [("trace", Some("a")), ("trace", None)];
    builder
        .push(1_700_000_000_000, Some(b"key"), Some(b"value"), &headers)
        .expect("fits");
    builder
        .push(1_700_000_000_005, Some(b"key"), None, &headers[..0])
        .expect("fits");
    builder.finish(
        Some((ProducerId(7), ProducerEpoch(1), 42)),
        Compression::None,
    )
}

fn batch_size() -> u32 {
    u32::try_from(batch().len()).expect("small")
}

pub fn handshake() -> HandshakeRequest {
    HandshakeRequest {
        client_name: "example".into(),
        client_version: "1.2.3".into(),
        features: 5,
        wanted_shard: 3,
        ordered_replies: true,
        cluster_id: Some(CLUSTER),
        auth_mechanism: "PLAIN".into(),
        auth_data: vec![0, 1, 2],
    }
}

pub fn handshake_response() -> HandshakeResponse {
    HandshakeResponse {
        error: ErrorCode::NotAuthorized,
        message: "unknown user".into(),
        auth_continues: true,
        auth_data: vec![9, 8],
        cluster_id: CLUSTER,
        broker_id: BrokerId(1),
        shard: ShardId(3),
        shard_count: 4,
        broker_version: "0.1.0".into(),
        feature_level: 1,
        max_frame_size: 1 << 26,
        apis: vec![
            ApiVersions {
                api: 0,
                min: 0,
                max: 0,
            },
            ApiVersions {
                api: 7,
                min: 1,
                max: 2,
            },
        ],
    }
}

pub fn metadata() -> MetadataRequest {
    MetadataRequest {
        topics: Some(vec!["orders".into(), "payments".into()]),
        include_internal: true,
    }
}

pub fn metadata_response() -> MetadataResponse {
    MetadataResponse {
        metadata_index: 99,
        cluster_id: CLUSTER,
        controller: BrokerId(1),
        brokers: vec![BrokerInfo {
            id: BrokerId(1),
            host: "broker.example".into(),
            port: 7400,
            rack: "r1".into(),
            shard_count: 4,
        }],
        topics: vec![TopicInfo {
            error: ErrorCode::None,
            name: "orders".into(),
            id: TOPIC,
            configs: vec![ConfigEntry {
                name: "retention.ms".into(),
                value: "604800000".into(),
                is_set: true,
            }],
            partitions: vec![PartitionInfo {
                partition: PartitionIndex(2),
                error: ErrorCode::PartitionLoading,
                leader: BrokerId(1),
                leader_epoch: LeaderEpoch(6),
                shard: ShardId(3),
                replicas: vec![BrokerId(1), BrokerId(2)],
                isr: vec![BrokerId(1)],
            }],
        }],
    }
}

fn topic_result() -> TopicResult {
    TopicResult {
        name: "orders".into(),
        id: TOPIC,
        error: ErrorCode::TopicExists,
        message: "there is a topic orders".into(),
    }
}

pub fn create_topics() -> CreateTopicsRequest {
    CreateTopicsRequest {
        topics: vec![NewTopic {
            name: "orders".into(),
            partitions: 3,
            replication_factor: 1,
            configs: vec![("durability".into(), "flushed".into())],
        }],
        validate_only: true,
    }
}

pub fn create_topics_response() -> CreateTopicsResponse {
    CreateTopicsResponse {
        topics: vec![topic_result()],
    }
}

pub fn delete_topics() -> DeleteTopicsRequest {
    DeleteTopicsRequest {
        names: vec!["orders".into(), "payments".into()],
    }
}

pub fn delete_topics_response() -> DeleteTopicsResponse {
    DeleteTopicsResponse {
        topics: vec![topic_result()],
    }
}

pub fn alter_topic() -> AlterTopicRequest {
    AlterTopicRequest {
        name: "orders".into(),
        configs: vec![
            ("retention.ms".into(), Some("1000".into())),
            ("durability".into(), None),
        ],
        force: true,
    }
}

pub fn alter_topic_response() -> AlterTopicResponse {
    AlterTopicResponse {
        topic: topic_result(),
    }
}

pub fn create_partitions() -> CreatePartitionsRequest {
    CreatePartitionsRequest {
        name: "orders".into(),
        total: 12,
    }
}

pub fn create_partitions_response() -> CreatePartitionsResponse {
    CreatePartitionsResponse {
        topic: topic_result(),
    }
}

pub fn produce() -> ProduceRequest {
    ProduceRequest {
        timeout_ms: 30_000,
        partitions: vec![ProducePartition {
            topic: TOPIC,
            partition: PartitionIndex(2),
            leader_epoch: LeaderEpoch(6),
            records_size: batch_size(),
        }],
    }
}

pub fn produce_response() -> ProduceResponse {
    ProduceResponse {
        partitions: vec![ProducePartitionResult {
            topic: TOPIC,
            partition: PartitionIndex(2),
            error: ErrorCode::NotLeader,
            message: "broker 2 leads".into(),
            base_offset: Offset(1000),
            append_time_ms: -1,
            log_start_offset: Offset(17),
            leader: BrokerId(2),
            leader_epoch: LeaderEpoch(7),
            shard: ShardId(3),
        }],
    }
}

pub fn fetch() -> FetchRequest {
    FetchRequest {
        max_wait_ms: 500,
        min_bytes: 1,
        max_bytes: 1 << 20,
        partitions: vec![FetchPartition {
            topic: TOPIC,
            partition: PartitionIndex(2),
            leader_epoch: LeaderEpoch(6),
            fetch_offset: Offset(1000),
            last_fetched_epoch: LeaderEpoch(5),
            max_bytes: 1 << 18,
        }],
    }
}

pub fn fetch_response() -> FetchResponse {
    let result = FetchPartitionResult {
        topic: TOPIC,
        partition: PartitionIndex(2),
        error: ErrorCode::None,
        message: String::new(),
        high_watermark: Offset(1002),
        log_start_offset: Offset(17),
        leader_epoch: LeaderEpoch(6),
        leader: BrokerId(1),
        shard: ShardId(3),
        diverging: None,
        records_size: batch_size(),
    };
    let diverged = FetchPartitionResult {
        partition: PartitionIndex(3),
        diverging: Some(DivergingEpoch {
            epoch: LeaderEpoch(4),
            end_offset: Offset(950),
        }),
        records_size: 0,
        ..result.clone()
    };
    FetchResponse {
        partitions: vec![result, diverged],
    }
}

pub fn list_offsets() -> ListOffsetsRequest {
    let partition = |timestamp_ms| ListOffsetsPartition {
        topic: TOPIC,
        partition: PartitionIndex(2),
        timestamp_ms,
    };
    ListOffsetsRequest {
        partitions: vec![
            partition(EARLIEST_TIMESTAMP),
            partition(LATEST_TIMESTAMP),
            partition(1_700_000_000_000),
        ],
    }
}

pub fn list_offsets_response() -> ListOffsetsResponse {
    ListOffsetsResponse {
        partitions: vec![ListOffsetsResult {
            topic: TOPIC,
            partition: PartitionIndex(2),
            error: ErrorCode::PartitionOffline,
            message: "its disk failed".into(),
            offset: Offset(1000),
            timestamp_ms: 1_700_000_000_005,
            leader_epoch: LeaderEpoch(6),
        }],
    }
}

pub fn delete_records() -> DeleteRecordsRequest {
    DeleteRecordsRequest {
        partitions: vec![DeleteRecordsPartition {
            topic: TOPIC,
            partition: PartitionIndex(2),
            before_offset: Offset(-1),
        }],
    }
}

pub fn delete_records_response() -> DeleteRecordsResponse {
    DeleteRecordsResponse {
        partitions: vec![DeleteRecordsResult {
            topic: TOPIC,
            partition: PartitionIndex(2),
            error: ErrorCode::OffsetOutOfRange,
            message: "the log ends at 1002".into(),
            log_start_offset: Offset(17),
        }],
    }
}

pub fn init_producer_id() -> InitProducerIdRequest {
    InitProducerIdRequest {
        transactional_id: None,
    }
}

pub fn init_producer_id_response() -> InitProducerIdResponse {
    InitProducerIdResponse {
        producer_id: ProducerId(7),
        producer_epoch: ProducerEpoch(1),
    }
}

pub fn describe_cluster() -> DescribeClusterRequest {
    DescribeClusterRequest {}
}

pub fn describe_cluster_response() -> DescribeClusterResponse {
    DescribeClusterResponse {
        cluster_id: CLUSTER,
        controller: BrokerId(1),
        feature_level: 1,
        metadata_index: 99,
        brokers: vec![BrokerStatus {
            id: BrokerId(1),
            version: "0.1.0".into(),
            shard_count: 4,
            uptime_ms: 61_000,
            connections: 12,
            partitions: 30,
            partitions_failed: 2,
            memory_budget: 1 << 30,
            memory_used: 1 << 28,
            data_dir: "/var/lib/millstream".into(),
            disk_free: 1 << 40,
            disk_total: 1 << 41,
            direct_io: true,
            forwarded_requests: 5,
        }],
    }
}

pub fn describe_partitions() -> DescribePartitionsRequest {
    DescribePartitionsRequest {
        partitions: vec![TopicPartition {
            topic: TOPIC,
            partition: PartitionIndex(2),
        }],
    }
}

pub fn describe_partitions_response() -> DescribePartitionsResponse {
    DescribePartitionsResponse {
        partitions: vec![PartitionStatus {
            topic: TOPIC,
            partition: PartitionIndex(2),
            error: ErrorCode::PartitionReadOnly,
            message: "damaged below 40".into(),
            shard: ShardId(3),
            leader_epoch: LeaderEpoch(6),
            log_start_offset: Offset(17),
            high_watermark: Offset(1002),
            log_end_offset: Offset(1004),
            logical_bytes: 123_456,
            physical_bytes: 262_144,
            segments: 2,
            oldest_append_ms: 1_699_999_999_000,
            clean_bytes: 65_536,
            dirty_bytes: 57_920,
        }],
    }
}
