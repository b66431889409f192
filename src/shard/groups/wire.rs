//! Between the messages of groups and what the machine knows: checked on the way in.

use std::{net::SocketAddr, time::Duration};

use millstream_protocol::{
    ErrorCode,
    limits::{
        MAX_FETCH_WAIT_MS, MAX_GROUP_ID, MAX_MEMBER_ID, MAX_REBALANCE_TIMEOUT_MS,
        MAX_SESSION_TIMEOUT_MS, MAX_TOPIC_NAME, MAX_TOPIC_PATTERN, MIN_SESSION_TIMEOUT_MS,
    },
    messages::{
        AssignedPartition, AssignedTopic, GroupDescription, GroupHeartbeatRequest,
        GroupHeartbeatResponse, GroupMember, MemberState,
    },
};

use crate::group::{
    Assigned, Assignor, Description, Epoch, Heartbeat, Pattern, Refusal, Reply, Speaker, Topics,
    Wants,
};

pub(super) fn invalid(message: impl Into<String>) -> Refusal {
    Refusal {
        error: ErrorCode::InvalidRequest,
        message: message.into(),
    }
}

/// What is asked while a group is read.
pub(super) fn loading() -> Refusal {
    Refusal {
        error: ErrorCode::CoordinatorLoading,
        message: "the group is being loaded: try again".to_owned(),
    }
}

/// Checks a group's name.
pub(super) fn check_group(group: &str) -> Result<(), Refusal> {
    match group.len() {
        0 => Err(invalid("a group needs a name")),
        1..=MAX_GROUP_ID => Ok(()),
        size => Err(invalid(format!(
            "a group's name of {size} bytes is longer than {MAX_GROUP_ID}"
        ))),
    }
}

fn check_id(what: &str, id: &str) -> Result<(), Refusal> {
    match id.len() {
        0 => Err(invalid(format!("{what} is empty"))),
        1..=MAX_MEMBER_ID => Ok(()),
        size => Err(invalid(format!(
            "{what} of {size} bytes is longer than {MAX_MEMBER_ID}"
        ))),
    }
}

fn between(what: &str, value: u32, least: u32, most: u32) -> Result<Duration, Refusal> {
    if (least..=most).contains(&value) {
        Ok(Duration::from_millis(value.into()))
    } else {
        Err(invalid(format!(
            "{what} is {value}: it must be {least} to {most}"
        )))
    }
}

/// Who speaks on a connection.
pub(super) fn speaker((client, peer): (String, Option<SocketAddr>)) -> Speaker {
    Speaker {
        client,
        host: peer.map_or_else(|| "unknown".to_owned(), |peer| peer.to_string()),
    }
}

/// A heartbeat as the machine takes it.
pub(super) fn heartbeat(
    request: GroupHeartbeatRequest,
    speaker: Speaker,
) -> Result<Heartbeat, Refusal> {
    check_id("a member's id", &request.member_id)?;
    if request.member_epoch < Epoch::LEAVE.0 {
        return Err(invalid(format!("{} is no epoch", request.member_epoch)));
    }
    Ok(Heartbeat {
        member_id: request.member_id,
        epoch: Epoch(request.member_epoch),
        max_wait: Duration::from_millis(request.max_wait_ms.min(MAX_FETCH_WAIT_MS).into()),
        wants: request.state.map(wants).transpose()?,
        speaker,
    })
}

fn wants(state: MemberState) -> Result<Wants, Refusal> {
    if let Some(instance) = &state.instance_id {
        check_id("an instance id", instance)?;
    }
    if let Some(name) = state.topics.iter().find(|it| it.len() > MAX_TOPIC_NAME) {
        let size = name.len();
        return Err(invalid(format!(
            "a topic's name of {size} bytes is longer than {MAX_TOPIC_NAME}"
        )));
    }
    let pattern = match state.pattern {
        None => None,
        Some(pattern) if pattern.len() > MAX_TOPIC_PATTERN => {
            let size = pattern.len();
            return Err(invalid(format!(
                "a pattern of {size} bytes is longer than {MAX_TOPIC_PATTERN}"
            )));
        }
        Some(pattern) => Some(Pattern::new(&pattern).map_err(|error| invalid(error.to_string()))?),
    };
    let assignor = Assignor::named(&state.assignor).ok_or_else(|| {
        let shown: String = state.assignor.chars().take(40).collect();
        invalid(format!(
            "assignor {shown:?} is not known: use range, uniform or sticky"
        ))
    })?;
    Ok(Wants {
        instance_id: state.instance_id,
        topics: state.topics.into_iter().collect(),
        pattern,
        assignor,
        session_timeout: between(
            "session_timeout_ms",
            state.session_timeout_ms,
            MIN_SESSION_TIMEOUT_MS,
            MAX_SESSION_TIMEOUT_MS,
        )?,
        rebalance_timeout: between(
            "rebalance_timeout_ms",
            state.rebalance_timeout_ms,
            MIN_SESSION_TIMEOUT_MS,
            MAX_REBALANCE_TIMEOUT_MS,
        )?,
        owned: state.owned,
    })
}

/// An answer as it goes out.
pub(super) fn reply_to_heartbeat(
    result: Result<Reply, Refusal>,
    topics: &Topics,
) -> GroupHeartbeatResponse {
    match result {
        Err(refusal) => GroupHeartbeatResponse {
            error: refusal.error,
            message: refusal.message,
            member_epoch: Epoch::LEAVE.0,
            assignment: None,
        },
        Ok(reply) => GroupHeartbeatResponse {
            error: ErrorCode::None,
            message: String::new(),
            member_epoch: reply.epoch.0,
            assignment: reply.assignment.map(|it| by_topic(&it, topics)),
        },
    }
}

/// The partitions come in order, so those of a topic are neighbours.
fn by_topic(assignment: &[Assigned], topics: &Topics) -> Vec<AssignedTopic> {
    let runs = assignment.chunk_by(|a, b| a.partition.topic == b.partition.topic);
    // A topic that was just deleted is let go by being left out.
    let known = runs.filter_map(|run| Some((run, topics.name(run[0].partition.topic)?)));
    known
        .map(|(run, name)| AssignedTopic {
            topic: run[0].partition.topic,
            name: name.to_owned(),
            partitions: run
                .iter()
                .map(|it| AssignedPartition {
                    partition: it.partition.partition,
                    is_new: it.is_new,
                })
                .collect(),
        })
        .collect()
}

/// A group as an operator is told of it.
pub(super) fn description(group: &str, found: Description) -> GroupDescription {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let members = found.members.into_iter().map(|member| GroupMember {
        member_id: member.member_id,
        instance_id: member.instance_id,
        client_name: member.speaker.client,
        host: member.speaker.host,
        member_epoch: member.epoch.0,
        topics: member.topics,
        pattern: member.pattern,
        assignment: member.assignment,
        revoking: member.revoking,
        silent_ms: millis(member.silent_for),
        session_timeout_ms: u32::try_from(millis(member.session_timeout)).unwrap_or(u32::MAX),
    });
    GroupDescription {
        group: group.to_owned(),
        error: ErrorCode::None,
        message: String::new(),
        state: found.state.name().to_owned(),
        epoch: found.epoch.0,
        assignor: found.assignor.name().to_owned(),
        members: members.collect(),
    }
}
