//! The partition machine: decides what is appended where, what may be acknowledged and what may be
//! read. Pure: no clock, no I/O; the shell (`shard::partition`) performs its actions.
//!
//! Three offsets are kept apart from the first day: the *log end* (appended in memory), the
//! *durable* offset (on stable storage, or merely in memory for a buffered topic) and the *high
//! watermark* (durable on every in-sync replica: what consumers see). On a sole replica the high
//! watermark follows the durable offset.

mod compaction;
mod epochs;
mod events;
mod producers;
mod retention;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use millstream_protocol::{
    ErrorCode, LeaderEpoch, Offset, TopicPartition, batch::BatchHeader, messages::DivergingEpoch,
};

pub use compaction::{Clean, SegmentDirt, clean_and_dirty, compaction_due};
pub use epochs::Epochs;
pub use events::{Action, Detail, Event, FetchVerdict, MAX_TIMESTAMP_AHEAD_MS, Recovered, Refusal};
pub use producers::{Producers, SequenceCheck, SnapshotError};
pub use retention::{SegmentAge, retained_start};

#[derive(Debug)]
struct Pending<T> {
    token: T,
    base_offset: Offset,
    next_offset: Offset,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Online,
    /// Acknowledged data is damaged.
    ReadOnly,
    /// The disk failed.
    Offline,
}

/// One partition of one topic, led by this broker.
#[derive(Debug)]
pub struct Partition<T> {
    id: TopicPartition,
    epoch: LeaderEpoch,
    state: State,
    log_start: Offset,
    log_end: Offset,
    durable: Offset,
    high_watermark: Offset,
    epochs: Epochs,
    producers: Producers,
    /// Produces that wait for the high watermark, ordered by `next_offset`.
    pending: VecDeque<Pending<T>>,
}

impl<T> Partition<T> {
    /// A partition that this broker leads with `epoch`.
    #[must_use]
    pub fn new(id: TopicPartition, epoch: LeaderEpoch, recovered: Recovered) -> Self {
        let state = match recovered.damaged_below {
            Some(_) => State::ReadOnly,
            None => State::Online,
        };
        let readable_end = recovered.damaged_below.unwrap_or(recovered.log_end);
        Self {
            id,
            epoch,
            state,
            log_start: recovered.log_start,
            log_end: recovered.log_end,
            durable: recovered.log_end,
            high_watermark: readable_end,
            epochs: recovered.epochs,
            producers: recovered.producers,
            pending: VecDeque::new(),
        }
    }

    /// Which partition this is.
    #[must_use]
    pub fn id(&self) -> TopicPartition {
        self.id
    }

    /// The epoch this broker leads with.
    #[must_use]
    pub fn epoch(&self) -> LeaderEpoch {
        self.epoch
    }

    /// First offset it still has.
    #[must_use]
    pub fn log_start(&self) -> Offset {
        self.log_start
    }

    /// Offset of the next record.
    #[must_use]
    pub fn log_end(&self) -> Offset {
        self.log_end
    }

    /// Consumers see records below this offset.
    #[must_use]
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// What to remember of producers in a checkpoint of everything appended so far.
    #[must_use]
    pub fn producers(&self) -> &Producers {
        &self.producers
    }

    /// `None`, or why the partition takes nothing new.
    #[must_use]
    pub fn trouble(&self) -> ErrorCode {
        match self.state {
            State::Online => ErrorCode::None,
            State::ReadOnly => ErrorCode::PartitionReadOnly,
            State::Offline => ErrorCode::PartitionOffline,
        }
    }

    /// Forgets producers that have been silent for long. The clock was set by so many milliseconds
    /// since the last call: nobody has been silent for that.
    pub fn expire_producers(&mut self, now_ms: i64, set_by_ms: i64) {
        self.producers.clock_set(set_by_ms);
        self.producers.expire(now_ms);
    }

    /// Decides about one event.
    pub fn apply(&mut self, event: Event<'_, T>, actions: &mut Vec<Action<T>>) {
        match event {
            Event::Produce {
                token,
                batches,
                leader_epoch,
                now_ms,
            } => {
                self.produce(token, batches, leader_epoch, now_ms, actions);
            }
            Event::Persisted { up_to } => self.persisted(up_to, actions),
            Event::Refused { end, error } => self.refused(end, error, actions),
            Event::Failed => {
                self.state = State::Offline;
                let refusal = Refusal {
                    error: ErrorCode::StorageError,
                    detail: Detail::None,
                };
                self.answer_all_pending(refusal, actions);
            }
            Event::Damaged => {
                if self.state == State::Online {
                    self.state = State::ReadOnly;
                    // Readers who wait at the end hear that nothing more will come.
                    actions.push(Action::HighWatermarkMoved);
                }
            }
            Event::LogStartMoved { offset } => {
                self.log_start = self.log_start.max(offset);
                actions.push(Action::HighWatermarkMoved);
            }
            Event::Led { epoch } => {
                assert!(
                    epoch >= self.epoch,
                    "epochs only grow: {epoch} after {}",
                    self.epoch
                );
                self.epoch = epoch;
            }
        }
    }

    fn produce(
        &mut self,
        token: T,
        batches: &[BatchHeader],
        leader_epoch: LeaderEpoch,
        now_ms: i64,
        actions: &mut Vec<Action<T>>,
    ) {
        match self.judge(batches, leader_epoch, now_ms) {
            Verdict::Append { skip, original } => {
                let base_offset = self.log_end;
                for batch in &batches[skip..] {
                    let mut placed = *batch;
                    placed.base_offset = self.log_end;
                    self.log_end = placed.next_offset();
                    self.producers.appended(&placed, now_ms, self.durable);
                }
                self.epochs.appended(self.epoch, base_offset);
                let next_offset = self.log_end;
                actions.push(Action::Append {
                    skip,
                    base_offset,
                    next_offset,
                    epoch: self.epoch,
                });
                let base_offset = original.unwrap_or(base_offset);
                self.pending.push_back(Pending {
                    token,
                    base_offset,
                    next_offset,
                });
            }
            Verdict::Repeat {
                base_offset,
                next_offset,
            } => {
                if next_offset <= self.high_watermark {
                    actions.push(Action::Answer {
                        token,
                        result: Ok(base_offset),
                    });
                } else {
                    let at = self
                        .pending
                        .partition_point(|other| other.next_offset <= next_offset);
                    self.pending.insert(
                        at,
                        Pending {
                            token,
                            base_offset,
                            next_offset,
                        },
                    );
                }
            }
            Verdict::Refuse(refusal) => {
                actions.push(Action::Answer {
                    token,
                    result: Err(refusal),
                });
            }
        }
    }

    fn judge(&self, batches: &[BatchHeader], leader_epoch: LeaderEpoch, now_ms: i64) -> Verdict {
        if self.trouble() != ErrorCode::None {
            return Verdict::refuse(self.trouble(), Detail::None);
        }
        if let Err(refusal) = self.check_epoch(leader_epoch) {
            return Verdict::Refuse(refusal);
        }
        let latest = now_ms.saturating_add(MAX_TIMESTAMP_AHEAD_MS);
        if let Some(ahead) = batches.iter().find(|batch| batch.max_timestamp_ms > latest) {
            let detail = Detail::Timestamp(ahead.max_timestamp_ms);
            return Verdict::refuse(ErrorCode::InvalidTimestamp, detail);
        }
        self.judge_sequences(batches)
    }

    /// All batches of a produce are appended, or none. Only a crash can have kept the front of one:
    /// then the rest of its repeat is appended.
    fn judge_sequences(&self, batches: &[BatchHeader]) -> Verdict {
        if !batches.iter().any(BatchHeader::has_producer) {
            return Verdict::Append {
                skip: 0,
                original: None,
            };
        }
        let follows = |pair: &[BatchHeader]| {
            pair[1].producer_id == pair[0].producer_id
                && pair[1].producer_epoch == pair[0].producer_epoch
                && pair[1].base_sequence == producers::next_sequence(pair[0].last_sequence())
        };
        if !batches.windows(2).all(follows) {
            return Verdict::refuse(ErrorCode::OutOfOrderSequence, Detail::None);
        }
        let mut original = None;
        let mut end = Offset::ZERO;
        for (skip, batch) in batches.iter().enumerate() {
            match self.producers.check(batch) {
                SequenceCheck::Next => return Verdict::Append { skip, original },
                SequenceCheck::Repeat {
                    base_offset,
                    next_offset,
                } => {
                    original = original.or(Some(base_offset));
                    end = next_offset;
                }
                SequenceCheck::OldRepeat => {
                    return Verdict::refuse(ErrorCode::DuplicateSequence, Detail::None);
                }
                SequenceCheck::OutOfOrder { expected } => {
                    let detail = Detail::ExpectedSequence(expected);
                    return Verdict::refuse(ErrorCode::OutOfOrderSequence, detail);
                }
                SequenceCheck::Fenced { .. } => {
                    return Verdict::refuse(ErrorCode::ProducerFenced, Detail::None);
                }
            }
        }
        match original {
            Some(base_offset) => Verdict::Repeat {
                base_offset,
                next_offset: end,
            },
            None => Verdict::refuse(ErrorCode::InvalidBatch, Detail::None),
        }
    }

    /// Checks the epoch that a client knows against the one this broker leads with.
    ///
    /// # Errors
    /// The client's metadata is behind, or the broker's is.
    pub fn check_epoch(&self, known: LeaderEpoch) -> Result<(), Refusal> {
        let detail = Detail::CurrentEpoch(self.epoch);
        if known == LeaderEpoch::UNKNOWN || known == self.epoch {
            Ok(())
        } else if known < self.epoch {
            Err(Refusal {
                error: ErrorCode::FencedLeaderEpoch,
                detail,
            })
        } else {
            Err(Refusal {
                error: ErrorCode::UnknownLeaderEpoch,
                detail,
            })
        }
    }

    /// What a fetch from `offset` gets. `last_epoch` is the epoch of the last batch the reader
    /// has, or -1.
    #[must_use]
    pub fn fetch(
        &self,
        offset: Offset,
        leader_epoch: LeaderEpoch,
        last_epoch: LeaderEpoch,
    ) -> FetchVerdict {
        if self.state == State::Offline {
            let error = ErrorCode::PartitionOffline;
            return FetchVerdict::Refused(Refusal {
                error,
                detail: Detail::None,
            });
        }
        if let Err(refusal) = self.check_epoch(leader_epoch) {
            return FetchVerdict::Refused(refusal);
        }
        if let Some(diverging) = self.divergence(offset, last_epoch) {
            return FetchVerdict::Diverged(diverging);
        }
        if offset < self.log_start || offset > self.high_watermark {
            let error = match self.state {
                State::ReadOnly if offset > self.high_watermark => ErrorCode::PartitionReadOnly,
                _ => ErrorCode::OffsetOutOfRange,
            };
            return FetchVerdict::Refused(Refusal {
                error,
                detail: Detail::None,
            });
        }
        if offset == self.high_watermark {
            // Nothing ever comes behind damage: a reader that waits there would never hear of it.
            return match self.state {
                State::ReadOnly => FetchVerdict::Refused(Refusal {
                    error: ErrorCode::PartitionReadOnly,
                    detail: Detail::None,
                }),
                State::Online | State::Offline => FetchVerdict::AtEnd,
            };
        }
        FetchVerdict::Read {
            up_to: self.high_watermark,
        }
    }

    fn divergence(&self, offset: Offset, last_epoch: LeaderEpoch) -> Option<DivergingEpoch> {
        if last_epoch == LeaderEpoch::UNKNOWN {
            return None;
        }
        let (epoch, end_offset) = self.epochs.end_of(last_epoch, self.log_end);
        let diverged = epoch < last_epoch || end_offset < offset;
        diverged.then_some(DivergingEpoch { epoch, end_offset })
    }

    fn persisted(&mut self, up_to: Offset, actions: &mut Vec<Action<T>>) {
        if self.state == State::Offline || up_to <= self.durable {
            return;
        }
        assert!(
            up_to <= self.log_end,
            "nothing durable beyond the end of the log"
        );
        self.durable = up_to;
        // The sole replica is the whole in-sync set.
        self.high_watermark = self.durable;
        while self
            .pending
            .front()
            .is_some_and(|p| p.next_offset <= self.high_watermark)
        {
            if let Some(Pending {
                token, base_offset, ..
            }) = self.pending.pop_front()
            {
                actions.push(Action::Answer {
                    token,
                    result: Ok(base_offset),
                });
            }
        }
        actions.push(Action::HighWatermarkMoved);
    }

    fn refused(&mut self, end: Offset, error: ErrorCode, actions: &mut Vec<Action<T>>) {
        assert!(end >= self.durable, "what is durable is never refused");
        self.log_end = end;
        self.epochs.cut(end);
        self.producers.cut(end);
        let refusal = Refusal {
            error,
            detail: Detail::None,
        };
        while self.pending.back().is_some_and(|p| p.next_offset > end) {
            if let Some(Pending { token, .. }) = self.pending.pop_back() {
                actions.push(Action::Answer {
                    token,
                    result: Err(refusal),
                });
            }
        }
    }

    fn answer_all_pending(&mut self, refusal: Refusal, actions: &mut Vec<Action<T>>) {
        for Pending { token, .. } in self.pending.drain(..) {
            actions.push(Action::Answer {
                token,
                result: Err(refusal),
            });
        }
    }

    /// Asserts every invariant.
    ///
    /// # Panics
    /// If one is broken.
    pub fn check(&self) {
        assert!(
            self.log_start <= self.log_end,
            "the log starts before it ends"
        );
        assert!(self.durable <= self.log_end, "durable within the log");
        assert!(
            self.high_watermark <= self.durable,
            "consumers see durable records only"
        );
        self.epochs.check();
        let mut last = self.high_watermark;
        for pending in &self.pending {
            assert!(
                pending.base_offset < pending.next_offset,
                "a produce holds a record"
            );
            assert!(
                pending.next_offset > self.high_watermark,
                "answered once visible"
            );
            assert!(pending.next_offset >= last, "pending in order");
            assert!(
                pending.next_offset <= self.log_end,
                "pending within the log"
            );
            last = pending.next_offset;
        }
    }
}

enum Verdict {
    /// Append all but the first `skip`, whose first stands at `original`.
    Append {
        skip: usize,
        original: Option<Offset>,
    },
    Repeat {
        base_offset: Offset,
        next_offset: Offset,
    },
    Refuse(Refusal),
}

impl Verdict {
    fn refuse(error: ErrorCode, detail: Detail) -> Self {
        Self::Refuse(Refusal { error, detail })
    }
}
