//! What waits to be sent on one connection: whole replies in order, their record batches straight
//! from the log's buffers.
//!
//! A writer task runs only while there is something to send, so an idle connection costs none. One
//! system call carries as many replies as fit.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io::{self, IoSlice},
    pin::pin,
    rc::Rc,
    time::Duration,
};

use futures_util::future::{Either, select};

use crate::{
    io::{Buffer, Io, Stream, TaskClass},
    net::Permit,
    storage::Slice,
};

/// Slices handed to one system call.
const MAX_SLICES: usize = 64;

/// A client that takes nothing for this long while something waits is gone.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);

/// One reply: header and body, then pieces of record batches.
#[derive(Debug)]
pub struct Reply<B> {
    /// Header and body.
    pub head: Vec<u8>,
    /// The records section.
    pub pieces: Vec<Slice<B>>,
    /// The memory it is charged to, given back when it is sent.
    pub _charge: Option<Permit>,
}

impl<B: Buffer> Reply<B> {
    fn part(&self, index: usize) -> Option<&[u8]> {
        match index {
            0 => Some(&self.head),
            _ => self.pieces.get(index - 1).map(Slice::bytes),
        }
    }
}

/// The sending side of a connection.
pub struct Outbox<I: Io> {
    io: I,
    stream: Rc<I::Stream>,
    queue: RefCell<VecDeque<Reply<I::Buffer>>>,
    writing: Cell<bool>,
    closing: Cell<bool>,
    broken: Cell<bool>,
    sent_bytes: Rc<Cell<u64>>,
}

impl<I: Io> Outbox<I> {
    /// The sending side of `stream`; bytes sent are added to `sent_bytes`.
    pub fn new(io: I, stream: Rc<I::Stream>, sent_bytes: Rc<Cell<u64>>) -> Rc<Self> {
        Rc::new(Self {
            io,
            stream,
            queue: RefCell::default(),
            writing: Cell::new(false),
            closing: Cell::new(false),
            broken: Cell::new(false),
            sent_bytes,
        })
    }

    /// Queues a reply. On a connection that is broken it is dropped.
    pub fn push(self: &Rc<Self>, reply: Reply<I::Buffer>) {
        if self.broken.get() {
            return;
        }
        self.queue.borrow_mut().push_back(reply);
        if !self.writing.replace(true) {
            let outbox = Rc::clone(self);
            self.io
                .spawn(TaskClass::Foreground, async move { outbox.drain().await });
        }
    }

    /// Ends the connection once everything queued has been sent.
    pub fn close_when_sent(&self) {
        self.closing.set(true);
        if !self.writing.get() {
            self.stream.shutdown();
        }
    }

    /// Whether nothing can be sent any more.
    pub fn is_broken(&self) -> bool {
        self.broken.get()
    }

    async fn drain(self: Rc<Self>) {
        if self.send_all().await.is_err() {
            self.broken.set(true);
            self.queue.borrow_mut().clear();
            self.stream.shutdown();
        }
        self.writing.set(false);
        if self.closing.get() {
            self.stream.shutdown();
        }
    }

    async fn send_all(&self) -> io::Result<()> {
        // The reply being sent and how much of it has gone; those behind it stay in the queue.
        let mut sending: VecDeque<Reply<I::Buffer>> = VecDeque::new();
        let mut position = Position::default();
        loop {
            sending.append(&mut self.queue.borrow_mut());
            if sending.is_empty() {
                return Ok(());
            }
            let sent = self.send_some(&sending, position).await?;
            self.sent_bytes.set(self.sent_bytes.get() + sent as u64);
            position.advance(&mut sending, sent);
        }
    }

    async fn send_some(
        &self,
        replies: &VecDeque<Reply<I::Buffer>>,
        position: Position,
    ) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let count = position.fill(replies, &mut slices);
        let send = pin!(self.stream.send(&slices[..count]));
        let timeout = pin!(self.io.sleep(SEND_TIMEOUT));
        match select(send, timeout).await {
            Either::Left((sent, _)) => sent,
            Either::Right(((), _)) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// Where in the first reply the next byte is.
#[derive(Clone, Copy, Default)]
struct Position {
    part: usize,
    byte: usize,
}

impl Position {
    fn fill<'a, B: Buffer>(
        self,
        replies: &'a VecDeque<Reply<B>>,
        slices: &mut [IoSlice<'a>; MAX_SLICES],
    ) -> usize {
        let mut count = 0;
        let (mut part, mut byte) = (self.part, self.byte);
        for reply in replies {
            while let Some(bytes) = reply.part(part) {
                if count == MAX_SLICES {
                    return count;
                }
                slices[count] = IoSlice::new(&bytes[byte..]);
                count += 1;
                part += 1;
                byte = 0;
            }
            part = 0;
        }
        count
    }

    fn advance<B: Buffer>(&mut self, replies: &mut VecDeque<Reply<B>>, mut sent: usize) {
        while let Some(reply) = replies.front() {
            let Some(bytes) = reply.part(self.part) else {
                replies.pop_front();
                *self = Self::default();
                continue;
            };
            let left = bytes.len() - self.byte;
            if sent < left {
                self.byte += sent;
                return;
            }
            sent -= left;
            self.part += 1;
            self.byte = 0;
        }
    }
}
