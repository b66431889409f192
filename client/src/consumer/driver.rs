//! The consumer's driver: waits for one event, tells the machine, does what it says.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use futures_util::{StreamExt, future::OptionFuture, stream::FuturesUnordered};
use millstream_protocol::{TopicId, messages::FetchRequest};

use super::{
    Core,
    machine::{Action, Event, FetchId},
};
use crate::{connection::Purpose, metadata::Node};

/// What is under way; each ends in an event.
type UnderWay = FuturesUnordered<Pin<Box<dyn Future<Output = Event> + Send>>>;

/// Runs until the consumer is dropped.
pub(super) async fn drive(core: Arc<Core>) {
    let mut under_way = UnderWay::new();
    let mut event = Event::Ticked;
    loop {
        let (actions, deadline, has_items) = {
            let now = core.client.shared.clock.now();
            let mut state = core.state();
            if state.dropped {
                return;
            }
            state.apply(now, event);
            let deadline = state.machine.deadline(now);
            let has_items = state.machine.has_items();
            (std::mem::take(&mut state.actions), deadline, has_items)
        };
        for action in actions {
            core.perform(action, &under_way);
        }
        if has_items {
            core.ready.notify_one();
        }
        let timer =
            deadline.map(|at| tokio::time::sleep_until(core.client.shared.clock.instant(at)));
        event = tokio::select! {
            Some(event) = under_way.next() => event,
            () = core.wake.notified() => Event::Ticked,
            Some(()) = OptionFuture::from(timer) => Event::Ticked,
        };
    }
}

impl Core {
    fn perform(self: &Arc<Self>, action: Action, under_way: &UnderWay) {
        match action {
            Action::Fetch { id, node, request } => under_way.push(self.fetch(id, node, &request)),
            Action::RefreshTopic { name, id } => {
                let core = Arc::clone(self);
                under_way.push(Box::pin(async move { core.refresh_topic(&name, id).await }));
            }
            Action::ForgetTopic(id) => self.client.shared.metadata.forget(id),
            Action::Warn(error) => tracing::warn!(%error, "a policy moved the consumer"),
        }
    }

    fn fetch(
        &self,
        id: FetchId,
        node: Node,
        request: &FetchRequest,
    ) -> Pin<Box<dyn Future<Output = Event> + Send>> {
        let shared = &self.client.shared;
        let held = Duration::from_millis(u64::from(request.max_wait_ms));
        match shared.metadata.connection(node, Purpose::Fetch) {
            Ok(connection) => {
                let patience = shared.request_timeout + held;
                let reply = connection.request(request, Vec::new(), patience);
                Box::pin(async move {
                    match reply.await {
                        Ok(reply) => Event::Fetched(id, reply.body.partitions, reply.records),
                        Err(error) => Event::FetchFailed(id, error),
                    }
                })
            }
            Err(error) => Box::pin(async move { Event::FetchFailed(id, error) }),
        }
    }

    async fn refresh_topic(&self, name: &str, id: TopicId) -> Event {
        let now = self.client.shared.clock.now();
        match self.client.shared.metadata.refresh(name, now).await {
            Ok(topic) => Event::TopicLearned(topic),
            Err(error) => Event::TopicLookupFailed(id, error),
        }
    }
}
