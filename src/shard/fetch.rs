//! Fetch: batches from the log's buffers to the socket, waiting where there is nothing yet.

use std::{
    pin::pin,
    rc::{Rc, Weak},
    time::Duration,
};

use futures_util::future::{LocalBoxFuture, select, select_all};
use millstream_protocol::{
    ErrorCode, Offset, ShardId, TopicPartition, limits,
    messages::{FetchPartition, FetchPartitionResult, FetchRequest, FetchResponse},
};

use crate::{
    io::{Disk, Io, Monotonic, Permit, Signal},
    net::{Charge, ReplyTo},
    partition::{FetchVerdict, Partition},
    shard::{
        Shard,
        live::read_live,
        partition::{PartitionShell, refusal_message},
        router::{Fetched, Op, OpReply, Unanswered, Watched},
    },
    storage::{Damage, ReadError, Slice, copy_loose, idle_size},
};

/// One partition's part of a reply.
struct Part<I: Io> {
    result: FetchPartitionResult,
    slices: Vec<Slice<<I as Disk>::Buffer>>,
    /// There was more than these.
    more: bool,
    /// Memory for what the slices keep beside themselves.
    held: Option<Permit>,
}

impl<I: Io> Part<I> {
    fn without_records(result: FetchPartitionResult) -> Self {
        Self {
            result,
            slices: Vec::new(),
            more: false,
            held: None,
        }
    }
}

/// Everything read in one round.
struct Round<I: Io> {
    parts: Vec<Part<I>>,
    bytes: usize,
    /// An error or a divergence: the client must hear of it now.
    urgent: bool,
    /// A partition had more than it could add: what comes later finds no room either.
    full: bool,
}

impl<I: Io> Shard<I> {
    /// Serves a fetch of a client.
    pub(super) async fn fetch(self: Rc<Self>, request: FetchRequest, reply_to: ReplyTo<I>) {
        let wait = Duration::from_millis(request.max_wait_ms.min(limits::MAX_FETCH_WAIT_MS).into());
        let deadline = self.io().now() + wait;
        let max_bytes = request.max_bytes.min(limits::MAX_FETCH_SIZE) as usize;
        let max_bytes = max_bytes.min(reply_to.most_records());
        let enough = (request.min_bytes as usize).min(max_bytes);
        // Memory for a reply that has to wait for others would be missing to those.
        reply_to.turn().await;
        let mut needed = max_bytes;
        loop {
            // Watching begins before reading, so nothing that comes in between is missed.
            let moved = Rc::new(Signal::default());
            let ticket = moved.ticket();
            self.watch_local(&request.partitions, &moved);
            // Memory is taken only when there may be something to fill it with.
            let ready = self.may_have_something(&request.partitions);
            let charge = if ready {
                reply_to.reserve(needed).await
            } else {
                Charge::new()
            };
            // On the heap while it reads: what a fetch holds while it waits is small.
            let round = Box::pin(self.fetch_round(&request.partitions, max_bytes)).await;
            if round.bytes > needed {
                // A first batch larger than what was asked for: read again with memory for it.
                needed = round.bytes;
                continue;
            }
            let late = self.io().now() >= deadline || self.is_stopping_now();
            let complete = round.bytes >= enough || round.full && round.bytes > 0;
            if round.urgent || complete || late || reply_to.is_gone() {
                return send(round, charge, reply_to);
            }
            let Some(_waiting) = self.begin_to_wait(request.partitions.len()) else {
                let message = "too many fetches wait for records on this shard";
                return reply_to.refuse(ErrorCode::Overloaded, message);
            };
            let remote = self.watch_remote(&request.partitions, &round.parts, deadline);
            drop((charge, round));
            let more = pin!(self.wait_for_more(remote, &moved, ticket, deadline));
            let gone = pin!(reply_to.gone());
            select(more, gone).await;
        }
    }

    async fn wait_for_more(
        self: &Rc<Self>,
        remote: LocalBoxFuture<'_, ()>,
        moved: &Rc<Signal>,
        ticket: crate::io::SignalTicket,
        deadline: Monotonic,
    ) {
        let local = pin!(moved.raised_since(ticket));
        let stop = pin!(self.stopping_signal().wait_until(|| self.is_stopping_now()));
        let timeout = pin!(self.io().sleep_until(deadline));
        let ended = pin!(select(timeout, stop));
        select(select(local, remote), ended).await;
    }

    /// Memory for a fetch of so many partitions that waits, as long as it does; `None` if others have
    /// taken what there is.
    pub(super) fn begin_to_wait(&self, partitions: usize) -> Option<Permit> {
        let size = WAITING_SIZE + partitions * WAITING_ENTRY_SIZE;
        self.waiting.try_take(size)
    }

    fn may_have_something(self: &Rc<Self>, partitions: &[FetchPartition]) -> bool {
        partitions.iter().any(|entry| {
            !self.owns(partition_of(entry))
                || self
                    .partition(partition_of(entry))
                    .is_ok_and(|shell| matches!(verdict(&shell, entry), FetchVerdict::Read { .. }))
        })
    }

    /// Reads every partition once, in order, within `max_bytes` of all together.
    async fn fetch_round(
        self: &Rc<Self>,
        entries: &[FetchPartition],
        max_bytes: usize,
    ) -> Round<I> {
        let mut round = Round {
            parts: Vec::with_capacity(entries.len()),
            bytes: 0,
            urgent: false,
            full: false,
        };
        for (shard, range) in runs(entries, |entry| self.owner(partition_of(entry))) {
            let left = max_bytes.saturating_sub(round.bytes);
            let part = &entries[range];
            let first = round.bytes == 0;
            let parts = if shard == self.id() {
                self.fetch_here(part, left, first).await
            } else {
                self.fetch_there(shard, part, left, first).await
            };
            for part in parts {
                let result = &part.result;
                round.bytes += result.records_size as usize;
                round.urgent |= result.error != ErrorCode::None || result.diverging.is_some();
                round.full |= part.more;
                round.parts.push(part);
            }
        }
        round
    }

    /// Reads partitions of this shard. With `first`, one batch is read even if it is larger than
    /// `max_bytes`: a reader must be able to go on.
    async fn fetch_here(
        self: &Rc<Self>,
        entries: &[FetchPartition],
        max_bytes: usize,
        first: bool,
    ) -> Vec<Part<I>> {
        let mut parts = Vec::with_capacity(entries.len());
        let mut left = max_bytes;
        let mut nothing_yet = first;
        for entry in entries {
            let may_read = left > 0 && (nothing_yet || left >= MIN_READ);
            let mut part = self.fetch_one(entry, if may_read { left } else { 0 }).await;
            if !nothing_yet && part.result.records_size as usize > left {
                // A log gives one batch, however large. With what is there before it, the reply
                // might pass the largest frame that a client takes.
                part.result.records_size = 0;
                part = Part::without_records(part.result);
                part.more = true;
            }
            nothing_yet &= part.result.records_size == 0;
            left = left.saturating_sub(part.result.records_size as usize);
            parts.push(part);
        }
        parts
    }

    async fn fetch_one(self: &Rc<Self>, entry: &FetchPartition, max_bytes: usize) -> Part<I> {
        let mut result = FetchPartitionResult {
            topic: entry.topic,
            partition: entry.partition,
            leader: self.broker_id(),
            shard: self.id(),
            high_watermark: Offset(-1),
            log_start_offset: Offset(-1),
            ..FetchPartitionResult::default()
        };
        let shell = match self.partition(partition_of(entry)) {
            Ok(shell) => shell,
            Err(missing) => {
                (result.error, result.message) = (missing.error, missing.message);
                return Part::without_records(result);
            }
        };
        shell.with_machine(|machine| {
            result.high_watermark = machine.high_watermark();
            result.log_start_offset = machine.log_start();
            result.leader_epoch = machine.epoch();
        });
        match verdict(&shell, entry) {
            FetchVerdict::AtEnd => {}
            FetchVerdict::Diverged(diverging) => result.diverging = Some(diverging),
            FetchVerdict::Refused(refusal) => {
                self.note_overrun(&shell, entry, refusal.error, result.log_start_offset);
                result.error = refusal.error;
                result.message = shell
                    .sentence_for(refusal.error)
                    .unwrap_or_else(|| out_of_range(&refusal, entry, &result));
            }
            FetchVerdict::Read { up_to } if max_bytes > 0 => {
                let max_bytes = max_bytes.min(entry.max_bytes.max(1) as usize);
                match read_live(&shell, entry.fetch_offset, up_to, max_bytes).await {
                    Ok((slices, next)) => {
                        let size = slices.iter().map(Slice::size).sum::<usize>();
                        result.records_size = u32::try_from(size).unwrap_or(u32::MAX);
                        return Part {
                            more: size > 0 && next < up_to,
                            ..self.part_of(result, slices)
                        };
                    }
                    Err(error) => {
                        self.read_failed(&shell, &error, &mut result);
                        let log_start = result.log_start_offset;
                        self.note_overrun(&shell, entry, result.error, log_start);
                    }
                }
            }
            FetchVerdict::Read { .. } => {
                return Part {
                    more: true,
                    ..Part::without_records(result)
                };
            }
        }
        Part::without_records(result)
    }

    /// Slices keep their whole buffers in memory, which the cache may have given up by the time a slow
    /// client takes them. Where there is no memory for that, they are copied.
    fn part_of(
        &self,
        result: FetchPartitionResult,
        mut slices: Vec<Slice<<I as Disk>::Buffer>>,
    ) -> Part<I> {
        let idle = idle_size(&slices);
        let held = (idle > 0).then(|| self.held.try_take(idle)).flatten();
        if idle > 0 && held.is_none() {
            copy_loose(&mut slices);
        }
        Part {
            slices,
            held,
            ..Part::without_records(result)
        }
    }

    fn read_failed(
        &self,
        shell: &Rc<PartitionShell<I>>,
        error: &ReadError,
        result: &mut FetchPartitionResult,
    ) {
        result.error = read_error_code(error);
        match error {
            // Records were deleted while they were read: tell where the log starts now.
            ReadError::OutOfRange { .. } => result.log_start_offset = shell.log().log_start(),
            // Its topic was deleted, or everything is being closed.
            ReadError::Closed if self.is_stopping_now() => result.error = ErrorCode::ShuttingDown,
            ReadError::Closed => result.error = self.missing(shell.log().id()).error,
            ReadError::Damaged { .. } => self.note_damage(shell, error),
            ReadError::Io { .. } => {
                let partition = self.name_of(shell.log().id());
                tracing::warn!(%partition, %error, "read failed");
            }
        }
        result.message = error.to_string();
    }

    /// A reader that wants what was deleted is counted and told of in the log: it was too slow.
    fn note_overrun(
        &self,
        shell: &PartitionShell<I>,
        entry: &FetchPartition,
        error: ErrorCode,
        log_start: Offset,
    ) {
        let offset = entry.fetch_offset;
        if error != ErrorCode::OffsetOutOfRange || offset >= log_start {
            return;
        }
        self.counters().readers_overrun.add(1);
        let partition = self.name_of(shell.log().id());
        tracing::warn!(%partition, "a reader at offset {offset} was overrun: the log starts at {log_start}");
    }

    /// If a read came upon damage to acknowledged data, the partition is read-only from now on; that is
    /// said once.
    pub(super) fn note_damage(&self, shell: &Rc<PartitionShell<I>>, error: &ReadError) {
        let ReadError::Damaged {
            path,
            position,
            below,
            reason,
        } = error
        else {
            return;
        };
        let damage = Damage {
            below: *below,
            acknowledged: shell.with_machine(Partition::high_watermark),
            path: path.clone(),
            position: *position,
            reason: reason.clone(),
        };
        let sentence = damage.to_string();
        if shell.found_damage(damage) {
            tracing::error!(partition = %self.name_of(shell.log().id()), "{sentence}");
        }
    }

    async fn fetch_there(
        self: &Rc<Self>,
        shard: ShardId,
        entries: &[FetchPartition],
        max_bytes: usize,
        first: bool,
    ) -> Vec<Part<I>> {
        self.counters().forwarded_requests.add(1);
        let op = Op::Fetch {
            entries: entries.to_vec(),
            max_bytes,
            first,
        };
        let parts = match self.ask(shard, op).await {
            Ok(OpReply::Fetch(parts)) => parts,
            Ok(_) => unreachable!("a fetch is answered as one"),
            Err(why) => {
                let refused = entries.iter().map(|entry| refused(entry, why));
                return refused.map(Part::without_records).collect();
            }
        };
        parts
            .into_iter()
            .map(|fetched| Part {
                slices: match fetched.records.is_empty() {
                    true => Vec::new(),
                    false => vec![Slice::own(fetched.records)],
                },
                more: fetched.more,
                ..Part::without_records(fetched.result)
            })
            .collect()
    }

    /// Reads for another shard: copies, since buffers do not travel.
    pub(super) async fn fetch_copies(
        self: &Rc<Self>,
        entries: &[FetchPartition],
        max_bytes: usize,
        first: bool,
    ) -> Vec<Fetched> {
        let parts = self.fetch_here(entries, max_bytes, first).await;
        parts
            .into_iter()
            .map(|part| {
                let mut records = Vec::with_capacity(part.result.records_size as usize);
                for slice in &part.slices {
                    records.extend_from_slice(slice.bytes());
                }
                Fetched {
                    result: part.result,
                    records,
                    more: part.more,
                }
            })
            .collect()
    }

    fn watch_local<'a>(
        self: &Rc<Self>,
        entries: impl IntoIterator<Item = &'a FetchPartition>,
        waiter: &Rc<Signal>,
    ) {
        for entry in entries {
            if let Ok(shell) = self.partition(partition_of(entry)) {
                shell.watch(waiter);
            }
        }
    }

    /// Waits for another shard until one of these partitions has more than it saw, or the deadline.
    /// What it saw and found too little does not count: it would come back at once, and again.
    pub(super) async fn watch_here(self: &Rc<Self>, watched: &[Watched], deadline: Monotonic) {
        let moved = Rc::new(Signal::default());
        let ticket = moved.ticket();
        self.watch_local(watched.iter().map(|it| &it.entry), &moved);
        let something = watched.iter().any(|it| {
            self.partition(partition_of(&it.entry))
                .map_or(true, |shell| has_news(&shell, it))
        });
        if !something {
            let moved = pin!(moved.raised_since(ticket));
            let timeout = pin!(self.io().sleep_until(deadline));
            select(moved, timeout).await;
        }
    }

    /// Waits until a partition of another shard has more than these parts of a round tell, one for each
    /// entry. Never returns if all are here.
    fn watch_remote<'a>(
        self: &'a Rc<Self>,
        entries: &[FetchPartition],
        parts: &[Part<I>],
        deadline: Monotonic,
    ) -> LocalBoxFuture<'a, ()> {
        if entries.iter().all(|entry| self.owns(partition_of(entry))) {
            return Box::pin(std::future::pending());
        }
        let mut watches = Vec::new();
        for (shard, part) in self.split_by_owner(entries, partition_of) {
            if shard != self.id() {
                let part = part.iter().map(|at| Watched {
                    entry: entries[*at].clone(),
                    high_watermark: parts[*at].result.high_watermark,
                });
                let part = part.collect();
                watches.push(Box::pin(self.ask(shard, Op::Watch(part, deadline))));
            }
        }
        Box::pin(async move {
            if let (Err(_), _, _) = select_all(watches).await {
                // The other shard is overloaded, or ends: look again soon.
                self.io().sleep(LOOK_AGAIN).await;
            }
        })
    }
}

/// Fetches may wait in this part of a shard's memory.
pub(super) const WAITING_PART: usize = 16;
/// Replies may hold idle buffers in this part of it.
pub(super) const HELD_PART: usize = 32;
/// What each fetch that waits takes, about, in bytes ...
const WAITING_SIZE: usize = 2048;
/// ... and for each partition that it names: what it asked, what it watches, here and on another shard.
const WAITING_ENTRY_SIZE: usize =
    2 * (size_of::<FetchPartition>() + size_of::<Watched>() + size_of::<Weak<Signal>>());

/// Below this many bytes left, the remaining partitions wait for the next fetch.
const MIN_READ: usize = 4096;

/// Wait before asking an overloaded shard again.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

fn send<I: Io>(round: Round<I>, mut charge: Charge, reply_to: ReplyTo<I>) {
    for permit in &mut charge {
        permit.shrink(round.bytes);
    }
    let mut partitions = Vec::with_capacity(round.parts.len());
    let mut pieces = Vec::new();
    for part in round.parts {
        partitions.push(part.result);
        pieces.extend(part.slices);
        charge.extend(part.held);
    }
    reply_to.send_with(&FetchResponse { partitions }, pieces, charge);
}

fn verdict<I: Io>(shell: &PartitionShell<I>, entry: &FetchPartition) -> FetchVerdict {
    shell.with_machine(|machine| {
        machine.fetch(
            entry.fetch_offset,
            entry.leader_epoch,
            entry.last_fetched_epoch,
        )
    })
}

fn has_news<I: Io>(shell: &PartitionShell<I>, watched: &Watched) -> bool {
    let high_watermark = shell.with_machine(crate::partition::Partition::high_watermark);
    match verdict(shell, &watched.entry) {
        FetchVerdict::AtEnd | FetchVerdict::Read { .. } => high_watermark != watched.high_watermark,
        FetchVerdict::Refused(_) | FetchVerdict::Diverged(_) => true,
    }
}

fn out_of_range(
    refusal: &crate::partition::Refusal,
    entry: &FetchPartition,
    result: &FetchPartitionResult,
) -> String {
    if refusal.error == ErrorCode::OffsetOutOfRange {
        format!(
            "offset {} is outside the partition, which has {} to {}",
            entry.fetch_offset, result.log_start_offset, result.high_watermark
        )
    } else {
        refusal_message(refusal)
    }
}

/// The wire's code for a read that failed.
#[must_use]
pub fn read_error_code(error: &ReadError) -> ErrorCode {
    match error {
        ReadError::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        ReadError::Damaged { .. } => ErrorCode::PartitionReadOnly,
        ReadError::Io { .. } => ErrorCode::StorageError,
        ReadError::Closed => ErrorCode::UnknownPartition,
    }
}

fn refused(entry: &FetchPartition, why: Unanswered) -> FetchPartitionResult {
    FetchPartitionResult {
        topic: entry.topic,
        partition: entry.partition,
        error: why.error_code(),
        message: why.message().to_owned(),
        ..FetchPartitionResult::default()
    }
}

fn partition_of(entry: &FetchPartition) -> TopicPartition {
    TopicPartition {
        topic: entry.topic,
        partition: entry.partition,
    }
}

/// Consecutive entries of the same owner.
fn runs<E>(entries: &[E], owner: impl Fn(&E) -> ShardId) -> Vec<(ShardId, std::ops::Range<usize>)> {
    let mut runs: Vec<(ShardId, std::ops::Range<usize>)> = Vec::new();
    for (at, entry) in entries.iter().enumerate() {
        let shard = owner(entry);
        match runs.last_mut() {
            Some((last, range)) if *last == shard => range.end = at + 1,
            _ => runs.push((shard, at..at + 1)),
        }
    }
    runs
}
