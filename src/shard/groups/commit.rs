//! Commits: each partition judged, what may count appended in one batch, answered once it is durable.

use std::{collections::BTreeSet, rc::Rc};

use millstream_protocol::{
    ErrorCode, Offset, TopicPartition,
    limits::MAX_OFFSET_METADATA,
    messages::{
        OffsetCommitPartition, OffsetCommitRequest, OffsetCommitResponse, OffsetCommitResult,
    },
};

use super::{
    coordinator::{Coordinator, Record},
    here::{no_member, no_room},
    requests::{Done, GroupResponse},
    wire::check_group,
};
use crate::{
    group::{Epoch, Refusal, format::Key, offsets::Committed},
    io::Io,
    shard::Shard,
};

/// Who commits.
struct Author<'a> {
    group: &'a str,
    member_id: &'a str,
    epoch: Epoch,
}

impl<I: Io> Shard<I> {
    pub(super) fn commit_here(self: &Rc<Self>, request: OffsetCommitRequest, done: Done) {
        let mut results = Vec::with_capacity(request.partitions.len());
        let result = |entry: &OffsetCommitPartition| OffsetCommitResult {
            topic: entry.topic,
            partition: entry.partition,
            error: ErrorCode::None,
            message: String::new(),
        };
        let prepared = check_group(&request.group)
            .and_then(|()| self.coordinator_of(&request.group))
            .and_then(|it| self.may_commit_to(&it, &request).map(|()| it));
        let coordinator = match prepared {
            Ok(coordinator) => coordinator,
            Err(refusal) => {
                let refused = request.partitions.iter().map(|entry| OffsetCommitResult {
                    error: refusal.error,
                    message: refusal.message.clone(),
                    ..result(entry)
                });
                let partitions = refused.collect();
                return done(GroupResponse::Commit(OffsetCommitResponse { partitions }));
            }
        };
        let author = Author {
            group: &request.group,
            member_id: &request.member_id,
            epoch: Epoch(request.member_epoch),
        };
        let now_ms = self.io().wall_ms();
        let mut taken = Vec::new();
        let mut seen = BTreeSet::new();
        for entry in request.partitions {
            let mut result = result(&entry);
            let at = TopicPartition {
                topic: entry.topic,
                partition: entry.partition,
            };
            let judged = match seen.insert(at) {
                true => self.judge_commit(&coordinator, &author, at, &entry),
                false => Err(Refusal {
                    error: ErrorCode::InvalidRequest,
                    message: "the partition is named more than once".to_owned(),
                }),
            };
            match judged {
                Ok(()) => {
                    let committed = (entry.offset >= Offset::ZERO).then_some(Committed {
                        offset: entry.offset,
                        leader_epoch: entry.leader_epoch,
                        metadata: entry.metadata,
                        commit_ms: now_ms,
                    });
                    taken.push((results.len(), at, committed));
                }
                Err(refusal) => (result.error, result.message) = (refusal.error, refusal.message),
            }
            results.push(result);
        }
        self.append_commit(&coordinator, &request.group, taken, results, done);
    }

    /// Whether the group may take commits of this kind at all; it is made if it is not there.
    fn may_commit_to(
        &self,
        coordinator: &Rc<Coordinator>,
        request: &OffsetCommitRequest,
    ) -> Result<(), Refusal> {
        if request.member_id.is_empty() {
            if !self.ensure_group(coordinator, &request.group) {
                return Err(no_room());
            }
            let groups = coordinator.groups.borrow();
            return groups[request.group.as_str()]
                .group
                .may_commit_from_outside();
        }
        match coordinator
            .groups
            .borrow()
            .contains_key(request.group.as_str())
        {
            true => Ok(()),
            false => Err(no_member()),
        }
    }

    fn judge_commit(
        &self,
        coordinator: &Coordinator,
        author: &Author<'_>,
        at: TopicPartition,
        entry: &OffsetCommitPartition,
    ) -> Result<(), Refusal> {
        let invalid = |error, message: String| Err(Refusal { error, message });
        if entry.metadata.len() > MAX_OFFSET_METADATA {
            let size = entry.metadata.len();
            let message = format!("metadata of {size} bytes is larger than {MAX_OFFSET_METADATA}");
            return invalid(ErrorCode::InvalidRequest, message);
        }
        if entry.offset < Offset(-1) {
            let message = format!("{} is no offset", entry.offset);
            return invalid(ErrorCode::InvalidRequest, message);
        }
        let topics = self.groups.topics.borrow();
        if topics.name(at.topic).is_none() {
            let message = format!("there is no topic with id {}", at.topic);
            return invalid(ErrorCode::UnknownTopic, message);
        }
        if !topics.has(at) {
            let message = format!("the topic has no partition {}", at.partition);
            return invalid(ErrorCode::UnknownPartition, message);
        }
        if !author.member_id.is_empty() {
            let group = &coordinator.groups.borrow()[author.group].group;
            group.may_commit(author.member_id, author.epoch, at)?;
        }
        if entry.offset >= Offset::ZERO && !self.groups.has_room(entry.metadata.len()) {
            return Err(no_room());
        }
        Ok(())
    }

    /// Appends a commit; it counts, and is answered, once it is durable.
    fn append_commit(
        self: &Rc<Self>,
        coordinator: &Rc<Coordinator>,
        group: &str,
        taken: Vec<(usize, TopicPartition, Option<Committed>)>,
        mut results: Vec<OffsetCommitResult>,
        done: Done,
    ) {
        if taken.is_empty() {
            let partitions = results;
            return done(GroupResponse::Commit(OffsetCommitResponse { partitions }));
        }
        let records: Vec<Record> = taken
            .iter()
            .map(|(_, at, committed)| {
                let key = Key::Offset(group.to_owned(), *at);
                (key, committed.as_ref().map(Committed::encode))
            })
            .collect();
        let (shard, group) = (Rc::clone(self), group.to_owned());
        let place = Rc::clone(coordinator);
        self.append_for_groups(coordinator, &records, false, move |kept| {
            match kept {
                Ok(()) => shard.take_committed(&place, &group, taken),
                Err(refusal) => {
                    for (at, ..) in taken {
                        results[at].error = refusal.error;
                        results[at].message.clone_from(&refusal.message);
                    }
                }
            }
            let partitions = results;
            done(GroupResponse::Commit(OffsetCommitResponse { partitions }));
        });
    }

    fn take_committed(
        &self,
        coordinator: &Rc<Coordinator>,
        group: &str,
        taken: Vec<(usize, TopicPartition, Option<Committed>)>,
    ) {
        // It may have been nothing but this commit.
        self.ensure_group(coordinator, group);
        let mut groups = coordinator.groups.borrow_mut();
        let Some(entry) = groups.get_mut(group) else {
            return;
        };
        let before = entry.offsets.size();
        for (_, at, committed) in taken {
            entry.offsets.take(at, committed);
        }
        let used = self.groups.used.get() + entry.offsets.size();
        self.groups.used.set(used.saturating_sub(before));
    }
}
