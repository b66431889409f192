//! One record at a time: sent, acknowledged, and received by a consumer that waits for it; then the
//! next. Its latencies hold no queue: they are what a single message costs.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use millstream_client::{Client, Consumer, Offset, OffsetSpec, PartitionIndex, Producer, StartAt};
use tokio::time::{Instant, timeout_at};

use crate::{
    clock::Clock,
    meter::Meter,
    pace::Pace,
    payload::intended_us,
    produce::{ProducerEnd, ProducerPlan},
    records::Records,
    stop::{Stop, Urgency},
    timer::Timer,
};

/// Longest wait within one poll: how soon the end of patience is noticed.
const POLL_WAIT: Duration = Duration::from_millis(500);

/// What a round-trip connection is to do.
#[derive(Clone, Debug)]
pub struct RoundTripPlan {
    /// Which records; its meter is of acknowledgements.
    pub produce: ProducerPlan,
    /// The one partition that it writes and reads, numbered over all topics.
    pub partition: u32,
    /// Where latencies from end to end go.
    pub received: Meter,
}

struct Trip {
    plan: RoundTripPlan,
    producer: Producer,
    consumer: Consumer,
    records: Records,
    pace: Option<Pace>,
    timer: Timer,
}

/// Sends and receives one by one until the plan's end or a stop.
///
/// # Errors
/// If producer or consumer can't be made.
pub async fn round_trip(
    client: &Client,
    plan: RoundTripPlan,
    begin_us: i64,
    mut stop: Stop,
) -> Result<ProducerEnd> {
    let mut trip = Trip::start(client, plan, begin_us).await?;
    let ended = tokio::select! {
        ended = trip.run() => ended,
        // What is under way is one record, of which nothing is known.
        () = stop.wait_for(Urgency::Finish) => Ok(()),
    };
    trip.producer.close().await.ok();
    Ok(ProducerEnd {
        unanswered: 0,
        error: ended.err().map(|error| format!("{error:#}")),
    })
}

impl Trip {
    async fn start(client: &Client, plan: RoundTripPlan, begin_us: i64) -> Result<Self> {
        let produce = &plan.produce;
        let (topic, partition) = produce.spread.at(plan.partition);
        let admin = client.admin();
        let ends = admin.list_offsets(topic, OffsetSpec::Latest).await?;
        let end = ends.iter().find(|(index, _)| *index == partition);
        let end = end.map_or(Offset::ZERO, |(_, offset)| *offset);
        let mut consumer = client.consumer().build();
        consumer
            .assign(topic, partition, StartAt::Offset(end))
            .await?;
        Ok(Self {
            producer: produce.producer(client).await?,
            records: produce.made(),
            pace: produce.pace(begin_us),
            timer: Timer::new().context("cannot make a timer")?,
            consumer,
            plan,
        })
    }

    async fn run(&mut self) -> Result<()> {
        let clock = self.plan.produce.clock;
        let mut sent = 0;
        while self.plan.produce.records.is_none_or(|limit| sent < limit) {
            let intended_us = match &mut self.pace {
                None => clock.now_us(),
                Some(pace) => {
                    let at_us = pace.next_us();
                    pace.advance();
                    wait_until(&mut self.timer, at_us, clock).await?;
                    at_us
                }
            };
            self.one(intended_us, sent).await?;
            sent += 1;
        }
        Ok(())
    }

    async fn one(&mut self, intended_us: i64, sequence: u64) -> Result<()> {
        let Self {
            plan,
            producer,
            consumer,
            records,
            ..
        } = self;
        let produce = &plan.produce;
        let clock = produce.clock;
        let made = records.next(intended_us, |_| sequence);
        let (topic, partition) = produce.spread.at(plan.partition);
        let record = made.record.partition(partition);
        let size = made.size;
        let acknowledged = async {
            producer.send(record).await?.await?;
            let now_us = clock.now_us();
            produce.meter.record(|sample| {
                sample.records += 1;
                sample.bytes += size;
                sample.latency(intended_us, now_us, 1);
            });
            anyhow::Ok(())
        };
        let received = async {
            receive(consumer, topic, partition, intended_us, produce).await?;
            let now_us = clock.now_us();
            plan.received.record(|sample| {
                sample.records += 1;
                sample.bytes += size;
                sample.latency(intended_us, now_us, 1);
            });
            anyhow::Ok(())
        };
        tokio::try_join!(acknowledged, received)?;
        Ok(())
    }
}

async fn wait_until(timer: &mut Timer, at_us: i64, clock: Clock) -> Result<()> {
    std::future::poll_fn(|context| timer.poll_until(context, at_us, clock.now_us()))
        .await
        .context("the timer failed")
}

/// Returns when the record intended for this time has come.
async fn receive(
    consumer: &mut Consumer,
    topic: &Arc<str>,
    partition: PartitionIndex,
    wanted_us: i64,
    plan: &ProducerPlan,
) -> Result<()> {
    let deadline = Instant::now() + plan.delivery_timeout;
    loop {
        let polled = timeout_at(deadline, consumer.poll_batches(POLL_WAIT)).await;
        let batches =
            polled.with_context(|| format!("a record did not arrive in {topic} {partition}"))??;
        let mut found = false;
        let mut others = 0;
        for batch in &batches {
            batch.for_each(|record| match record.value.and_then(intended_us) {
                Some(at_us) if at_us == wanted_us => found = true,
                _ => others += 1,
            })?;
        }
        ensure!(
            others == 0,
            "something else writes to {topic} {partition}: use a topic of its own"
        );
        if found {
            return Ok(());
        }
    }
}
