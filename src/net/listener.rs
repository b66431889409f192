//! Accepts connections until the broker stops.

use std::{rc::Rc, time::Duration};

use crate::{
    io::{Io, Listener, Net, TaskClass},
    net::connection::{Service, serve},
};

/// Wait after an accept that failed for want of descriptors or memory: at once it would fail again.
const BACK_OFF: Duration = Duration::from_millis(50);

/// Accepts on `listener` for ever, a task for each connection. The executor's end ends it.
pub async fn accept_loop<I: Io, S: Service<I>>(
    io: I,
    service: Rc<S>,
    listener: <I as Net>::Listener,
) {
    loop {
        // Connections may come faster than they are accepted.
        io.yield_if_needed().await;
        match listener.accept().await {
            Ok((stream, _peer)) if service.is_stopping() => drop(stream),
            Ok((stream, peer)) if !service.may_accept(peer) => drop(stream),
            Ok((stream, _peer)) => {
                io.spawn(
                    TaskClass::Foreground,
                    serve(io.clone(), Rc::clone(&service), stream),
                );
            }
            Err(error) => {
                service.accept_failed(&error);
                io.sleep(BACK_OFF).await;
            }
        }
    }
}
