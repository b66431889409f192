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
    io::{Budget, Buffer, Io, Monotonic, Permit, Signal, Stream, TaskClass},
    storage::Slice,
};

/// Slices handed to one system call.
const MAX_SLICES: usize = 64;

/// Unsent bytes of one connection beyond which it may ask for nothing more: a client that asks and
/// does not read would fill the memory otherwise.
const UNSENT_LIMIT: usize = 1 << 20;

/// So much any connection may have unsent, however much all of them have.
const UNSENT_FREE: usize = 16 << 10;

/// How a client must take what waits for it.
#[derive(Clone, Copy)]
struct Pace {
    /// Looked at this often ...
    window: Duration,
    /// ... and then so much must have gone, or everything that waited.
    bytes_per_second: usize,
}

/// A client that takes less than this is as good as gone.
const SLOWEST: Pace = Pace {
    window: Duration::from_secs(60),
    bytes_per_second: 16 << 10,
};

/// While others wait for the memory that replies hold, slow readers make room.
const SLOWEST_WHEN_WANTED: Pace = Pace {
    window: Duration::from_secs(1),
    bytes_per_second: 1 << 20,
};

/// Between two looks at a client's pace.
const LOOK: Duration = Duration::from_millis(500);

/// One reply: header and body, then pieces of record batches.
#[derive(Debug)]
pub struct Reply<B> {
    /// Header and body.
    pub head: Vec<u8>,
    /// The records section.
    pub pieces: Vec<Slice<B>>,
    /// The memory it is charged to, given back when it is sent.
    pub _charge: Charge,
    /// The same for `head`.
    pub _head_charge: Permit,
}

/// What a reply holds of its connection's budget and of its shard's.
pub type Charge = Vec<Permit>;

impl<B: Buffer> Reply<B> {
    fn part(&self, index: usize) -> Option<&[u8]> {
        match index {
            0 => Some(&self.head),
            _ => self.pieces.get(index - 1).map(Slice::bytes),
        }
    }

    /// Bytes on the wire.
    pub fn size(&self) -> usize {
        self.head.len() + self.pieces.iter().map(Slice::size).sum::<usize>()
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
    unsent: Cell<usize>,
    /// Bytes of replies that wait for those before them.
    held: Cell<usize>,
    /// Others wait for memory that this connection holds until its client takes its replies.
    pressed: Cell<bool>,
    /// Raised when something has been sent, and when nothing can be any more.
    moved: Signal,
    memory: Rc<Budget>,
    heads: Rc<Budget>,
    sent_bytes: Rc<Cell<u64>>,
}

impl<I: Io> Outbox<I> {
    /// The sending side of `stream`. Record batches in replies are charged to `memory`, the rest of
    /// them to `heads`; bytes sent are added to `sent_bytes`.
    pub fn new(
        io: I,
        stream: Rc<I::Stream>,
        memory: Rc<Budget>,
        heads: Rc<Budget>,
        sent_bytes: Rc<Cell<u64>>,
    ) -> Rc<Self> {
        Rc::new(Self {
            io,
            stream,
            unsent: Cell::new(0),
            held: Cell::new(0),
            pressed: Cell::new(false),
            moved: Signal::default(),
            memory,
            heads,
            queue: RefCell::default(),
            writing: Cell::new(false),
            closing: Cell::new(false),
            broken: Cell::new(false),
            sent_bytes,
        })
    }

    /// Counts a reply that is about to be pushed, or must wait for others first.
    pub fn hold(&self, size: usize) {
        self.held.set(self.held.get() + size);
    }

    /// Queues a reply that was held. On a connection that is broken it is dropped.
    pub fn push(self: &Rc<Self>, reply: Reply<I::Buffer>) {
        self.held.set(self.held.get() - reply.size());
        if self.broken.get() {
            return;
        }
        self.unsent.set(self.unsent.get() + reply.size());
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

    /// Waits until the client has taken enough of what it asked for to ask for more.
    pub async fn room(&self) {
        self.moved
            .wait_until(|| self.has_room() || self.broken.get())
            .await;
    }

    fn has_room(&self) -> bool {
        let limit = if self.heads.is_over() {
            UNSENT_FREE
        } else {
            UNSENT_LIMIT
        };
        self.unsent.get() + self.held.get() < limit
    }

    /// Tells whether others wait for memory that this connection holds until its client takes its
    /// replies: then it must take them soon.
    pub fn press(&self, pressed: bool) {
        self.pressed.set(pressed);
    }

    /// Waits until nothing is being sent.
    pub async fn settled(&self) {
        self.moved.wait_until(|| !self.writing.get()).await;
    }

    /// Waits until nothing can be sent any more.
    pub async fn broken(&self) {
        self.moved.wait_until(|| self.broken.get()).await;
    }

    async fn drain(self: Rc<Self>) {
        if self.send_all().await.is_err() {
            self.broken.set(true);
            self.unsent.set(0);
            let unsent = self.queue.take();
            drop(unsent);
            self.stream.shutdown();
        }
        self.writing.set(false);
        if self.closing.get() {
            self.stream.shutdown();
        }
        self.moved.raise();
    }

    async fn send_all(&self) -> io::Result<()> {
        // The replies being sent and how much of the first has gone.
        let mut sending: VecDeque<Reply<I::Buffer>> = VecDeque::new();
        let mut position = Position::default();
        let mut pace = Measured::from(self.io.now(), self.unsent.get());
        loop {
            sending.append(&mut self.queue.borrow_mut());
            if sending.is_empty() {
                return Ok(());
            }
            let sent = self.send_some(&sending, position, &mut pace).await?;
            pace.sent += sent;
            self.sent_bytes.set(self.sent_bytes.get() + sent as u64);
            self.unsent.set(self.unsent.get().saturating_sub(sent));
            position.advance(&mut sending, sent);
            self.moved.raise();
        }
    }

    async fn send_some(
        &self,
        replies: &VecDeque<Reply<I::Buffer>>,
        position: Position,
        pace: &mut Measured,
    ) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let count = position.fill(replies, &mut slices);
        loop {
            let send = pin!(self.stream.send(&slices[..count]));
            let look = pin!(self.io.sleep(LOOK));
            if let Either::Left((sent, _)) = select(send, look).await {
                pace.look(self.io.now(), self.unsent.get(), SLOWEST)?;
                return sent;
            }
            let slowest = if self.is_waited_for() {
                SLOWEST_WHEN_WANTED
            } else {
                SLOWEST
            };
            pace.look(self.io.now(), self.unsent.get(), slowest)?;
        }
    }

    /// Whether others wait for memory of which this connection holds its share or more: only such a
    /// one is judged by the stricter pace.
    fn is_waited_for(&self) -> bool {
        let unsent = self.unsent.get();
        let share = (UNSENT_LIMIT / 4).min(self.memory.mean() / 2);
        (self.memory.is_wanted() && unsent >= share)
            || (self.heads.is_over() && unsent >= UNSENT_FREE)
            || self.pressed.get()
    }
}

/// How a client has taken its replies since some time.
struct Measured {
    since: Monotonic,
    /// Bytes that waited then.
    waited: usize,
    sent: usize,
}

impl Measured {
    fn from(since: Monotonic, waited: usize) -> Self {
        Self {
            since,
            waited,
            sent: 0,
        }
    }

    /// Judges, when a window has passed, and begins another.
    fn look(&mut self, now: Monotonic, waiting: usize, slowest: Pace) -> io::Result<()> {
        let passed = now.since(self.since);
        if passed < slowest.window {
            return Ok(());
        }
        let seconds = usize::try_from(passed.as_secs()).unwrap_or(usize::MAX);
        let least = seconds.saturating_mul(slowest.bytes_per_second);
        if self.sent < least.min(self.waited) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        *self = Self::from(now, waiting);
        Ok(())
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
