//! One consuming connection: reads its partitions, counts, and verifies if asked to.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, bail};
use millstream_client::{Client, Consumer, ConsumerBatch, Offset, PartitionIndex, StartAt};
use tokio::sync::watch;

use crate::{
    clock::Clock,
    meter::Meter,
    payload,
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
    /// The topic.
    pub topic: Arc<str>,
    /// Its partitions to read, each from this offset, and the first offset that each holds.
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
        consumer
            .assign(
                &plan.topic,
                PartitionIndex(partition),
                StartAt::Offset(Offset(from)),
            )
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
                let position = consumer.position(&self.plan.topic, PartitionIndex(partition));
                let position = position.map_or(from, |offset| offset.0);
                ends.get(&partition).is_none_or(|&end| position >= end)
            })
        })
    }

    fn take(&mut self, batch: &ConsumerBatch) -> Result<()> {
        let records = batch.records()?;
        let partition = batch.partition().0;
        if let Some(verifier) = &mut self.verifier {
            for record in &records {
                verifier.record(partition, record.offset.0, record.value.as_deref());
            }
        }
        let count = records.len();
        let bytes: usize = records
            .iter()
            .map(|record| {
                record.key.as_ref().map_or(0, |key| key.len())
                    + record.value.as_ref().map_or(0, |value| value.len())
            })
            .sum();
        let now_us = self.plan.clock.now_us();
        let skip = self.counter;
        self.counter = (skip + LATENCY_EVERY - count % LATENCY_EVERY) % LATENCY_EVERY;
        self.plan.meter.record(|sample| {
            sample.records += count as u64;
            sample.bytes += bytes as u64;
            if !self.plan.latency {
                return;
            }
            for record in records.iter().skip(skip).step_by(LATENCY_EVERY) {
                if let Some(intended_us) = record.value.as_deref().and_then(payload::intended_us) {
                    sample.latency(intended_us, now_us, 1);
                }
            }
        });
        if let Some(budget) = &self.plan.budget {
            budget.fetch_sub(i64::try_from(count).unwrap_or(i64::MAX), Ordering::Relaxed);
        }
        Ok(())
    }
}
