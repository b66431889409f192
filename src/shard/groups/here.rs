//! What is asked of groups that are coordinated on this shard.

use std::rc::Rc;

use millstream_protocol::{
    ErrorCode,
    messages::{DeleteGroupsResult, GroupHeartbeatRequest, GroupHeartbeatResponse, ListedGroup},
};

use super::{
    coordinator::{Coordinator, Token},
    requests::{Done, GroupRequest, GroupResponse},
    wire::{heartbeat, loading},
};
use crate::{
    group::{Epoch, Event, Heartbeat, Refusal, Speaker},
    io::Io,
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
            GroupRequest::Fetch(request, most) => self.fetch_offsets_here(request, most, done),
            GroupRequest::List => {
                let (groups, missing) = self.list_groups_here();
                done(GroupResponse::List(groups, missing));
            }
            GroupRequest::Describe(name, most) => done(self.describe_group_here(&name, most)),
            GroupRequest::Delete(name) => self.delete_group_here(name, done),
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

    fn delete_group_here(self: &Rc<Self>, name: String, done: Done) {
        let found = self.coordinator_of(&name).and_then(|coordinator| {
            let groups = coordinator.groups.borrow();
            let entry = groups.get(name.as_str()).ok_or_else(|| no_group(&name))?;
            entry.group.may_commit_from_outside()?;
            let id = Rc::clone(entry.group.id());
            drop(groups);
            Ok((coordinator, id))
        });
        let tell = |outcome: Result<(), Refusal>| {
            let refusal = outcome.err();
            let error = refusal.as_ref().map_or(ErrorCode::None, |it| it.error);
            done(GroupResponse::Delete(DeleteGroupsResult {
                group: name,
                error,
                message: refusal.map_or_else(String::new, |it| it.message),
            }));
        };
        match found {
            Err(refusal) => tell(Err(refusal)),
            Ok((coordinator, id)) => self.forget_group(&coordinator, &id, tell),
        }
    }
}

pub(super) fn no_group(name: &str) -> Refusal {
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
