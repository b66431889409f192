//! The end of a broker whose journal failed: what is acknowledged is durable, and a start puts everything in
//! order again, while going on would leave partitions offline that nothing is wrong with.

use std::{
    io,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use crate::shard::metrics::ShardCounters;

/// Shards publish their counts a few times a second.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Looks until it is dropped.
pub(super) struct JournalWatch {
    _end: mpsc::Sender<()>,
}

impl JournalWatch {
    /// Ends the process when a journal has failed.
    pub(super) fn start(counters: Vec<Arc<ShardCounters>>) -> io::Result<Self> {
        let (end, ended) = mpsc::channel();
        let thread = thread::Builder::new().name("journal-watch".to_owned());
        thread.spawn(move || {
            while ended.recv_timeout(LOOK_EVERY) == Err(mpsc::RecvTimeoutError::Timeout) {
                let failed = |counters: &Arc<ShardCounters>| counters.journal_failures.value() > 0;
                if let Some(shard) = counters.iter().position(failed) {
                    tracing::error!(
                        "the journal of shard {shard} failed (see above): the broker ends, as nothing could be \
                         acknowledged for the partitions concerned; what was acknowledged is durable. Look at \
                         the disk, then start it again"
                    );
                    std::process::exit(1);
                }
            }
        })?;
        Ok(Self { _end: end })
    }
}
