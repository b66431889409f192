//! Committed offsets: fetched when a partition is taken, committed as the member it is held by.

use std::sync::Arc;

use millstream_protocol::{
    ErrorCode, LeaderEpoch, Offset, TopicPartition,
    messages::{
        CommittedOffset, OffsetCommitPartition, OffsetCommitRequest, OffsetCommitResponse,
        OffsetFetchRequest, OffsetFetchResponse,
    },
};

use super::coordinator::ask_until_answered;
use crate::{
    client::Shared,
    error::{ConsumeError, RequestError},
};

/// An offset to commit.
#[derive(Clone, Debug)]
pub(crate) struct ToCommit {
    pub at: TopicPartition,
    /// For errors.
    pub topic: Arc<str>,
    pub offset: Offset,
    pub leader_epoch: LeaderEpoch,
    pub metadata: String,
}

/// What a group has committed, of some partitions or of all.
pub(crate) async fn fetch_committed(
    shared: &Shared,
    group: &str,
    partitions: Option<Vec<TopicPartition>>,
) -> Result<Vec<CommittedOffset>, RequestError> {
    let make = || OffsetFetchRequest {
        group: group.to_owned(),
        partitions: partitions.clone(),
    };
    let error_of = |response: &OffsetFetchResponse| match response.error {
        ErrorCode::None => None,
        code => Some((code, response.message.clone())),
    };
    let response = ask_until_answered(shared, group, make, error_of).await?;
    Ok(response.partitions)
}

/// Commits, durably when it returns. `identity` gives member and epoch anew for each attempt.
pub(crate) async fn commit(
    shared: &Shared,
    group: &str,
    identity: impl Fn() -> (String, i64),
    offsets: &[ToCommit],
) -> Result<(), ConsumeError> {
    if offsets.is_empty() {
        return Ok(());
    }
    let make = || {
        let (member_id, member_epoch) = identity();
        OffsetCommitRequest {
            group: group.to_owned(),
            member_id,
            member_epoch,
            partitions: offsets
                .iter()
                .map(|it| OffsetCommitPartition {
                    topic: it.at.topic,
                    partition: it.at.partition,
                    offset: it.offset,
                    leader_epoch: it.leader_epoch,
                    metadata: it.metadata.clone(),
                })
                .collect(),
        }
    };
    // Those that passed are committed again with the others: that changes nothing.
    let error_of = |response: &OffsetCommitResponse| {
        let mut wrong = response.partitions.iter();
        let retriable = wrong.find(|it| it.error.is_retriable())?;
        Some((retriable.error, retriable.message.clone()))
    };
    let response = ask_until_answered(shared, group, make, error_of).await?;
    let mut results = offsets.iter().zip(response.partitions);
    match results.find(|(_, result)| result.error != ErrorCode::None) {
        None => Ok(()),
        Some((offset, result)) => Err(ConsumeError::CommitRefused {
            topic: Arc::clone(&offset.topic),
            partition: offset.at.partition,
            offset: offset.offset,
            code: result.error,
            message: result.message.into(),
        }),
    }
}
