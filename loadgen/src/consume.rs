//! One consuming connection: reads its partitions, counts, and verifies if asked to.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};
use millstream_client::{Client, Consumer, ConsumerBatch, Offset, StartAt};
use tokio::sync::watch;

use crate::{
    clock::Clock,
    meter::Meter,
    payload,
    spread::Spread,
    stop::{Stop, Urgency},
    verify::Verifier,
};

/// One record in this many has its latency measured.
const LATENCY_EVERY: usize = 16;
/// Longest wait within one poll: how soon an end or a stop is noticed.
const POLL_WAIT: Duration = Duration::from_millis(100);
/// Pause after a retriable error.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Where to stop: the offset that each partition's reader has to reach; none yet while records are
/// still being written.
pub type Ends = BTreeMap<u32, i64>;

/// What one consuming connection is to do.
#[derive(Clone, Debug)]
pub struct ConsumerPlan {
    /// Where partitions are: their numbers go over all topics.
    pub spread: Arc<Spread>,
    /// The partitions to read, each from this offset.
    pub partitions: Vec<(u32, i64)>,
    /// Where to stop, once known.
    pub ends: watch::Receiver<Option<Ends>>,
    /// Records left to read, over all connections.
    pub budget: Option<Arc<AtomicI64>>,
    /// Measure latency from the intended time in each record.
    pub latency: bool,
    /// How long to go on while the broker is away.
    pub patience: Duration,
    /// Time.
    pub clock: Clock,
    /// Where results go.
    pub meter: Meter,
}

/// How a consuming connection ended.
#[derive(Debug)]
pub struct ConsumerEnd {
    /// What it saw, if it verifies.
    pub verifier: Option<Verifier>,
    /// Whether every partition was read to its end.
    pub complete: bool,
    /// What ended it early.
    pub error: Option<String>,
}

/// Reads until the ends are reached or a stop.
///
/// # Errors
/// If the partitions can't be assigned.
pub async fn consume(
    client: &Client,
    plan: ConsumerPlan,
    mut verifier: Option<Verifier>,
    mut stop: Stop,
) -> Result<ConsumerEnd> {
    let mut consumer = client.consumer().build();
    for &(partition, from) in &plan.partitions {
        let (topic, index) = plan.spread.at(partition);
        consumer
            .assign(topic, index, StartAt::Offset(Offset(from)))
            .await?;
    }
    let mut reader = Reader {
        plan: &plan,
        verifier: verifier.as_mut(),
        counter: 0,
    };
    // While producers finish after a stop, their records are still to be read: a reader with
    // unknown ends waits for them and only leaves at once when abandoned.
    let ended = tokio::select! {
        ended = reader.read_all(&mut consumer) => ended,
        () = stop.wait_for(Urgency::Abandon) => Ok(false),
    };
    let (complete, error) = match ended {
        Ok(complete) => (complete, None),
        Err(error) => (false, Some(format!("{error:#}"))),
    };
    Ok(ConsumerEnd {
        verifier,
        complete,
        error,
    })
}

struct Reader<'a> {
    plan: &'a ConsumerPlan,
    verifier: Option<&'a mut Verifier>,
    counter: usize,
}

impl Reader<'_> {
    /// True once the ends are reached; false if enough records were read before.
    async fn read_all(&mut self, consumer: &mut Consumer) -> Result<bool> {
        let mut quiet_since_us = self.plan.clock.now_us();
        loop {
            if self.at_ends(consumer) {
                return Ok(true);
            }
            if let Some(budget) = &self.plan.budget
                && budget.load(Ordering::Relaxed) <= 0
            {
                return Ok(false);
            }
            match consumer.poll_batches(POLL_WAIT).await {
                Ok(batches) => {
                    for batch in &batches {
                        self.take(batch)?;
                    }
                    // Silence is right as long as nobody knows of more records.
                    if !batches.is_empty() || self.plan.ends.borrow().is_none() {
                        quiet_since_us = self.plan.clock.now_us();
                    }
                    self.check_quiet(quiet_since_us, "the log ends before its end offset")?;
                }
                Err(error) if error.is_retriable() => {
                    self.check_quiet(quiet_since_us, &error.to_string())?;
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn check_quiet(&self, since_us: i64, why: &str) -> Result<()> {
        let quiet_us = self.plan.clock.now_us() - since_us;
        let patience = self.plan.patience;
        if u128::try_from(quiet_us).is_ok_and(|us| us > patience.as_micros()) {
            bail!("nothing could be read for {patience:?}: {why}");
        }
        Ok(())
    }

    fn at_ends(&self, consumer: &Consumer) -> bool {
        let ends = self.plan.ends.borrow();
        ends.as_ref().is_some_and(|ends| {
            self.plan.partitions.iter().all(|&(partition, from)| {
                let (topic, index) = self.plan.spread.at(partition);
                let position = consumer.position(topic, index);
                let position = position.map_or(from, |offset| offset.0);
                ends.get(&partition).is_none_or(|&end| position >= end)
            })
        })
    }

    fn take(&mut self, batch: &ConsumerBatch) -> Result<()> {
        let partition = self
            .plan
            .spread
            .number_of(batch.topic(), batch.partition())
            .context("a batch of another partition came")?;
        let now_us = self.plan.clock.now_us();
        let (mut count, mut bytes) = (0_u64, 0_u64);
        self.plan.meter.record(|sample| {
            let verifier = &mut self.verifier;
            let shown = batch.for_each(|record| {
                count += 1;
                let sizes = [record.key, record.value].map(|it| it.map_or(0, <[u8]>::len));
                bytes += (sizes[0] + sizes[1]) as u64;
                if let Some(verifier) = verifier {
                    verifier.record(partition, record.offset.0, record.value);
                }
                self.counter = self.counter.wrapping_add(1);
                if self.plan.latency && self.counter.is_multiple_of(LATENCY_EVERY) {
                    let intended_us = record.value.and_then(payload::intended_us);
                    if let Some(intended_us) = intended_us {
                        sample.latency(intended_us, now_us, 1);
                    }
                }
            });
            sample.records += count;
            sample.bytes += bytes;
            shown
        })?;
        if let Some(budget) = &self.plan.budget {
            budget.fetch_sub(i64::try_from(count).unwrap_or(i64::MAX), Ordering::Relaxed);
        }
        Ok(())
    }
}
