//! Produces that must wait: until less is appended and not yet durable, or until there is memory to
//! take them to another shard. They are set aside, in their order, so that what follows them on their
//! connection need not wait too.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    pin::pin,
    rc::Rc,
    time::Duration,
};

use futures_util::{
    FutureExt as _,
    future::{Either, select},
};
use millstream_protocol::ErrorCode;

use crate::{
    io::{Io, Permit, Signal, TaskClass},
    net::{ReplyTo, Service},
    session::Request,
};

/// A produce waits in the buffer that it was received into for so long: under load that is all it
/// takes. Only then it is copied.
const IN_PLACE: Duration = Duration::from_millis(100);

/// One produce that was set aside.
struct Waiting<I: Io> {
    request: Request,
    records: Vec<u8>,
    reply_to: ReplyTo<I>,
    _memory: Permit,
}

/// The produces of one connection that were set aside.
pub(super) struct Aside<I: Io> {
    queue: RefCell<VecDeque<Waiting<I>>>,
    /// A task is at work on the queue.
    serving: Cell<bool>,
    /// Raised when it has done.
    served: Signal,
}

impl<I: Io> Default for Aside<I> {
    fn default() -> Self {
        Self {
            queue: RefCell::default(),
            serving: Cell::new(false),
            served: Signal::default(),
        }
    }
}

impl<I: Io> Aside<I> {
    /// Serves a produce after those before it: now, or later from a copy. Returns when the next frame
    /// may be looked at.
    pub(super) async fn produce<S: Service<I>>(
        self: &Rc<Self>,
        io: &I,
        service: &Rc<S>,
        request: Request,
        records: &mut [u8],
        reply_to: ReplyTo<I>,
    ) {
        if !self.serving.get()
            && let Some(admission) = admitted(&**service, &request, records.len()).now_or_never()
        {
            return serve(service, admission, request, records, reply_to);
        }
        // On the heap, so that a connection that waits for its next frame is small.
        Box::pin(self.wait(io, service, request, records, reply_to)).await;
    }

    async fn wait<S: Service<I>>(
        self: &Rc<Self>,
        io: &I,
        service: &Rc<S>,
        request: Request,
        records: &mut [u8],
        reply_to: ReplyTo<I>,
    ) {
        if !self.serving.get() {
            let admission = {
                let admitted = pin!(admitted(&**service, &request, records.len()));
                let patience = pin!(io.sleep(IN_PLACE));
                match select(admitted, patience).await {
                    Either::Left((admission, _)) => Some(admission),
                    Either::Right(((), _)) => None,
                }
            };
            if let Some(admission) = admission {
                return serve(service, admission, request, records, reply_to);
            }
        }
        let aside = &service.buffers().aside;
        let size = records.len() + reply_to.asked();
        let memory = (size <= aside.total()).then(|| aside.try_take(size));
        if let Some(memory) = memory.flatten() {
            self.queue.borrow_mut().push_back(Waiting {
                request,
                records: records.to_vec(),
                reply_to,
                _memory: memory,
            });
            if !self.serving.replace(true) {
                let serving = Rc::clone(self).serve_all(Rc::clone(service));
                io.spawn(TaskClass::Foreground, serving);
            }
            return;
        }
        self.served.wait_until(|| !self.serving.get()).await;
        let admission = admitted(&**service, &request, records.len()).await;
        serve(service, admission, request, records, reply_to);
    }

    async fn serve_all<S: Service<I>>(self: Rc<Self>, service: Rc<S>) {
        loop {
            let Some(mut next) = self.queue.borrow_mut().pop_front() else {
                break;
            };
            let admission = admitted(&*service, &next.request, next.records.len()).await;
            serve(
                &service,
                admission,
                next.request,
                &mut next.records,
                next.reply_to,
            );
        }
        self.serving.set(false);
        self.served.raise();
    }
}

/// Whether a produce may go on.
enum Admission {
    Granted(Option<Permit>),
    /// The broker is on its way down.
    Stopping,
}

async fn admitted<I: Io, S: Service<I>>(service: &S, request: &Request, size: usize) -> Admission {
    let admission = pin!(async {
        let permit = service.admit(request, size).await;
        // What goes to other shards waits for their disks, not for ours.
        if permit.is_none() {
            service.room().await;
        }
        permit
    });
    let stop = pin!(service.stopping().wait_until(|| service.is_stopping()));
    match select(admission, stop).await {
        Either::Left((permit, _)) => Admission::Granted(permit),
        Either::Right(((), _)) => Admission::Stopping,
    }
}

fn serve<I: Io, S: Service<I>>(
    service: &Rc<S>,
    admission: Admission,
    request: Request,
    records: &mut [u8],
    reply_to: ReplyTo<I>,
) {
    match admission {
        Admission::Granted(permit) => service.serve(request, records, reply_to.with(permit)),
        Admission::Stopping => {
            reply_to.refuse(ErrorCode::ShuttingDown, "the broker is shutting down");
        }
    }
}
