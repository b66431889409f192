//! Threads beside a shard for calls that have no other form than to block: opening, names, directories.

use std::{io, thread};

use crossbeam_channel::{Sender, unbounded};
use futures_channel::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// Threads of each shard: one slow call, such as removing a large file, does not hold up the next.
const THREAD_COUNT: usize = 2;

/// See the module. The threads end when it is dropped, and have done by then what they were given.
pub(super) struct Blocking {
    jobs: Sender<Job>,
}

impl Blocking {
    /// Starts the threads; from a thread that is not pinned, or they would be too.
    pub(super) fn start(shard_index: usize) -> io::Result<Self> {
        let (jobs, receiver) = unbounded::<Job>();
        for _ in 0..THREAD_COUNT {
            let receiver = receiver.clone();
            thread::Builder::new()
                .name(format!("files-{shard_index}"))
                .spawn(move || receiver.iter().for_each(|job| job()))?;
        }
        Ok(Self { jobs })
    }

    /// Runs a call on one of the threads.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (done, result) = oneshot::channel();
        let job = Box::new(move || {
            // Nobody may be there any more to hear of it.
            let _ = done.send(call());
        });
        let gone = || io::Error::other("the threads for files have ended");
        self.jobs.send(job).map_err(|_| gone())?;
        result.await.map_err(|_| gone())?
    }

    /// Has something dropped where that may take its time.
    pub(super) fn drop_there(&self, value: impl Send + 'static) {
        // Refused, it is dropped here.
        let _ = self.jobs.send(Box::new(move || drop(value)));
    }
}
