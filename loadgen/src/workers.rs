//! Worker threads: each a current-thread runtime with some of the connections.

use std::{
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};
use millstream_client::Client;
use tokio::{
    sync::mpsc,
    task::{JoinSet, LocalSet},
};

use crate::{
    clock::Clock,
    consume::{ConsumerEnd, ConsumerPlan, consume},
    produce::{ProducerEnd, ProducerPlan, produce},
    stop::Stop,
    topic::patiently,
    verify::Verifier,
};

/// What one connection is for.
#[derive(Debug)]
pub enum Job {
    /// It writes.
    Produce(ProducerPlan),
    /// It reads, and verifies if asked to.
    Consume(ConsumerPlan, Option<Verifier>),
}

/// How one connection's work ended.
#[derive(Debug)]
pub enum End {
    /// A producer's.
    Produced(Result<ProducerEnd>),
    /// A consumer's, and the partitions it had.
    Consumed(Vec<u32>, Result<ConsumerEnd>),
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

/// Starts the threads and deals the jobs out. Every job's end arrives on the channel.
///
/// # Errors
/// If a thread can't be started.
pub fn start(
    threads: usize,
    jobs: Vec<Job>,
    connect: &Connect,
    stop: &Stop,
) -> Result<(Vec<JoinHandle<()>>, mpsc::UnboundedReceiver<End>)> {
    let (ended, ends) = mpsc::unbounded_channel();
    let threads = threads.clamp(1, jobs.len().max(1));
    let mut dealt: Vec<Vec<Job>> = (0..threads).map(|_| Vec::new()).collect();
    for (index, job) in jobs.into_iter().enumerate() {
        dealt[index % threads].push(job);
    }
    let mut handles = Vec::new();
    for (index, jobs) in dealt.into_iter().enumerate() {
        let (connect, stop, ended) = (connect.clone(), stop.clone(), ended.clone());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start a runtime")?;
        let handle = thread::Builder::new()
            .name(format!("load-{index}"))
            .spawn(move || LocalSet::new().block_on(&runtime, run(jobs, connect, stop, ended)))
            .context("cannot start a thread")?;
        handles.push(handle);
    }
    Ok((handles, ends))
}

async fn run(jobs: Vec<Job>, connect: Connect, stop: Stop, ended: mpsc::UnboundedSender<End>) {
    let mut tasks = JoinSet::new();
    for job in jobs {
        let (connect, stop, ended) = (connect.clone(), stop.clone(), ended.clone());
        tasks.spawn_local(async move {
            let end = work(job, &connect, stop).await;
            // Nobody listens once the run was given up.
            let _ = ended.send(end);
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

async fn work(job: Job, connect: &Connect, stop: Stop) -> End {
    match job {
        Job::Produce(plan) => End::Produced(match connect.patiently().await {
            Ok(client) => produce(&client, plan, stop).await,
            Err(error) => Err(error),
        }),
        Job::Consume(plan, verifier) => {
            let partitions = plan
                .partitions
                .iter()
                .map(|&(partition, _)| partition)
                .collect();
            let end = match connect.patiently().await {
                Ok(client) => consume(&client, plan, verifier, stop).await,
                Err(error) => Err(error),
            };
            End::Consumed(partitions, end)
        }
    }
}
