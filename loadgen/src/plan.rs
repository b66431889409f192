//! From a load to jobs: who writes what, who reads which partitions, and where reading ends.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, atomic::AtomicI64},
    time::Duration,
};

use anyhow::{Result, ensure};
use millstream_client::{Admin, OffsetSpec};
use tokio::sync::watch;
use uuid::Uuid;

use crate::{
    acknowledged::Acknowledged,
    args::FromArg,
    clock::Clock,
    consume::{ConsumerPlan, Ends},
    load::{Kind, Load},
    meter::Meter,
    produce::ProducerPlan,
    results::{ProduceSettings, Settings},
    round_trip::RoundTripPlan,
    series::Stream,
    spread::Spread,
    topic::{durability, ensure_topic, offsets},
    units::{counted, show_count},
    verify::Verifier,
    workers::Job,
    workload::{Extent, Writing},
};

const DEFAULT_TOPIC: &str = "loadgen";
const DEFAULT_DURATION: Duration = Duration::from_secs(10);

/// Everything a run needs to start.
#[derive(Debug)]
pub struct Plan {
    /// The run.
    pub run: u64,
    /// Topics and partitions.
    pub spread: Arc<Spread>,
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
/// The broker's refusals.
pub async fn plan(load: &Load, admin: &Admin, clock: Clock) -> Result<Plan> {
    match &load.kind {
        Kind::Produce(writing) | Kind::Both(writing) | Kind::EndToEnd(writing) => {
            Writers::prepare(load, writing, admin, clock)
                .await?
                .plan()
                .await
        }
        Kind::Consume(from) => plan_read(*from, &load.extent, admin, clock).await,
    }
}

/// A run that writes, on its way to a plan.
struct Writers<'a> {
    load: &'a Load,
    writing: &'a Writing,
    admin: &'a Admin,
    clock: Clock,
    run: u64,
    spread: Arc<Spread>,
    durability: String,
    acknowledged: Option<Arc<Mutex<Acknowledged>>>,
    said: Vec<String>,
}

impl<'a> Writers<'a> {
    /// Sees to it that the topics are there.
    async fn prepare(
        load: &'a Load,
        writing: &'a Writing,
        admin: &'a Admin,
        clock: Clock,
    ) -> Result<Self> {
        let extent = &load.extent;
        let name = extent.topic.as_deref().unwrap_or(DEFAULT_TOPIC);
        let mut found = Vec::new();
        let mut said = Vec::new();
        let mut setting = String::new();
        for name in extent.topic_names(name) {
            let (info, created) = ensure_topic(admin, &name, writing).await?;
            let partitions = u32::try_from(info.partitions.len())?;
            ensure!(partitions > 0, "topic {name:?} has no partitions");
            setting = durability(&info).unwrap_or_default().to_owned();
            found.push((Arc::from(name), partitions));
            // One of many is enough to see.
            if found.len() == 1 {
                said.extend(created);
            }
        }
        let spread = Arc::new(Spread::new(found));
        let run = Uuid::new_v4().as_u64_pair().0;
        let acknowledged = (extent.verify || extent.state.is_some()).then(|| {
            Arc::new(Mutex::new(Acknowledged {
                run,
                topics: spread.topics().map(|name| name.to_string()).collect(),
                marks: BTreeMap::new(),
            }))
        });
        said.push(describe(writing, extent, &spread));
        Ok(Self {
            load,
            writing,
            admin,
            clock,
            run,
            spread,
            durability: setting,
            acknowledged,
            said,
        })
    }

    async fn plan(mut self) -> Result<Plan> {
        let extent = &self.load.extent;
        let (ends, ends_receiver) = watch::channel(None);
        let written: Vec<Meter> = (0..extent.producers).map(|_| Meter::default()).collect();
        let producers = written
            .iter()
            .zip(0..)
            .map(|(meter, index)| self.producer(index, meter));
        let producers: Vec<ProducerPlan> = producers.collect();
        let mut streams = vec![Stream::new("produce", written)];
        let jobs = match self.load.kind {
            Kind::EndToEnd(_) => {
                let (jobs, stream) = self.round_trips(producers)?;
                streams.push(stream);
                jobs
            }
            Kind::Both(_) => {
                let (readers, stream) = self.readers(ends_receiver).await?;
                streams.push(stream);
                let producers = producers.into_iter().map(Job::Produce);
                producers.chain(readers).collect()
            }
            Kind::Produce(_) | Kind::Consume(_) => {
                producers.into_iter().map(Job::Produce).collect()
            }
        };
        let duration = extent.duration.or(match extent.records {
            Some(_) => None,
            None => Some(DEFAULT_DURATION),
        });
        let settings = settings(
            extent,
            &self.spread,
            Some(produce_settings(self.writing, &self.durability)),
        );
        Ok(Plan {
            run: self.run,
            jobs,
            producers: extent.producers as usize,
            streams,
            duration: duration.map(|duration| duration + extent.warm_up),
            records: extent.records,
            acknowledged: self.acknowledged,
            ends,
            settings,
            said: std::mem::take(&mut self.said),
            spread: self.spread,
        })
    }

    fn producer(&self, index: u32, meter: &Meter) -> ProducerPlan {
        let extent = &self.load.extent;
        let producers = extent.producers;
        ProducerPlan {
            index,
            producers,
            run: self.run,
            spread: Arc::clone(&self.spread),
            writing: self.writing.clone(),
            records: extent
                .records
                .map(|records| share(records, index, producers)),
            checked: extent.verify,
            delivery_timeout: extent.delivery_timeout,
            clock: self.clock,
            meter: meter.clone(),
            acknowledged: self.acknowledged.clone(),
        }
    }

    fn round_trips(&self, producers: Vec<ProducerPlan>) -> Result<(Vec<Job>, Stream)> {
        let (connections, partitions) = (producers.len(), self.spread.count());
        ensure!(
            connections <= partitions as usize,
            "end-to-end needs a partition for each connection: {connections} connections, \
             {partitions} partitions"
        );
        let mut meters = Vec::new();
        let jobs = producers.into_iter().map(|produce| {
            let received = Meter::default();
            meters.push(received.clone());
            Job::RoundTrip(RoundTripPlan {
                partition: produce.index,
                produce,
                received,
            })
        });
        let jobs = jobs.collect();
        Ok((jobs, Stream::new("consume", meters)))
    }

    async fn readers(&self, ends: watch::Receiver<Option<Ends>>) -> Result<(Vec<Job>, Stream)> {
        let extent = &self.load.extent;
        let latest = OffsetSpec::Latest;
        let patience = extent.delivery_timeout;
        let start = offsets(self.admin, &self.clock, patience, &self.spread, latest).await?;
        let setup = ReadSetup {
            spread: &self.spread,
            only_run: Some(self.run),
            expected: None,
            start,
            from_zero: true,
            ends,
            budget: None,
        };
        Ok(setup.jobs(extent, self.clock))
    }
}

async fn plan_read(from: FromArg, extent: &Extent, admin: &Admin, clock: Clock) -> Result<Plan> {
    let state = extent
        .state
        .as_deref()
        .map(Acknowledged::load)
        .transpose()?;
    let names = match (&extent.topic, &state) {
        (Some(topic), _) => extent.topic_names(topic),
        (None, Some(state)) => state.topics.clone(),
        (None, None) => extent.topic_names(DEFAULT_TOPIC),
    };
    if let Some(state) = &state {
        let topics = &state.topics;
        ensure!(
            names == *topics,
            "the state file is of other topics: {topics:?}"
        );
    }
    let mut found = Vec::new();
    for name in &names {
        let info = admin.topic(name).await?;
        found.push((
            Arc::from(name.as_str()),
            u32::try_from(info.partitions.len())?,
        ));
    }
    let spread = Arc::new(Spread::new(found));
    let patience = extent.delivery_timeout;
    let end = offsets(admin, &clock, patience, &spread, OffsetSpec::Latest).await?;
    let start = match from {
        FromArg::Beginning => {
            offsets(admin, &clock, patience, &spread, OffsetSpec::Earliest).await?
        }
        FromArg::End => end.clone(),
    };
    let follows = extent.duration.is_some() || from == FromArg::End;
    let (ends, ends_receiver) = watch::channel((!follows).then_some(end));
    let budget = extent
        .records
        .map(|records| Arc::new(AtomicI64::new(i64::try_from(records).unwrap_or(i64::MAX))));
    let setup = ReadSetup {
        spread: &spread,
        only_run: state.as_ref().map(|state| state.run),
        expected: state.as_ref(),
        start,
        from_zero: false,
        ends: ends_receiver,
        budget,
    };
    let (jobs, stream) = setup.jobs(extent, clock);
    Ok(Plan {
        run: state.as_ref().map_or(0, |state| state.run),
        said: vec![format!(
            "reading {} on {}",
            topics(&spread),
            counted(jobs.len() as u64, "connection"),
        )],
        jobs,
        producers: 0,
        streams: vec![stream],
        duration: extent.duration.map(|duration| duration + extent.warm_up),
        records: extent.records,
        settings: settings(extent, &spread, None),
        acknowledged: state.map(|state| Arc::new(Mutex::new(state))),
        ends,
        spread,
    })
}

/// What all readers of a run have in common.
struct ReadSetup<'a> {
    spread: &'a Arc<Spread>,
    only_run: Option<u64>,
    expected: Option<&'a Acknowledged>,
    start: BTreeMap<u32, i64>,
    /// Every lane is seen from its first record, wherever in the log that is.
    from_zero: bool,
    ends: watch::Receiver<Option<Ends>>,
    budget: Option<Arc<AtomicI64>>,
}

impl ReadSetup<'_> {
    fn jobs(self, extent: &Extent, clock: Clock) -> (Vec<Job>, Stream) {
        let count = (extent.consumers as usize).clamp(1, self.start.len().max(1));
        let mut parts: Vec<Vec<(u32, i64)>> = vec![Vec::new(); count];
        for (index, (&partition, &offset)) in self.start.iter().enumerate() {
            parts[index % count].push((partition, offset));
        }
        let mut meters = Vec::new();
        let mut jobs = Vec::new();
        for partitions in parts {
            let meter = Meter::default();
            meters.push(meter.clone());
            let verifier = extent.verify.then(|| {
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
                spread: Arc::clone(self.spread),
                partitions,
                ends: self.ends.clone(),
                budget: self.budget.clone(),
                latency: self.from_zero,
                patience: extent.delivery_timeout,
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

fn settings(extent: &Extent, spread: &Spread, produce: Option<ProduceSettings>) -> Settings {
    Settings {
        connections: match produce {
            Some(_) => extent.producers,
            None => extent.consumers,
        },
        consumers: extent.consumers,
        threads: extent.threads,
        topics: spread.topic_count(),
        partitions: spread.count(),
        warm_up_seconds: extent.warm_up.as_secs_f64(),
        produce,
    }
}

fn produce_settings(writing: &Writing, durability: &str) -> ProduceSettings {
    ProduceSettings {
        record_size: writing.sizes.mean(),
        record_sizes: writing.sizes.to_string(),
        keys: writing.keys.to_string(),
        compressible: writing.compressible,
        batch_size: writing.batch_size,
        linger_ms: writing.linger,
        buffer_memory: writing.buffer_memory,
        in_flight: writing.in_flight,
        rate: writing.rate,
        arrivals: writing.arrivals.name().to_owned(),
        seed: writing.seed,
        compression: writing.compression.name().to_owned(),
        durability: durability.to_owned(),
    }
}

fn describe(writing: &Writing, extent: &Extent, spread: &Spread) -> String {
    let rate = match writing.rate {
        0 => "as fast as possible".to_owned(),
        rate => format!("at {} records/s", show_count(rate)),
    };
    format!(
        "{}, {}, records of {}, batches of {}, {rate}",
        topics(spread),
        counted(u64::from(extent.producers), "connection"),
        writing.sizes,
        show_count(writing.batch_size),
    )
}

/// `topic "a", 1 partition`, or `3 topics from "a-0", 6 partitions`.
fn topics(spread: &Spread) -> String {
    let first = spread.topics().next().map_or("", |name| name);
    let partitions = counted(u64::from(spread.count()), "partition");
    match spread.topic_count() {
        1 => format!("topic {first:?}, {partitions}"),
        count => format!("{count} topics from {first:?}, {partitions}"),
    }
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

    #[test]
    fn topics_in_words() {
        let spread = |names: &[&str]| Spread::new(names.iter().map(|name| (Arc::from(*name), 1)));
        assert_eq!(topics(&spread(&["a"])), "topic \"a\", 1 partition");
        let two = topics(&spread(&["a-0", "a-1"]));
        assert_eq!(two, "2 topics from \"a-0\", 2 partitions");
    }
}
