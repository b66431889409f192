//! One run from start to end: plans, starts the workers, reports each second, judges.

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result};
use millstream_client::{Admin, OffsetSpec};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval_at, sleep_until},
};

use crate::{
    acknowledged::Acknowledged,
    args::{CommonArgs, LoadArgs, Mode},
    clock::Clock,
    plan::{Plan, check, plan},
    report::{About, Ending, Report},
    stop::{StopHandle, Urgency},
    topic::offsets,
    verify::Verdict,
    workers::{Connect, Event, start},
};

const REPORT_EVERY: Duration = Duration::from_secs(1);
/// Longest wait for the broker to say where the log ends. Nothing is reported meanwhile.
const END_PATIENCE: Duration = Duration::from_secs(30);

/// Runs the generator on this thread and its workers' threads; true if all went well. Everything
/// found wrong has been printed by then.
///
/// # Errors
/// What kept the run from starting; a `clap::Error` if it is the command line.
pub fn run(args: &LoadArgs) -> Result<bool> {
    check(&args.mode)?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?
        .block_on(run_on(args))
}

fn common(mode: &Mode) -> &CommonArgs {
    match mode {
        Mode::Produce { common, .. } | Mode::Consume { common, .. } | Mode::Both { common, .. } => {
            common
        }
    }
}

/// A run under way.
struct Run<'a> {
    common: &'a CommonArgs,
    admin: Admin,
    clock: Clock,
    plan: Plan,
    report: Report,
    stop: StopHandle,
    ending: Ending,
    /// Jobs and, among them, producers that have not ended.
    jobs_left: usize,
    producers_left: usize,
}

async fn run_on(args: &LoadArgs) -> Result<bool> {
    let common = common(&args.mode);
    let clock = Clock::start();
    let connect = Connect {
        server: args.server.clone(),
        clock,
        patience: common.delivery_timeout,
    };
    let admin = connect.once().await?.admin();
    let mut plan = plan(&args.mode, &admin, clock).await?;
    let jobs = std::mem::take(&mut plan.jobs);
    let mut run = Run {
        common,
        admin,
        clock,
        report: Report::new(
            std::mem::take(&mut plan.streams),
            common.json.clone(),
            common.warmup,
            plan.duration,
            plan.records,
        ),
        stop: StopHandle::new(),
        ending: Ending::default(),
        jobs_left: jobs.len(),
        producers_left: plan.producers,
        plan,
    };
    for line in std::mem::take(&mut run.plan.said) {
        run.report.say(&line);
    }
    let begin = watch::Sender::new(None);
    let stop = run.stop.subscribe();
    let (threads, mut events) = start(common.threads as usize, jobs, &connect, &begin, &stop)?;
    run.await_ready(&mut events).await;
    let begin_us = clock.now_us();
    run.report.begin(begin_us);
    begin.send_replace(Some(begin_us));
    run.watch(&mut events).await?;
    run.finish(threads)
}

impl Run<'_> {
    /// Returns once every job is connected, or can't be.
    async fn await_ready(&mut self, events: &mut mpsc::UnboundedReceiver<Event>) {
        for _ in 0..self.jobs_left {
            match events.recv().await {
                Some(Event::Ready) => {}
                Some(event) => self.told(event).await,
                None => return,
            }
        }
    }

    /// Reports and reacts until every job has ended.
    async fn watch(&mut self, events: &mut mpsc::UnboundedReceiver<Event>) -> Result<()> {
        let began = Instant::now();
        let mut ticks = interval_at(began + REPORT_EVERY, REPORT_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut interrupts = signal(SignalKind::interrupt()).context("cannot await SIGINT")?;
        let mut terminations = signal(SignalKind::terminate()).context("cannot await SIGTERM")?;
        let mut deadline = self.plan.duration.map(|duration| began + duration);
        while self.jobs_left > 0 {
            let limit = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = ticks.tick() => {
                    self.report.interval(self.clock.now_us());
                    self.save_state()?;
                }
                () = limit => {
                    deadline = None;
                    self.finish_soon();
                }
                _ = interrupts.recv() => self.interrupted(),
                _ = terminations.recv() => self.interrupted(),
                event = events.recv() => match event {
                    Some(event) => self.told(event).await,
                    // A worker thread is gone with its jobs; joining it tells why.
                    None => return Ok(()),
                },
            }
        }
        Ok(())
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
        if self.stop.subscribe().urgency() == Urgency::Run {
            self.report
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
        let patience = self.common.delivery_timeout.min(END_PATIENCE);
        let asked = offsets(
            &self.admin,
            &self.clock,
            patience,
            &self.plan.topic,
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
        let (Some(path), Some(acknowledged)) = (&self.common.state, &self.plan.acknowledged) else {
            return Ok(());
        };
        if self.plan.producers == 0 {
            return Ok(());
        }
        let snapshot = lock(acknowledged).clone();
        snapshot.save(path)
    }

    fn finish(mut self, threads: Vec<JoinHandle<()>>) -> Result<bool> {
        for thread in threads {
            if thread.join().is_err() {
                self.ending
                    .errors
                    .push("a worker failed; see above".to_owned());
            }
        }
        self.save_state()?;
        let now_us = self.clock.now_us();
        let about = About {
            run: self.plan.run,
            topic: &self.plan.topic,
            settings: &self.plan.settings,
        };
        self.report.finish(&about, now_us, &self.ending)?;
        for error in &self.ending.errors {
            eprintln!("error: {error}");
        }
        Ok(self.ending.is_ok())
    }
}

fn lock(acknowledged: &Arc<Mutex<Acknowledged>>) -> std::sync::MutexGuard<'_, Acknowledged> {
    acknowledged.lock().unwrap_or_else(PoisonError::into_inner)
}
