//! Between shards: what a shard asks another, and how requests for foreign partitions are split.
//!
//! In the steady state nothing passes here: clients connect to the shard that owns their
//! partitions. What does is copied, answered correctly, and counted.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, net::SocketAddr, pin::pin, rc::Rc, sync::mpsc};

use futures_channel::oneshot;
use futures_util::{FutureExt as _, future::select};
use millstream_protocol::{
    ErrorCode, Offset, ShardId, TopicPartition,
    messages::{
        CancelDelayed, CancelDelayedResult, DelayedStatus, DeleteRecordsPartition,
        DeleteRecordsResult, FetchPartition, FetchPartitionResult, ListDelayedPartition,
        ListDelayedResult, ListOffsetsPartition, ListOffsetsResult, PartitionStatus,
        ProducePartition, ProducePartitionResult,
    },
};

use crate::{
    io::{Io, Monotonic, TaskClass},
    net::Adopted,
    shard::{
        Shard,
        alter::KeyCheck,
        groups::{GroupRequest, GroupResponse},
        mailbox::{Inbound, Outbound, Refused, lane},
        produce::{Author, When},
    },
};

/// What a shard may be sent on its data lane. `D` is a connection on its way.
pub enum Message<D> {
    /// A connection whose handshake named this shard.
    Adopt(Box<Adopted<D>>),
    /// Something to do, and where the answer goes.
    Ask(Op, oneshot::Sender<OpReply>),
}

/// What a shard may be sent on its control lane.
pub enum ControlMessage {
    /// There is newer metadata; the sender hears when this shard has taken it.
    Refresh(Option<oneshot::Sender<()>>),
    /// This shard has removed its files of a deleted topic.
    FilesGone(millstream_protocol::TopicId),
    /// Listen on this address too, and tell which it became.
    Listen(SocketAddr, mpsc::Sender<std::io::Result<SocketAddr>>),
    /// Close everything, tell, and end.
    Stop(mpsc::Sender<()>),
}

/// Something to do with partitions of the shard that is asked.
pub enum Op {
    /// Append, in this order.
    Produce {
        /// The partitions.
        partitions: Vec<ProducePartition>,
        /// Their batches.
        records: Vec<u8>,
        /// When they are to be there.
        when: When,
    },
    /// Read what is there now, up to so many bytes.
    Fetch {
        /// The partitions.
        entries: Vec<FetchPartition>,
        /// The most bytes of all together.
        max_bytes: usize,
        /// Nothing was read elsewhere: one batch comes even if it is larger.
        first: bool,
    },
    /// Answer when the high watermark of one of them is not what was seen, or it has an error, or at
    /// the deadline.
    Watch(Vec<Watched>, Monotonic),
    /// Look offsets up.
    ListOffsets(Vec<ListOffsetsPartition>),
    /// Raise log start offsets.
    DeleteRecords(Vec<DeleteRecordsPartition>),
    /// Tell how they fare.
    Describe(Vec<TopicPartition>),
    /// List delayed records.
    ListDelayed(Vec<ListDelayedPartition>),
    /// Take delayed records back.
    CancelDelayed(Vec<CancelDelayed>),
    /// Tell how much is delayed.
    DescribeDelayed(Vec<TopicPartition>),
    /// Take no records without keys from now on, and look whether there are any; or do as the topic's
    /// settings say again.
    RequireKeys {
        /// The partitions.
        partitions: Vec<TopicPartition>,
        /// The former.
        check: bool,
    },
    /// Ask something of groups.
    Group(Box<GroupRequest>),
}

/// What was seen of a partition that is watched.
pub struct Watched {
    /// How it is read.
    pub entry: FetchPartition,
    /// Its high watermark at the last look.
    pub high_watermark: Offset,
}

/// What was read of a partition for another shard.
pub struct Fetched {
    /// What a client is told.
    pub result: FetchPartitionResult,
    /// A copy of the batches.
    pub records: Vec<u8>,
    /// There was more than these.
    pub more: bool,
}

/// The answer to an [`Op`], in the order of what was asked.
pub enum OpReply {
    /// To `Produce`.
    Produce(Vec<ProducePartitionResult>),
    /// To `Fetch`.
    Fetch(Vec<Fetched>),
    /// To `Watch`.
    Watch,
    /// To `ListOffsets`.
    ListOffsets(Vec<ListOffsetsResult>),
    /// To `DeleteRecords`.
    DeleteRecords(Vec<DeleteRecordsResult>),
    /// To `Describe`.
    Describe(Vec<PartitionStatus>),
    /// To `ListDelayed`.
    ListDelayed(Vec<ListDelayedResult>),
    /// To `CancelDelayed`.
    CancelDelayed(Vec<CancelDelayedResult>),
    /// To `DescribeDelayed`.
    DescribeDelayed(Vec<DelayedStatus>),
    /// To `RequireKeys`.
    RequireKeys(Vec<KeyCheck>),
    /// To `Group`.
    Group(Box<GroupResponse>),
}

/// How to reach a shard.
pub struct Peer<D> {
    /// Its data lane.
    pub data: Outbound<Message<D>>,
    /// Its control lane.
    pub control: Outbound<ControlMessage>,
}

impl<D> Clone for Peer<D> {
    fn clone(&self) -> Self {
        Self {
            data: self.data.clone(),
            control: self.control.clone(),
        }
    }
}

/// The receiving ends of a shard's lanes.
pub struct ShardInboxes<D> {
    /// Its data lane.
    pub data: Inbound<Message<D>>,
    /// Its control lane.
    pub control: Inbound<ControlMessage>,
}

/// Both lanes of a shard.
#[must_use]
pub fn inboxes<D>() -> (Peer<D>, ShardInboxes<D>) {
    let (data, data_in) = lane();
    let (control, control_in) = lane();
    (
        Peer { data, control },
        ShardInboxes {
            data: data_in,
            control: control_in,
        },
    )
}

/// The shard that owns a partition on a broker of `shard_count` shards: a topic's partitions go
/// round robin, beginning anywhere. Local to this process: never stored, never replicated.
#[must_use]
pub fn owner_of(partition: TopicPartition, shard_count: u32) -> ShardId {
    let (_, random) = partition.topic.0.as_u64_pair();
    let place = random.wrapping_add(u64::from(partition.partition.0)) % u64::from(shard_count);
    ShardId(u32::try_from(place).unwrap_or_default())
}

/// Why another shard gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// Its inbox is full: nothing was done.
    Full,
    /// It has ended: nothing was done.
    Ended,
    /// It took the question and ended before the answer: whether anything was done is unknown.
    Dropped,
}

impl Unanswered {
    /// The wire's code.
    #[must_use]
    pub fn error_code(self) -> ErrorCode {
        match self {
            Self::Full => ErrorCode::Overloaded,
            Self::Ended | Self::Dropped => ErrorCode::ShuttingDown,
        }
    }

    /// A sentence.
    #[must_use]
    pub fn message(self) -> &'static str {
        match self {
            Self::Full => "the owning shard's inbox is full",
            Self::Ended => "the owning shard has ended",
            Self::Dropped => {
                "the owning shard ended before it answered; whether this took effect is unknown"
            }
        }
    }
}

/// Why a partition cannot be used here.
pub struct Missing {
    /// The code.
    pub error: ErrorCode,
    /// A sentence.
    pub message: String,
}

/// One part of an operation: results for some of the entries, by their place.
pub type Parts = Vec<(ShardId, Vec<usize>)>;

impl<I: Io> Shard<I> {
    /// Groups entries by the shard that owns them, each group in the order of the entries.
    pub(super) fn split_by_owner<E>(
        &self,
        entries: &[E],
        partition_of: impl Fn(&E) -> TopicPartition,
    ) -> Parts {
        let mut parts: BTreeMap<ShardId, Vec<usize>> = BTreeMap::new();
        for (at, entry) in entries.iter().enumerate() {
            parts
                .entry(self.owner(partition_of(entry)))
                .or_default()
                .push(at);
        }
        parts.into_iter().collect()
    }

    /// Asks a shard, this one too.
    pub(super) fn ask(
        self: &Rc<Self>,
        shard: ShardId,
        op: Op,
    ) -> impl Future<Output = Result<OpReply, Unanswered>> + use<I> {
        let (reply, answer) = oneshot::channel();
        let mut refused = None;
        if shard == self.id() {
            self.do_op(op, reply);
        } else {
            let peer = self.peer(shard).expect("every owner is one of the shards");
            refused = match peer.data.try_send(Message::Ask(op, reply)) {
                Ok(()) => None,
                Err(Refused(_)) if peer.data.has_ended() => Some(Unanswered::Ended),
                Err(Refused(_)) => Some(Unanswered::Full),
            };
        }
        answer.map(move |answer| answer.map_err(|_| refused.unwrap_or(Unanswered::Dropped)))
    }

    /// Does what another shard asked for.
    pub(super) fn do_op(self: &Rc<Self>, op: Op, mut reply: oneshot::Sender<OpReply>) {
        if let Op::Produce {
            partitions,
            mut records,
            when,
        } = op
        {
            // At once, in the order of arrival.
            let when_done = Box::new(move |results| {
                let _ = reply.send(OpReply::Produce(results));
            });
            return self.produce_for(Author::Client, &partitions, &mut records, when, when_done);
        }
        if let Op::Group(request) = op {
            let done = Box::new(move |response| {
                let _ = reply.send(OpReply::Group(Box::new(response)));
            });
            return self.do_group_request(*request, done);
        }
        let shard = Rc::clone(self);
        self.io().spawn(TaskClass::Foreground, async move {
            let answer = match op {
                Op::Produce { .. } | Op::Group(_) => return,
                Op::Fetch {
                    entries,
                    max_bytes,
                    first,
                } => OpReply::Fetch(shard.fetch_copies(&entries, max_bytes, first).await),
                Op::Watch(watched, deadline) => {
                    let moved = pin!(shard.watch_here(&watched, deadline));
                    // Whoever asked may have found something elsewhere, or be gone.
                    select(moved, reply.cancellation()).await;
                    OpReply::Watch
                }
                Op::ListOffsets(entries) => {
                    OpReply::ListOffsets(shard.list_offsets_here(&entries).await)
                }
                Op::DeleteRecords(entries) => {
                    OpReply::DeleteRecords(shard.delete_records_here(&entries).await)
                }
                Op::Describe(entries) => OpReply::Describe(shard.describe_here(&entries)),
                Op::ListDelayed(entries) => {
                    OpReply::ListDelayed(shard.list_delayed_here(&entries).await)
                }
                Op::CancelDelayed(entries) => {
                    OpReply::CancelDelayed(shard.cancel_delayed_here(&entries).await)
                }
                Op::DescribeDelayed(entries) => {
                    OpReply::DescribeDelayed(shard.describe_delayed_here(&entries))
                }
                Op::RequireKeys { partitions, check } => {
                    OpReply::RequireKeys(shard.require_keys_here(&partitions, check).await)
                }
            };
            let _ = reply.send(answer);
        });
    }

    /// Runs an operation on the shards that own its entries and puts the results in order.
    /// `refused` makes the result of an entry whose shard did not answer.
    pub(super) async fn spread<E: Clone, R>(
        self: &Rc<Self>,
        entries: &[E],
        partition_of: impl Fn(&E) -> TopicPartition,
        op: impl Fn(Vec<E>) -> Op,
        results_of: impl Fn(OpReply) -> Vec<R>,
        refused: impl Fn(&E, Unanswered) -> R,
    ) -> Vec<R> {
        let parts = self.split_by_owner(entries, partition_of);
        if parts.iter().any(|(shard, _)| *shard != self.id()) {
            self.counters().forwarded_requests.add(1);
        }
        let asked: Vec<_> = parts
            .iter()
            .map(|(shard, part)| {
                let part = part.iter().map(|at| entries[*at].clone()).collect();
                self.ask(*shard, op(part))
            })
            .collect();
        let mut results: Vec<Option<R>> = entries.iter().map(|_| None).collect();
        for ((_, part), answer) in parts.into_iter().zip(asked) {
            match answer.await {
                Ok(answer) => {
                    for (at, result) in part.into_iter().zip(results_of(answer)) {
                        results[at] = Some(result);
                    }
                }
                Err(why) => {
                    for at in part {
                        results[at] = Some(refused(&entries[at], why));
                    }
                }
            }
        }
        let results = results.into_iter();
        let results = results.map(|result| result.expect("a result for each entry"));
        results.collect()
    }
}
