//! One connection: a reader that feeds frames to the session machine and performs its actions.
//! Replies go out through the [`Outbox`], from whoever has them, whenever they are ready.

use std::{
    cell::{Cell, RefCell},
    marker::PhantomData,
    net::SocketAddr,
    pin::pin,
    rc::Rc,
    time::Duration,
};

use futures_util::{
    FutureExt as _,
    future::{Either, select},
};
use millstream_protocol::{
    ErrorCode, FRAME_HEADER_SIZE, ShardId,
    messages::{HandshakeRequest, HandshakeResponse},
};

use crate::{
    io::{Budget, Io, Net, Permit, Signal, Stream},
    net::{
        Buffers,
        aside::Aside,
        outbox::Outbox,
        receive::{Frame, ReceiveError, Receiver, Terms},
        reply::{CONNECTION_SHARE, Connection, ReplyTo},
    },
    session::{Action, Request, Session},
};

/// A connection on its way to another shard, its handshake read and not yet answered.
pub struct Adopted<D> {
    /// The socket.
    pub connection: D,
    /// The handshake to answer.
    pub request: HandshakeRequest,
    /// The handshake's correlation id.
    pub correlation_id: u64,
}

/// Where a connection belongs.
pub enum Welcome {
    /// Here: the answer.
    Stay(HandshakeResponse),
    /// On another shard of this broker.
    Move(ShardId),
}

/// What a shard offers its connections.
pub trait Service<I: Io>: 'static {
    /// Decides about a handshake.
    fn welcome(&self, request: &HandshakeRequest) -> Welcome;

    /// Answers a handshake here, whatever shard was wanted.
    fn welcome_here(&self, request: &HandshakeRequest) -> HandshakeResponse;

    /// Sends a connection to another shard. Comes back if that shard's inbox is full.
    fn hand_over(
        &self,
        shard: ShardId,
        adopted: Box<Adopted<<I as Net>::Detached>>,
    ) -> Result<(), Box<Adopted<<I as Net>::Detached>>>;

    /// Serves a request: takes what it needs of `records` before it returns, answers when it can.
    fn serve(self: &Rc<Self>, request: Request, records: &mut [u8], reply_to: ReplyTo<I>);

    /// Waits while too much is appended and not yet durable.
    async fn room(&self);

    /// Waits for memory that serving a request takes besides its frame; given back when it is answered.
    async fn admit(&self, request: &Request, records_size: usize) -> Option<Permit>;

    /// Receive buffers.
    fn buffers(&self) -> &Rc<Buffers>;

    /// Memory for the record batches of replies.
    fn replies(&self) -> &Rc<Budget>;

    /// Counts bytes sent.
    fn sent_bytes(&self) -> Rc<Cell<u64>>;

    /// Counts bytes received.
    fn received(&self, bytes: usize);

    /// Notes why a connection ended.
    fn closed(&self, peer: Option<SocketAddr>, reason: &ReceiveError);

    /// Whether there is room for one more connection; a refusal is noted.
    fn may_accept(&self, peer: SocketAddr) -> bool;

    /// Notes that a connection could not be accepted.
    fn accept_failed(&self, error: &std::io::Error);

    /// Notes that a connection began or ended here.
    fn connections_changed(&self, by: isize);

    /// Raised when the broker is on its way down; see [`Service::is_stopping`].
    fn stopping(&self) -> &Signal;

    /// The broker is on its way down.
    fn is_stopping(&self) -> bool;
}

/// Serves a connection from its accept to its end. It counts from this call on, not only once the
/// future runs: a burst of connections would otherwise pass the limit before the first is served.
pub fn serve<I: Io, S: Service<I>>(
    io: I,
    service: Rc<S>,
    stream: I::Stream,
) -> impl Future<Output = ()> + 'static {
    let open = Open::new(&service);
    async move {
        let _open = open;
        let reader = Reader::open(io.clone(), Rc::clone(&service), stream);
        finish(io, service, reader).await;
    }
}

/// Counts a connection as long as it is served here.
struct Open<I: Io, S: Service<I>> {
    service: Rc<S>,
    io: PhantomData<I>,
}

impl<I: Io, S: Service<I>> Open<I, S> {
    fn new(service: &Rc<S>) -> Self {
        service.connections_changed(1);
        Self {
            service: Rc::clone(service),
            io: PhantomData,
        }
    }
}

impl<I: Io, S: Service<I>> Drop for Open<I, S> {
    fn drop(&mut self) {
        self.service.connections_changed(-1);
    }
}

/// Serves a connection that another shard has handed over.
///
/// # Errors
/// The socket cannot be used here.
pub async fn serve_adopted<I: Io, S: Service<I>>(
    io: I,
    service: Rc<S>,
    adopted: Adopted<<I as Net>::Detached>,
) -> std::io::Result<()> {
    let _open = Open::new(&service);
    let stream = io.attach(adopted.connection)?;
    let mut reader = Reader::open(io.clone(), Rc::clone(&service), stream);
    reader.adopt(&io, &adopted.request, adopted.correlation_id);
    finish(io, service, reader).await;
    Ok(())
}

async fn finish<I: Io, S: Service<I>>(io: I, service: Rc<S>, mut reader: Reader<I, S>) {
    while let Some((shard, adopted)) = reader.run().await {
        let Err(adopted) = service.hand_over(shard, Box::new(adopted)) else {
            return;
        };
        // The other shard takes nothing now: serve here, correctly if slower.
        let Ok(stream) = io.attach(adopted.connection) else {
            return;
        };
        reader = Reader::open(io.clone(), Rc::clone(&service), stream);
        reader.adopt(&io, &adopted.request, adopted.correlation_id);
    }
}

/// Bytes of unanswered requests of one connection beyond which no more is read: answers are a
/// few times as large as what asks for them.
const ASKING_LIMIT: usize = 2 << 20;

/// So much any connection may ask, however much all of them have asked.
const ASKING_FREE: usize = 16 << 10;

/// What a request takes that waits for its answer, besides its body: a task, and where to answer ...
const REQUEST_SIZE: usize = 1 << 10;
/// ... and for each byte of its body: decoded it is larger.
const BODY_COST: usize = 2;

/// Between two looks whether somebody waits for memory that this connection holds ...
const LOOK: Duration = Duration::from_millis(500);

/// ... which it must give back after this.
const PATIENCE_WHEN_WANTED: Duration = Duration::from_secs(1);

struct Reader<I: Io, S: Service<I>> {
    io: I,
    service: Rc<S>,
    connection: Rc<Connection<I>>,
    receiver: Receiver<I>,
    aside: Rc<Aside<I>>,
    stream: Rc<I::Stream>,
    peer: Option<SocketAddr>,
}

/// What to do after a frame.
enum Next {
    Continue,
    Move {
        shard: ShardId,
        correlation_id: u64,
        request: Box<HandshakeRequest>,
    },
}

impl<I: Io, S: Service<I>> Reader<I, S> {
    fn open(io: I, service: Rc<S>, stream: I::Stream) -> Self {
        let peer = stream.peer_address().ok();
        let stream = Rc::new(stream);
        let session = RefCell::new(Session::new(io.now()));
        let replies = Rc::clone(service.replies());
        let own_replies = Budget::new(replies.total() / CONNECTION_SHARE);
        let outbox = Outbox::new(
            io.clone(),
            Rc::clone(&stream),
            Rc::clone(&replies),
            Rc::clone(&service.buffers().heads),
            service.sent_bytes(),
        );
        let buffers = Rc::clone(service.buffers());
        let receiver = Receiver::new(io.clone(), Rc::clone(&stream), buffers);
        let connection = Rc::new(Connection {
            session,
            outbox,
            peer,
            answered: Signal::default(),
            asking: Cell::new(0),
            replies,
            own_replies,
            heads: Rc::clone(&service.buffers().heads),
            ended: Cell::new(false),
            pressed: Cell::new(false),
            end: Signal::default(),
        });
        Self {
            io,
            service,
            connection,
            receiver,
            aside: Rc::default(),
            stream,
            peer,
        }
    }

    fn adopt(&mut self, io: &I, request: &HandshakeRequest, correlation_id: u64) {
        let (session, ticket) = Session::adopt(io.now(), correlation_id, request);
        self.connection.session.replace(session);
        let answer = self.service.welcome_here(request);
        ReplyTo::new(&self.connection, ticket, 0).welcome(&answer);
    }

    /// Runs to the connection's end, or until it belongs to another shard.
    async fn run(mut self) -> Option<(ShardId, Adopted<<I as Net>::Detached>)> {
        loop {
            // Frames may come faster than they are served.
            self.io.yield_if_needed().await;
            match self.step().await {
                Ok(Next::Continue) => {}
                Ok(Next::Move {
                    shard,
                    correlation_id,
                    request,
                }) => {
                    // What was answered before the handshake goes first.
                    self.connection.outbox.settled().await;
                    let adopted = self.detach(correlation_id, *request)?;
                    return Some((shard, adopted));
                }
                Err(reason) => {
                    self.service.closed(self.peer, &reason);
                    break;
                }
            }
        }
        // What is owed is still answered: the client may have closed only its sending side.
        // Who waits for more records gets what there is.
        let connection = &self.connection;
        connection.session.borrow_mut().close();
        connection.ended.set(true);
        connection.end.raise();
        self.receiver.release();
        let settled =
            || connection.session.borrow().in_flight() == 0 || connection.outbox.is_broken();
        let answered = pin!(connection.answered.wait_until(settled));
        let broken = pin!(connection.outbox.broken());
        select(answered, broken).await;
        connection.outbox.close_when_sent();
        // Until everything is sent the socket is open, and the connection counts as one that is. A
        // broker on its way down does not wait long for those who do not read.
        let sent = pin!(connection.outbox.settled());
        let service = &self.service;
        let hurry = pin!(async {
            let stopping = service.stopping();
            stopping.wait_until(|| service.is_stopping()).await;
            connection.outbox.press(true);
            std::future::pending::<()>().await;
        });
        select(sent, hurry).await;
        None
    }

    async fn step(&mut self) -> Result<Next, ReceiveError> {
        self.wait_for_turn().await;
        let connection = &self.connection;
        let terms = {
            let session = connection.session.borrow();
            if session.is_closing() || connection.outbox.is_broken() {
                return Err(ReceiveError::Ended);
            }
            // Whole frames may be here already, and more behind them: none of them is taken now.
            if self.service.is_stopping() {
                return Err(ReceiveError::Stopping);
            }
            Terms {
                max_frame_size: session.max_frame_size(),
                deadline: session.deadline(),
                reads_ahead: session.has_begun(),
            }
        };
        let service = &self.service;
        let frame = pin!(self.receiver.frame(&terms));
        let stop = pin!(service.stopping().wait_until(|| service.is_stopping()));
        let frame = match select(frame, stop).await {
            Either::Left((frame, _)) => frame?,
            Either::Right(((), _)) => return Err(ReceiveError::Stopping),
        };
        Ok(take_frame(&self.io, service, connection, &self.aside, frame).await)
    }

    /// Waits while the client must take its replies first, or has asked for as much as it may. Bytes
    /// that were received meanwhile hold memory: when others wait for that, the client must hurry.
    async fn wait_for_turn(&mut self) {
        let connection = Rc::clone(&self.connection);
        let may_go_on = || {
            let session = connection.session.borrow();
            let may_ask = session.may_read() && connection.asking.get() <= ASKING_LIMIT;
            may_ask || session.is_closing() || connection.outbox.is_broken()
        };
        let turn = pin!(async {
            connection.outbox.room().await;
            let answered = pin!(connection.answered.wait_until(may_go_on));
            let broken = pin!(connection.outbox.broken());
            select(answered, broken).await;
        });
        let service = &self.service;
        let stop = pin!(service.stopping().wait_until(|| service.is_stopping()));
        let mut waited = pin!(select(turn, stop));
        // Pressed, it stays so until the memory has been given back or nobody wants it any more.
        if connection.is_pressed() && !self.receiver.is_wanted() {
            connection.press(false);
        }
        if waited.as_mut().now_or_never().is_some() {
            return;
        }
        self.receiver.rest();
        let begun = self.io.now();
        loop {
            let look = pin!(self.io.sleep(LOOK));
            if let Either::Left(_) = select(waited.as_mut(), look).await {
                return;
            }
            if self.receiver.is_wanted() && self.io.now() >= begun + PATIENCE_WHEN_WANTED {
                connection.press(true);
            }
        }
    }

    /// Takes the socket out of a connection on which nothing was answered yet.
    fn detach(
        self,
        correlation_id: u64,
        request: HandshakeRequest,
    ) -> Option<Adopted<<I as Net>::Detached>> {
        let Self {
            connection,
            receiver,
            stream,
            ..
        } = self;
        drop(receiver);
        drop(connection);
        let connection = Rc::into_inner(stream)?.detach();
        Some(Adopted {
            connection,
            request,
            correlation_id,
        })
    }
}

async fn take_frame<I: Io, S: Service<I>>(
    io: &I,
    service: &Rc<S>,
    connection: &Rc<Connection<I>>,
    aside: &Rc<Aside<I>>,
    frame: Frame<'_>,
) -> Next {
    service.received(FRAME_HEADER_SIZE + frame.header.rest_size());
    let action = connection
        .session
        .borrow_mut()
        .frame(&frame.header, frame.body);
    let asking = REQUEST_SIZE + frame.body.len();
    let reply_to = |ticket| ReplyTo::new(connection, ticket, asking);
    match action {
        Action::Serve {
            ticket,
            request: request @ (Request::Produce(_) | Request::ProduceDelayed(_)),
        } => {
            let produced = aside.produce(io, service, request, frame.records, reply_to(ticket));
            produced.await;
        }
        Action::Serve { ticket, request } => match ask(service, connection, asking) {
            Ok(permit) => service.serve(request, frame.records, reply_to(ticket).with(permit)),
            Err(Full) => {
                let message = "too many large requests wait for their answers".to_owned();
                connection.refuse(ticket, ErrorCode::Overloaded, message);
            }
        },
        Action::Refuse {
            ticket,
            error,
            message,
            close: _,
        } => {
            connection.refuse(ticket, error, message);
        }
        Action::Welcome { ticket, request } => match service.welcome(&request) {
            Welcome::Stay(answer) => reply_to(ticket).welcome(&answer),
            Welcome::Move(shard) => {
                return Next::Move {
                    shard,
                    correlation_id: ticket.correlation_id,
                    request,
                };
            }
        },
    }
    Next::Continue
}

/// Others have taken the memory there is.
struct Full;

/// Memory for a request that takes `size` bytes, beyond what every connection may have.
fn ask<I: Io, S: Service<I>>(
    service: &Rc<S>,
    connection: &Connection<I>,
    size: usize,
) -> Result<Option<Permit>, Full> {
    if connection.asking.get() + size <= ASKING_FREE {
        return Ok(None);
    }
    let permit = service.buffers().asked.try_take(size * BODY_COST);
    permit.map(Some).ok_or(Full)
}
