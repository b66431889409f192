//! Worker threads: each a current-thread runtime with some of the connections.

use std::{
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};
use millstream_client::Client;
use tokio::{
    sync::{mpsc, watch},
    task::{JoinSet, LocalSet},
};

use crate::{
    clock::Clock,
    consume::{ConsumerEnd, ConsumerPlan, consume},
    produce::{ProducerEnd, ProducerPlan, produce},
    round_trip::{RoundTripPlan, round_trip},
    stop::Stop,
    topic::patiently,
    verify::Verifier,
};

/// What one connection is for.
#[derive(Debug)]
pub enum Job {
    /// It writes.
    Produce(ProducerPlan),
    /// It writes and reads one by one.
    RoundTrip(RoundTripPlan),
    /// It reads, and verifies if asked to.
    Consume(ConsumerPlan, Option<Verifier>),
}

/// What one connection tells.
#[derive(Debug)]
pub enum Event {
    /// It is connected and waits for the start.
    Ready,
    /// A producer's.
    Produced(Result<ProducerEnd>),
    /// A consumer's, and the partitions it had.
    Consumed(Vec<u32>, Box<Result<ConsumerEnd>>),
}

/// How connections are made.
#[derive(Clone, Debug)]
pub struct Connect {
    /// Where to.
    pub server: String,
    /// Time.
    pub clock: Clock,
    /// How long to try.
    pub patience: Duration,
}

impl Connect {
    /// Connects now or not at all.
    ///
    /// # Errors
    /// If no broker answers.
    pub async fn once(&self) -> Result<Client, millstream_client::RequestError> {
        Client::builder(&self.server)
            .client_name("loadgen")
            .connect()
            .await
    }

    async fn patiently(&self) -> Result<Client> {
        Ok(patiently(&self.clock, self.patience, || self.once()).await?)
    }
}

/// Starts the threads and deals the jobs out. Every job says that it is ready, waits for the start to
/// be told (the time it counts from, so that connecting is not measured), and tells its end; one that
/// can't connect only tells its end.
///
/// # Errors
/// If a thread can't be started.
pub fn start(
    threads: usize,
    jobs: Vec<Job>,
    connect: &Connect,
    begin: &watch::Sender<Option<i64>>,
    stop: &Stop,
) -> Result<(Vec<JoinHandle<()>>, mpsc::UnboundedReceiver<Event>)> {
    let (events, received) = mpsc::unbounded_channel();
    let threads = threads.clamp(1, jobs.len().max(1));
    let mut dealt: Vec<Vec<Job>> = (0..threads).map(|_| Vec::new()).collect();
    for (index, job) in jobs.into_iter().enumerate() {
        dealt[index % threads].push(job);
    }
    let mut handles = Vec::new();
    for (index, jobs) in dealt.into_iter().enumerate() {
        let setup = Setup {
            connect: connect.clone(),
            begin: begin.subscribe(),
            stop: stop.clone(),
            events: events.clone(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start a runtime")?;
        let handle = thread::Builder::new()
            .name(format!("load-{index}"))
            .spawn(move || LocalSet::new().block_on(&runtime, run(jobs, setup)))
            .context("cannot start a thread")?;
        handles.push(handle);
    }
    Ok((handles, received))
}

/// What every job of a thread gets.
#[derive(Clone)]
struct Setup {
    connect: Connect,
    begin: watch::Receiver<Option<i64>>,
    stop: Stop,
    events: mpsc::UnboundedSender<Event>,
}

impl Setup {
    /// A connection, and when the run started.
    async fn ready(&mut self) -> Result<(Client, i64)> {
        let client = self.connect.patiently().await?;
        let _ = self.events.send(Event::Ready);
        let begin = self.begin.wait_for(Option::is_some).await;
        let begin_us = begin.ok().and_then(|begin| *begin);
        Ok((client, begin_us.context("the run was given up")?))
    }
}

async fn run(jobs: Vec<Job>, setup: Setup) {
    let mut tasks = JoinSet::new();
    for job in jobs {
        let mut setup = setup.clone();
        tasks.spawn_local(async move {
            let event = work(job, &mut setup).await;
            // Nobody listens once the run was given up.
            let _ = setup.events.send(event);
        });
    }
    while let Some(joined) = tasks.join_next().await {
        if let Err(error) = joined
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

async fn work(job: Job, setup: &mut Setup) -> Event {
    match job {
        Job::Produce(plan) => Event::Produced(match setup.ready().await {
            Ok((client, begin_us)) => produce(&client, plan, begin_us, setup.stop.clone()).await,
            Err(error) => Err(error),
        }),
        Job::RoundTrip(plan) => Event::Produced(match setup.ready().await {
            Ok((client, begin_us)) => round_trip(&client, plan, begin_us, setup.stop.clone()).await,
            Err(error) => Err(error),
        }),
        Job::Consume(plan, verifier) => {
            let partitions = plan.partitions.iter().map(|&(partition, _)| partition);
            let partitions = partitions.collect();
            let end = match setup.ready().await {
                Ok((client, _)) => consume(&client, plan, verifier, setup.stop.clone()).await,
                Err(error) => Err(error),
            };
            Event::Consumed(partitions, Box::new(end))
        }
    }
}
