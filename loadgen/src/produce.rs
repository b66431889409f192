//! One producing connection: sends what is due, settles what was answered, in one task.

use std::{
    future::poll_fn,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use anyhow::{Context as _, Result};
use millstream_client::{Client, Producer, TrySendError};

use crate::{
    acknowledged::Acknowledged,
    clock::Clock,
    lane::{Answer, Lane},
    meter::Meter,
    pace::{Pace, Schedule},
    records::{Made, Records},
    spread::Spread,
    stop::{Stop, Urgency},
    timer::Timer,
    workload::Writing,
};

/// Records sent before the client's own tasks get the thread: few enough that a batch leaves soon.
const BURST: usize = 256;

/// What one producing connection is to do.
#[derive(Clone, Debug)]
pub struct ProducerPlan {
    /// Its number within the run.
    pub index: u32,
    /// Of how many.
    pub producers: u32,
    /// The run.
    pub run: u64,
    /// Where to.
    pub spread: Arc<Spread>,
    /// Which records.
    pub writing: Writing,
    /// Records of this connection at most.
    pub records: Option<u64>,
    /// Whether records carry a checksum.
    pub checked: bool,
    /// How long to try.
    pub delivery_timeout: Duration,
    /// Time.
    pub clock: Clock,
    /// Where results go.
    pub meter: Meter,
    /// What was promised, where anybody wants to know.
    pub acknowledged: Option<Arc<Mutex<Acknowledged>>>,
}

impl ProducerPlan {
    /// A producer of the client as the plan wants it.
    ///
    /// # Errors
    /// If the client can't make one.
    pub async fn producer(&self, client: &Client) -> Result<Producer> {
        let writing = &self.writing;
        let size = |bytes: u64| usize::try_from(bytes).context("a size is too large");
        let producer = client
            .producer()
            .linger(writing.linger.0)
            .batch_size(size(writing.batch_size)?)
            .buffer_memory(size(writing.buffer_memory)?)
            .compression(writing.codec())
            .delivery_timeout(self.delivery_timeout);
        Ok(producer.build().await?)
    }

    /// This connection's part of the schedule, if there is one.
    #[must_use]
    pub fn pace(&self, start_us: i64) -> Option<Pace> {
        let Writing {
            rate,
            arrivals,
            seed,
            ..
        } = self.writing;
        (rate > 0).then(|| {
            let schedule = Schedule {
                start_us,
                rate,
                arrivals,
                seed,
            };
            Pace::new(&schedule, self.index, self.producers)
        })
    }

    /// The records of this connection.
    #[must_use]
    pub fn made(&self) -> Records {
        let spread = Arc::clone(&self.spread);
        Records::new(self.run, self.index, &self.writing, spread, self.checked)
    }
}

struct Worker {
    plan: ProducerPlan,
    producer: Producer,
    records: Records,
    lanes: Vec<Lane>,
    pace: Option<Pace>,
    timer: Timer,
    sent: u64,
    unanswered: u64,
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
    if worker.unanswered == 0 {
        producer.close().await.ok();
    }
    if let Err(error) = ended {
        worker.error.get_or_insert_with(|| format!("{error:#}"));
    }
    Ok(ProducerEnd {
        unanswered: worker.unanswered,
        error: worker.error,
    })
}

impl Worker {
    async fn start(client: &Client, plan: ProducerPlan, begin_us: i64) -> Result<Self> {
        Ok(Self {
            producer: plan.producer(client).await?,
            records: plan.made(),
            lanes: (0..plan.spread.count()).map(|_| Lane::default()).collect(),
            pace: plan.pace(begin_us),
            timer: Timer::new().context("cannot make a timer")?,
            sent: 0,
            unanswered: 0,
            error: None,
            plan,
        })
    }

    /// Sends every record of the plan.
    async fn send_all(&mut self) -> Result<()> {
        let mut held: Option<(Made, i64)> = None;
        while self.error.is_none() {
            let mut now_us = self.plan.clock.now_us();
            let mut must_wait = false;
            for _ in 0..BURST {
                if self.is_at_limit() {
                    must_wait = true;
                    break;
                }
                let (made, intended_us) = match held.take() {
                    Some(held) => held,
                    None if self.plan.records.is_some_and(|limit| self.sent >= limit) => {
                        return Ok(());
                    }
                    None => match self.due(now_us) {
                        Some(intended_us) => (self.next(intended_us), intended_us),
                        None => break,
                    },
                };
                held = self.send(made, intended_us).await?;
                if held.is_some() {
                    must_wait = true;
                    break;
                }
            }
            if must_wait {
                self.wait_for_answer().await;
                continue;
            }
            tokio::task::yield_now().await;
            now_us = self.plan.clock.now_us();
            self.wait_until_due(now_us).await?;
        }
        Ok(())
    }

    /// Whether so many records are unanswered that none may follow.
    fn is_at_limit(&self) -> bool {
        let limit = self.plan.writing.in_flight;
        limit.is_some_and(|limit| self.unanswered >= limit)
    }

    /// When the next record is intended to be sent, if that time has come.
    fn due(&self, now_us: i64) -> Option<i64> {
        match &self.pace {
            None => Some(now_us),
            Some(pace) => Some(pace.next_us()).filter(|&at_us| at_us <= now_us),
        }
    }

    fn next(&mut self, intended_us: i64) -> Made {
        let lanes = &self.lanes;
        self.records
            .next(intended_us, |number| lanes[number as usize].next_sequence)
    }

    /// Gives a record to the client; it comes back if there is no room.
    async fn send(&mut self, made: Made, intended_us: i64) -> Result<Option<(Made, i64)>> {
        let Made {
            record,
            partition,
            size,
        } = made;
        let delivery = match self.producer.try_send(record) {
            Ok(delivery) => delivery,
            Err(TrySendError::Full(record)) => {
                let made = Made {
                    record,
                    partition,
                    size,
                };
                return Ok(Some((made, intended_us)));
            }
            Err(TrySendError::UnknownTopic(record)) => self.producer.send(record).await?,
            Err(TrySendError::Refused(error)) => return Err(error.into()),
        };
        self.lanes[partition as usize].sent(delivery, intended_us, size);
        self.sent += 1;
        self.unanswered += 1;
        if let Some(pace) = &mut self.pace {
            pace.advance();
        }
        Ok(None)
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
            match self.unanswered {
                0 => Poll::Ready(()),
                _ => Poll::Pending,
            }
        })
        .await;
    }

    /// Accounts for every batch that was answered; true if there were any.
    fn poll_settle(&mut self, context: &mut Context<'_>) -> bool {
        let Self {
            plan,
            lanes,
            error,
            unanswered,
            ..
        } = self;
        let mut any = false;
        for (partition, lane) in (0_u32..).zip(lanes) {
            any |= lane.poll_settle(context, |answer| {
                *unanswered -= answer.count;
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
            sample.bytes += answer.bytes;
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
