//! Produce: batches to their partitions, one answer when the last of them is durable.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use futures_util::future::join_all;
use millstream_protocol::{
    ErrorCode, Offset, TopicPartition,
    messages::{ProducePartition, ProducePartitionResult, ProduceRequest, ProduceResponse},
};

use crate::{
    io::{Io, TaskClass},
    net::ReplyTo,
    partition::Refusal,
    shard::{
        Shard,
        partition::refusal_message,
        router::{Op, OpReply},
    },
    storage::HeldRoom,
};

/// On whose behalf something is appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Author {
    /// A client: the broker's own topics are not for it.
    Client,
    /// The broker itself.
    Broker,
    /// The broker itself, with what is little and must be kept: a full disk's reserve is there for it.
    BrokerInNeed,
}

/// When the records of a produce go to their partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// At once.
    Now,
    /// When they say; until then they wait in its delay log.
    Due,
}

type WhenDone = Box<dyn FnOnce(Vec<ProducePartitionResult>)>;

/// What a produce takes until it is answered, besides its records: its call, its place in the session and
/// the reply, in bytes, rounded up.
const CALL_SIZE: usize = 512;
/// The same for each of its partitions: the result, its copy in the answer, a place among the pending.
const PARTITION_SIZE: usize = 512;

/// What a produce of so many partitions takes besides its records, in bytes.
pub(super) fn bookkeeping_size(partition_count: usize) -> usize {
    CALL_SIZE + partition_count * PARTITION_SIZE
}

/// One produce request whose partitions answer one by one.
struct Call {
    results: RefCell<Vec<ProducePartitionResult>>,
    missing: Cell<usize>,
    when_done: RefCell<Option<WhenDone>>,
    /// Its bookkeeping counts as unflushed until it is answered.
    _room: HeldRoom,
}

const _: () = assert!(
    size_of::<Call>() + size_of::<Produced>() + 2 * size_of::<ProducePartitionResult>()
        <= CALL_SIZE + PARTITION_SIZE
);

impl Call {
    fn complete(&self, index: usize, result: ProducePartitionResult) {
        self.results.borrow_mut()[index] = result;
        self.missing.set(self.missing.get() - 1);
        if self.missing.get() == 0
            && let Some(when_done) = self.when_done.take()
        {
            when_done(self.results.take());
        }
    }
}

/// The answer that one partition owes. Must be used; dropped, it answers `Internal`.
#[derive(Debug)]
pub struct Produced {
    call: Option<Rc<Call>>,
    index: usize,
    result: ProducePartitionResult,
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call")
            .field("missing", &self.missing)
            .finish_non_exhaustive()
    }
}

impl Produced {
    /// A token for what nobody waits for.
    #[must_use]
    pub fn nobody() -> Self {
        Self {
            call: None,
            index: 0,
            result: ProducePartitionResult::default(),
        }
    }

    /// A token for something of the broker's own, or of a test.
    pub fn told<I: Io>(
        storage: &crate::storage::ShardStorage<I>,
        tell: impl FnOnce(ProducePartitionResult) + 'static,
    ) -> Self {
        let result = unknown(&ProducePartition::default());
        let when_done: WhenDone = Box::new(|mut results| {
            if let Some(result) = results.pop() {
                tell(result);
            }
        });
        let call = Call {
            results: RefCell::new(vec![result.clone()]),
            missing: Cell::new(1),
            when_done: RefCell::new(Some(when_done)),
            _room: storage.hold_room(bookkeeping_size(1)),
        };
        Self {
            call: Some(Rc::new(call)),
            index: 0,
            result,
        }
    }

    /// Answers with the machine's verdict.
    pub fn answer(mut self, verdict: Result<Offset, Refusal>, log_start: Offset) {
        self.result.log_start_offset = log_start;
        match verdict {
            Ok(base_offset) => {
                self.result.error = ErrorCode::None;
                self.result.base_offset = base_offset;
            }
            Err(refusal) => {
                self.result.error = refusal.error;
                self.result.message = refusal_message(&refusal);
            }
        }
        self.finish();
    }

    /// Notes the time that the broker stamped on the records.
    pub fn stamped(&mut self, append_time_ms: i64) {
        self.result.append_time_ms = append_time_ms;
    }

    /// Answers with an error.
    pub fn refuse(mut self, error: ErrorCode, message: String) {
        self.result.error = error;
        self.result.message = message;
        self.finish();
    }

    fn finish(&mut self) {
        if let Some(call) = self.call.take() {
            call.complete(self.index, std::mem::take(&mut self.result));
        }
    }
}

impl Drop for Produced {
    fn drop(&mut self) {
        self.finish();
    }
}

/// The result of a partition before anything is known of it.
fn unknown(entry: &ProducePartition) -> ProducePartitionResult {
    ProducePartitionResult {
        topic: entry.topic,
        partition: entry.partition,
        error: ErrorCode::Internal,
        base_offset: Offset(-1),
        append_time_ms: -1,
        log_start_offset: Offset(-1),
        ..ProducePartitionResult::default()
    }
}

impl<I: Io> Shard<I> {
    /// Whether a produce stays on this shard.
    pub(super) fn owns_all(&self, request: &ProduceRequest) -> bool {
        let mut entries = request.partitions.iter();
        entries.all(|entry| self.owns(partition_of(entry)))
    }

    /// Serves a produce of a client.
    pub(super) fn produce(
        self: &Rc<Self>,
        request: &ProduceRequest,
        records: &mut [u8],
        when: When,
        reply_to: ReplyTo<I>,
    ) {
        let everything_here = self.owns_all(request);
        let when_done: WhenDone =
            Box::new(move |partitions| reply_to.send(&ProduceResponse { partitions }));
        if everything_here {
            self.produce_for(
                Author::Client,
                &request.partitions,
                records,
                when,
                when_done,
            );
        } else {
            self.produce_spread(&request.partitions, records, when, when_done);
        }
    }

    /// Appends to partitions of this shard, in the order of arrival. Returns when everything is in
    /// memory; `when_done` runs when everything is durable.
    pub(super) fn produce_for(
        self: &Rc<Self>,
        author: Author,
        entries: &[ProducePartition],
        records: &mut [u8],
        when: When,
        when_done: WhenDone,
    ) {
        if entries.is_empty() {
            return when_done(Vec::new());
        }
        let call = Rc::new(Call {
            results: RefCell::new(entries.iter().map(unknown).collect()),
            missing: Cell::new(entries.len()),
            when_done: RefCell::new(Some(when_done)),
            _room: self.storage.hold_room(bookkeeping_size(entries.len())),
        });
        let mut rest = records;
        for (index, entry) in entries.iter().enumerate() {
            let (batches, tail) = rest.split_at_mut(entry.records_size as usize);
            rest = tail;
            let mut result = unknown(entry);
            result.shard = self.id();
            result.leader = self.broker_id();
            let produced = Produced {
                call: Some(Rc::clone(&call)),
                index,
                result,
            };
            if author == Author::Client && self.groups.is_offsets_topic(entry.topic) {
                let message = "the topic is internal: only the broker writes it".to_owned();
                produced.refuse(ErrorCode::NotAuthorized, message);
                continue;
            }
            self.produce_one(author, entry, batches, when, produced);
        }
    }

    fn produce_one(
        self: &Rc<Self>,
        author: Author,
        entry: &ProducePartition,
        batches: &mut [u8],
        when: When,
        mut produced: Produced,
    ) {
        if self.disk_is_full() && author != Author::BrokerInNeed {
            let message = "too little disk space is free; consume and delete go on".to_owned();
            return produced.refuse(ErrorCode::DiskFull, message);
        }
        match self.partition(partition_of(entry)) {
            Ok(shell) => {
                produced.result.leader_epoch = shell.with_machine(|machine| machine.epoch());
                match when {
                    When::Now => shell.produce(batches, entry.leader_epoch, produced),
                    When::Due => shell.delay().accept(batches, entry.leader_epoch, produced),
                }
            }
            Err(missing) => produced.refuse(missing.error, missing.message),
        }
    }

    /// A produce that names partitions of several shards, or of another one: each part goes to its
    /// shard in one message, at once, so that order holds.
    fn produce_spread(
        self: &Rc<Self>,
        entries: &[ProducePartition],
        records: &mut [u8],
        when: When,
        when_done: WhenDone,
    ) {
        self.counters().forwarded_requests.add(1);
        let mut parts = self.split_by_owner(entries, partition_of);
        let starts = starts_of(entries);
        let mut answers = Vec::with_capacity(parts.len());
        for (shard, part) in &mut parts {
            let partitions: Vec<_> = part.iter().map(|at| entries[*at].clone()).collect();
            let mut bytes = Vec::new();
            for at in part.iter() {
                let size = entries[*at].records_size as usize;
                bytes.extend_from_slice(&records[starts[*at]..starts[*at] + size]);
            }
            let op = Op::Produce {
                partitions,
                records: bytes,
                when,
            };
            answers.push(self.ask(*shard, op));
        }
        let mut results: Vec<_> = entries.iter().map(unknown).collect();
        self.io().spawn(TaskClass::Foreground, async move {
            for ((_, part), reply) in parts.into_iter().zip(join_all(answers).await) {
                match reply {
                    Ok(OpReply::Produce(answered)) => {
                        for (at, result) in part.into_iter().zip(answered) {
                            results[at] = result;
                        }
                    }
                    Ok(_) => unreachable!("a produce is answered as one"),
                    Err(why) => {
                        for at in part {
                            results[at].error = why.error_code();
                            why.message().clone_into(&mut results[at].message);
                        }
                    }
                }
            }
            when_done(results);
        });
    }
}

fn partition_of(entry: &ProducePartition) -> TopicPartition {
    TopicPartition {
        topic: entry.topic,
        partition: entry.partition,
    }
}

fn starts_of(entries: &[ProducePartition]) -> Vec<usize> {
    let mut start = 0;
    let mut starts = Vec::with_capacity(entries.len());
    for entry in entries {
        starts.push(start);
        start += entry.records_size as usize;
    }
    starts
}
