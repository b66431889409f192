//! One producing connection: sends what is due, settles what was answered, in one task.

use std::{
    future::poll_fn,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use anyhow::{Context as _, Result};
use bytes::{Bytes, BytesMut};
use millstream_client::{Client, Delivery, PartitionIndex, Producer, ProducerRecord, TrySendError};

use crate::{
    acknowledged::Acknowledged,
    args::ProduceArgs,
    clock::Clock,
    lane::{Answer, Lane},
    meter::Meter,
    pace::Pace,
    payload::{Head, Payload},
    stop::{Stop, Urgency},
    timer::Timer,
};

/// Records sent before the client's own tasks get the thread: few enough that a batch leaves soon.
const BURST: usize = 256;
/// Values are cut from chunks of this size, so that a value costs no allocation of its own.
const CHUNK_SIZE: usize = 256 << 10;

/// What one producing connection is to do.
#[derive(Clone, Debug)]
pub struct ProducerPlan {
    /// Its number within the run.
    pub index: u32,
    /// Of how many.
    pub producers: u32,
    /// The run.
    pub run: u64,
    /// The topic.
    pub topic: Arc<str>,
    /// How many partitions the topic has.
    pub partitions: u32,
    /// Which records.
    pub args: ProduceArgs,
    /// Records of this connection at most.
    pub records: Option<u64>,
    /// Whether records carry a checksum.
    pub checked: bool,
    /// How long to try.
    pub delivery_timeout: std::time::Duration,
    /// Time.
    pub clock: Clock,
    /// Where results go.
    pub meter: Meter,
    /// What was promised, where anybody wants to know.
    pub acknowledged: Option<Arc<Mutex<Acknowledged>>>,
}

struct Worker {
    plan: ProducerPlan,
    producer: Producer,
    lanes: Vec<Lane>,
    payload: Payload,
    chunk: BytesMut,
    pace: Option<Pace>,
    timer: Timer,
    /// Records of the current partition left before the next one's turn.
    turn: u64,
    partition: usize,
    sent: u64,
    error: Option<String>,
}

/// How a producing connection ended.
#[derive(Clone, Debug, Default)]
pub struct ProducerEnd {
    /// Records that were sent and neither acknowledged nor refused: a stop did not wait for them.
    pub unanswered: u64,
    /// The first thing that went wrong.
    pub error: Option<String>,
}

/// Produces until the plan's end or a stop; a schedule starts at `begin_us`.
///
/// # Errors
/// If the producer can't be made.
pub async fn produce(
    client: &Client,
    plan: ProducerPlan,
    begin_us: i64,
    mut stop: Stop,
) -> Result<ProducerEnd> {
    let mut worker = Worker::start(client, plan, begin_us).await?;
    let ended = tokio::select! {
        ended = worker.send_all() => ended,
        () = stop.wait_for(Urgency::Finish) => Ok(()),
    };
    let producer = worker.producer.clone();
    tokio::select! {
        () = worker.settle_all() => {}
        // `settle_all` ends by the answers; flushing only ends the linger.
        () = async { let _ = producer.flush().await; std::future::pending().await } => {}
        () = stop.wait_for(Urgency::Abandon) => {}
    }
    let unanswered = worker.lanes.iter().map(Lane::unanswered).sum();
    if unanswered == 0 {
        producer.close().await.ok();
    }
    if let Err(error) = ended {
        worker.error.get_or_insert_with(|| format!("{error:#}"));
    }
    Ok(ProducerEnd {
        unanswered,
        error: worker.error,
    })
}

impl Worker {
    async fn start(client: &Client, plan: ProducerPlan, begin_us: i64) -> Result<Self> {
        let args = &plan.args;
        let size = |bytes: u64| usize::try_from(bytes).context("a size is too large");
        let producer = client
            .producer()
            .linger(args.linger)
            .batch_size(size(args.batch_size)?)
            .buffer_memory(size(args.buffer_memory)?)
            .compression(args.compression.into())
            .delivery_timeout(plan.delivery_timeout)
            .build()
            .await?;
        let pace = (args.rate > 0).then(|| {
            let (index, producers) = (plan.index as usize, plan.producers as usize);
            Pace::new(begin_us, args.rate, index, producers)
        });
        Ok(Self {
            payload: Payload::new(size(args.record_size)?, plan.checked),
            lanes: (0..plan.partitions).map(|_| Lane::default()).collect(),
            producer,
            chunk: BytesMut::new(),
            pace,
            timer: Timer::new().context("cannot make a timer")?,
            turn: 0,
            // Connections begin at different partitions.
            partition: (plan.index % plan.partitions) as usize,
            sent: 0,
            error: None,
            plan,
        })
    }

    /// Sends every record of the plan.
    async fn send_all(&mut self) -> Result<()> {
        let mut held: Option<(ProducerRecord, i64)> = None;
        while self.error.is_none() {
            let mut now_us = self.plan.clock.now_us();
            for _ in 0..BURST {
                let (record, intended_us) = match held.take() {
                    Some(record) => record,
                    None if self.plan.records.is_some_and(|limit| self.sent >= limit) => {
                        return Ok(());
                    }
                    None => match self.due(now_us) {
                        Some(intended_us) => (self.record(intended_us), intended_us),
                        None => break,
                    },
                };
                match self.producer.try_send(record) {
                    Ok(delivery) => self.taken(delivery, intended_us),
                    Err(TrySendError::Full(record)) => {
                        held = Some((record, intended_us));
                        break;
                    }
                    Err(TrySendError::UnknownTopic(record)) => {
                        let delivery = self.producer.send(record).await?;
                        self.taken(delivery, intended_us);
                    }
                    Err(TrySendError::Refused(error)) => return Err(error.into()),
                }
            }
            if held.is_some() {
                self.wait_for_answer().await;
                continue;
            }
            tokio::task::yield_now().await;
            now_us = self.plan.clock.now_us();
            self.wait_until_due(now_us).await?;
        }
        Ok(())
    }

    /// When the next record is intended to be sent, if that time has come.
    fn due(&self, now_us: i64) -> Option<i64> {
        match &self.pace {
            None => Some(now_us),
            Some(pace) => Some(pace.next_us()).filter(|&at_us| at_us <= now_us),
        }
    }

    fn record(&mut self, intended_us: i64) -> ProducerRecord {
        if self.turn == 0 {
            self.turn = self.turn_length();
            self.partition = (self.partition + 1) % self.lanes.len();
        }
        let partition = u32::try_from(self.partition).expect("partitions are counted in u32");
        let value = self.payload.value(&Head {
            run: self.plan.run,
            producer: self.plan.index,
            partition,
            sequence: self.lanes[self.partition].next_sequence,
            intended_us,
        });
        if self.chunk.capacity() < value.len() {
            self.chunk = BytesMut::with_capacity(CHUNK_SIZE.max(value.len()));
        }
        self.chunk.extend_from_slice(value);
        let value: Bytes = self.chunk.split().freeze();
        ProducerRecord::to(Arc::clone(&self.plan.topic))
            .partition(PartitionIndex(partition))
            .timestamp_ms(intended_us / 1_000)
            .value(value)
    }

    /// As fast as possible, a partition gets a batch at a time; at a fixed rate, a record at a time.
    fn turn_length(&self) -> u64 {
        let args = &self.plan.args;
        match args.rate {
            0 => (args.batch_size / args.record_size.max(1)).max(1),
            _ => 1,
        }
    }

    fn taken(&mut self, delivery: Delivery, intended_us: i64) {
        self.lanes[self.partition].sent(delivery, intended_us);
        self.turn -= 1;
        self.sent += 1;
        if let Some(pace) = &mut self.pace {
            pace.advance();
        }
    }

    async fn wait_for_answer(&mut self) {
        poll_fn(|context| match self.poll_settle(context) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }

    async fn wait_until_due(&mut self, now_us: i64) -> Result<()> {
        let at_us = self.pace.as_ref().map_or(now_us, Pace::next_us);
        poll_fn(|context| {
            self.poll_settle(context);
            self.timer
                .poll_until(context, at_us, self.plan.clock.now_us())
        })
        .await
        .context("the timer failed")
    }

    async fn settle_all(&mut self) {
        poll_fn(|context| {
            self.poll_settle(context);
            match self.lanes.iter().all(Lane::is_settled) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }

    /// Accounts for every batch that was answered; true if there were any.
    fn poll_settle(&mut self, context: &mut Context<'_>) -> bool {
        let Self {
            plan, lanes, error, ..
        } = self;
        let mut any = false;
        for (partition, lane) in (0_u32..).zip(lanes) {
            any |= lane.poll_settle(context, |answer| {
                if let Err(failure) = &answer.outcome {
                    // A record that verification will miss is reported; without it, figures of a
                    // run that half failed would mislead, so the first failure ends it.
                    error.get_or_insert_with(|| failure.to_string());
                }
                account(plan, partition, &answer);
            });
        }
        any
    }
}

fn account(plan: &ProducerPlan, partition: u32, answer: &Answer<'_>) {
    let now_us = plan.clock.now_us();
    plan.meter.record(|sample| match &answer.outcome {
        Ok(_) => {
            sample.records += answer.count;
            sample.bytes += answer.count * plan.args.record_size;
            for &(intended_us, count) in answer.intended {
                sample.latency(intended_us, now_us, count);
            }
        }
        Err(_) => sample.failed += answer.count,
    });
    let Some(acknowledged) = &plan.acknowledged else {
        return;
    };
    let mut acknowledged = acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
    let mark = acknowledged
        .marks
        .entry((plan.index, partition))
        .or_default();
    match &answer.outcome {
        Ok(first) if first.offset.0 < 0 => mark.acknowledge(answer.count, -1),
        Ok(first) => {
            let further = i64::try_from(answer.count - 1).unwrap_or(0);
            mark.acknowledge(answer.count, first.offset.0 + further);
        }
        Err(_) => mark.fail(answer.count),
    }
}
