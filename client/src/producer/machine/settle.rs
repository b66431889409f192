//! What becomes of a batch: every answer, failure and timeout ends here.

use std::{sync::Arc, time::Duration};

use millstream_protocol::{
    ErrorCode, LeaderEpoch, Offset, TopicId, TopicPartition, messages::ProducePartitionResult,
};

use super::{
    Action, IdentityState, Machine,
    batch::{BatchId, RequestId},
    partition::REMEMBERED_FOR,
};
use crate::{
    error::{ProduceError, RequestError},
    metadata::{Leader, Node},
    producer::delivery::BatchPlace,
};

/// Failures in a row that the pause after a failed look-up is that of: some 160 ms.
const LOOKUP_PAUSE: u32 = 4;

/// What an attempt at a batch came to.
#[derive(Debug)]
enum Outcome {
    Written {
        base_offset: Offset,
        append_time_ms: i64,
    },
    /// Try again, with the same sequence.
    Retry {
        reason: Arc<str>,
        /// It may have been written.
        uncertain: bool,
        leader: Option<Leader>,
        /// Whoever leads may have changed.
        look_up: bool,
    },
    /// The broker says that this sequence is wrong: the batch is not in the log by it.
    WrongSequence { code: ErrorCode, message: Arc<str> },
    /// It will never be written.
    Refused { code: ErrorCode, message: Arc<str> },
}

impl<H: Clone + Default> Machine<H> {
    pub(super) fn replied(
        &mut self,
        now: Duration,
        request: RequestId,
        results: Vec<ProducePartitionResult>,
        actions: &mut Vec<Action<H>>,
    ) {
        if let Some(sent) = self.requests.get(&request) {
            let took = now.saturating_sub(sent.sent_at);
            self.pacing.answered(sent.node, took);
        }
        let batches = self.request_ended(request);
        let mut gone = Vec::new();
        let mut results = results.into_iter();
        for (at, batch) in batches {
            let result = results
                .next()
                .filter(|it| it.topic == at.topic && it.partition == at.partition);
            let outcome = match result {
                Some(result) => {
                    if result.error == ErrorCode::UnknownTopic {
                        gone.push(at.topic);
                    }
                    outcome_of(result)
                }
                None => Outcome::Retry {
                    reason: "the broker's answer leaves the partition out".into(),
                    uncertain: true,
                    leader: None,
                    look_up: true,
                },
            };
            self.attempt_ended(now, at, batch, outcome, actions);
        }
        for topic in gone {
            self.drop_topic(topic, actions);
        }
    }

    pub(super) fn request_failed(
        &mut self,
        now: Duration,
        request: RequestId,
        error: &RequestError,
        actions: &mut Vec<Action<H>>,
    ) {
        for (at, batch) in self.request_ended(request) {
            let reason: Arc<str> = error.to_string().into();
            let outcome = match error {
                RequestError::Broker { code, .. } if !code.is_retriable() => Outcome::Refused {
                    code: *code,
                    message: reason,
                },
                RequestError::Broker { code, .. } => Outcome::Retry {
                    reason,
                    uncertain: is_uncertain(*code),
                    leader: None,
                    look_up: true,
                },
                RequestError::Connect { .. } => Outcome::Retry {
                    reason,
                    uncertain: false,
                    leader: None,
                    look_up: true,
                },
                // Whatever it was, it came too late to know.
                RequestError::ConnectionLost { .. }
                | RequestError::TimedOut { .. }
                | RequestError::Protocol { .. }
                | RequestError::UnknownTopic(_)
                | RequestError::UnknownPartition { .. }
                | RequestError::Configuration(_) => Outcome::Retry {
                    reason,
                    uncertain: true,
                    leader: None,
                    look_up: true,
                },
            };
            self.attempt_ended(now, at, batch, outcome, actions);
        }
    }

    fn request_ended(&mut self, request: RequestId) -> Vec<(TopicPartition, BatchId)> {
        let Some(sent) = self.requests.remove(&request) else {
            return Vec::new();
        };
        let in_flight = self.in_flight.get_mut(&sent.node).expect("it was counted");
        *in_flight -= 1;
        if *in_flight == 0 {
            self.in_flight.remove(&sent.node);
        }
        sent.batches
    }

    fn attempt_ended(
        &mut self,
        now: Duration,
        at: TopicPartition,
        batch: BatchId,
        outcome: Outcome,
        actions: &mut Vec<Action<H>>,
    ) {
        // A batch that is not there settled with its topic.
        let Some(partition) = self.partition_mut(at) else {
            return;
        };
        let Some(index) = partition.index_of(batch) else {
            return;
        };
        partition.landed(index);
        match outcome {
            Outcome::Written {
                base_offset,
                append_time_ms,
            } => {
                partition.failures = 0;
                partition.known_until = now + REMEMBERED_FOR;
                let place = BatchPlace {
                    partition: at.partition,
                    base_offset,
                    append_time_ms,
                };
                self.settle(at, index, Ok(place), actions);
            }
            Outcome::Retry {
                reason,
                uncertain,
                leader,
                look_up,
            } => {
                partition.batches[index].uncertain |= uncertain;
                partition.batches[index].trouble = Some(reason);
                let found = leader.is_some_and(|leader| partition.set_leader(leader));
                if !found {
                    self.pause(now, at);
                    if look_up {
                        self.lookups.want(at.topic);
                    }
                }
            }
            Outcome::WrongSequence { code, message } => {
                self.wrong_sequence(now, at, index, code, message, actions);
            }
            Outcome::Refused { code, message } => {
                self.refuse(at, index, code, message, actions);
            }
        }
    }

    /// KIP-360, without the broker's help: a batch behind an unsettled one is refused because the
    /// other is missing, so it waits its turn. A first batch is refused because of a gap that is
    /// known of, or because the broker forgot this producer. Then all that waits gets a new identity,
    /// which is safe since the refusal proves it unwritten; unless an earlier attempt of this batch
    /// may have been written before the broker forgot.
    fn wrong_sequence(
        &mut self,
        now: Duration,
        at: TopicPartition,
        index: usize,
        code: ErrorCode,
        message: Arc<str>,
        actions: &mut Vec<Action<H>>,
    ) {
        let partition = self.partition_mut(at).expect("found before");
        let may_be_written = partition.batches[index].uncertain && !partition.gap_possible;
        partition.batches[index].trouble = Some(Arc::clone(&message));
        if index > 0 {
            return;
        }
        partition.reset_wanted = true;
        if may_be_written {
            let error = self.refusal(at, index, code, message);
            self.settle(at, index, Err(error), actions);
        } else {
            partition.batches[index].uncertain = false;
            self.pause(now, at);
        }
    }

    fn refuse(
        &mut self,
        at: TopicPartition,
        index: usize,
        code: ErrorCode,
        message: Arc<str>,
        actions: &mut Vec<Action<H>>,
    ) {
        let error = self.refusal(at, index, code, message);
        let partition = self.partition_mut(at).expect("found before");
        let stamp = partition.batches[index].stamp;
        let later_stamped = partition
            .batches
            .range(index + 1..)
            .any(|it| it.stamp.is_some());
        match stamp {
            // Nobody has seen a later sequence, so this one is free again.
            Some(stamp) if !later_stamped && !partition.batches[index].uncertain => {
                partition.next_sequence = stamp.base_sequence;
            }
            Some(_) => partition.gap_possible = true,
            None => {}
        }
        self.settle(at, index, Err(error), actions);
    }

    fn refusal(
        &self,
        at: TopicPartition,
        index: usize,
        code: ErrorCode,
        message: Arc<str>,
    ) -> ProduceError {
        let partition = self.partition(at).expect("found before");
        ProduceError::Refused {
            topic: Arc::clone(&self.topics[&at.topic].name),
            partition: at.partition,
            code,
            message,
            maybe_written: partition.batches[index].uncertain,
        }
    }

    /// Removes a batch for good.
    fn settle(
        &mut self,
        at: TopicPartition,
        index: usize,
        result: Result<BatchPlace, ProduceError>,
        actions: &mut Vec<Action<H>>,
    ) {
        let partition = self
            .partition_mut(at)
            .expect("the batch's partition exists");
        let batch = partition.batches.remove(index).expect("the batch is there");
        let idle = partition.batches.is_empty();
        self.buffered -= batch.size;
        self.hurry = false;
        self.idled |= idle;
        actions.push(Action::Settle {
            handle: batch.handle,
            result,
        });
    }

    /// Partitions without batches are active no more. Once for all that an event settles: with
    /// thousands of partitions, each of them would else be sought among all the others.
    pub(super) fn forget_idle(&mut self) {
        if !std::mem::take(&mut self.idled) {
            return;
        }
        let topics = &self.topics;
        self.active.retain(|at| {
            let topic = topics.get(&at.topic);
            let partition = topic.and_then(|it| it.partitions.get(at.partition.0 as usize));
            partition.is_some_and(|it| !it.batches.is_empty())
        });
    }

    /// Pauses a partition that failed. Batches that failed together count once.
    fn pause(&mut self, now: Duration, at: TopicPartition) {
        let partition = self
            .partition_mut(at)
            .expect("a partition that failed exists");
        if partition.backoff_until.is_some_and(|until| until > now) {
            return;
        }
        partition.failures += 1;
        let failures = partition.failures;
        let until = now + self.backoff.pause(failures);
        self.partition_mut(at).expect("it was there").backoff_until = Some(until);
    }

    /// Gives up batches whose time is over. One in flight is waited for: its answer, or the end of
    /// its request, is near and tells more.
    pub(super) fn expire(&mut self, now: Duration, actions: &mut Vec<Action<H>>) {
        let timeout = self.config.delivery_timeout;
        let is_over = |machine: &Self, at: TopicPartition| {
            let first = machine.partition(at).and_then(|it| it.batches.front());
            first.is_some_and(|it| !it.is_in_flight() && it.created_at + timeout <= now)
        };
        let active = self.active.iter().copied();
        let over: Vec<TopicPartition> = active.filter(|at| is_over(self, *at)).collect();
        for at in over {
            while is_over(self, at) {
                self.give_up_first(at, actions);
            }
        }
    }

    fn give_up_first(&mut self, at: TopicPartition, actions: &mut Vec<Action<H>>) {
        let topic = Arc::clone(&self.topics[&at.topic].name);
        let timeout = self.config.delivery_timeout;
        let partition = self.partition_mut(at).expect("the caller found a batch");
        let first = partition.batches.front().expect("the caller found it");
        partition.gap_possible |= first.stamp.is_some();
        let error = ProduceError::TimedOut {
            topic,
            partition: at.partition,
            timeout,
            maybe_written: first.uncertain,
            reason: first
                .trouble
                .clone()
                .unwrap_or_else(|| "no request was free for it in time".into()),
        };
        self.settle(at, 0, Err(error), actions);
    }

    /// Fails everything meant for a topic that is gone. Requests in flight find their batches gone.
    pub(super) fn drop_topic(&mut self, id: TopicId, actions: &mut Vec<Action<H>>) {
        let Some(topic) = self.topics.remove(&id) else {
            return;
        };
        self.names.retain(|_, named| *named != id);
        self.lookups.done(id);
        self.active.retain(|at| at.topic != id);
        for partition in topic.partitions {
            for batch in partition.batches {
                self.buffered -= batch.size;
                self.hurry = false;
                let error = RequestError::UnknownTopic(Arc::clone(&topic.name));
                actions.push(Action::Settle {
                    handle: batch.handle,
                    result: Err(error.into()),
                });
            }
        }
        actions.push(Action::ForgetTopic(id));
    }

    pub(super) fn lookup_failed(
        &mut self,
        now: Duration,
        id: TopicId,
        error: RequestError,
        actions: &mut Vec<Action<H>>,
    ) {
        if error.code() == Some(ErrorCode::UnknownTopic) {
            self.drop_topic(id, actions);
            return;
        }
        let retry_at = now + self.backoff.pause(LOOKUP_PAUSE);
        self.lookups.failed(id, retry_at);
        if let Some(topic) = self.topics.get_mut(&id) {
            let batches = topic.partitions.iter_mut().flat_map(|it| &mut it.batches);
            let reason: Arc<str> = error.to_string().into();
            for batch in batches.filter(|batch| batch.trouble.is_none()) {
                batch.trouble = Some(Arc::clone(&reason));
            }
        }
    }

    /// No identity: try again, or fail what can't go without one.
    pub(super) fn identity_failed(
        &mut self,
        now: Duration,
        error: &RequestError,
        actions: &mut Vec<Action<H>>,
    ) {
        let failures = match self.identity {
            IdentityState::Requested(failures) | IdentityState::PausedUntil(_, failures) => {
                failures + 1
            }
            IdentityState::None | IdentityState::Known(_) => 1,
        };
        let until = now + self.backoff.pause(failures);
        self.identity = IdentityState::PausedUntil(until, failures);
        let reason: Arc<str> = error.to_string().into();
        for at in self.active.clone() {
            let partition = self.partition_mut(at).expect("active partitions exist");
            if partition.identity.is_some() {
                continue;
            }
            for batch in &mut partition.batches {
                batch.trouble = Some(Arc::clone(&reason));
            }
            if !error.is_retriable() {
                while self.partition(at).is_some_and(|it| !it.batches.is_empty()) {
                    self.settle(at, 0, Err(error.clone().into()), actions);
                }
            }
        }
    }
}

/// Whether a batch that got this answer may be in the log.
fn is_uncertain(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::Timeout | ErrorCode::StorageError)
}

fn outcome_of(result: ProducePartitionResult) -> Outcome {
    // Success, which is nearly every result, has no message to be made.
    let message: Arc<str> = match result.message.as_str() {
        _ if result.error == ErrorCode::None => Arc::default(),
        "" => format!("{:?}", result.error).into(),
        message => message.into(),
    };
    match result.error {
        ErrorCode::None => Outcome::Written {
            base_offset: result.base_offset,
            append_time_ms: result.append_time_ms,
        },
        // In the log, further back than the broker remembers where.
        ErrorCode::DuplicateSequence => Outcome::Written {
            base_offset: Offset(-1),
            append_time_ms: -1,
        },
        code @ (ErrorCode::OutOfOrderSequence | ErrorCode::ProducerFenced) => {
            Outcome::WrongSequence { code, message }
        }
        ErrorCode::NotLeader => Outcome::Retry {
            reason: message,
            uncertain: false,
            leader: (result.leader_epoch > LeaderEpoch::UNKNOWN).then_some(Leader {
                node: Node {
                    broker: result.leader,
                    shard: result.shard,
                },
                epoch: result.leader_epoch,
            }),
            look_up: true,
        },
        code if code.is_retriable() => Outcome::Retry {
            reason: message,
            uncertain: is_uncertain(code),
            leader: None,
            look_up: matches!(
                code,
                ErrorCode::FencedLeaderEpoch
                    | ErrorCode::UnknownLeaderEpoch
                    | ErrorCode::ShuttingDown
            ),
        },
        code => Outcome::Refused { code, message },
    }
}
