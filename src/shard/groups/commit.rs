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
    coordinator::{Coordinator, Must, Record},
    here::no_room,
    requests::{Done, GroupResponse},
};
use crate::{
    group::{
        Epoch, Refusal,
        format::Key,
        offsets::{self, Committed},
    },
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
        let prepared = self
            .coordinator_of(&request.group)
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
        let mut taken_size = 0;
        let mut seen = BTreeSet::new();
        for entry in request.partitions {
            let mut result = result(&entry);
            let at = TopicPartition {
                topic: entry.topic,
                partition: entry.partition,
            };
            let judged = match seen.insert(at) {
                true => self.judge_commit(&coordinator, &author, at, &entry, taken_size),
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
                    taken_size += committed.as_ref().map_or(0, offsets::size_of);
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
            false => Err(Refusal::no_member()),
        }
    }

    fn judge_commit(
        &self,
        coordinator: &Coordinator,
        author: &Author<'_>,
        at: TopicPartition,
        entry: &OffsetCommitPartition,
        taken_size: usize,
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
        let size = offsets::ENTRY_SIZE + entry.metadata.len();
        if entry.offset >= Offset::ZERO && !self.groups.has_room(taken_size + size) {
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
            // It may have been made for this.
            coordinator.drop_if_void(group);
            let partitions = results;
            return done(GroupResponse::Commit(OffsetCommitResponse { partitions }));
        }
        let life = {
            let mut groups = coordinator.groups.borrow_mut();
            let entry = groups.get_mut(group).expect("it may be committed to");
            for (_, at, committed) in &taken {
                entry.offsets.begin(*at, committed.as_ref());
            }
            entry.recharge();
            entry.life
        };
        let records: Vec<Record> = taken
            .iter()
            .map(|(_, at, committed)| {
                let key = Key::Offset(group.to_owned(), *at);
                (key, committed.as_ref().map(Committed::encode))
            })
            .collect();
        let (place, group) = (Rc::clone(coordinator), group.to_owned());
        self.append_for_groups(coordinator, &records, Must::NotBe, move |kept| {
            if let Err(refusal) = &kept {
                for (at, ..) in &taken {
                    results[*at].error = refusal.error;
                    results[*at].message.clone_from(&refusal.message);
                }
            }
            end_commit(&place, &group, life, taken, kept.is_ok());
            let partitions = results;
            done(GroupResponse::Commit(OffsetCommitResponse { partitions }));
        });
    }
}

/// A commit to the group of this life has ended. If that is no more, either all was read anew, this commit
/// too, or the group was deleted, by records behind this commit.
fn end_commit(
    coordinator: &Coordinator,
    group: &str,
    life: u64,
    taken: Vec<(usize, TopicPartition, Option<Committed>)>,
    is_durable: bool,
) {
    let mut groups = coordinator.groups.borrow_mut();
    let Some(entry) = groups.get_mut(group).filter(|it| it.life == life) else {
        return;
    };
    for (_, at, committed) in taken {
        entry.offsets.end(at, committed, is_durable);
    }
    entry.recharge();
    drop(groups);
    coordinator.drop_if_void(group);
}
