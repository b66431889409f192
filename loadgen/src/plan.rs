//! From arguments to jobs: who writes what, who reads which partitions, and where reading ends.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, atomic::AtomicI64},
    time::Duration,
};

use anyhow::{Result, ensure};
use clap::error::ErrorKind;
use millstream_client::{Admin, OffsetSpec};
use tokio::sync::watch;
use uuid::Uuid;

use crate::{
    acknowledged::Acknowledged,
    args::{CommonArgs, ConsumeArgs, FromArg, Mode, ProduceArgs},
    clock::Clock,
    consume::{ConsumerPlan, Ends},
    meter::Meter,
    payload::HEAD_SIZE,
    produce::ProducerPlan,
    results::{ProduceSettings, Settings},
    series::Stream,
    topic::{durability, ensure_topic, offsets},
    units::show_count,
    verify::Verifier,
    workers::Job,
};

const DEFAULT_TOPIC: &str = "loadgen";
const DEFAULT_DURATION: Duration = Duration::from_secs(10);

/// Everything a run needs to start.
#[derive(Debug)]
pub struct Plan {
    /// The run.
    pub run: u64,
    /// The topic.
    pub topic: Arc<str>,
    /// What the connections do.
    pub jobs: Vec<Job>,
    /// How many of them write.
    pub producers: usize,
    /// What is measured.
    pub streams: Vec<Stream>,
    /// Stop after this long.
    pub duration: Option<Duration>,
    /// Records in all, for the progress bar.
    pub records: Option<u64>,
    /// What is known of acknowledgements: filled by producers, or from the state file.
    pub acknowledged: Option<Arc<Mutex<Acknowledged>>>,
    /// Tells readers where to stop.
    pub ends: watch::Sender<Option<Ends>>,
    /// What was asked for.
    pub settings: Settings,
    /// What is to be said first.
    pub said: Vec<String>,
}

/// Plans a run.
///
/// # Errors
/// Arguments that contradict each other (a `clap::Error`), or the broker's refusals.
pub async fn plan(mode: &Mode, admin: &Admin, clock: Clock) -> Result<Plan> {
    match mode {
        Mode::Produce { produce, common } => plan_write(produce, common, admin, clock, false).await,
        Mode::Both { produce, common } => plan_write(produce, common, admin, clock, true).await,
        Mode::Consume { consume, common } => plan_read(consume, common, admin, clock).await,
    }
}

/// Checks what the command line alone can tell.
///
/// # Errors
/// A `clap::Error`.
pub fn check(mode: &Mode) -> Result<(), clap::Error> {
    let (Mode::Produce { produce, common } | Mode::Both { produce, common }) = mode else {
        return Ok(());
    };
    if common.verify && produce.record_size < HEAD_SIZE as u64 {
        return Err(clap::Error::raw(
            ErrorKind::ValueValidation,
            format!("--verify needs a --record-size of at least {HEAD_SIZE}\n"),
        ));
    }
    Ok(())
}

async fn plan_write(
    produce: &ProduceArgs,
    common: &CommonArgs,
    admin: &Admin,
    clock: Clock,
    read_too: bool,
) -> Result<Plan> {
    let name = common.topic.as_deref().unwrap_or(DEFAULT_TOPIC);
    let (info, created) = ensure_topic(admin, name, produce).await?;
    let partitions = u32::try_from(info.partitions.len())?;
    ensure!(partitions > 0, "topic {name:?} has no partitions");
    let topic: Arc<str> = Arc::from(name);
    let run = Uuid::new_v4().as_u64_pair().0;
    let acknowledged = (common.verify || common.state.is_some()).then(|| {
        Arc::new(Mutex::new(Acknowledged {
            run,
            topic: name.to_owned(),
            marks: BTreeMap::new(),
        }))
    });
    let (ends, ends_receiver) = watch::channel(None);
    let mut jobs = Vec::new();
    let mut written = Vec::new();
    for index in 0..common.connections {
        let meter = Meter::default();
        written.push(meter.clone());
        jobs.push(Job::Produce(ProducerPlan {
            index,
            producers: common.connections,
            run,
            topic: Arc::clone(&topic),
            partitions,
            args: produce.clone(),
            records: common
                .records
                .map(|records| share(records, index, common.connections)),
            checked: common.verify,
            delivery_timeout: common.delivery_timeout,
            clock,
            meter,
            acknowledged: acknowledged.clone(),
        }));
    }
    let mut streams = vec![Stream::new("produce", written)];
    if read_too {
        let start = offsets(
            admin,
            &clock,
            common.delivery_timeout,
            name,
            OffsetSpec::Latest,
        )
        .await?;
        let setup = ReadSetup {
            topic: &topic,
            only_run: Some(run),
            expected: None,
            start,
            from_zero: true,
            ends: ends_receiver,
            budget: None,
        };
        let (readers, stream) = setup.jobs(common, clock);
        jobs.extend(readers);
        streams.push(stream);
    }
    let duration = common.duration.or(match common.records {
        Some(_) => None,
        None => Some(DEFAULT_DURATION),
    });
    Ok(Plan {
        run,
        jobs,
        producers: common.connections as usize,
        streams,
        duration: duration.map(|duration| duration + common.warm_up),
        records: common.records,
        acknowledged,
        ends,
        settings: settings(
            common,
            partitions,
            Some(ProduceSettings {
                record_size: produce.record_size,
                batch_size: produce.batch_size,
                linger_ms: produce.linger.as_secs_f64() * 1e3,
                buffer_memory: produce.buffer_memory,
                rate: produce.rate,
                compression: produce.compression.name().to_owned(),
                durability: durability(&info).unwrap_or_default().to_owned(),
            }),
        ),
        said: created
            .into_iter()
            .chain([describe(produce, common, name, partitions)])
            .collect(),
        topic,
    })
}

async fn plan_read(
    consume: &ConsumeArgs,
    common: &CommonArgs,
    admin: &Admin,
    clock: Clock,
) -> Result<Plan> {
    let state = common
        .state
        .as_deref()
        .map(Acknowledged::load)
        .transpose()?;
    if let (Some(topic), Some(state)) = (&common.topic, &state) {
        ensure!(
            *topic == state.topic,
            "the state file is of topic {:?}, not {topic:?}",
            state.topic
        );
    }
    let name = match (&common.topic, &state) {
        (Some(topic), _) => topic.clone(),
        (None, Some(state)) => state.topic.clone(),
        (None, None) => DEFAULT_TOPIC.to_owned(),
    };
    let topic: Arc<str> = Arc::from(name.as_str());
    let patience = common.delivery_timeout;
    let end = offsets(admin, &clock, patience, &name, OffsetSpec::Latest).await?;
    let start = match consume.from {
        FromArg::Beginning => offsets(admin, &clock, patience, &name, OffsetSpec::Earliest).await?,
        FromArg::End => end.clone(),
    };
    let follows = common.duration.is_some() || consume.from == FromArg::End;
    let (ends, ends_receiver) = watch::channel((!follows).then_some(end));
    let budget = common
        .records
        .map(|records| Arc::new(AtomicI64::new(i64::try_from(records).unwrap_or(i64::MAX))));
    let partitions = u32::try_from(start.len())?;
    let setup = ReadSetup {
        topic: &topic,
        only_run: state.as_ref().map(|state| state.run),
        expected: state.as_ref(),
        start,
        from_zero: false,
        ends: ends_receiver,
        budget,
    };
    let (jobs, stream) = setup.jobs(common, clock);
    Ok(Plan {
        run: state.as_ref().map_or(0, |state| state.run),
        said: vec![format!(
            "reading topic {name:?} on {} connections",
            jobs.len()
        )],
        jobs,
        producers: 0,
        streams: vec![stream],
        duration: common.duration.map(|duration| duration + common.warm_up),
        records: common.records,
        settings: settings(common, partitions, None),
        acknowledged: state.map(|state| Arc::new(Mutex::new(state))),
        ends,
        topic,
    })
}

/// What all readers of a run have in common.
struct ReadSetup<'a> {
    topic: &'a Arc<str>,
    only_run: Option<u64>,
    expected: Option<&'a Acknowledged>,
    start: BTreeMap<u32, i64>,
    /// Every lane is seen from its first record, wherever in the log that is.
    from_zero: bool,
    ends: watch::Receiver<Option<Ends>>,
    budget: Option<Arc<AtomicI64>>,
}

impl ReadSetup<'_> {
    fn jobs(self, common: &CommonArgs, clock: Clock) -> (Vec<Job>, Stream) {
        let count = (common.connections as usize).clamp(1, self.start.len().max(1));
        let mut parts: Vec<Vec<(u32, i64)>> = vec![Vec::new(); count];
        for (index, (&partition, &offset)) in self.start.iter().enumerate() {
            parts[index % count].push((partition, offset));
        }
        let mut meters = Vec::new();
        let mut jobs = Vec::new();
        for partitions in parts {
            let meter = Meter::default();
            meters.push(meter.clone());
            let verifier = common.verify.then(|| {
                let mut verifier = Verifier::new(self.only_run);
                if let Some(expected) = self.expected {
                    verifier.expect(expected);
                }
                for &(partition, offset) in &partitions {
                    if offset > 0 && !self.from_zero {
                        verifier.begins_late(partition);
                    }
                }
                verifier
            });
            let plan = ConsumerPlan {
                topic: Arc::clone(self.topic),
                partitions,
                ends: self.ends.clone(),
                budget: self.budget.clone(),
                latency: self.from_zero,
                patience: common.delivery_timeout,
                clock,
                meter,
            };
            jobs.push(Job::Consume(plan, verifier));
        }
        (jobs, Stream::new("consume", meters))
    }
}

/// Part `index` of `records`, dealt out evenly over `count`.
fn share(records: u64, index: u32, count: u32) -> u64 {
    let (index, count) = (u64::from(index), u64::from(count));
    records / count + u64::from(index < records % count)
}

fn settings(common: &CommonArgs, partitions: u32, produce: Option<ProduceSettings>) -> Settings {
    Settings {
        connections: common.connections,
        threads: common.threads,
        partitions,
        warm_up_seconds: common.warm_up.as_secs_f64(),
        produce,
    }
}

fn describe(produce: &ProduceArgs, common: &CommonArgs, topic: &str, partitions: u32) -> String {
    let rate = match produce.rate {
        0 => "as fast as possible".to_owned(),
        rate => format!("at {} records/s", show_count(rate)),
    };
    format!(
        "topic {topic:?}, {partitions} partition(s), {} connection(s), records of {} bytes, batches \
         of {}, {rate}",
        common.connections,
        show_count(produce.record_size),
        show_count(produce.batch_size),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up() {
        for (records, count) in [(10, 3), (2, 5), (0, 1), (1_000_003, 7)] {
            let sum: u64 = (0..count).map(|index| share(records, index, count)).sum();
            assert_eq!(sum, records);
        }
    }
}
