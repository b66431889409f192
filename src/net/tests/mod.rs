//! Connections in the simulation, before a service that the test plays.

use std::{
    cell::{Cell, RefCell},
    io::IoSlice,
    net::SocketAddr,
    pin::pin,
    rc::Rc,
    time::Duration,
};

use futures_util::future::select;
use millstream_protocol::{
    ErrorCode, FRAME_HEADER_SIZE, FrameFlags, FrameHeader, PartitionIndex, ShardId, TopicPartition,
    messages::{
        DescribeClusterRequest, DescribePartitionsRequest, ErrorReply, HandshakeRequest,
        HandshakeResponse, MetadataRequest, ProducePartition, ProduceRequest, Request as Wired,
        decode_body, encode_body,
    },
};

mod bounds;
mod frames;
mod greetings;

use super::*;
use crate::{
    io::{
        Budget, Clock as _, Listener as _, Net as _, Permit, Random, Signal, Stream as _,
        TaskClass, Tasks as _,
        sim::{Sim, SimDetached, SimIo, SimStream},
    },
    session::Request,
};

/// Memory of the stub's connections.
const MEMORY: usize = 4 << 20;

/// A service that does what a test asks.
struct Stub {
    buffers: Rc<Buffers>,
    replies: Rc<Budget>,
    stopping: Signal,
    /// Where connections that want a shard go.
    moved: RefCell<Vec<Adopted<SimDetached>>>,
    /// Requests that were served and not yet answered, oldest first.
    asked: RefCell<Vec<(Request, ReplyTo<SimIo>)>>,
    served: Signal,
    /// Requests for metadata are refused at once, with this many bytes.
    refusal_size: usize,
    refused: Cell<usize>,
    /// No more may be appended for now; raised when that changes.
    full: Cell<bool>,
    changed: Signal,
    /// A large request was served.
    large: Cell<bool>,
    /// Why connections ended.
    reasons: RefCell<Vec<String>>,
    open: Cell<isize>,
}

impl Stub {
    fn new() -> Rc<Self> {
        Rc::new(Self {
            buffers: Buffers::new(MEMORY),
            replies: Budget::new(MEMORY),
            stopping: Signal::default(),
            moved: RefCell::default(),
            asked: RefCell::default(),
            served: Signal::default(),
            refusal_size: 60_000,
            refused: Cell::new(0),
            full: Cell::new(false),
            changed: Signal::default(),
            large: Cell::new(false),
            reasons: RefCell::default(),
            open: Cell::new(0),
        })
    }
}

impl Service<SimIo> for Stub {
    fn welcome(&self, request: &HandshakeRequest) -> Welcome {
        if request.wanted_shard == 1 {
            Welcome::Move(ShardId(1))
        } else {
            Welcome::Stay(self.welcome_here(request))
        }
    }

    fn welcome_here(&self, _request: &HandshakeRequest) -> HandshakeResponse {
        HandshakeResponse::default()
    }

    fn hand_over(
        &self,
        _shard: ShardId,
        adopted: Box<Adopted<SimDetached>>,
    ) -> Result<(), Box<Adopted<SimDetached>>> {
        self.moved.borrow_mut().push(*adopted);
        self.served.raise();
        Ok(())
    }

    fn serve(self: &Rc<Self>, request: Request, records: &mut [u8], reply_to: ReplyTo<SimIo>) {
        if let Request::Produce(produce) = &request
            && let [entry] = &produce.partitions[..]
        {
            let byte = entry.partition.0.to_le_bytes()[0];
            assert_eq!(records.len(), entry.records_size as usize);
            assert!(records.iter().all(|other| *other == byte), "not as sent");
        }
        if let Request::Metadata(_) = request {
            self.refused.set(self.refused.get() + 1);
            reply_to.refuse(ErrorCode::NotLeader, "x".repeat(self.refusal_size));
        } else {
            self.asked.borrow_mut().push((request, reply_to));
        }
        self.served.raise();
    }

    async fn room(&self) {
        self.changed.wait_until(|| !self.full.get()).await;
    }

    async fn admit(&self, _request: &Request, _records_size: usize) -> Option<Permit> {
        None
    }

    fn buffers(&self) -> &Rc<Buffers> {
        &self.buffers
    }

    fn replies(&self) -> &Rc<Budget> {
        &self.replies
    }

    fn sent_bytes(&self) -> Rc<Cell<u64>> {
        Rc::default()
    }

    fn received(&self, _bytes: usize) {}

    fn closed(&self, _peer: Option<SocketAddr>, reason: &ReceiveError) {
        self.reasons.borrow_mut().push(reason.to_string());
    }

    fn may_accept(&self, _peer: SocketAddr) -> bool {
        true
    }

    fn accept_failed(&self, error: &std::io::Error) {
        panic!("accepts do not fail here: {error}");
    }

    fn connections_changed(&self, by: isize) {
        self.open.set(self.open.get() + by);
        self.served.raise();
    }

    fn stopping(&self) -> &Signal {
        &self.stopping
    }

    fn is_stopping(&self) -> bool {
        false
    }
}

/// Listens, and connects to itself.
async fn connected(io: &SimIo, stub: &Rc<Stub>) -> SimStream {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = io.listen(any).await.expect("a free port");
    let address = listener.local_address().expect("bound");
    let accept = accept_loop(io.clone(), Rc::clone(stub), listener);
    io.spawn(TaskClass::Foreground, accept);
    io.connect(address).await.expect("it listens")
}

fn frame<R: Wired>(request: &R) -> Vec<u8> {
    frame_with(request, &[])
}

fn frame_with<R: Wired>(request: &R, records: &[u8]) -> Vec<u8> {
    let body = encode_body(request);
    let header = FrameHeader {
        api: R::API as u16,
        body_size: u32::try_from(body.len()).expect("a small body"),
        records_size: u32::try_from(records.len()).expect("small records"),
        ..FrameHeader::default()
    };
    [header.encode().as_slice(), &body, records].concat()
}

async fn send(stream: &SimStream, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let sent = stream.send(&[IoSlice::new(bytes)]).await.expect("open");
        bytes = &bytes[sent..];
    }
}

async fn receive_exactly(stream: &SimStream, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    let mut filled = 0;
    while filled < size {
        let received = stream.receive(&mut bytes[filled..]).await.expect("open");
        assert!(received > 0, "it ended");
        filled += received;
    }
    bytes
}

/// The next reply: its header and body.
async fn receive(stream: &SimStream) -> (FrameHeader, Vec<u8>) {
    let bytes = receive_exactly(stream, FRAME_HEADER_SIZE).await;
    let header = bytes.first_chunk().expect("a whole header");
    let header = FrameHeader::decode(header, u32::MAX).expect("a sound header");
    let body = receive_exactly(stream, header.body_size as usize).await;
    (header, body)
}

async fn receive_all(stream: &SimStream, count: usize) {
    for _ in 0..count {
        receive(stream).await;
    }
}

/// A produce that can be told from others by its partition.
fn produce(number: u32, size: u32) -> Vec<u8> {
    let request = ProduceRequest {
        partitions: vec![ProducePartition {
            partition: PartitionIndex(number),
            records_size: size,
            ..ProducePartition::default()
        }],
        ..ProduceRequest::default()
    };
    frame_with(&request, &vec![number.to_le_bytes()[0]; size as usize])
}
