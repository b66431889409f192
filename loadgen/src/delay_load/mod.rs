//! Very many delayed records: accepted, pending, delivered. Whether each comes once, none early, in order; how
//! late they are; what they cost the broker in memory while they wait; and what others notice of it.
//!
//! Writer, reader and the ordinary produces beside them have a thread each, so that none is late because
//! another is busy.

mod beside;
mod judge;
mod report;

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use millstream_client::{Admin, Client, NewTopic, PartitionIndex, ProducerRecord, StartAt};
use tokio::task::spawn_blocking;

use self::{
    judge::{Judge, Seen},
    report::Report,
};
use crate::{
    broker::{BrokerArgs, Target, resident_bytes},
    clock::Clock,
    units::{parse_count, parse_duration, parse_size},
};

/// Between two looks at the broker's memory.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Due times do not follow the order of acceptance: this prime spreads them.
const STRIDE: u64 = 2_654_435_761;
/// The least size of a value: its number and its due time.
const STAMP_SIZE: usize = 16;

/// Arguments of the mode.
#[derive(Clone, Debug, Args)]
pub struct DelayArgs {
    /// Delayed records
    #[arg(long, value_name = "COUNT", default_value = "100k", value_parser = parse_count)]
    pub records: u64,
    /// Bytes of each value, at least 16
    #[arg(long, value_name = "SIZE", default_value = "100", value_parser = parse_size)]
    pub record_size: u64,
    /// Partitions of the topic
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub partitions: u32,
    /// The first is due so long after the start; all should be accepted by then
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    pub after: Duration,
    /// Due times are spread over so long; 0s has all due at the same millisecond
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    pub over: Duration,
    /// Ordinary records a second, one at a time, to another topic, meanwhile; 0 for none
    #[arg(long, value_name = "COUNT", default_value = "0", value_parser = parse_count)]
    pub beside: u64,
    /// Give up when nothing was delivered for so long
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    pub patience: Duration,
    /// Which broker.
    #[command(flatten)]
    pub broker: BrokerArgs,
}

/// What the parts of a run share.
struct Setting {
    args: DelayArgs,
    server: String,
    topic: String,
    clock: Clock,
    first_due_ms: i64,
    /// Records due later than this were accepted before they were due; nothing is known before all are.
    accepted_by_ms: AtomicI64,
    stop: Arc<AtomicBool>,
    judge: Mutex<Judge>,
    peak_resident: AtomicU64,
}

/// Runs it; true if nothing was found wrong.
///
/// # Errors
/// What kept it from running.
pub async fn run(args: &DelayArgs, executable: Option<PathBuf>) -> Result<bool> {
    let target = Target::open(&args.broker, executable).await?;
    let result = measure(args, &target).await;
    let closed = target.close().await;
    let ok = result?;
    closed?;
    Ok(ok)
}

async fn measure(args: &DelayArgs, target: &Target) -> Result<bool> {
    let admin = connect(&target.server).await?.admin();
    let topic = format!("delay-{}", uuid::Uuid::new_v4().simple());
    let ordinary = format!("{topic}-beside");
    let new = NewTopic::new(&topic).partitions(args.partitions);
    admin.create_topic(new).await?;
    admin.create_topic(NewTopic::new(&ordinary)).await?;
    let done = measure_with(args, target, &admin, &topic, &ordinary).await;
    for topic in [&topic, &ordinary] {
        // A left-over takes space and nothing else; what matters is the run.
        let _ = admin.delete_topic(topic).await;
    }
    let report = done?;
    print!("{report}");
    Ok(report.is_sound())
}

async fn measure_with(
    args: &DelayArgs,
    target: &Target,
    admin: &Admin,
    topic: &str,
    ordinary: &str,
) -> Result<Report> {
    let clock = Clock::start();
    let after_ms = i64::try_from(args.after.as_millis())?;
    let setting = Arc::new(Setting {
        args: args.clone(),
        server: target.server.clone(),
        topic: topic.to_owned(),
        clock,
        first_due_ms: clock.now_us() / 1_000 + after_ms,
        accepted_by_ms: AtomicI64::new(i64::MAX),
        stop: Arc::default(),
        judge: Mutex::new(Judge::of(args.records)),
        peak_resident: AtomicU64::new(0),
    });
    let resident_before = resident(target).await;
    let begun_us = clock.now_us();
    let reading = {
        let setting = Arc::clone(&setting);
        spawn_blocking(move || setting.read())
    };
    let beside = {
        let (setting, ordinary) = (Arc::clone(&setting), ordinary.to_owned());
        spawn_blocking(move || setting.write_beside(&ordinary))
    };
    let accepting = {
        let setting = Arc::clone(&setting);
        spawn_blocking(move || setting.accept())
    };
    let done = async {
        accepting.await.context("the writer ended early")??;
        let accepted_us = clock.now_us();
        setting
            .accepted_by_ms
            .store(accepted_us / 1_000, Ordering::Relaxed);
        let pending = pending(admin, topic).await?;
        let resident_pending = resident(target).await;
        setting.await_delivered(target).await;
        Ok::<_, anyhow::Error>((accepted_us, pending, resident_pending))
    };
    let done = done.await;
    setting.stop.store(true, Ordering::Relaxed);
    reading.await.context("the reader ended early")??;
    let taken = beside.await.context("the other writer ended early")??;
    let (accepted_us, pending, resident_pending) = done?;
    let setting = Arc::into_inner(setting).context("all that share it have ended")?;
    let judge = setting.judge.into_inner();
    let judge = judge.unwrap_or_else(PoisonError::into_inner);
    let first_due_us = setting.first_due_ms.saturating_mul(1_000);
    Ok(Report {
        args: args.clone(),
        accepting_us: accepted_us - begun_us,
        was_ahead_us: first_due_us - accepted_us,
        pending,
        resident_before,
        resident_pending,
        resident_peak: setting.peak_resident.into_inner(),
        quiet: beside::within(&taken, accepted_us, first_due_us),
        busy: beside::within(&taken, first_due_us, judge.last_at_us),
        judge,
    })
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")
}

async fn connect(server: &str) -> Result<Client> {
    let client = Client::builder(server).client_name("loadgen-delay");
    Ok(client.connect().await?)
}

/// How many wait, and their bytes of disk.
async fn pending(admin: &Admin, topic: &str) -> Result<(u64, u64)> {
    let all = admin.count_delayed(topic).await?;
    let pending = all.iter().map(|it| it.pending).sum();
    Ok((pending, all.iter().map(|it| it.physical_bytes).sum()))
}

/// Memory of the broker in bytes; 0 if nobody says.
async fn resident(target: &Target) -> u64 {
    match target.admin() {
        Some(admin) => resident_bytes(admin).await.unwrap_or(0),
        None => 0,
    }
}

impl Setting {
    fn due_ms(&self, number: u64) -> i64 {
        let slot = u128::from(number) * u128::from(STRIDE) % u128::from(self.args.records);
        let at = slot * self.args.over.as_millis() / u128::from(self.args.records);
        self.first_due_ms + i64::try_from(at).expect("within the spread")
    }

    /// Sends every record and waits until all are accepted.
    fn accept(&self) -> Result<()> {
        const UNDER_WAY: usize = 100_000;
        runtime()?.block_on(async {
            let client = connect(&self.server).await?;
            let producer = client.producer().build().await?;
            let topic: Arc<str> = self.topic.as_str().into();
            let size = usize::try_from(self.args.record_size)?.max(STAMP_SIZE);
            let mut under_way = std::collections::VecDeque::with_capacity(UNDER_WAY);
            for number in 0..self.args.records {
                let due_ms = self.due_ms(number);
                let mut value = vec![b'.'; size];
                value[..8].copy_from_slice(&number.to_le_bytes());
                value[8..16].copy_from_slice(&due_ms.to_le_bytes());
                let partition = u32::try_from(number % u64::from(self.args.partitions))?;
                let record = ProducerRecord::to(Arc::clone(&topic));
                let record = record.partition(PartitionIndex(partition)).value(value);
                under_way.push_back(producer.send(record.deliver_at(due_ms)).await?);
                if under_way.len() == UNDER_WAY {
                    for delivery in under_way.drain(..UNDER_WAY / 2) {
                        delivery.await?;
                    }
                }
            }
            for delivery in under_way {
                delivery.await?;
            }
            producer.close().await?;
            Ok(())
        })
    }

    /// Reads what is delivered until it is told to stop.
    fn read(&self) -> Result<()> {
        runtime()?.block_on(async {
            let client = connect(&self.server).await?;
            let mut consumer = client.consumer().build();
            for partition in 0..self.args.partitions {
                let partition = PartitionIndex(partition);
                consumer
                    .assign(&self.topic, partition, StartAt::Beginning)
                    .await?;
            }
            while !self.stop.load(Ordering::Relaxed) {
                let records = consumer.poll(LOOK_EVERY).await?;
                let at_us = self.clock.now_us();
                let accepted_by_ms = self.accepted_by_ms.load(Ordering::Relaxed);
                let mut judge = self.judge.lock().unwrap_or_else(PoisonError::into_inner);
                for record in records {
                    let value = record.value.unwrap_or_default();
                    let stamp = |at: usize| value.get(at..at + 8)?.try_into().ok();
                    let (Some(number), Some(due)) = (stamp(0), stamp(8)) else {
                        bail!("a record that nobody sent");
                    };
                    let due_ms = i64::from_le_bytes(due);
                    judge.hear(Seen {
                        partition: record.partition,
                        number: u64::from_le_bytes(number),
                        due_ms,
                        delivered_ms: record.timestamp_ms,
                        at_us,
                        counts: due_ms > accepted_by_ms,
                    });
                }
            }
            Ok(())
        })
    }

    fn write_beside(&self, topic: &str) -> Result<Vec<beside::Taken>> {
        if self.args.beside == 0 {
            return Ok(Vec::new());
        }
        let size = usize::try_from(self.args.record_size)?;
        let rate = self.args.beside;
        beside::write(&self.server, topic, rate, size, self.clock, &self.stop)
    }

    /// Looks at the broker's memory until everything has come, or nothing comes any more.
    async fn await_delivered(&self, target: &Target) {
        let patience_us = i64::try_from(self.args.patience.as_micros()).unwrap_or(i64::MAX);
        loop {
            let (missing, last_at_us) = {
                let judge = self.judge.lock().unwrap_or_else(PoisonError::into_inner);
                (judge.missing(), judge.last_at_us)
            };
            let resident = resident(target).await;
            self.peak_resident.fetch_max(resident, Ordering::Relaxed);
            let since_us = last_at_us.max(self.first_due_ms.saturating_mul(1_000));
            if missing == 0 || self.clock.now_us() - since_us > patience_us {
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
