//! Commits of a member: what earlier polls returned, automatically or when asked, and what the caller says.

use std::{
    future::Future,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use millstream_protocol::{LeaderEpoch, Offset, PartitionIndex, TopicPartition};
use tokio::task::JoinHandle;

use super::{
    Core, GroupConsumer,
    offsets::{ToCommit, fetch_committed},
};
use crate::error::ConsumeError;

/// An offset to commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitOffset {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: PartitionIndex,
    /// The next record to read: one more than that of the last record done.
    pub offset: Offset,
    /// Whatever is to be known again with it; at most 4 KiB.
    pub metadata: String,
}

/// Automatic commits.
#[derive(Debug)]
pub(super) struct AutoCommit {
    interval: Duration,
    /// When the next is due.
    next: Duration,
    /// The one that has not ended, or of which nobody took note; what it commits.
    under_way: Option<JoinHandle<Result<Vec<ToCommit>, ConsumeError>>>,
}

impl AutoCommit {
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            interval,
            next: Duration::ZERO,
            under_way: None,
        }
    }
}

/// A commit in the background, from its beginning to its end.
struct Begun(Arc<Core>);

impl Begun {
    fn new(core: &Arc<Core>) -> Self {
        core.begun.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(core))
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.0.begun.fetch_sub(1, Ordering::SeqCst);
        self.0.fewer.notify_one();
    }
}

impl GroupConsumer {
    /// How far earlier polls have read what this member has, where that is not committed yet.
    fn uncommitted(&self, which: impl Fn(TopicPartition) -> bool) -> Vec<ToCommit> {
        let read = self.names.iter().filter(|(at, _)| which(**at));
        read.filter_map(|(at, topic)| {
            let (offset, leader_epoch) = self.consumer.done_up_to(*at)?;
            let known = self.committed.get(at) == Some(&offset);
            (!known).then(|| ToCommit {
                at: *at,
                topic: Arc::clone(topic),
                offset,
                leader_epoch,
                metadata: String::new(),
            })
        })
        .collect()
    }

    /// When the next automatic commit is due.
    pub(super) fn next_auto_commit(&self) -> Option<tokio::time::Instant> {
        let next = self.auto_commit.as_ref()?.next;
        Some(self.core.client.shared.clock.instant(next))
    }

    /// Begins an automatic commit if one is due and the last has ended.
    pub(super) async fn commit_if_due(&mut self) {
        self.note_auto_commit().await;
        let now = self.core.client.shared.clock.now();
        let Some(auto) = &mut self.auto_commit else {
            return;
        };
        if now < auto.next {
            return;
        }
        auto.next = now + auto.interval;
        if auto.under_way.is_some() {
            return;
        }
        let offsets = self.uncommitted(|_| true);
        if offsets.is_empty() {
            return;
        }
        let begun = Begun::new(&self.core);
        let task = tokio::spawn(async move {
            let committed = begun.0.commit(&offsets).await;
            committed.map(|()| offsets)
        });
        if let Some(auto) = &mut self.auto_commit {
            auto.under_way = Some(task);
        }
    }

    /// Takes note of how the automatic commit went that has ended. What was not committed is still to be.
    async fn note_auto_commit(&mut self) {
        let under_way = self.auto_commit.as_mut().map(|it| &mut it.under_way);
        let Some(task) = under_way.and_then(|it| it.take_if(|task| task.is_finished())) else {
            return;
        };
        match task.await {
            Ok(Ok(offsets)) => self.note_committed(&offsets),
            Ok(Err(error)) => tracing::warn!(%error, "an automatic commit failed"),
            Err(_) => {}
        }
    }

    /// Everything is another's: how a commit of it ends says nothing of what this member will have.
    pub(super) fn forget_auto_commit(&mut self) {
        if let Some(auto) = &mut self.auto_commit {
            auto.under_way = None;
        }
    }

    /// Commits what was read of partitions that are to be let go, if commits are automatic, and waits for
    /// what was begun before: it counts only as long as they are held.
    pub(super) async fn commit_before_leaving(&mut self, leaving: &[TopicPartition]) {
        if self.auto_commit.is_some() {
            let offsets = self.uncommitted(|at| leaving.contains(&at));
            if let Err(error) = self.core.commit(&offsets).await {
                // The next owner does again what was done; nothing is lost.
                tracing::warn!(%error, "not committed before it was let go");
            }
        }
        while self.core.begun.load(Ordering::SeqCst) > 0 {
            self.core.fewer.notified().await;
        }
        self.note_auto_commit().await;
    }

    fn note_committed(&mut self, offsets: &[ToCommit]) {
        for offset in offsets {
            if self.names.contains_key(&offset.at) {
                self.committed.insert(offset.at, offset.offset);
            }
        }
    }

    /// Commits what polls have returned so far; durable when it returns.
    ///
    /// # Errors
    /// [`ConsumeError::CommitRefused`] if a partition has gone to another member.
    pub async fn commit(&mut self) -> Result<(), ConsumeError> {
        let offsets = self.uncommitted(|_| true);
        self.core.commit(&offsets).await?;
        self.note_committed(&offsets);
        Ok(())
    }

    /// Commits these offsets; durable when it returns.
    ///
    /// # Errors
    /// [`ConsumeError::NotAssigned`] for a partition that this member does not have, else as
    /// [`commit`](Self::commit).
    pub async fn commit_offsets(&mut self, offsets: &[CommitOffset]) -> Result<(), ConsumeError> {
        let offsets = self.to_commit(offsets)?;
        self.core.commit(&offsets).await?;
        self.note_committed(&offsets);
        Ok(())
    }

    /// Begins to commit these offsets, behind every commit that was begun before, and goes on at once. The
    /// future tells how it went; it need not be awaited.
    ///
    /// # Errors
    /// [`ConsumeError::NotAssigned`] for a partition that this member does not have.
    pub fn commit_async(
        &mut self,
        offsets: &[CommitOffset],
    ) -> Result<impl Future<Output = Result<(), ConsumeError>> + Send + use<>, ConsumeError> {
        let offsets = self.to_commit(offsets)?;
        let begun = Begun::new(&self.core);
        let group = Arc::clone(&self.core.group);
        let task = tokio::spawn(async move { begun.0.commit(&offsets).await });
        Ok(async move {
            let stopped = |_| ConsumeError::Group {
                group,
                code: millstream_protocol::ErrorCode::Unknown,
                message: "the runtime stopped before the commit was answered".into(),
            };
            task.await.map_err(stopped)?
        })
    }

    fn to_commit(&self, offsets: &[CommitOffset]) -> Result<Vec<ToCommit>, ConsumeError> {
        let of = |it: &CommitOffset| {
            let at = self.at(&it.topic, it.partition)?;
            let done = self.consumer.done_up_to(at);
            let epoch = done.filter(|done| done.0 >= it.offset).map(|done| done.1);
            Ok(ToCommit {
                at,
                topic: Arc::clone(&it.topic),
                offset: it.offset,
                leader_epoch: epoch.unwrap_or(LeaderEpoch::UNKNOWN),
                metadata: it.metadata.clone(),
            })
        };
        offsets.iter().map(of).collect()
    }

    /// What the group has committed of a partition, with its metadata; none if nothing.
    ///
    /// # Errors
    /// [`ConsumeError::NotAssigned`], or the coordinator can't be asked.
    pub async fn committed(
        &self,
        topic: &str,
        partition: PartitionIndex,
    ) -> Result<Option<(Offset, String)>, ConsumeError> {
        let at = self.at(topic, partition)?;
        let shared = &self.core.client.shared;
        let found = fetch_committed(shared, &self.core.group, Some(vec![at])).await?;
        let found = found.into_iter().find(|it| it.offset >= Offset::ZERO);
        Ok(found.map(|it| (it.offset, it.metadata)))
    }
}
