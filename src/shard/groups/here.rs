//! What is asked of groups that are coordinated on this shard.

use std::rc::Rc;

use millstream_protocol::{
    ErrorCode, LeaderEpoch, Offset, TopicPartition,
    messages::{
        CommittedOffset, DeleteGroupsResult, GroupDescription, GroupHeartbeatRequest,
        GroupHeartbeatResponse, ListedGroup, OffsetFetchRequest, OffsetFetchResponse,
    },
};

use super::{
    coordinator::{Coordinator, Token},
    requests::{Done, GroupRequest, GroupResponse},
    wire::{description, heartbeat, loading},
};
use crate::{
    group::{Epoch, Event, Heartbeat, Refusal, Speaker, offsets::Committed},
    io::{Io, TaskClass},
    shard::Shard,
};

impl<I: Io> Shard<I> {
    /// Does what is asked of groups that are coordinated here.
    pub(in crate::shard) fn do_group_request(self: &Rc<Self>, request: GroupRequest, done: Done) {
        match request {
            GroupRequest::Heartbeat(request, speaker) => {
                let token = Token(Box::new(|response| {
                    done(GroupResponse::Heartbeat(response))
                }));
                self.heartbeat_here(request, speaker, token);
            }
            GroupRequest::Commit(request) => self.commit_here(request, done),
            GroupRequest::Fetch(request) => self.fetch_offsets_here(request, done),
            GroupRequest::List => {
                let (groups, missing) = self.list_groups_here();
                done(GroupResponse::List(groups, missing));
            }
            GroupRequest::Describe(names) => {
                let groups = names.iter().map(|name| self.describe_group_here(name));
                done(GroupResponse::Describe(groups.collect()));
            }
            GroupRequest::Delete(names) => self.delete_groups_here(names, done),
        }
    }

    /// The coordinator of a group, if it serves.
    pub(super) fn coordinator_of(self: &Rc<Self>, group: &str) -> Result<Rc<Coordinator>, Refusal> {
        let place = self.place_of(group).ok_or_else(loading)?;
        let coordinators = self.groups.coordinators.borrow();
        let Some(coordinator) = coordinators.get(&place.partition) else {
            drop(coordinators);
            return Err(match self.partition(place) {
                // It has just been opened, or is on the way there.
                Ok(_) => loading(),
                Err(missing) if missing.error == ErrorCode::PartitionLoading => loading(),
                Err(missing) => Refusal {
                    error: missing.error,
                    message: format!("the group's offsets cannot be read: {}", missing.message),
                },
            });
        };
        match coordinator.refusal() {
            None => Ok(Rc::clone(coordinator)),
            Some(refusal) => Err(refusal),
        }
    }

    fn heartbeat_here(
        self: &Rc<Self>,
        request: GroupHeartbeatRequest,
        speaker: Speaker,
        token: Token,
    ) {
        let name: Rc<str> = request.group.as_str().into();
        let refusal = match self.admit_heartbeat(&name, request, speaker) {
            Ok((coordinator, heartbeat)) => {
                let heartbeat = Box::new(heartbeat);
                let event = Event::Heartbeat { token, heartbeat };
                return self.apply_to_group(&coordinator, &name, event);
            }
            Err(refusal) => refusal,
        };
        token.0(GroupHeartbeatResponse {
            error: refusal.error,
            message: refusal.message,
            member_epoch: Epoch::LEAVE.0,
            assignment: None,
        });
    }

    /// Checks a heartbeat, and that there is memory and disk for what it may change. Only who joins makes a
    /// group.
    fn admit_heartbeat(
        self: &Rc<Self>,
        name: &Rc<str>,
        request: GroupHeartbeatRequest,
        speaker: Speaker,
    ) -> Result<(Rc<Coordinator>, Heartbeat), Refusal> {
        let heartbeat = heartbeat(request, speaker)?;
        let coordinator = self.coordinator_of(name)?;
        let joins = heartbeat.epoch == Epoch::JOIN;
        if joins && !self.ensure_group(&coordinator, name) {
            return Err(no_room());
        }
        let may = match coordinator.groups.borrow().get(name) {
            None => Err(Refusal::no_member()),
            Some(entry) => {
                let growth = entry.group.growth(&heartbeat);
                if self.disk_is_full() && entry.group.would_keep(&heartbeat) {
                    let message = "too little disk space is free to keep what the member says";
                    Err(Refusal {
                        error: ErrorCode::DiskFull,
                        message: message.to_owned(),
                    })
                } else if growth > 0 && !self.groups.has_room(growth) {
                    Err(no_room())
                } else {
                    Ok(())
                }
            }
        };
        if may.is_err() {
            coordinator.drop_if_void(name);
        }
        may.map(|()| (coordinator, heartbeat))
    }

    fn fetch_offsets_here(self: &Rc<Self>, request: OffsetFetchRequest, done: Done) {
        let refused = |refusal: Refusal| {
            GroupResponse::Fetch(OffsetFetchResponse {
                error: refusal.error,
                message: refusal.message,
                partitions: Vec::new(),
            })
        };
        let coordinator = match self.coordinator_of(&request.group) {
            Ok(coordinator) => coordinator,
            Err(refusal) => return done(refused(refusal)),
        };
        self.io().spawn(TaskClass::Foreground, async move {
            // What an earlier owner committed last may be on its way to the disk.
            coordinator.settled().await;
            if let Some(refusal) = coordinator.refusal() {
                return done(refused(refusal));
            }
            let groups = coordinator.groups.borrow();
            let response = match groups.get(request.group.as_str()) {
                None => nothing_committed(&request),
                Some(entry) => OffsetFetchResponse {
                    partitions: match &request.partitions {
                        Some(wanted) => wanted
                            .iter()
                            .map(|at| committed_offset(*at, entry.offsets.of(*at)))
                            .collect(),
                        None => entry
                            .offsets
                            .iter()
                            .map(|(at, committed)| committed_offset(at, Some(committed)))
                            .collect(),
                    },
                    ..OffsetFetchResponse::default()
                },
            };
            drop(groups);
            done(GroupResponse::Fetch(response));
        });
    }

    fn list_groups_here(&self) -> (Vec<ListedGroup>, Option<Refusal>) {
        let mut listed = Vec::new();
        let mut missing = None;
        for coordinator in self.groups.all() {
            missing = missing.or_else(|| coordinator.refusal());
            let groups = coordinator.groups.borrow();
            listed.extend(groups.iter().map(|(name, entry)| ListedGroup {
                group: name.to_string(),
                state: entry.group.state().name().to_owned(),
                member_count: u32::try_from(entry.group.member_count()).unwrap_or(u32::MAX),
            }));
        }
        (listed, missing)
    }

    fn describe_group_here(self: &Rc<Self>, name: &str) -> GroupDescription {
        let refused = |refusal: Refusal| GroupDescription {
            group: name.to_owned(),
            error: refusal.error,
            message: refusal.message,
            ..GroupDescription::default()
        };
        match self.coordinator_of(name) {
            Err(refusal) => refused(refusal),
            Ok(coordinator) => match coordinator.groups.borrow().get(name) {
                None => refused(no_group(name)),
                Some(entry) => description(name, entry.group.describe(self.io().now())),
            },
        }
    }

    fn delete_groups_here(self: &Rc<Self>, mut names: Vec<String>, done: Done) {
        let name = names.pop().unwrap_or_default();
        let result = |outcome: Result<(), Refusal>| {
            let (error, message) = match outcome {
                Ok(()) => (ErrorCode::None, String::new()),
                Err(refusal) => (refusal.error, refusal.message),
            };
            GroupResponse::Delete(vec![DeleteGroupsResult {
                group: name.clone(),
                error,
                message,
            }])
        };
        let found = self.coordinator_of(&name).and_then(|coordinator| {
            let groups = coordinator.groups.borrow();
            let entry = groups.get(name.as_str()).ok_or_else(|| no_group(&name))?;
            entry.group.may_commit_from_outside()?;
            let id = Rc::clone(entry.group.id());
            drop(groups);
            Ok((coordinator, id))
        });
        match found {
            Err(refusal) => done(result(Err(refusal))),
            Ok((coordinator, id)) => {
                let result_of = result(Ok(()));
                let group = name.clone();
                self.forget_group(&coordinator, &id, move |outcome| match outcome {
                    Ok(()) => done(result_of),
                    Err(refusal) => done(GroupResponse::Delete(vec![DeleteGroupsResult {
                        group,
                        error: refusal.error,
                        message: refusal.message,
                    }])),
                });
            }
        }
    }
}

fn no_group(name: &str) -> Refusal {
    Refusal {
        error: ErrorCode::UnknownGroup,
        message: format!("there is no group {name}"),
    }
}

pub(super) fn no_room() -> Refusal {
    Refusal {
        error: ErrorCode::GroupLimitReached,
        message: "groups take all the memory that this shard has for them".to_owned(),
    }
}

pub(super) fn nothing_committed(request: &OffsetFetchRequest) -> OffsetFetchResponse {
    let wanted = request.partitions.iter().flatten();
    OffsetFetchResponse {
        partitions: wanted.map(|at| committed_offset(*at, None)).collect(),
        ..OffsetFetchResponse::default()
    }
}

fn committed_offset(at: TopicPartition, committed: Option<&Committed>) -> CommittedOffset {
    let mut answer = CommittedOffset {
        topic: at.topic,
        partition: at.partition,
        offset: Offset(-1),
        leader_epoch: LeaderEpoch::UNKNOWN,
        metadata: String::new(),
        commit_ms: -1,
    };
    if let Some(committed) = committed {
        answer.offset = committed.offset;
        answer.leader_epoch = committed.leader_epoch;
        answer.metadata.clone_from(&committed.metadata);
        answer.commit_ms = committed.commit_ms;
    }
    answer
}
