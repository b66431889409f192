//! Tasks of one executor.

use std::future::Future;

/// How a task shares the core with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TaskClass {
    /// Connections, appends, acknowledgements: latency matters.
    Foreground,
    /// Reads of readers that are behind.
    CatchUp,
    /// Retention, compaction, checkpoints.
    Background,
}

/// Starts tasks and yields to them.
pub trait Tasks {
    /// Runs a future on this executor until it ends. A panic in it ends the process.
    fn spawn(&self, class: TaskClass, task: impl Future<Output = ()> + 'static);

    /// Lets others run if this task has run for long. Belongs into every loop that may not wait.
    async fn yield_if_needed(&self);
}
