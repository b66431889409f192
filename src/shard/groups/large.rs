//! Answers that may be large: what a group committed, and what it is. Memory for them is reserved before they
//! are made, on the connection that asked, wherever the coordinator is.

use std::{collections::BTreeSet, rc::Rc};

use millstream_protocol::{
    LeaderEpoch, Offset, TopicPartition,
    limits::MAX_GROUP_REPLY_SIZE,
    messages::{
        CommittedOffset, DescribeGroupsResponse, GroupDescription, OffsetFetchRequest,
        OffsetFetchResponse,
    },
};

use super::{
    coordinator::Coordinator,
    here::no_group,
    requests::{Done, GroupRequest, GroupResponse},
    wire::{check_group, description, invalid},
};
use crate::{
    group::{
        Refusal,
        offsets::{Committed, Offsets},
    },
    io::{Io, TaskClass},
    net::ReplyTo,
    shard::Shard,
};

/// Answers up to this size, in bytes, are made without more ado.
const SMALL: usize = 16 << 10;

/// What one partition takes of an answer besides its metadata, in bytes.
const OFFSET_SIZE: usize = 64;

impl<I: Io> Shard<I> {
    /// What a group has committed.
    pub(super) async fn fetch_offsets(
        self: Rc<Self>,
        request: OffsetFetchRequest,
        reply_to: ReplyTo<I>,
    ) {
        if let Err(refusal) = check_group(&request.group) {
            return reply_to.refuse(refusal.error, refusal.message);
        }
        let mut most = SMALL;
        let mut charge = Vec::new();
        loop {
            let Some(place) = self.place_of(&request.group) else {
                return reply_to.send(&nothing_committed(&request));
            };
            let asked = GroupRequest::Fetch(request.clone(), most);
            match self.ask_group(self.owner(place), asked).await {
                Ok(GroupResponse::Fetch(response)) => {
                    return reply_to.send_with(&response, Vec::new(), charge);
                }
                Ok(GroupResponse::Large(size)) => {
                    // What is held meanwhile would keep others from what they need to go on.
                    drop(charge);
                    charge = reply_to.reserve(size).await;
                    most = size;
                }
                Ok(_) => unreachable!("a fetch of offsets is answered as one"),
                Err(why) => return reply_to.refuse(why.error_code(), why.message()),
            }
        }
    }

    /// Groups with their members: those that fit into one reply.
    pub(super) async fn describe_groups(self: Rc<Self>, names: Vec<String>, reply_to: ReplyTo<I>) {
        let mut left = MAX_GROUP_REPLY_SIZE;
        let mut seen = BTreeSet::new();
        let mut groups = Vec::with_capacity(names.len());
        for name in &names {
            let asked = match seen.insert(name) {
                true => self.describe_group(name, 0).await,
                false => Described::Whole(refused(name, invalid("the group is named twice"))),
            };
            groups.push(match asked {
                // It may grow before it is asked for.
                Described::Large(size) if size + size / 4 <= left => {
                    left -= size + size / 4;
                    Described::Large(size + size / 4)
                }
                Described::Large(size) => Described::Whole(too_large(name, size)),
                whole @ Described::Whole(_) => whole,
            });
        }
        let charge = reply_to.reserve(MAX_GROUP_REPLY_SIZE - left).await;
        let mut response = DescribeGroupsResponse::default();
        for (name, group) in names.iter().zip(groups) {
            let group = match group {
                Described::Large(most) => self.describe_group(name, most).await,
                whole @ Described::Whole(_) => whole,
            };
            response.groups.push(match group {
                Described::Large(size) => too_large(name, size),
                Described::Whole(group) => group,
            });
        }
        reply_to.send_with(&response, Vec::new(), charge);
    }

    async fn describe_group(self: &Rc<Self>, name: &str, most: usize) -> Described {
        let Some(place) = self.place_of(name) else {
            return Described::Whole(refused(name, no_group(name)));
        };
        let request = GroupRequest::Describe(name.to_owned(), most);
        match self.ask_group(self.owner(place), request).await {
            Ok(GroupResponse::Describe(group)) => Described::Whole(*group),
            Ok(GroupResponse::Large(size)) => Described::Large(size),
            Ok(_) => unreachable!("a description is answered as one"),
            Err(why) => {
                let (error, message) = (why.error_code(), why.message().to_owned());
                Described::Whole(refused(name, Refusal { error, message }))
            }
        }
    }

    /// Describes a group that is coordinated here.
    pub(super) fn describe_group_here(self: &Rc<Self>, name: &str, most: usize) -> GroupResponse {
        let described = self.coordinator_of(name).and_then(|coordinator| {
            let groups = coordinator.groups.borrow();
            let entry = groups.get(name).ok_or_else(|| no_group(name))?;
            let size = entry.group.description_size();
            Ok(match size <= most {
                true => Described::Whole(description(name, entry.group.describe(self.io().now()))),
                false => Described::Large(size),
            })
        });
        match described {
            Ok(Described::Large(size)) => GroupResponse::Large(size),
            Ok(Described::Whole(group)) => GroupResponse::Describe(Box::new(group)),
            Err(refusal) => GroupResponse::Describe(Box::new(refused(name, refusal))),
        }
    }

    /// What a group that is coordinated here has committed.
    pub(super) fn fetch_offsets_here(
        self: &Rc<Self>,
        request: OffsetFetchRequest,
        most: usize,
        done: Done,
    ) {
        let shard = Rc::clone(self);
        self.io().spawn(TaskClass::Foreground, async move {
            let fetched = match shard.coordinator_of(&request.group) {
                Ok(coordinator) => fetch_settled(&coordinator, &request, most).await,
                Err(refusal) => Err(refusal),
            };
            done(match fetched {
                Ok(response) => response,
                Err(refusal) => GroupResponse::Fetch(OffsetFetchResponse {
                    error: refusal.error,
                    message: refusal.message,
                    partitions: Vec::new(),
                }),
            });
        });
    }
}

enum Described {
    /// This, or why not.
    Whole(GroupDescription),
    /// It would be so large, in bytes.
    Large(usize),
}

fn refused(group: &str, refusal: Refusal) -> GroupDescription {
    GroupDescription {
        group: group.to_owned(),
        error: refusal.error,
        message: refusal.message,
        ..GroupDescription::default()
    }
}

fn too_large(group: &str, size: usize) -> GroupDescription {
    let message = format!(
        "its {size} bytes do not fit into this reply of {MAX_GROUP_REPLY_SIZE}: ask for fewer groups at once"
    );
    refused(group, invalid(message))
}

async fn fetch_settled(
    coordinator: &Rc<Coordinator>,
    request: &OffsetFetchRequest,
    most: usize,
) -> Result<GroupResponse, Refusal> {
    // What an earlier owner committed last may be on its way to the disk.
    coordinator.settled().await;
    if let Some(refusal) = coordinator.refusal() {
        return Err(refusal);
    }
    let wanted = request.partitions.as_ref();
    let distinct: Option<BTreeSet<TopicPartition>> = wanted.map(|it| it.iter().copied().collect());
    if distinct.is_some_and(|it| Some(it.len()) != wanted.map(Vec::len)) {
        return Err(invalid("a partition is named more than once"));
    }
    let groups = coordinator.groups.borrow();
    let nothing = Offsets::default();
    let offsets = groups.get(request.group.as_str());
    let offsets = offsets.map_or(&nothing, |entry| &entry.offsets);
    let size_of = |committed: Option<&Committed>| {
        OFFSET_SIZE + committed.map_or(0, |committed| committed.metadata.len())
    };
    let size: usize = match wanted {
        Some(wanted) => wanted.iter().map(|at| size_of(offsets.of(*at))).sum(),
        None => offsets.iter().map(|(_, it)| size_of(Some(it))).sum(),
    };
    if size > MAX_GROUP_REPLY_SIZE {
        return Err(invalid(format!(
            "an answer of {size} bytes is larger than {MAX_GROUP_REPLY_SIZE}: ask for fewer partitions at once"
        )));
    }
    if size > most {
        return Ok(GroupResponse::Large(size));
    }
    let partitions = match wanted {
        Some(wanted) => {
            let wanted = wanted.iter();
            wanted
                .map(|at| committed_offset(*at, offsets.of(*at)))
                .collect()
        }
        None => {
            let all = offsets.iter();
            all.map(|(at, it)| committed_offset(at, Some(it))).collect()
        }
    };
    Ok(GroupResponse::Fetch(OffsetFetchResponse {
        partitions,
        ..OffsetFetchResponse::default()
    }))
}

fn nothing_committed(request: &OffsetFetchRequest) -> OffsetFetchResponse {
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
