//! Ordinary produces beside the delayed records: how long each takes, before any delayed record is due and
//! while they are.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use millstream_client::{PartitionIndex, ProducerRecord};
use tokio::sync::mpsc;

use super::{connect, runtime};
use crate::{clock::Clock, meter::Sample};

/// Records are sent so often, those that are due together; latency counts from then.
const TICK: Duration = Duration::from_millis(1);

/// When a record was to be sent, and how long it took to be acknowledged.
pub(super) type Taken = (i64, u64);

/// Writes at a rate until it is told to stop; everything that was acknowledged.
///
/// # Errors
/// The first one of a produce.
pub(super) fn write(
    server: &str,
    topic: &str,
    rate: u64,
    record_size: usize,
    clock: Clock,
    stop: &Arc<AtomicBool>,
) -> Result<Vec<Taken>> {
    runtime()?.block_on(async {
        let client = connect(server).await?;
        let producer = client.producer().build().await?;
        let topic: Arc<str> = topic.into();
        let value = Bytes::from(vec![b'x'; record_size]);
        let (taken, mut all) = mpsc::unbounded_channel::<Result<Taken>>();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
        let begun_us = clock.now_us();
        let mut sent = 0u64;
        let mut tick = 0i64;
        while !stop.load(Ordering::Relaxed) {
            ticks.tick().await;
            tick += 1;
            let due_us = begun_us + tick * 1_000;
            let until = rate.saturating_mul(u64::try_from(tick).unwrap_or(0)) / 1_000;
            while sent < until {
                let record = ProducerRecord::to(Arc::clone(&topic));
                let record = record.value(value.clone()).partition(PartitionIndex(0));
                let delivery = producer.send(record).await?;
                let taken = taken.clone();
                tokio::spawn(async move {
                    let done = delivery.await;
                    let us = u64::try_from(clock.now_us() - due_us).unwrap_or(0);
                    let told = done.map(|_| (due_us, us));
                    let _ = taken.send(told.context("an ordinary record was refused"));
                });
                sent += 1;
            }
        }
        drop(taken);
        let mut found = Vec::with_capacity(usize::try_from(sent).unwrap_or(0));
        while let Some(one) = all.recv().await {
            found.push(one?);
        }
        producer.close().await?;
        Ok(found)
    })
}

/// Latencies of those that were to be sent in a stretch of time.
pub(super) fn within(taken: &[Taken], from_us: i64, until_us: i64) -> Sample {
    let mut sample = Sample::default();
    let within = taken
        .iter()
        .filter(|it| (from_us..until_us).contains(&it.0));
    for (due_us, took_us) in within {
        let until_us = due_us.saturating_add_unsigned(*took_us);
        sample.latency(*due_us, until_us, 1);
    }
    sample
}
