//! The fake broker as the coordinator of one group with one member: it gets everything.

use std::{collections::BTreeMap, time::Duration};

use millstream_protocol::{
    ErrorCode, LeaderEpoch, Offset, PartitionIndex, TopicPartition,
    limits::{MAX_BODY_SIZE, MAX_PARTITIONS_PER_REQUEST},
    messages::*,
};

use crate::fake::State;

/// Of the only assignment there is.
const EPOCH: i64 = 1 << 32;

/// What it knows of its group.
#[derive(Debug, Default)]
pub struct Group {
    pub committed: BTreeMap<TopicPartition, i64>,
    /// Refuse so many of the next commits.
    pub refuse_commits: usize,
    pub refused_commits: usize,
}

/// How long the answer to a heartbeat waits.
pub fn wait_of(request: &GroupHeartbeatRequest) -> Duration {
    match request.member_epoch {
        EPOCH => Duration::from_millis(request.max_wait_ms.into()),
        _ => Duration::ZERO,
    }
}

pub fn heartbeat(state: &State, request: &GroupHeartbeatRequest) -> GroupHeartbeatResponse {
    if request.member_epoch == LEAVE_EPOCH {
        return GroupHeartbeatResponse {
            member_epoch: LEAVE_EPOCH,
            ..GroupHeartbeatResponse::default()
        };
    }
    let topics = state.topics.iter().map(|(name, (id, partitions))| {
        let count = u32::try_from(partitions.len()).expect("few");
        let partitions = (0..count).map(|number| AssignedPartition {
            partition: PartitionIndex(number),
            is_new: false,
        });
        AssignedTopic {
            topic: *id,
            name: name.clone(),
            partitions: partitions.collect(),
        }
    });
    GroupHeartbeatResponse {
        member_epoch: EPOCH,
        assignment: (request.member_epoch != EPOCH).then(|| topics.collect()),
        ..GroupHeartbeatResponse::default()
    }
}

pub fn commit(group: &mut Group, request: OffsetCommitRequest) -> OffsetCommitResponse {
    assert!(request.partitions.len() <= MAX_PARTITIONS_PER_REQUEST);
    assert!(encode_body(&request).len() <= MAX_BODY_SIZE as usize);
    let refused = group.refuse_commits > 0;
    if refused {
        group.refuse_commits -= 1;
        group.refused_commits += 1;
    }
    let results = request.partitions.into_iter().map(|it| {
        let (topic, partition) = (it.topic, it.partition);
        let error = match refused {
            true => ErrorCode::Internal,
            false => ErrorCode::None,
        };
        if !refused {
            let at = TopicPartition { topic, partition };
            group.committed.insert(at, it.offset.0);
        }
        OffsetCommitResult {
            topic,
            partition,
            error,
            message: String::new(),
        }
    });
    OffsetCommitResponse {
        partitions: results.collect(),
    }
}

pub fn fetch(group: &Group, request: OffsetFetchRequest) -> OffsetFetchResponse {
    let wanted = request.partitions.expect("a member names what it has");
    assert!(wanted.len() <= MAX_PARTITIONS_PER_REQUEST);
    let found = wanted.into_iter().map(|at| CommittedOffset {
        topic: at.topic,
        partition: at.partition,
        offset: Offset(group.committed.get(&at).copied().unwrap_or(-1)),
        leader_epoch: LeaderEpoch::UNKNOWN,
        metadata: String::new(),
        commit_ms: -1,
    });
    OffsetFetchResponse {
        partitions: found.collect(),
        ..OffsetFetchResponse::default()
    }
}
