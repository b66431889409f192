//! What a producer of delayed records does beside: it says when they are due, gives some of them names, and
//! takes some of them back.

use std::{collections::BTreeSet, rc::Rc, time::Duration};

use bytes::Bytes;
use millstream::io::{Clock as _, TaskClass, Tasks as _};
use millstream_client::{
    ProducerRecord,
    machines::producer::{Event, RequestId},
};
use millstream_protocol::{
    ErrorCode, Offset, TopicPartition,
    messages::{
        ANY_SHARD, CancelDelayed, CancelDelayedRequest, CancelOutcome, DescribeDelayedRequest,
        ProduceDelayedRequest, ProduceRequest,
    },
};

use crate::{
    history::{CancelTarget, DelayEvent, Delayed, Due, RecordId, What},
    producer::{Producer, Target},
    world::World,
};

/// Names that producers give, in each partition: few, so that most meet one that waits.
const NAMES: u64 = 4;
/// Between two looks at what waits.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Beyond the longest delay, everything that is due has been delivered.
const DELIVERED_WITHIN: Duration = Duration::from_secs(60);

impl Delayed {
    /// The record, with the headers that say so.
    pub fn put_on(&self, record: ProducerRecord) -> ProducerRecord {
        let record = match self.due {
            Due::At(at_ms) => record.deliver_at(at_ms),
            Due::After(after_ms) => {
                let after_ms = u64::try_from(after_ms).expect("no time before now");
                record.deliver_after(Duration::from_millis(after_ms))
            }
        };
        match &self.name {
            Some(name) => record.delay_id(name.clone()),
            None => record,
        }
    }
}

impl Producer {
    /// When the next record is due, if this is a producer of such.
    pub fn any_delay(&self) -> Option<Delayed> {
        let longest_ms = u64::try_from(self.plan().delay?.as_millis()).expect("short");
        let delay_ms = match self.below(5) {
            // At once, or in the past.
            0 => -i64::from(self.below(500)),
            1 => i64::from(self.below(longest_ms)),
            _ => i64::from(self.below(longest_ms / 4)),
        };
        let due = match self.below(3) {
            0 => Due::After(delay_ms.max(0)),
            _ => Due::At((self.io().wall_ms() + delay_ms).max(0)),
        };
        let name = (self.below(3) == 0).then(|| format!("n{}", self.below(NAMES)));
        Some(Delayed { due, name })
    }

    /// Sends what the machine wants sent, as records to be delayed.
    pub fn send_delayed(
        self: &Rc<Self>,
        id: RequestId,
        shard: u32,
        request: ProduceRequest,
        records: &[Bytes],
    ) {
        let request = ProduceDelayedRequest {
            timeout_ms: request.timeout_ms,
            partitions: request.partitions,
        };
        let reply = self.connections().request(shard, &request, records);
        self.later(async move {
            match reply.await {
                Ok((reply, _)) => Event::Replied(id, reply.partitions),
                Err(error) => Event::RequestFailed(id, error),
            }
        });
    }

    /// Takes a record back, perhaps, at any time until it is due or somewhat after.
    pub fn perhaps_cancel(
        self: &Rc<Self>,
        id: RecordId,
        at: TopicPartition,
        delay_id: Option<Offset>,
        longest: Duration,
    ) {
        if self.below(3) > 0 {
            return;
        }
        let name = self.recorder().delayed(id).and_then(|it| it.name);
        let target = match (name, delay_id) {
            (Some(name), _) if self.below(2) == 0 => CancelTarget::Name(name),
            (_, Some(delay_id)) => CancelTarget::Id(delay_id),
            (Some(name), None) => CancelTarget::Name(name),
            (None, None) => return,
        };
        let longest_ms = u64::try_from(longest.as_millis()).expect("short");
        let wait = Duration::from_millis(self.below(longest_ms / 4).into());
        let producer = Rc::clone(self);
        self.io().spawn(TaskClass::Foreground, async move {
            producer.io().sleep(wait).await;
            producer.cancel(at, target).await;
        });
    }

    async fn cancel(&self, at: TopicPartition, target: CancelTarget) {
        let number = self.recorder().cancellation();
        let mut entry = CancelDelayed {
            topic: at.topic,
            partition: at.partition,
            delay_id: Offset(-1),
            ..CancelDelayed::default()
        };
        match &target {
            CancelTarget::Id(delay_id) => entry.delay_id = *delay_id,
            CancelTarget::Name(name) => entry.id.clone_from(name),
        }
        let recorder = self.recorder();
        recorder.note(What::Delay(DelayEvent::Cancels { number, at, target }));
        let request = CancelDelayedRequest {
            records: vec![entry],
        };
        let asked = self.connections().request(ANY_SHARD, &request, &[]);
        // Without an answer it may be so or not.
        let Ok((answer, _)) = asked.await else {
            return;
        };
        let result = &answer.results[0];
        if result.error == ErrorCode::None {
            recorder.note(What::Delay(DelayEvent::CancelAnswered {
                number,
                outcome: CancelOutcome::from_number(result.outcome),
                delay_id: result.delay_id,
            }));
        }
    }
}

impl World {
    /// Topics that producers of delayed records write to: those that lose nothing of what was acknowledged.
    pub fn targets_of_delayed(&self) -> Vec<Target> {
        let topics = self.scenario.topics.iter();
        let kept = topics.filter(|topic| {
            let mut settings = topic.configs.iter();
            !settings.any(|(_, value)| value == "buffered")
        });
        kept.map(crate::world::target_of).collect()
    }

    /// Waits until nothing waits to be delivered any more. One that waits for ever is for an invariant to find.
    pub async fn deliver_all(&self) {
        if self.scenario.delayers == 0 {
            return;
        }
        let deadline = self.io.now() + self.scenario.delay * 4 + DELIVERED_WITHIN;
        while self.io.now() < deadline && self.pending().await > 0 {
            self.io.sleep(LOOK_EVERY).await;
        }
    }

    /// How many wait, as far as partitions say.
    async fn pending(&self) -> u64 {
        let names: BTreeSet<&str> = self.scenario.topics.iter().map(|it| &*it.name).collect();
        let topics = self.topics().into_iter();
        let topics = topics.filter(|topic| names.contains(&*topic.name));
        let partitions = topics.flat_map(|topic| {
            let partitions = 0..topic.partition_count();
            partitions.map(move |partition| TopicPartition {
                topic: topic.id,
                partition: partition.into(),
            })
        });
        let request = DescribeDelayedRequest {
            partitions: partitions.collect(),
        };
        let answer = self.ask(&request).await;
        let pending = answer.partitions.iter();
        let pending = pending.map(|it| match it.error {
            ErrorCode::None => it.pending,
            _ => 1,
        });
        pending.sum()
    }
}
