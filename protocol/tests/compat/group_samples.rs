//! One message of each kind about groups, with a value of its own in every field.

use millstream_protocol::{
    ErrorCode, LeaderEpoch, Offset, PartitionIndex, TopicId, TopicPartition, messages::*,
};
use uuid::Uuid;

const TOPIC: TopicId = TopicId(Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff));
const MEMBER: &str = "0d8f3e3a-1f0c-4b7e-9d2a-5c6b7a8d9e0f";

fn partition(number: u32) -> TopicPartition {
    TopicPartition {
        topic: TOPIC,
        partition: PartitionIndex(number),
    }
}

pub fn heartbeat() -> GroupHeartbeatRequest {
    GroupHeartbeatRequest {
        group: "billing".into(),
        member_id: MEMBER.into(),
        member_epoch: (6 << 32) + 4,
        max_wait_ms: 3000,
        state: Some(MemberState {
            instance_id: Some("billing-1".into()),
            topics: vec!["orders".into(), "payments".into()],
            pattern: Some("audit-.*".into()),
            assignor: "range".into(),
            session_timeout_ms: 15_000,
            rebalance_timeout_ms: 300_000,
            owned: vec![partition(2), partition(3)],
        }),
    }
}

pub fn heartbeat_response() -> GroupHeartbeatResponse {
    let assigned = |number, is_new| AssignedPartition {
        partition: PartitionIndex(number),
        is_new,
    };
    GroupHeartbeatResponse {
        error: ErrorCode::FencedMemberEpoch,
        message: "it did not let go".into(),
        member_epoch: (6 << 32) + 5,
        assignment: Some(vec![AssignedTopic {
            topic: TOPIC,
            name: "orders".into(),
            partitions: vec![assigned(2, false), assigned(4, true)],
        }]),
    }
}

pub fn offset_commit() -> OffsetCommitRequest {
    OffsetCommitRequest {
        group: "billing".into(),
        member_id: MEMBER.into(),
        member_epoch: (6 << 32) + 4,
        partitions: vec![OffsetCommitPartition {
            topic: TOPIC,
            partition: PartitionIndex(2),
            offset: Offset(1000),
            leader_epoch: LeaderEpoch(6),
            metadata: "invoice 17".into(),
        }],
    }
}

pub fn offset_commit_response() -> OffsetCommitResponse {
    OffsetCommitResponse {
        partitions: vec![OffsetCommitResult {
            topic: TOPIC,
            partition: PartitionIndex(2),
            error: ErrorCode::StaleMemberEpoch,
            message: "it is another member's".into(),
        }],
    }
}

pub fn offset_fetch() -> OffsetFetchRequest {
    OffsetFetchRequest {
        group: "billing".into(),
        partitions: Some(vec![partition(2), partition(3)]),
    }
}

pub fn offset_fetch_response() -> OffsetFetchResponse {
    OffsetFetchResponse {
        error: ErrorCode::CoordinatorLoading,
        message: "the group is being loaded".into(),
        partitions: vec![CommittedOffset {
            topic: TOPIC,
            partition: PartitionIndex(2),
            offset: Offset(1000),
            leader_epoch: LeaderEpoch(6),
            metadata: "invoice 17".into(),
            commit_ms: 1_700_000_000_000,
        }],
    }
}

pub fn list() -> ListGroupsRequest {
    ListGroupsRequest {}
}

pub fn list_response() -> ListGroupsResponse {
    ListGroupsResponse {
        error: ErrorCode::CoordinatorLoading,
        message: "some groups are being loaded".into(),
        groups: vec![ListedGroup {
            group: "billing".into(),
            state: "stable".into(),
            member_count: 3,
        }],
    }
}

pub fn describe() -> DescribeGroupsRequest {
    DescribeGroupsRequest {
        groups: vec!["billing".into(), "shipping".into()],
    }
}

pub fn describe_response() -> DescribeGroupsResponse {
    DescribeGroupsResponse {
        groups: vec![GroupDescription {
            group: "billing".into(),
            error: ErrorCode::UnknownGroup,
            message: "no such group".into(),
            state: "reconciling".into(),
            epoch: (6 << 32) + 5,
            assignor: "sticky".into(),
            members: vec![GroupMember {
                member_id: MEMBER.into(),
                instance_id: Some("billing-1".into()),
                client_name: "shop".into(),
                host: "10.0.0.7:40112".into(),
                member_epoch: (6 << 32) + 4,
                topics: vec!["orders".into()],
                pattern: Some("audit-.*".into()),
                assignment: vec![partition(2)],
                revoking: vec![partition(3)],
                silent_ms: 1200,
                session_timeout_ms: 15_000,
            }],
        }],
    }
}

pub fn delete() -> DeleteGroupsRequest {
    DeleteGroupsRequest {
        groups: vec!["billing".into()],
    }
}

pub fn delete_response() -> DeleteGroupsResponse {
    DeleteGroupsResponse {
        groups: vec![DeleteGroupsResult {
            group: "billing".into(),
            error: ErrorCode::GroupNotEmpty,
            message: "stop its members first".into(),
        }],
    }
}
