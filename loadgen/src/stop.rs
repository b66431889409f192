//! When to stop: at the end of the time, at Ctrl-C (finish what is under way), at a second Ctrl-C
//! (drop it).

use tokio::sync::watch;

/// How urgent it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Go on.
    Run,
    /// Begin nothing new; wait for what is under way.
    Finish,
    /// Leave at once.
    Abandon,
}

/// Tells every worker, on whatever thread.
#[derive(Clone, Debug)]
pub struct StopHandle(watch::Sender<Urgency>);

/// A worker's view.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<Urgency>);

impl StopHandle {
    /// Nothing is to stop yet.
    #[must_use]
    pub fn new() -> Self {
        Self(watch::Sender::new(Urgency::Run))
    }

    /// A worker's view.
    #[must_use]
    pub fn subscribe(&self) -> Stop {
        Stop(self.0.subscribe())
    }

    /// Raises the urgency; it never falls.
    pub fn raise(&self, to: Urgency) {
        self.0.send_if_modified(|urgency| {
            let raised = to > *urgency;
            *urgency = to.max(*urgency);
            raised
        });
    }
}

impl Stop {
    /// The urgency now.
    #[must_use]
    pub fn urgency(&self) -> Urgency {
        *self.0.borrow()
    }

    /// Returns once it is at least this urgent.
    pub async fn wait_for(&mut self, at_least: Urgency) {
        // An error says that the handle is gone: then nobody waits for the worker any more.
        let _ = self.0.wait_for(|urgency| *urgency >= at_least).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn urgency_rises_only() {
        let handle = StopHandle::new();
        let mut stop = handle.subscribe();
        assert_eq!(stop.urgency(), Urgency::Run);
        handle.raise(Urgency::Abandon);
        handle.raise(Urgency::Finish);
        stop.wait_for(Urgency::Finish).await;
        assert_eq!(stop.urgency(), Urgency::Abandon);
    }
}
