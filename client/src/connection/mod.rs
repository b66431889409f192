//! One connection to one shard of a broker: requests pipelined, replies in any order.
//!
//! A connection exists, and takes requests in order, before it is connected: its task connects,
//! shakes hands and then writes what has queued. When it fails, everything unanswered fails with it,
//! and it stays failed; the pool opens another.

mod frame;
mod handshake;
mod pending;
mod pool;

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use millstream_protocol::{
    FrameFlags,
    messages::{ErrorReply, Request, decode_body},
};
use tokio::{io::AsyncWriteExt, net::TcpStream, sync::mpsc, time::timeout};

use self::{
    frame::{FrameReader, IncomingFrame, OutgoingFrame, ReadError, WriteQueue},
    pending::Pending,
};
pub(crate) use self::{
    handshake::Identity,
    pool::{Pool, Purpose},
};
use crate::error::RequestError;

/// Frames taken from the queue for one round of writing.
const FRAMES_PER_WRITE: usize = 64;

/// Handle of a connection; cheap to clone. The connection ends when the last is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    address: Arc<str>,
    queue: mpsc::UnboundedSender<OutgoingFrame>,
    pending: Arc<Pending>,
}

/// What a reply holds.
#[derive(Debug)]
pub(crate) struct Reply<T> {
    pub body: T,
    /// Record batches, of a fetch.
    pub records: Bytes,
}

impl Connection {
    /// Starts connecting after `delay`. Requests may be made at once.
    pub(crate) fn open(address: Arc<str>, identity: Identity, delay: Duration) -> Self {
        // Unbounded, since callers bound what they have in flight: machines per shard, admin by one.
        let (queue, requests) = mpsc::unbounded_channel();
        let pending = Arc::new(Pending::default());
        tokio::spawn(run(
            Arc::clone(&address),
            identity,
            delay,
            requests,
            Arc::clone(&pending),
        ));
        Self {
            address,
            queue,
            pending,
        }
    }

    /// Queues a request now, in order, and gives the future of its reply. A reply that takes longer
    /// than `patience` ends the connection: what else waits on it would wait for the same broker.
    pub(crate) fn request<R: Request>(
        &self,
        request: &R,
        records: Vec<Bytes>,
        patience: Duration,
    ) -> impl Future<Output = Result<Reply<R::Response>, RequestError>> + Send + use<R> {
        let (id, reply) = self.pending.expect_reply();
        // A closed queue means a failed connection; `reply` then tells why.
        drop(self.queue.send(OutgoingFrame::new(request, records, id)));
        let address = Arc::clone(&self.address);
        let pending = Arc::clone(&self.pending);
        // Held so that the connection lives while a reply is awaited.
        let queue = self.queue.clone();
        async move {
            let outcome = timeout(patience, reply).await;
            drop(queue);
            match outcome {
                Ok(Ok(frame)) => decode_reply::<R>(&address, &frame?),
                Ok(Err(_dropped)) => Err(lost(&address, "it was closed")),
                Err(_elapsed) => {
                    pending.fail(&lost(
                        &address,
                        "an earlier request was not answered in time",
                    ));
                    Err(RequestError::TimedOut {
                        address,
                        timeout: patience,
                    })
                }
            }
        }
    }

    pub(crate) fn is_failed(&self) -> bool {
        self.pending.is_failed()
    }

    /// Whether it was ever connected.
    pub(crate) fn is_established(&self) -> bool {
        self.pending.is_established()
    }
}

fn lost(address: &Arc<str>, reason: &str) -> RequestError {
    RequestError::ConnectionLost {
        address: Arc::clone(address),
        reason: reason.into(),
    }
}

fn decode_reply<R: Request>(
    address: &Arc<str>,
    frame: &IncomingFrame,
) -> Result<Reply<R::Response>, RequestError> {
    let malformed = |error: &dyn std::fmt::Display| RequestError::Protocol {
        address: Arc::clone(address),
        reason: format!("its answer to {:?} can't be read: {error}", R::API).into(),
    };
    if frame.header.flags.contains(FrameFlags::ERROR) {
        let error: ErrorReply = decode_body(&frame.body).map_err(|error| malformed(&error))?;
        return Err(RequestError::Broker {
            code: error.error,
            message: error.message.into(),
        });
    }
    Ok(Reply {
        body: decode_body(&frame.body).map_err(|error| malformed(&error))?,
        records: frame.records.clone(),
    })
}

/// The connection's task.
async fn run(
    address: Arc<str>,
    identity: Identity,
    delay: Duration,
    requests: mpsc::UnboundedReceiver<OutgoingFrame>,
    pending: Arc<Pending>,
) {
    let lived = async {
        tokio::time::sleep(delay).await;
        let (mut socket, mut reader) = handshake::connect(&address, &identity).await?;
        pending.set_established();
        serve(&address, &mut socket, &mut reader, requests, &pending).await
    };
    let error = tokio::select! {
        outcome = lived => outcome.err().unwrap_or_else(|| lost(&address, "it was closed")),
        () = pending.closed.notified() => lost(&address, "it was closed"),
    };
    tracing::debug!(%address, %error, "connection ended");
    pending.fail(&error);
}

/// Reads and writes until either ends. Ends well when no handle is left.
async fn serve(
    address: &Arc<str>,
    socket: &mut TcpStream,
    reader: &mut FrameReader,
    mut requests: mpsc::UnboundedReceiver<OutgoingFrame>,
    pending: &Pending,
) -> Result<(), RequestError> {
    let (mut from, mut to) = socket.split();
    let reading = async {
        loop {
            let frame = reader.next(&mut from).await.map_err(|error| match error {
                ReadError::Frame(error) => RequestError::Protocol {
                    address: Arc::clone(address),
                    reason: error.to_string().into(),
                },
                ReadError::Closed | ReadError::Io(_) => lost(address, &error.to_string()),
            })?;
            let id = frame.header.correlation_id;
            if !pending.replied(frame) {
                return Err(RequestError::Protocol {
                    address: Arc::clone(address),
                    reason: format!("it answered request {id}, which was never made").into(),
                });
            }
        }
    };
    let writing = async {
        let mut frames = Vec::with_capacity(FRAMES_PER_WRITE);
        let mut queue = WriteQueue::default();
        while requests.recv_many(&mut frames, FRAMES_PER_WRITE).await > 0 {
            for frame in frames.drain(..) {
                queue.push(frame);
            }
            to.write_all_buf(&mut queue)
                .await
                .map_err(|error| lost(address, &error.to_string()))?;
        }
        Ok(())
    };
    tokio::select! {
        outcome = reading => outcome,
        outcome = writing => outcome,
    }
}
