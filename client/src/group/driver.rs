//! The member's driver: sends heartbeats in the background, whatever the caller does meanwhile.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use futures_util::{StreamExt, future::OptionFuture, stream::FuturesUnordered};

use super::{
    Core,
    coordinator::ask_coordinator,
    machine::{Action, Event},
};

type UnderWay = FuturesUnordered<Pin<Box<dyn Future<Output = Event> + Send>>>;

/// Runs until the member has ended.
pub(super) async fn drive(core: Arc<Core>) {
    let mut under_way = UnderWay::new();
    let mut event = Event::Ticked;
    loop {
        let shared = &core.client.shared;
        let (actions, deadline, done) = {
            let mut state = core.state();
            if state.abandoned {
                return;
            }
            state.apply(shared.clock.now(), event);
            let deadline = state.machine.deadline();
            let done = state.machine.has_ended() && state.closed;
            (std::mem::take(&mut state.actions), deadline, done)
        };
        for action in actions {
            match action {
                Action::News => core.news.notify_one(),
                Action::Heartbeat(id, request) => {
                    let core = Arc::clone(&core);
                    under_way.push(Box::pin(async move {
                        let shared = &core.client.shared;
                        let held = Duration::from_millis(request.max_wait_ms.into());
                        let patience = held + shared.request_timeout;
                        let group = &core.group;
                        let answer = ask_coordinator(shared, group, &request, patience).await;
                        Event::Answered(id, answer)
                    }));
                }
            }
        }
        if done {
            core.ended.notify_one();
            return;
        }
        let timer = deadline.map(|at| tokio::time::sleep_until(shared.clock.instant(at)));
        event = tokio::select! {
            Some(event) = under_way.next() => event,
            () = core.wake.notified() => Event::Ticked,
            Some(()) = OptionFuture::from(timer) => Event::Ticked,
        };
    }
}
