//! Who a log talks to: the partition that owns it, and whoever rebuilds state as it opens.

use millstream_protocol::{Offset, batch::BatchHeader};

use super::LogError;

/// The owner of a log. Called from the log's own tasks, never from inside [`super::Log::append`],
/// and with no borrow of the log held: it may call the log again.
pub trait LogListener {
    /// Everything below `up_to` is persisted, as the topic's durability defines it.
    fn persisted(&self, up_to: Offset);

    /// What was appended from `end` on could not be written and went nowhere: the log ends there again, and
    /// the next append takes those offsets. Nobody was told of them.
    fn refused(&self, end: Offset, error: &LogError);

    /// The log failed for good: nothing appended and not yet persisted ever will be.
    fn failed(&self, error: &LogError);

    /// So much was appended that recovery would take long: call [`super::Log::checkpoint`] soon.
    fn checkpoint_wanted(&self);
}

/// A snapshot that its reader cannot use; recovery then goes through the whole log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the snapshot cannot be used")]
pub struct SnapshotRejected;

/// Rebuilds state from a log as it opens: first the newest snapshot, if there is one, then every
/// batch since it, in order.
pub trait RecoveryObserver {
    /// The snapshot handed to [`super::Log::checkpoint`]. An empty one (forget everything) starts
    /// a recovery that has none.
    ///
    /// # Errors
    /// [`SnapshotRejected`] makes recovery begin anew without it.
    fn snapshot(&mut self, bytes: &[u8]) -> Result<(), SnapshotRejected>;

    /// One batch, in order of offsets, whole and verified, and when it was appended.
    fn batch(&mut self, header: &BatchHeader, bytes: &[u8], append_time_ms: i64);
}

/// Remembers nothing.
impl RecoveryObserver for () {
    fn snapshot(&mut self, _bytes: &[u8]) -> Result<(), SnapshotRejected> {
        Ok(())
    }

    fn batch(&mut self, _header: &BatchHeader, _bytes: &[u8], _append_time_ms: i64) {}
}
