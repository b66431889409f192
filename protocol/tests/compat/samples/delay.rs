//! The messages of delayed records.

use millstream_protocol::{
    BrokerId, ErrorCode, LeaderEpoch, Offset, PartitionIndex, ShardId, TopicPartition, messages::*,
};

use super::{TOPIC, batch_size};

pub fn produce() -> ProduceDelayedRequest {
    ProduceDelayedRequest {
        timeout_ms: 30_000,
        partitions: vec![ProducePartition {
            topic: TOPIC,
            partition: PartitionIndex(2),
            leader_epoch: LeaderEpoch(5),
            records_size: batch_size(),
        }],
    }
}

pub fn produce_response() -> ProduceDelayedResponse {
    ProduceDelayedResponse {
        partitions: vec![ProducePartitionResult {
            topic: TOPIC,
            partition: PartitionIndex(2),
            error: ErrorCode::InvalidDelay,
            message: "record 1: it has neither header".into(),
            base_offset: Offset(-1),
            append_time_ms: -1,
            log_start_offset: Offset(17),
            leader: BrokerId(1),
            leader_epoch: LeaderEpoch(6),
            shard: ShardId(3),
        }],
    }
}

pub fn list() -> ListDelayedRequest {
    ListDelayedRequest {
        partitions: vec![ListDelayedPartition {
            topic: TOPIC,
            partition: PartitionIndex(2),
            after_ms: 1_700_000_000_000,
            after_delay_id: Offset(41),
            max_records: 100,
        }],
    }
}

pub fn list_response() -> ListDelayedResponse {
    ListDelayedResponse {
        partitions: vec![ListDelayedResult {
            topic: TOPIC,
            partition: PartitionIndex(2),
            error: ErrorCode::StorageError,
            message: "it cannot be read".into(),
            records: vec![DelayedRecord {
                due_ms: 1_700_000_060_000,
                delay_id: Offset(44),
                id: "reminder-7".into(),
                key: Some(b"key".to_vec()),
                value_size: 5,
            }],
            more: true,
        }],
    }
}

pub fn cancel() -> CancelDelayedRequest {
    CancelDelayedRequest {
        records: vec![CancelDelayed {
            topic: TOPIC,
            partition: PartitionIndex(2),
            delay_id: Offset(-1),
            id: "reminder-7".into(),
        }],
    }
}

pub fn cancel_response() -> CancelDelayedResponse {
    CancelDelayedResponse {
        results: vec![CancelDelayedResult {
            topic: TOPIC,
            partition: PartitionIndex(2),
            error: ErrorCode::DiskFull,
            message: "no room for the note".into(),
            outcome: CancelOutcome::Delivered.number(),
            delay_id: Offset(44),
        }],
    }
}

pub fn describe() -> DescribeDelayedRequest {
    DescribeDelayedRequest {
        partitions: vec![TopicPartition {
            topic: TOPIC,
            partition: PartitionIndex(2),
        }],
    }
}

pub fn describe_response() -> DescribeDelayedResponse {
    DescribeDelayedResponse {
        partitions: vec![DelayedStatus {
            topic: TOPIC,
            partition: PartitionIndex(2),
            error: ErrorCode::PartitionLoading,
            message: "it is being opened".into(),
            pending: 5_000_000,
            next_due_ms: 1_700_000_060_000,
            physical_bytes: 1 << 30,
        }],
    }
}
