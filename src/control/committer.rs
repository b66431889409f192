//! The thread that waits for the disk, so that the control thread never does.

use std::{sync::mpsc, thread};

use tokio::sync::oneshot;

use super::metadata_log::{MetadataLog, MetadataLogError};
use crate::controller::format::Entry;

type Done = oneshot::Sender<Result<(), MetadataLogError>>;

enum Job {
    Append(Vec<Entry>, Done),
    Snapshot(u64, Vec<u8>, Done),
}

/// The way to the commit thread, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Committer {
    jobs: mpsc::Sender<Job>,
}

impl Committer {
    pub(super) fn spawn(log: impl MetadataLog) -> std::io::Result<(Self, thread::JoinHandle<()>)> {
        let (jobs, inbox) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("metadata-log".to_owned())
            .spawn(move || commit_each(log, &inbox))?;
        Ok((Self { jobs }, thread))
    }

    /// Returns once the entries would survive a power cut.
    pub(super) async fn append(&self, entries: Vec<Entry>) -> Result<(), MetadataLogError> {
        self.ask(|done| Job::Append(entries, done)).await
    }

    /// Returns once the snapshot stands for the entries before it.
    pub(super) async fn snapshot(
        &self,
        index: u64,
        bytes: Vec<u8>,
    ) -> Result<(), MetadataLogError> {
        self.ask(|done| Job::Snapshot(index, bytes, done)).await
    }

    async fn ask(&self, job: impl FnOnce(Done) -> Job) -> Result<(), MetadataLogError> {
        let (done, result) = oneshot::channel();
        self.jobs
            .send(job(done))
            .expect("the commit thread lives as long as its sender");
        result.await.expect("the commit thread answers every job")
    }
}

fn commit_each(mut log: impl MetadataLog, inbox: &mpsc::Receiver<Job>) {
    for job in inbox {
        let (result, done) = match job {
            Job::Append(entries, done) => (log.append(&entries), done),
            Job::Snapshot(index, bytes, done) => (log.save_snapshot(index, &bytes), done),
        };
        // Nobody listens any more when the control thread is gone.
        let _ = done.send(result);
    }
}
