//! The receiving side of a connection: bytes in, whole frames out.
//!
//! One buffer takes as much as the socket has, so small pipelined frames share a system call, and a
//! large frame lands in one piece. The buffer exists only while bytes are in it or under way: an
//! idle connection holds none. Memory is taken from the shard's budget before it is filled.

use std::{io, pin::pin, rc::Rc, time::Duration};

use futures_util::future::{Either, select};
use millstream_protocol::{FRAME_HEADER_SIZE, FrameHeader, frame::FrameError, limits};

use crate::{
    io::{Io, Monotonic, Stream},
    net::buffers::{Buffers, MEDIUM, ReceiveBuffer, SMALL},
};

/// How a frame must come once it has begun.
struct Pace {
    /// Not looked at before this ...
    grace: Duration,
    /// ... and then so much must have come for each second beyond.
    bytes_per_second: u64,
}

/// A frame that comes more slowly is cut off.
const SLOWEST: Pace = Pace {
    grace: Duration::from_secs(10),
    bytes_per_second: 256 << 10,
};

/// The same while others wait for the memory that it holds.
const SLOWEST_WHEN_WANTED: Pace = Pace {
    grace: Duration::from_secs(1),
    bytes_per_second: 4 << 20,
};

/// Between two looks whether somebody waits for the memory.
const LOOK: Duration = Duration::from_millis(500);

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The client closed it, between frames.
    #[error("closed by the client")]
    Closed,
    /// The session is over: an error was answered that ends it, or nothing can be sent any more.
    #[error("the session ended")]
    Ended,
    /// The broker is on its way down.
    #[error("the broker is stopping")]
    Stopping,
    /// The client closed it within a frame.
    #[error("closed by the client in the middle of a frame")]
    CutShort,
    /// A frame took too long.
    #[error("a frame of {0} bytes came too slowly")]
    TooSlow(usize),
    /// Others need the memory that a large frame holds while it waits for more.
    #[error("no memory for a frame of {0} bytes")]
    NoMemory(usize),
    /// The deadline of the session passed.
    #[error("no handshake in time")]
    Deadline,
    /// The frame boundaries are lost.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The body is larger than any request's.
    #[error("a body of {0} bytes is larger than the limit of {limit}", limit = limits::MAX_BODY_SIZE)]
    BodyTooLarge(u32),
    /// The network failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Receives frames from one stream.
pub struct Receiver<I: Io> {
    io: I,
    stream: Rc<I::Stream>,
    buffers: Rc<Buffers>,
    buffer: Option<ReceiveBuffer>,
    start: usize,
    end: usize,
    /// Bytes behind the frame that is asked for may be received too.
    reads_ahead: bool,
}

/// What is asked of a frame.
pub struct Terms {
    /// Larger ones end the connection.
    pub max_frame_size: u32,
    /// When it must have come.
    pub deadline: Option<Monotonic>,
    /// Bytes behind it may be received with it. Otherwise they stay in the socket, for the connection
    /// may go to another shard: what was received here would need memory on its way and there.
    pub reads_ahead: bool,
}

/// One frame, in the receiver's buffer until the next is asked for.
pub struct Frame<'a> {
    /// Its header.
    pub header: FrameHeader,
    /// Its body.
    pub body: &'a [u8],
    /// Its record batches, which may be changed in place.
    pub records: &'a mut [u8],
}

impl<I: Io> Receiver<I> {
    /// Receives from `stream`.
    pub fn new(io: I, stream: Rc<I::Stream>, buffers: Rc<Buffers>) -> Self {
        Self {
            io,
            stream,
            buffers,
            buffer: None,
            start: 0,
            end: 0,
            reads_ahead: false,
        }
    }

    /// The bytes that were received and not yet asked for.
    fn leftover(&self) -> &[u8] {
        self.buffer
            .as_ref()
            .map_or(&[], |buffer| &buffer.bytes[self.start..self.end])
    }

    /// Gives the memory back if nothing is in it.
    pub fn rest(&mut self) {
        if self.start == self.end {
            self.release();
        }
    }

    /// Somebody waits for the memory that this holds.
    pub fn is_wanted(&self) -> bool {
        self.buffer.as_ref().is_some_and(ReceiveBuffer::is_wanted)
    }

    /// Gives the memory back: nothing more is received.
    pub fn release(&mut self) {
        self.buffer = None;
        (self.start, self.end) = (0, 0);
    }

    /// The next frame. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The connection must end.
    pub async fn frame(&mut self, terms: &Terms) -> Result<Frame<'_>, ReceiveError> {
        self.reads_ahead = terms.reads_ahead;
        if self.start == self.end {
            self.wait_for_first_byte(terms.deadline).await?;
        }
        let mut patience = Patience {
            begun: self.io.now(),
            deadline: terms.deadline,
        };
        let mut header = self.peek_header(terms.max_frame_size)?;
        while header.is_none() {
            self.fill(FRAME_HEADER_SIZE, &mut patience).await?;
            header = self.peek_header(terms.max_frame_size)?;
        }
        let header = header.unwrap_or_default();
        let size = FRAME_HEADER_SIZE + header.rest_size();
        while self.end - self.start < size {
            self.fill(size, &mut patience).await?;
        }
        let at = self.start;
        self.start += size;
        let bytes: &mut [u8] = match &mut self.buffer {
            Some(buffer) => &mut buffer.bytes[at + FRAME_HEADER_SIZE..at + size],
            None => &mut [],
        };
        let (body, records) = bytes.split_at_mut(header.body_size as usize);
        Ok(Frame {
            header,
            body,
            records,
        })
    }

    fn peek_header(&self, max_frame_size: u32) -> Result<Option<FrameHeader>, ReceiveError> {
        let Some(bytes) = self.leftover().first_chunk::<FRAME_HEADER_SIZE>() else {
            return Ok(None);
        };
        let header = FrameHeader::decode(bytes, max_frame_size)?;
        if header.body_size > limits::MAX_BODY_SIZE {
            return Err(ReceiveError::BodyTooLarge(header.body_size));
        }
        Ok(Some(header))
    }

    /// An idle connection waits here, without a buffer.
    async fn wait_for_first_byte(
        &mut self,
        deadline: Option<Monotonic>,
    ) -> Result<(), ReceiveError> {
        (self.start, self.end) = (0, 0);
        if self.is_wanted() {
            self.buffer = None;
        }
        // While frames keep coming the buffer stays; otherwise it goes before the wait. A socket that
        // is ready may turn out to have nothing: then the wait begins again.
        while !self.receive_now()? {
            self.buffer = None;
            match deadline {
                None => self.stream.readable().await?,
                Some(deadline) => {
                    let readable = pin!(self.stream.readable());
                    let timeout = pin!(self.io.sleep_until(deadline));
                    match select(readable, timeout).await {
                        Either::Left((readable, _)) => readable?,
                        Either::Right(((), _)) => return Err(ReceiveError::Deadline),
                    }
                }
            }
            self.buffer = Some(self.buffers.take(SMALL).await);
        }
        Ok(())
    }

    /// Receives the first bytes of a frame if some are there; `false` if none are.
    fn receive_now(&mut self) -> Result<bool, ReceiveError> {
        let Some(buffer) = &mut self.buffer else {
            return Ok(false);
        };
        let most = if self.reads_ahead && buffer.may_be_shared() {
            buffer.bytes.len()
        } else {
            FRAME_HEADER_SIZE
        };
        match self.stream.try_receive(&mut buffer.bytes[..most])? {
            Some(0) => Err(ReceiveError::Closed),
            Some(received) => {
                self.end = received;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Receives something, with room for a frame of `size` bytes.
    async fn fill(&mut self, size: usize, patience: &mut Patience) -> Result<(), ReceiveError> {
        let asked = self.io.now();
        self.make_room(size).await?;
        // The wait for memory is ours, not the client's.
        patience.begun = patience.begun + self.io.now().since(asked);
        let io = self.io.clone();
        loop {
            {
                let receive = pin!(self.receive_into_buffer(size));
                let look = pin!(io.sleep(LOOK));
                match select(receive, look).await {
                    Either::Left((Ok(0), _)) => return Err(ReceiveError::CutShort),
                    Either::Left((received, _)) => return Ok(received.map(|_| ())?),
                    Either::Right(((), _)) => {}
                }
            }
            let wanted = self.is_wanted();
            if patience.is_over(io.now(), self.end - self.start, wanted) {
                return Err(ReceiveError::TooSlow(size));
            }
        }
    }

    /// Receives more of a frame of `size` bytes.
    async fn receive_into_buffer(&mut self, size: usize) -> io::Result<usize> {
        let Some(buffer) = &mut self.buffer else {
            return Ok(0);
        };
        let most = if self.reads_ahead && buffer.may_be_shared() {
            buffer.bytes.len()
        } else {
            buffer.bytes.len().min(self.start + size)
        };
        let target = &mut buffer.bytes[self.end..most];
        let received = self.stream.receive(target).await?;
        self.end += received;
        Ok(received)
    }

    /// Makes the buffer hold a frame of `size` bytes from `start`, or as much of it as it is given
    /// now, moving what is there to the front.
    async fn make_room(&mut self, size: usize) -> Result<(), ReceiveError> {
        let mut capacity = self.capacity();
        if capacity > MEDIUM && (size <= MEDIUM || size > capacity) {
            // A large one is not kept for small frames, nor while a larger one is waited for.
            self.start_again().await;
            capacity = self.capacity();
        }
        let have = self.end - self.start;
        if size > MEDIUM && capacity < size {
            // On the heap, so that a connection that waits for its next frame is small.
            return Box::pin(self.make_large_room(size, capacity)).await;
        }
        // A full small buffer says that more is coming.
        if capacity < size || (capacity == SMALL && self.end == SMALL) {
            let wanted = if capacity == 0 {
                size
            } else {
                size.max(MEDIUM)
            };
            let buffer = Box::pin(self.take_patiently(wanted.max(have))).await?;
            self.move_into(buffer);
        } else if capacity - self.start < size || self.end == capacity {
            self.move_to_front();
        }
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.buffer.as_ref().map_or(0, |buffer| buffer.bytes.len())
    }

    /// A small buffer instead of a large one, which holds no more than a part of a header.
    async fn start_again(&mut self) {
        let mut header = [0; FRAME_HEADER_SIZE];
        let kept = self.leftover();
        let size = kept.len();
        header[..size].copy_from_slice(kept);
        self.buffer = None;
        let mut buffer = self.buffers.take(SMALL).await;
        buffer.bytes[..size].copy_from_slice(&header[..size]);
        self.buffer = Some(buffer);
        (self.start, self.end) = (0, size);
    }

    /// A large frame gets its memory when a medium buffer is full of it, not when it is announced.
    async fn make_large_room(&mut self, size: usize, capacity: usize) -> Result<(), ReceiveError> {
        if let Some(buffer) = self.buffers.claim(size) {
            self.move_into(buffer);
            return Ok(());
        }
        if capacity < MEDIUM {
            let buffer = self.take_patiently(MEDIUM).await?;
            self.move_into(buffer);
        } else {
            self.move_to_front();
        }
        if self.end < capacity.max(MEDIUM) {
            return Ok(());
        }
        let buffer = self.take_patiently(size).await?;
        self.move_into(buffer);
        Ok(())
    }

    /// A larger buffer, when there is memory for it. Meanwhile this one keeps what is in it: small ones
    /// wait for medium ones, those for large ones, and large ones for the network only. Who holds up
    /// others while it waits is cut off.
    async fn take_patiently(&self, size: usize) -> Result<ReceiveBuffer, ReceiveError> {
        let begun = self.io.now();
        let mut taking = pin!(self.buffers.take(size));
        loop {
            let look = pin!(self.io.sleep(LOOK));
            if let Either::Left((buffer, _)) = select(taking.as_mut(), look).await {
                return Ok(buffer);
            }
            if self.is_wanted() && self.io.now() >= begun + SLOWEST_WHEN_WANTED.grace {
                return Err(ReceiveError::NoMemory(size));
            }
        }
    }

    fn move_into(&mut self, mut buffer: ReceiveBuffer) {
        let kept = self.leftover();
        let size = kept.len();
        buffer.bytes[..size].copy_from_slice(kept);
        self.buffer = Some(buffer);
        (self.start, self.end) = (0, size);
    }

    fn move_to_front(&mut self) {
        if let Some(buffer) = &mut self.buffer {
            buffer.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
    }
}

/// How long a frame may take.
struct Patience {
    begun: Monotonic,
    deadline: Option<Monotonic>,
}

impl Patience {
    /// Whether a frame of which so much `has_come` has had its time.
    fn is_over(&self, now: Monotonic, has_come: usize, wanted: bool) -> bool {
        let pace = if wanted { SLOWEST_WHEN_WANTED } else { SLOWEST };
        let judged = now.since(self.begun).saturating_sub(pace.grace).as_millis();
        let least = judged * u128::from(pace.bytes_per_second) / 1000;
        let too_slow = judged > 0 && has_come as u128 <= least;
        let late = self.deadline.is_some_and(|deadline| now >= deadline);
        too_slow || late
    }
}
