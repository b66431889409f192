//! One run from start to end: plans, starts the workers, looks at each interval, judges.

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Result;
use millstream_client::{Admin, OffsetSpec};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval_at, sleep_until},
};

use crate::{
    acknowledged::Acknowledged,
    broker::{BrokerFacts, Observer},
    clock::Clock,
    console::{Console, Length},
    durability::{Durability, Evidence},
    hdr_log::{HdrLog, write_percentiles},
    interrupt::Interrupts,
    load::Load,
    plan::{Plan, plan},
    results::{RunResult, StreamResult},
    series::{Series, Tick, Whole},
    stop::{StopHandle, Urgency},
    topic::offsets,
    units::{show_count, show_rounded, show_us},
    verify::Verdict,
    workers::{Connect, Event, start},
    workload::Extent,
};

/// Longest wait for the broker to say where the log ends. Nothing is reported meanwhile.
const END_PATIENCE: Duration = Duration::from_secs(30);

/// What every run of an invocation shares.
#[derive(Debug)]
pub struct Stage<'a> {
    /// Time.
    pub clock: Clock,
    /// How connections are made.
    pub connect: Connect,
    /// For topics and offsets.
    pub admin: Admin,
    /// The broker.
    pub facts: BrokerFacts,
    /// Its counters.
    pub observer: Observer,
    /// Where people read.
    pub console: &'a mut Console,
    /// Ctrl-C.
    pub interrupts: &'a mut Interrupts,
    /// Whether each interval gets a line.
    pub tells_intervals: bool,
    /// Whether somebody wants results now.
    pub interrupted: bool,
}

/// What ended a run besides its figures.
#[derive(Debug, Default)]
struct Ending {
    unanswered: u64,
    verdict: Option<Verdict>,
    errors: Vec<String>,
}

/// A run under way.
struct Run<'a, 'b> {
    extent: &'a Extent,
    stage: &'a mut Stage<'b>,
    plan: Plan,
    series: Series,
    stop: StopHandle,
    ending: Ending,
    /// Jobs and, among them, producers that have not ended.
    jobs_left: usize,
    producers_left: usize,
    hdr_log: Option<HdrLog>,
}

/// Runs one load to its end.
///
/// # Errors
/// What kept it from starting.
pub async fn run_once(load: &Load, stage: &mut Stage<'_>) -> Result<RunResult> {
    let extent = &load.extent;
    let mut plan = plan(load, &stage.admin, stage.clock).await?;
    for line in std::mem::take(&mut plan.said) {
        if stage.tells_intervals {
            stage.console.say(&line);
        }
    }
    let jobs = std::mem::take(&mut plan.jobs);
    let connect = stage.connect.clone();
    let mut run = Run {
        extent,
        series: Series::new(std::mem::take(&mut plan.streams), extent.warm_up),
        stop: StopHandle::new(),
        ending: Ending::default(),
        jobs_left: jobs.len(),
        producers_left: plan.producers,
        hdr_log: match &extent.hlog {
            Some(path) => Some(HdrLog::create(path, stage.clock.now_us())?),
            None => None,
        },
        plan,
        stage,
    };
    let begin = watch::Sender::new(None);
    let stop = run.stop.subscribe();
    let (threads, mut events) = start(extent.threads as usize, jobs, &connect, &begin, &stop)?;
    run.await_ready(&mut events).await;
    run.stage.observer.begin().await;
    let begin_us = run.stage.clock.now_us();
    run.series.begin(begin_us);
    run.stage.console.begin(run.length());
    begin.send_replace(Some(begin_us));
    run.watch(&mut events).await?;
    run.finish(threads).await
}

impl Run<'_, '_> {
    fn length(&self) -> Length {
        match (self.plan.records, self.plan.duration) {
            (Some(records), _) => Length::Records(records),
            (None, Some(duration)) => Length::Time(duration),
            (None, None) => Length::Unknown,
        }
    }

    /// Returns once every job is connected, or can't be.
    async fn await_ready(&mut self, events: &mut mpsc::UnboundedReceiver<Event>) {
        for _ in 0..self.jobs_left {
            tokio::select! {
                event = events.recv() => match event {
                    Some(Event::Ready) => {}
                    Some(event) => self.told(event).await,
                    None => return,
                },
                () = self.stage.interrupts.next() => {
                    self.stage.interrupted = true;
                    self.ending.errors.push("interrupted before the start".to_owned());
                    self.stop.raise(Urgency::Abandon);
                    return;
                }
            }
        }
    }

    /// Reports and reacts until every job has ended.
    async fn watch(&mut self, events: &mut mpsc::UnboundedReceiver<Event>) -> Result<()> {
        let began = Instant::now();
        let every = self.extent.interval;
        let mut ticks = interval_at(began + every, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut deadline = self.plan.duration.map(|duration| began + duration);
        while self.jobs_left > 0 {
            let limit = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = ticks.tick() => self.interval().await?,
                () = limit => {
                    deadline = None;
                    self.finish_soon();
                }
                () = self.stage.interrupts.next() => self.interrupted(),
                event = events.recv() => match event {
                    Some(event) => self.told(event).await,
                    // A worker thread is gone with its jobs; joining it tells why.
                    None => return Ok(()),
                },
            }
        }
        Ok(())
    }

    /// An interval has passed: a line for each direction.
    async fn interval(&mut self) -> Result<()> {
        let now_us = self.stage.clock.now_us();
        let warmed_up = self.series.warms_up();
        let ticks = self.series.interval(now_us);
        self.tell(&ticks, now_us);
        if let Some(log) = &self.hdr_log {
            log.add(ticks);
        }
        self.stage.observer.look().await;
        if warmed_up && !self.series.warms_up() {
            self.stage.observer.measure_from_now();
        }
        self.save_state()
    }

    fn tell(&self, ticks: &[Tick], now_us: i64) {
        let console = &self.stage.console;
        for tick in ticks {
            let (at, figures) = (tick.interval.at_seconds, tick.interval.figures);
            let note = if tick.interval.warm_up {
                "  (warm-up)"
            } else {
                ""
            };
            if self.stage.tells_intervals {
                console.say(&format!("{at:>6.1} s  {:<7} {figures}{note}", tick.name));
            }
        }
        let Some(last) = ticks.last() else { return };
        let figures = last.interval.figures;
        let mut message = format!("{} records/s", show_rounded(figures.records_per_second));
        if let Some(latency) = figures.latency_us {
            message += &format!(", p99 {}", show_us(latency.p99));
        }
        let errors = self.ending.errors.len() as u64 + figures.failed;
        message += &format!(", {} errors", show_count(errors));
        let done = match self.plan.records {
            Some(_) => last.records_so_far,
            None => self.series.elapsed(now_us).as_secs(),
        };
        console.progress(done, message);
    }

    /// The time is over, or somebody wants results now. Readers of their own have no rest to wait
    /// for; those beside writers read on until they have what was written.
    fn finish_soon(&self) {
        self.stop.raise(match self.plan.producers {
            0 => Urgency::Abandon,
            _ => Urgency::Finish,
        });
    }

    fn interrupted(&mut self) {
        self.stage.interrupted = true;
        if self.stop.subscribe().urgency() == Urgency::Run {
            self.stage
                .console
                .say("stopping: waiting for what is under way; Ctrl-C again to drop it");
            self.finish_soon();
        } else {
            self.stop.raise(Urgency::Abandon);
        }
    }

    async fn told(&mut self, event: Event) {
        match event {
            Event::Ready => {}
            Event::Produced(result) => {
                self.jobs_left -= 1;
                self.producers_left -= 1;
                match result {
                    Ok(end) => {
                        self.ending.unanswered += end.unanswered;
                        self.ending.errors.extend(end.error);
                    }
                    Err(error) => self.ending.errors.push(format!("{error:#}")),
                }
                if self.producers_left == 0 {
                    self.tell_ends().await;
                }
            }
            Event::Consumed(partitions, result) => {
                self.jobs_left -= 1;
                if let Err(error) = self.consumed(&partitions, *result) {
                    self.ending.errors.push(format!("{error:#}"));
                    // Writers need not go on when nobody checks them any more.
                    self.finish_soon();
                }
            }
        }
    }

    fn consumed(
        &mut self,
        partitions: &[u32],
        result: Result<crate::consume::ConsumerEnd>,
    ) -> Result<()> {
        let end = result?;
        if let Some(verifier) = end.verifier {
            let known = self.plan.acknowledged.as_ref().filter(|_| end.complete);
            let verdict = match known {
                Some(known) => verifier.finish(Some(&lock(known)), partitions),
                None => verifier.finish(None, partitions),
            };
            self.ending
                .verdict
                .get_or_insert_with(Verdict::default)
                .add(verdict);
            anyhow::ensure!(
                end.complete || end.error.is_some() || self.plan.acknowledged.is_none(),
                "stopped before everything was read: nothing is proven about the rest"
            );
        }
        match end.error {
            Some(error) => anyhow::bail!("{error}"),
            None => Ok(()),
        }
    }

    /// All writers are done: readers stop where the log ends now.
    async fn tell_ends(&mut self) {
        if self.jobs_left == 0 || self.stop.subscribe().urgency() == Urgency::Abandon {
            return;
        }
        let patience = self.extent.delivery_timeout.min(END_PATIENCE);
        let asked = offsets(
            &self.stage.admin,
            &self.stage.clock,
            patience,
            &self.plan.spread,
            OffsetSpec::Latest,
        );
        match asked.await {
            Ok(ends) => {
                self.plan.ends.send_replace(Some(ends));
            }
            Err(error) => {
                self.ending.errors.push(format!("{error:#}"));
                self.stop.raise(Urgency::Abandon);
            }
        }
    }

    fn save_state(&self) -> Result<()> {
        let (Some(path), Some(acknowledged)) = (&self.extent.state, &self.plan.acknowledged) else {
            return Ok(());
        };
        if self.plan.producers == 0 {
            return Ok(());
        }
        let snapshot = lock(acknowledged).clone();
        snapshot.save(path)
    }

    async fn finish(mut self, threads: Vec<JoinHandle<()>>) -> Result<RunResult> {
        for thread in threads {
            if thread.join().is_err() {
                self.ending
                    .errors
                    .push("a worker failed; see above".to_owned());
            }
        }
        self.save_state()?;
        let now_us = self.stage.clock.now_us();
        let ticks = self.series.last_interval(now_us);
        self.tell(&ticks, now_us);
        if let Some(log) = self.hdr_log.take() {
            log.add(ticks);
            log.finish()?;
        }
        self.stage.console.end();
        let (broker_figures, broker_intervals) = self.stage.observer.finish().await;
        let wholes = self.series.finish();
        if let Some(path) = &self.extent.percentiles {
            write_percentiles(path, &wholes)?;
        }
        let mut produce = None;
        let mut consume = None;
        for Whole { name, result, .. } in wholes {
            match name {
                "produce" => produce = Some(result),
                _ => consume = Some(result),
            }
        }
        let durability = produce.as_ref().map(|produce: &StreamResult| {
            let setting = self.plan.settings.produce.as_ref();
            Durability::judge(Evidence {
                setting: setting.map_or("", |it| it.durability.as_str()),
                facts: &self.stage.facts,
                figures: broker_figures.as_ref(),
                acknowledged: produce.total.records > 0,
            })
        });
        let topic = self.plan.spread.topics().next();
        Ok(RunResult {
            run: format!("{:016x}", self.plan.run),
            topic: topic.map_or_else(String::new, |name| name.to_string()),
            settings: self.plan.settings,
            produce,
            consume,
            durability,
            broker_figures,
            broker_intervals,
            unanswered: self.ending.unanswered,
            verify: self.ending.verdict,
            errors: self.ending.errors,
        })
    }
}

fn lock(acknowledged: &Arc<Mutex<Acknowledged>>) -> std::sync::MutexGuard<'_, Acknowledged> {
    acknowledged.lock().unwrap_or_else(PoisonError::into_inner)
}
