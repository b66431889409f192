//! AlterTopic. A topic that is to be compacted must hold no record without a key: its shards look, and
//! take none such from before the look on, so that none slips in behind it.

use std::{rc::Rc, time::Duration};

use millstream_protocol::{
    ErrorCode, Offset, PartitionIndex, TopicPartition,
    batch::{BatchError, Batches, DecodedBatch},
    messages::{AlterTopicRequest, AlterTopicResponse, TopicResult},
};

use crate::{
    control::{ControlAnswer, ControlRequest},
    io::{Io, Monotonic},
    net::ReplyTo,
    shard::{
        Shard,
        fetch::read_error_code,
        partition::PartitionShell,
        router::{Missing, Op, OpReply},
    },
    storage::Slice,
    types::CleanupPolicy,
};

/// A topic whose records cannot be looked at in this time is altered only if that is forced.
const LOOK_WITHIN: Duration = Duration::from_secs(20);
/// Bytes read at once.
const READ_SIZE: usize = 1 << 20;

/// What speaks against compacting a partition; `ErrorCode::None` is nothing.
pub type KeyCheck = (ErrorCode, String);

impl<I: Io> Shard<I> {
    /// Serves an AlterTopic of a client.
    pub(super) async fn alter_topic(
        self: Rc<Self>,
        request: AlterTopicRequest,
        reply_to: ReplyTo<I>,
    ) {
        let partitions = self.about_to_need_keys(&request);
        let checks = self.check_keys(&partitions).await;
        let refused = checks
            .into_iter()
            .find(|(error, _)| *error != ErrorCode::None);
        match refused {
            Some((error, message)) => reply_to.send(&AlterTopicResponse {
                topic: TopicResult {
                    name: request.name,
                    error,
                    message,
                    ..TopicResult::default()
                },
            }),
            None => {
                let request = ControlRequest::AlterTopic(request);
                let shard = Rc::clone(&self);
                let changed = shard.serve_change(request, reply_to, |answer| match answer {
                    ControlAnswer::AlterTopic(response) => Some(response),
                    _ => None,
                });
                changed.await;
            }
        }
        if !partitions.is_empty() {
            // Whatever became of it, the settings decide again.
            self.refresh_everywhere().await;
            self.ask_for_keys(&partitions, false).await;
        }
    }

    /// The partitions of a topic that the request would make a compacted one.
    fn about_to_need_keys(self: &Rc<Self>, request: &AlterTopicRequest) -> Vec<TopicPartition> {
        self.take_newer_image();
        let compacts = request.configs.iter().any(|(name, value)| {
            let policy = value.as_deref().and_then(CleanupPolicy::parse);
            name == "cleanup.policy" && policy.is_some_and(CleanupPolicy::compacts)
        });
        let image = self.image.borrow();
        let topic = image.topic_named(&request.name);
        let topic = topic.filter(|topic| !topic.config.cleanup_policy.compacts());
        let Some(topic) = topic.filter(|_| compacts && !request.force) else {
            return Vec::new();
        };
        let partitions = (0..topic.partition_count()).map(|number| TopicPartition {
            topic: topic.id,
            partition: PartitionIndex(number),
        });
        partitions.collect()
    }

    async fn check_keys(self: &Rc<Self>, partitions: &[TopicPartition]) -> Vec<KeyCheck> {
        self.ask_for_keys(partitions, true).await
    }

    async fn ask_for_keys(
        self: &Rc<Self>,
        partitions: &[TopicPartition],
        check: bool,
    ) -> Vec<KeyCheck> {
        let op = |partitions| Op::RequireKeys { partitions, check };
        let results_of = |reply| match reply {
            OpReply::RequireKeys(results) => results,
            _ => Vec::new(),
        };
        let refused = |_: &TopicPartition, why: super::router::Unanswered| {
            (why.error_code(), why.message().to_owned())
        };
        self.spread(partitions, |id| *id, op, results_of, refused)
            .await
    }

    /// With `check`, this shard's partitions take no records without keys from now on, and those they
    /// have are looked at; without it, their topic's settings decide again.
    pub(super) async fn require_keys_here(
        self: &Rc<Self>,
        partitions: &[TopicPartition],
        check: bool,
    ) -> Vec<KeyCheck> {
        let deadline = self.io().now() + LOOK_WITHIN;
        let mut results = Vec::with_capacity(partitions.len());
        for id in partitions {
            let result = match self.partition(*id) {
                Ok(shell) if check => {
                    shell.require_keys(true);
                    self.look_for_keyless(&shell, deadline).await
                }
                Ok(shell) => {
                    let image = self.image.borrow();
                    let topic = image.topic(id.topic);
                    let compacts = |policy: CleanupPolicy| policy.compacts();
                    shell.require_keys(topic.is_some_and(|it| compacts(it.config.cleanup_policy)));
                    Ok(())
                }
                Err(Missing { error, message }) => Err((error, message)),
            };
            results.push(result.err().unwrap_or((ErrorCode::None, String::new())));
        }
        results
    }

    async fn look_for_keyless(
        &self,
        shell: &PartitionShell<I>,
        deadline: Monotonic,
    ) -> Result<(), KeyCheck> {
        let name = self.name_of(shell.log().id());
        let (mut at, end) = shell.with_machine(|machine| (machine.log_start(), machine.log_end()));
        while at < end {
            if self.io().now() > deadline {
                let message = format!(
                    "partition {name} could not be searched for records without a key within {} s \
                     (offset {at} of {end} was reached); --force alters the topic all the same",
                    LOOK_WITHIN.as_secs()
                );
                return Err((ErrorCode::Timeout, message));
            }
            // A trim meanwhile takes records away; it adds none.
            at = at.max(shell.log().log_start());
            let slices = shell.log().read(at, end, READ_SIZE).await;
            let slices = slices.map_err(|error| (read_error_code(&error), error.to_string()))?;
            if slices.is_empty() {
                break;
            }
            for batches in slices.iter().map(Slice::bytes) {
                at = check_batches(batches, at).map_err(|(offset, error)| {
                    let message = format!(
                        "partition {name} holds records that compaction cannot go by, the first at \
                         offset {offset} ({error}); --force alters the topic all the same, and \
                         compaction leaves them where they are"
                    );
                    (ErrorCode::KeyRequired, message)
                })?;
                self.io().yield_if_needed().await;
            }
        }
        Ok(())
    }
}

/// The offset after the batches, if every record from `from` on has a key; else where the first one
/// without lies.
fn check_batches(batches: &[u8], from: Offset) -> Result<Offset, (Offset, BatchError)> {
    let mut next = from;
    for batch in Batches::trusted(batches) {
        let (header, bytes) = batch.map_err(|error| (next, error))?;
        next = header.next_offset();
        let opened = DecodedBatch::open(bytes).map_err(|error| (header.base_offset, error))?;
        for record in opened.records() {
            let record = record.map_err(|error| (header.base_offset, error))?;
            if record.offset >= from && record.key.is_none() {
                let index = u32::try_from(record.offset.0 - header.base_offset.0);
                let index = index.unwrap_or(u32::MAX);
                return Err((record.offset, BatchError::NoKey { index }));
            }
        }
    }
    Ok(next)
}
