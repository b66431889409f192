//! What a member commits, and what it asks for when it takes a partition, as the client has it.

use std::{rc::Rc, time::Duration};

use millstream::io::{Clock as _, TaskClass, Tasks as _};
use millstream_client::{ConsumeError, RequestError};
use millstream_protocol::{
    ErrorCode, LeaderEpoch, Offset, TopicPartition,
    messages::{
        ANY_SHARD, CommittedOffset, OffsetCommitPartition, OffsetCommitRequest, OffsetFetchRequest,
    },
};

use super::Member;
use crate::history::{CommitId, GroupWhat};

/// A member asks for so long, and no longer.
const PATIENCE: Duration = Duration::from_secs(6);
/// Pause before it asks again.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// An offset to commit.
#[derive(Clone, Copy, Debug)]
pub(super) struct ToCommit {
    at: TopicPartition,
    offset: Offset,
    leader_epoch: LeaderEpoch,
}

/// A commit in the background, from its beginning to its end.
struct Begun(Rc<Member>);

impl Begun {
    fn new(member: &Rc<Member>) -> Self {
        member.commits_begun.set(member.commits_begun.get() + 1);
        Self(Rc::clone(member))
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.0.commits_begun.set(self.0.commits_begun.get() - 1);
        self.0.commit_ended.raise();
    }
}

impl Member {
    /// How far earlier polls have read what this member has, where that is not committed yet.
    pub(super) fn uncommitted(&self, which: impl Fn(TopicPartition) -> bool) -> Vec<ToCommit> {
        let held = self.holds().into_iter().filter(|at| which(*at));
        let all = held.filter_map(|at| {
            let (offset, leader_epoch) = self.reading.done_up_to(at)?;
            let known = self.committed.borrow().get(&at) == Some(&offset);
            (!known).then_some(ToCommit {
                at,
                offset,
                leader_epoch,
            })
        });
        all.collect()
    }

    /// Begins to commit what earlier polls returned, if it is time to.
    pub(super) fn commit_if_due(self: &Rc<Self>) {
        let due = match self.plan.auto_commit {
            Some(_) => self.now() >= self.next_commit.get(),
            None => self.random.borrow_mut().below(3) == 0,
        };
        let offsets = if due {
            self.uncommitted(|_| true)
        } else {
            Vec::new()
        };
        if offsets.is_empty() {
            return;
        }
        let interval = self.plan.auto_commit.unwrap_or_default();
        self.next_commit.set(self.now() + interval);
        for offset in &offsets {
            self.committed.borrow_mut().insert(offset.at, offset.offset);
        }
        let begun = Begun::new(self);
        self.io.spawn(TaskClass::Foreground, async move {
            let _ = begun.0.commit(&offsets).await;
        });
    }

    /// Commits, one after the other; who it is by is found anew for each attempt.
    pub(super) async fn commit(&self, offsets: &[ToCommit]) -> Result<(), ErrorCode> {
        if offsets.is_empty() {
            return Ok(());
        }
        self.commit_ended
            .wait_until(|| !self.committing.get())
            .await;
        self.committing.set(true);
        let give_up_at = self.io.now() + PATIENCE;
        let result = loop {
            let result = self.try_to_commit(offsets).await;
            let again = result.is_err_and(ErrorCode::is_retriable);
            if !again || self.io.now() >= give_up_at {
                break result;
            }
            self.io.sleep(RETRY_PAUSE).await;
        };
        self.committing.set(false);
        self.commit_ended.raise();
        result
    }

    async fn try_to_commit(&self, offsets: &[ToCommit]) -> Result<(), ErrorCode> {
        let (member_id, member_epoch) = self.machine.borrow().identity();
        let ids: Vec<CommitId> = offsets.iter().map(|_| self.recorder.commit()).collect();
        let entries = offsets.iter().zip(&ids);
        let partitions = entries.map(|(it, id)| {
            self.note(GroupWhat::Commits {
                id: *id,
                epoch: member_epoch,
                at: it.at,
                offset: it.offset,
            });
            OffsetCommitPartition {
                topic: it.at.topic,
                partition: it.at.partition,
                offset: it.offset,
                leader_epoch: it.leader_epoch,
                metadata: id.to_string(),
            }
        });
        let request = OffsetCommitRequest {
            group: format!("g{}", self.plan.group),
            member_id,
            member_epoch,
            partitions: partitions.collect(),
        };
        let answer = self.connections.request(ANY_SHARD, &request, &[]).await;
        let answer = match answer {
            Ok((answer, _)) => answer,
            Err(error) => return Err(error.code().unwrap_or(ErrorCode::Overloaded)),
        };
        let mut worst = Ok(());
        for (id, result) in ids.iter().zip(&answer.partitions) {
            self.note(GroupWhat::CommitAnswered(*id, result.error));
            if result.error != ErrorCode::None && !worst.is_err_and(ErrorCode::is_retriable) {
                worst = Err(result.error);
            }
        }
        worst
    }

    /// What was committed of a partition.
    pub(super) async fn fetch_committed(
        &self,
        at: TopicPartition,
    ) -> Result<CommittedOffset, ConsumeError> {
        let give_up_at = self.io.now() + PATIENCE;
        loop {
            self.note(GroupWhat::Asks(at));
            let request = OffsetFetchRequest {
                group: format!("g{}", self.plan.group),
                partitions: Some(vec![at]),
            };
            let asked = self.connections.request(ANY_SHARD, &request, &[]).await;
            let trouble = match asked {
                Ok((answer, _)) if answer.error == ErrorCode::None => {
                    let found = answer.partitions.into_iter().next();
                    let found = found.expect("one was asked for");
                    let id = found.metadata.parse().ok();
                    let heard = id.map(|id| (found.offset, id));
                    self.note(GroupWhat::Hears(at, heard));
                    return Ok(found);
                }
                Ok((answer, _)) => RequestError::Broker {
                    code: answer.error,
                    message: answer.message.into(),
                },
                Err(error) => error,
            };
            if !trouble.is_retriable() || self.io.now() >= give_up_at {
                return Err(trouble.into());
            }
            self.io.sleep(RETRY_PAUSE).await;
        }
    }
}
