//! Consumer groups: which there are, who is in them, how far they have read; and what only an operator
//! does: moving their offsets, and deleting them.

use std::collections::BTreeMap;

use millstream_protocol::{
    ErrorCode, LeaderEpoch, Offset, TopicPartition,
    messages::{
        DeleteGroupsRequest, DescribeGroupsRequest, GroupDescription, ListGroupsRequest,
        ListedGroup, NO_EPOCH,
    },
};

use super::Admin;
use crate::{
    error::{ConsumeError, RequestError},
    group::offsets::{ToCommit, commit, fetch_committed},
};

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The next record to read.
    pub offset: Offset,
    /// What came with it.
    pub metadata: String,
    /// When it was committed, in milliseconds since 1970.
    pub commit_ms: i64,
}

fn refused(code: ErrorCode, message: String) -> Result<(), RequestError> {
    match code {
        ErrorCode::None => Ok(()),
        code => Err(RequestError::Broker {
            code,
            message: message.into(),
        }),
    }
}

impl Admin {
    /// Every group, by name.
    ///
    /// # Errors
    /// [`RequestError`] if the broker can't be asked, or is still loading some of them.
    pub async fn groups(&self) -> Result<Vec<ListedGroup>, RequestError> {
        let metadata = &self.client.shared.metadata;
        let response = metadata.ask_any(&ListGroupsRequest {}).await?;
        refused(response.error, response.message)?;
        Ok(response.groups)
    }

    /// A group and its members.
    ///
    /// # Errors
    /// [`RequestError::Broker`] with `UnknownGroup` if there is none.
    pub async fn group(&self, group: &str) -> Result<GroupDescription, RequestError> {
        let request = DescribeGroupsRequest {
            groups: vec![group.to_owned()],
        };
        let response = self.client.shared.metadata.ask_any(&request).await?;
        let described = response.groups.into_iter().next().unwrap_or_default();
        refused(described.error, described.message.clone())?;
        Ok(described)
    }

    /// Deletes a group that has no members, with its offsets.
    ///
    /// # Errors
    /// [`RequestError::Broker`] with `GroupNotEmpty`, which names whom to stop, or `UnknownGroup`.
    pub async fn delete_group(&self, group: &str) -> Result<(), RequestError> {
        let request = DeleteGroupsRequest {
            groups: vec![group.to_owned()],
        };
        let response = self.client.shared.metadata.ask_any(&request).await?;
        let result = response.groups.into_iter().next().unwrap_or_default();
        refused(result.error, result.message)
    }

    /// All that a group has committed.
    ///
    /// # Errors
    /// [`RequestError`] if its coordinator can't be asked.
    pub async fn committed_offsets(
        &self,
        group: &str,
    ) -> Result<BTreeMap<TopicPartition, Committed>, RequestError> {
        let shared = &self.client.shared;
        let found = fetch_committed(shared, group, None).await?;
        let found = found.into_iter().map(|it| {
            let (topic, partition) = (it.topic, it.partition);
            let committed = Committed {
                offset: it.offset,
                metadata: it.metadata,
                commit_ms: it.commit_ms,
            };
            (TopicPartition { topic, partition }, committed)
        });
        Ok(found.collect())
    }

    /// Commits offsets for a group that has no members; -1 forgets what was committed.
    ///
    /// # Errors
    /// [`ConsumeError::CommitRefused`] with `GroupNotEmpty`, which names whom to stop.
    pub async fn set_committed_offsets(
        &self,
        group: &str,
        topic: &str,
        offsets: &[(TopicPartition, Offset)],
    ) -> Result<(), ConsumeError> {
        let offsets: Vec<ToCommit> = offsets
            .iter()
            .map(|(at, offset)| ToCommit {
                at: *at,
                topic: topic.into(),
                offset: *offset,
                leader_epoch: LeaderEpoch::UNKNOWN,
                metadata: String::new(),
            })
            .collect();
        let outsider = || (String::new(), NO_EPOCH);
        commit(&self.client.shared, group, outsider, &offsets).await
    }
}
