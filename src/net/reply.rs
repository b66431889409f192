//! Where the answer to a request goes, and what of a connection its answers need.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    pin::pin,
    rc::Rc,
};

use futures_util::future::select;
use millstream_protocol::{
    ErrorCode, FrameFlags, Wire,
    limits::MAX_FRAME_SIZE,
    messages::{ErrorReply, HandshakeResponse, encode_body},
};

use crate::{
    io::{Budget, Io, Permit, Signal},
    net::outbox::{Charge, Outbox, Reply},
    session::{Session, Ticket},
    storage::Slice,
};

/// The part of a shard's memory for replies that one connection may hold: one that does not read
/// what it asked for can't keep everyone else from being answered.
pub(super) const CONNECTION_SHARE: usize = 4;

/// What the reader of a connection and the answers to its requests share.
pub(super) struct Connection<I: Io> {
    pub(super) session: RefCell<Session<Reply<I::Buffer>>>,
    pub(super) outbox: Rc<Outbox<I>>,
    pub(super) peer: Option<SocketAddr>,
    pub(super) answered: Signal,
    /// Bytes that requests take which are owed an answer.
    pub(super) asking: Cell<usize>,
    /// The shard's memory for replies, and what this connection may take of it.
    pub(super) replies: Rc<Budget>,
    pub(super) own_replies: Rc<Budget>,
    /// The shard's memory for the rest of replies.
    pub(super) heads: Rc<Budget>,
    /// The client asks for nothing more; raised then.
    pub(super) ended: Cell<bool>,
    pub(super) end: Signal,
    /// Others wait for memory that this connection holds until it is answered; raised too.
    pub(super) pressed: Cell<bool>,
}

/// Where the answer to one request goes. Dropped without an answer, it answers `Internal`, so that
/// no client waits for ever.
pub struct ReplyTo<I: Io> {
    connection: Rc<Connection<I>>,
    ticket: Option<Ticket>,
    /// Bytes that the request takes.
    asking: usize,
    permit: Option<Permit>,
}

impl<I: Io> ReplyTo<I> {
    /// The way to answer a request that takes `asking` bytes until then.
    pub(super) fn new(connection: &Rc<Connection<I>>, ticket: Ticket, asking: usize) -> Self {
        connection.asking.set(connection.asking.get() + asking);
        Self {
            connection: Rc::clone(connection),
            ticket: Some(ticket),
            asking,
            permit: None,
        }
    }

    /// Keeps a permit until it is answered.
    pub(super) fn with(mut self, permit: Option<Permit>) -> Self {
        self.permit = permit;
        self
    }

    /// Bytes that the request takes until it is answered.
    pub(super) fn asked(&self) -> usize {
        self.asking
    }

    /// What the client calls itself, and where it connects from.
    pub fn speaker(&self) -> (String, Option<SocketAddr>) {
        let session = self.connection.session.borrow();
        (session.client_name().to_owned(), self.connection.peer)
    }

    /// Sends the answer.
    pub fn send<M: Wire>(self, message: &M) {
        self.send_with(message, Vec::new(), Charge::new());
    }

    /// Sends the answer with record batches behind it.
    pub fn send_with<M: Wire>(
        mut self,
        message: &M,
        pieces: Vec<Slice<I::Buffer>>,
        charge: Charge,
    ) {
        if let Some(ticket) = self.ticket.take() {
            let records = pieces.iter().map(Slice::size).sum();
            match frame_head(ticket, FrameFlags::default(), message, records) {
                Some(head) => self.connection.answer(ticket, head, pieces, charge),
                None => {
                    let message = "the answer is larger than a frame: ask for less at once";
                    let message = message.to_owned();
                    self.connection.refuse(ticket, ErrorCode::Internal, message);
                }
            }
        }
    }

    /// Sends an error.
    pub fn refuse(mut self, error: ErrorCode, message: impl Into<String>) {
        if let Some(ticket) = self.ticket.take() {
            self.connection.refuse(ticket, error, message.into());
        }
    }

    /// Answers a handshake. An error in it ends the session.
    pub(super) fn welcome(self, answer: &HandshakeResponse) {
        if answer.error != ErrorCode::None {
            self.connection.session.borrow_mut().close();
        }
        self.send(answer);
    }

    /// The most bytes of record batches that one answer may carry here.
    pub fn most_records(&self) -> usize {
        self.connection.own_replies.total() / 2
    }

    /// Takes memory for so many bytes of record batches, when there is some.
    pub async fn reserve(&self, bytes: usize) -> Charge {
        let own = self.connection.own_replies.take(bytes).await;
        let shared = self.connection.replies.take(bytes).await;
        vec![own, shared]
    }

    /// Waits until the answer could go out at once: where replies are wanted in order, when all
    /// before it have been answered.
    pub async fn turn(&self) {
        let Some(ticket) = self.ticket else { return };
        let connection = &self.connection;
        let is_next = || connection.session.borrow().is_next(ticket);
        connection.answered.wait_until(is_next).await;
    }

    /// Whether it should be answered now with what there is: the client asks for nothing any more, or
    /// can't be answered, or holds memory meanwhile that others wait for.
    pub fn is_gone(&self) -> bool {
        self.connection.is_over() || self.connection.outbox.is_broken()
    }

    /// Waits for [`ReplyTo::is_gone`].
    pub async fn gone(&self) {
        let connection = &self.connection;
        let end = pin!(connection.end.wait_until(|| connection.is_over()));
        let broken = pin!(connection.outbox.broken());
        select(end, broken).await;
    }
}

impl<I: Io> Drop for ReplyTo<I> {
    fn drop(&mut self) {
        let asking = &self.connection.asking;
        asking.set(asking.get() - self.asking);
        if let Some(ticket) = self.ticket.take() {
            let message = "the broker dropped this request".to_owned();
            self.connection.refuse(ticket, ErrorCode::Internal, message);
        }
        self.connection.answered.raise();
    }
}

/// Header and body of a frame; none if no peer would take a body as large as that.
fn frame_head<M: Wire>(
    ticket: Ticket,
    flags: FrameFlags,
    message: &M,
    records: usize,
) -> Option<Vec<u8>> {
    let body = encode_body(message);
    let body_size = u32::try_from(body.len()).ok();
    let body_size = body_size.filter(|size| *size <= MAX_FRAME_SIZE)?;
    let records_size = u32::try_from(records).expect("records of a reply are bounded");
    let header = ticket.header(flags, body_size, records_size).encode();
    Some([header.as_slice(), &body].concat())
}

impl<I: Io> Connection<I> {
    pub(super) fn is_pressed(&self) -> bool {
        self.pressed.get()
    }

    /// What waits on behalf of the client should wait no longer.
    fn is_over(&self) -> bool {
        self.ended.get() || self.pressed.get()
    }

    /// Tells whether others wait for memory that this connection holds: then its requests are answered
    /// with what there is, and its client must take the answers soon.
    pub(super) fn press(&self, pressed: bool) {
        self.outbox.press(pressed);
        if self.pressed.replace(pressed) != pressed {
            self.end.raise();
        }
    }

    fn answer(&self, ticket: Ticket, head: Vec<u8>, pieces: Vec<Slice<I::Buffer>>, charge: Charge) {
        let reply = Reply {
            _head_charge: self.heads.force(head.len()),
            head,
            pieces,
            _charge: charge,
        };
        let outbox = &self.outbox;
        outbox.hold(reply.size());
        self.session
            .borrow_mut()
            .answered(ticket, reply, |reply| outbox.push(reply));
        self.answered.raise();
    }

    pub(super) fn refuse(&self, ticket: Ticket, error: ErrorCode, message: String) {
        let reply = ErrorReply { error, message };
        let head = frame_head(ticket, FrameFlags::ERROR, &reply, 0).expect("a sentence is short");
        self.answer(ticket, head, Vec::new(), Charge::new());
    }
}
