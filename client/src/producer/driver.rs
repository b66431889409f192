//! The producer's driver: waits for one event, tells the machine, does what it says.

use std::{future::Future, pin::Pin, sync::Arc};

use futures_util::{StreamExt, future::OptionFuture, stream::FuturesUnordered};
use millstream_protocol::{
    TopicId,
    messages::{
        InitProducerIdRequest, ProduceDelayedRequest, ProducePartition, ProducePartitionResult,
        ProduceRequest,
    },
};

use super::{
    Core,
    delivery::BatchOutcome,
    machine::{Action, Event, Identity, ProduceSend, RequestId},
};
use crate::{connection::Purpose, error::RequestError};

/// What is under way; each ends in an event.
type UnderWay = FuturesUnordered<Pin<Box<dyn Future<Output = Event> + Send>>>;

/// Runs until no handle is left.
pub(super) async fn drive(core: Arc<Core>) {
    let mut under_way = UnderWay::new();
    let mut event = Event::Ticked;
    loop {
        let (actions, deadline) = {
            let now = core.client.shared.clock.now();
            let mut state = core.state();
            state.apply(now, event);
            if state.dropped {
                break;
            }
            let deadline = state.machine.deadline(now);
            (std::mem::take(&mut state.actions), deadline)
        };
        core.perform(actions, &mut under_way);
        let timer =
            deadline.map(|at| tokio::time::sleep_until(core.client.shared.clock.instant(at)));
        event = tokio::select! {
            Some(event) = under_way.next() => event,
            () = core.wake.notified() => Event::Ticked,
            Some(()) = OptionFuture::from(timer) => Event::Ticked,
        };
    }
    let mut actions = Vec::new();
    {
        let mut state = core.state();
        actions.append(&mut state.actions);
        state.machine.abandon(&mut actions);
    }
    for action in actions {
        if let Action::Settle { handle, result } = action {
            handle.settle(result);
        }
    }
    core.settled.notify_waiters();
}

impl Core {
    fn perform(self: &Arc<Self>, actions: Vec<Action<BatchOutcome>>, under_way: &mut UnderWay) {
        let mut settled = 0;
        for action in actions {
            match action {
                Action::Send(send) => self.send(send, under_way),
                Action::InitProducerId => {
                    let core = Arc::clone(self);
                    under_way.push(Box::pin(async move { core.init_producer_id().await }));
                }
                Action::RefreshTopic { name, id } => {
                    let core = Arc::clone(self);
                    under_way.push(Box::pin(async move { core.refresh_topic(&name, id).await }));
                }
                Action::ForgetTopic(id) => self.client.shared.metadata.forget(id),
                Action::Settle { handle, result } => {
                    settled += 1;
                    if let Err(error) = &result {
                        let mut state = self.state();
                        state.failed_batches += 1;
                        state.last_failure = Some(error.clone());
                    }
                    handle.settle(result);
                }
            }
        }
        if settled > 0 {
            self.state().settling -= settled;
            self.settled.notify_waiters();
        }
    }

    /// Encodes and queues a request, before anything later is queued.
    fn send(self: &Arc<Self>, send: ProduceSend, under_way: &mut UnderWay) {
        let mut partitions = Vec::with_capacity(send.parcels.len());
        let mut records = Vec::with_capacity(send.parcels.len());
        for parcel in send.parcels {
            // Outside the lock: compression takes time, and senders go on meanwhile.
            let bytes = parcel.contents.encode(self.compression);
            partitions.push(ProducePartition {
                topic: parcel.partition.topic,
                partition: parcel.partition.partition,
                leader_epoch: parcel.leader_epoch,
                records_size: u32::try_from(bytes.len()).expect("batches are below 4 GiB"),
            });
            self.state()
                .machine
                .encoded(parcel.partition, parcel.batch, bytes.clone());
            records.push(bytes);
        }
        let timeout_ms = u32::try_from(self.request_timeout.as_millis()).unwrap_or(u32::MAX);
        let id = send.request;
        match self
            .client
            .shared
            .metadata
            .connection(send.node, Purpose::Produce)
        {
            Ok(connection) if self.is_delayed => {
                let request = ProduceDelayedRequest {
                    timeout_ms,
                    partitions,
                };
                let reply = connection.request(&request, records, self.request_timeout);
                under_way.push(Box::pin(async move {
                    let reply = reply.await.map(|reply| reply.body.partitions);
                    replied(id, reply)
                }));
            }
            Ok(connection) => {
                let request = ProduceRequest {
                    timeout_ms,
                    partitions,
                };
                let reply = connection.request(&request, records, self.request_timeout);
                under_way.push(Box::pin(async move {
                    let reply = reply.await.map(|reply| reply.body.partitions);
                    replied(id, reply)
                }));
            }
            Err(error) => under_way.push(Box::pin(async move { Event::RequestFailed(id, error) })),
        }
    }

    async fn init_producer_id(&self) -> Event {
        let request = InitProducerIdRequest::default();
        match self.client.shared.metadata.ask_any(&request).await {
            Ok(reply) => Event::IdentityAllocated(Identity {
                id: reply.producer_id,
                epoch: reply.producer_epoch,
            }),
            Err(error) => Event::IdentityFailed(error),
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

/// What a request came to.
fn replied(id: RequestId, reply: Result<Vec<ProducePartitionResult>, RequestError>) -> Event {
    match reply {
        Ok(results) => Event::Replied(id, results),
        Err(error) => Event::RequestFailed(id, error),
    }
}
