//! Committed offsets: fetched when a partition is taken, committed as the member it is held by.

use std::sync::Arc;

use millstream_protocol::{
    ErrorCode, LeaderEpoch, Offset, TopicPartition,
    limits::{MAX_BODY_SIZE, MAX_PARTITIONS_PER_REQUEST},
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

/// What a partition takes of a commit besides its metadata, in bytes ...
const COMMIT_SIZE: usize = 40;
/// ... and the rest of the request, at most.
const REQUEST_SIZE: usize = 1 << 10;

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
    let Some(partitions) = partitions else {
        return fetch_once(shared, group, None).await;
    };
    let mut found = Vec::with_capacity(partitions.len());
    for some in partitions.chunks(MAX_PARTITIONS_PER_REQUEST) {
        found.extend(fetch_once(shared, group, Some(some)).await?);
    }
    Ok(found)
}

async fn fetch_once(
    shared: &Shared,
    group: &str,
    partitions: Option<&[TopicPartition]>,
) -> Result<Vec<CommittedOffset>, RequestError> {
    let make = || OffsetFetchRequest {
        group: group.to_owned(),
        partitions: partitions.map(<[TopicPartition]>::to_vec),
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
    let mut rest = offsets;
    while !rest.is_empty() {
        let (some, others) = rest.split_at(fitting(rest));
        commit_once(shared, group, &identity, some).await?;
        rest = others;
    }
    Ok(())
}

/// How many of these fit into one request.
fn fitting(offsets: &[ToCommit]) -> usize {
    let mut size = 0;
    let fits = offsets.iter().take(MAX_PARTITIONS_PER_REQUEST);
    let fits = fits.take_while(|it| {
        size += COMMIT_SIZE + it.metadata.len();
        size <= MAX_BODY_SIZE as usize - REQUEST_SIZE
    });
    // One that fits nowhere is the broker's to refuse.
    fits.count().max(1)
}

async fn commit_once(
    shared: &Shared,
    group: &str,
    identity: impl Fn() -> (String, i64),
    offsets: &[ToCommit],
) -> Result<(), ConsumeError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn offsets(count: usize, metadata_size: usize) -> Vec<ToCommit> {
        let one = ToCommit {
            at: TopicPartition::default(),
            topic: "t".into(),
            offset: Offset(1),
            leader_epoch: LeaderEpoch(1),
            metadata: "x".repeat(metadata_size),
        };
        vec![one; count]
    }

    #[test]
    fn a_request_carries_no_more_than_the_broker_takes() {
        assert_eq!(fitting(&offsets(3, 0)), 3);
        assert_eq!(fitting(&offsets(10_001, 0)), MAX_PARTITIONS_PER_REQUEST);
        let large = fitting(&offsets(1000, 4096));
        assert!((200..256).contains(&large), "{large}");
        assert_eq!(fitting(&offsets(2, 2 << 20)), 1);
    }
}
