//! Requests about groups: to the shard whose coordinator it is, and back.

use std::rc::Rc;

use futures_channel::oneshot;
use futures_util::future::join_all;
use millstream_protocol::{
    ErrorCode, ShardId, TopicPartition, Wire,
    messages::{
        DeleteGroupsResponse, DeleteGroupsResult, GroupDescription, GroupHeartbeatRequest,
        GroupHeartbeatResponse, ListGroupsResponse, ListedGroup, OffsetCommitRequest,
        OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse,
    },
};

use super::{
    here::no_group,
    wire::{check_group, speaker},
};
use crate::{
    control::{ControlReply, ControlRequest},
    group::{Refusal, Speaker},
    io::{Io, TaskClass},
    net::ReplyTo,
    session::Request,
    shard::{
        Shard,
        router::{Op, OpReply, Unanswered},
    },
};

/// What is asked of the shard that owns a group's partition.
pub enum GroupRequest {
    /// A member lives.
    Heartbeat(GroupHeartbeatRequest, Speaker),
    /// Commit.
    Commit(OffsetCommitRequest),
    /// What was committed, if the answer is no larger than this.
    Fetch(OffsetFetchRequest, usize),
    /// Every group of the shard.
    List,
    /// This group, if its description is no larger than this.
    Describe(String, usize),
    /// This group away.
    Delete(String),
}

/// The answer to the request of the same name.
pub enum GroupResponse {
    /// To `Heartbeat`.
    Heartbeat(GroupHeartbeatResponse),
    /// To `Commit`.
    Commit(OffsetCommitResponse),
    /// To `Fetch`.
    Fetch(OffsetFetchResponse),
    /// To `List`; and whether some groups are missing.
    List(Vec<ListedGroup>, Option<Refusal>),
    /// To `Describe`.
    Describe(Box<GroupDescription>),
    /// To `Delete`.
    Delete(DeleteGroupsResult),
    /// To `Fetch` and `Describe`: it would be about so large, in bytes.
    Large(usize),
}

/// Where an answer goes.
pub(super) type Done = Box<dyn FnOnce(GroupResponse)>;

impl<I: Io> Shard<I> {
    /// Serves a request of a client about groups.
    pub(in crate::shard) fn serve_groups(self: &Rc<Self>, request: Request, reply_to: ReplyTo<I>) {
        match request {
            Request::GroupHeartbeat(request) => {
                let group = request.group.clone();
                let speaker = speaker(reply_to.speaker());
                let request = GroupRequest::Heartbeat(*request, speaker);
                self.serve_one(&group, request, reply_to, |response| match response {
                    GroupResponse::Heartbeat(response) => Some(response),
                    _ => None,
                });
            }
            Request::OffsetCommit(request) => {
                let group = request.group.clone();
                let request = GroupRequest::Commit(*request);
                self.serve_one(&group, request, reply_to, |response| match response {
                    GroupResponse::Commit(response) => Some(response),
                    _ => None,
                });
            }
            Request::OffsetFetch(request) => {
                let task = Rc::clone(self).fetch_offsets(request, reply_to);
                self.io().spawn(TaskClass::Foreground, task);
            }
            Request::ListGroups(_) => {
                let task = Rc::clone(self).list_groups(reply_to);
                self.io().spawn(TaskClass::Foreground, task);
            }
            Request::DescribeGroups(request) => {
                let task = Rc::clone(self).describe_groups(request.groups, reply_to);
                self.io().spawn(TaskClass::Foreground, task);
            }
            Request::DeleteGroups(request) => {
                let task = Rc::clone(self).delete_groups(request.groups, reply_to);
                self.io().spawn(TaskClass::Foreground, task);
            }
            _ => unreachable!("only requests about groups come here"),
        }
    }

    /// A request about one group. At once where its coordinator is here.
    fn serve_one<M: Wire + 'static>(
        self: &Rc<Self>,
        group: &str,
        request: GroupRequest,
        reply_to: ReplyTo<I>,
        response_of: fn(GroupResponse) -> Option<M>,
    ) {
        if let Err(refusal) = check_group(group) {
            return reply_to.refuse(refusal.error, refusal.message);
        }
        let answer = move |reply_to: ReplyTo<I>, response| match response_of(response) {
            Some(message) => reply_to.send(&message),
            None => reply_to.refuse(ErrorCode::Internal, "the answer is of another kind"),
        };
        if let Some(place) = self.place_of(group)
            && self.owns(place)
        {
            let done = Box::new(move |response| answer(reply_to, response));
            return self.do_group_request(request, done);
        }
        let (shard, group) = (Rc::clone(self), group.to_owned());
        self.io().spawn(TaskClass::Foreground, async move {
            let place = match shard.place_of(&group) {
                Some(place) => Ok(place),
                None => shard.create_offsets_topic(&group).await,
            };
            let place = match place {
                Ok(place) => place,
                Err(refusal) => return reply_to.refuse(refusal.error, refusal.message),
            };
            let owner = shard.owner(place);
            if owner != shard.id() {
                shard.counters().forwarded_requests.add(1);
            }
            match shard.ask_group(owner, request).await {
                Ok(response) => answer(reply_to, response),
                Err(why) => reply_to.refuse(why.error_code(), why.message()),
            }
        });
    }

    async fn create_offsets_topic(self: &Rc<Self>, group: &str) -> Result<TopicPartition, Refusal> {
        let refusal = |error, message: String| Refusal { error, message };
        let (send, answer) = oneshot::channel();
        let pass_on = Box::new(move |reply: ControlReply| {
            let _ = send.send(reply);
        });
        let submitted = self
            .control
            .submit(ControlRequest::CreateOffsetsTopic, pass_on);
        submitted.map_err(|full| refusal(ErrorCode::Overloaded, full.to_string()))?;
        match answer.await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(refusal(ErrorCode::from(&error), error.to_string())),
            Err(oneshot::Canceled) => {
                let message = "the broker is shutting down".to_owned();
                return Err(refusal(ErrorCode::ShuttingDown, message));
            }
        }
        self.refresh_everywhere().await;
        let place = self.place_of(group);
        place.ok_or_else(|| {
            let message = "the offsets topic is being created: try again".to_owned();
            refusal(ErrorCode::CoordinatorLoading, message)
        })
    }

    pub(super) async fn ask_group(
        self: &Rc<Self>,
        shard: ShardId,
        request: GroupRequest,
    ) -> Result<GroupResponse, Unanswered> {
        match self.ask(shard, Op::Group(Box::new(request))).await? {
            OpReply::Group(response) => Ok(*response),
            _ => unreachable!("a request about groups is answered as one"),
        }
    }

    async fn list_groups(self: Rc<Self>, reply_to: ReplyTo<I>) {
        let shards = (0..self.config.shard_count).map(ShardId);
        let asked = shards.map(|shard| self.ask_group(shard, GroupRequest::List));
        let mut response = ListGroupsResponse::default();
        for answer in join_all(asked).await {
            let missing = match answer {
                Ok(GroupResponse::List(groups, missing)) => {
                    response.groups.extend(groups);
                    missing.map(|it| (it.error, it.message))
                }
                Ok(_) => unreachable!("a list is answered as one"),
                Err(why) => Some((why.error_code(), why.message().to_owned())),
            };
            if let Some(missing) = missing {
                (response.error, response.message) = missing;
            }
        }
        response.groups.sort_by(|a, b| a.group.cmp(&b.group));
        let size = response.groups.iter().map(|it| it.group.len() + 32).sum();
        let charge = reply_to.reserve(size).await;
        reply_to.send_with(&response, Vec::new(), charge);
    }

    async fn delete_groups(self: Rc<Self>, names: Vec<String>, reply_to: ReplyTo<I>) {
        let mut groups = Vec::with_capacity(names.len());
        // One after the other: these requests are rare.
        for group in names {
            let refused = |error, message| DeleteGroupsResult {
                group: group.clone(),
                error,
                message,
            };
            groups.push(match self.place_of(&group) {
                None => {
                    let refusal = no_group(&group);
                    refused(refusal.error, refusal.message)
                }
                Some(place) => {
                    let request = GroupRequest::Delete(group.clone());
                    match self.ask_group(self.owner(place), request).await {
                        Ok(GroupResponse::Delete(result)) => result,
                        Ok(_) => unreachable!("a deletion is answered as one"),
                        Err(why) => refused(why.error_code(), why.message().to_owned()),
                    }
                }
            });
        }
        reply_to.send(&DeleteGroupsResponse { groups });
    }
}
