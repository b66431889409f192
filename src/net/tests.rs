//! Connections in the simulation, before a service that the test plays.

use std::{
    cell::{Cell, RefCell},
    io::IoSlice,
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use millstream_protocol::{
    ErrorCode, FRAME_HEADER_SIZE, FrameFlags, FrameHeader, ShardId,
    messages::{
        ErrorReply, HandshakeRequest, HandshakeResponse, MetadataRequest, Request as Wired,
        decode_body, encode_body,
    },
};

use super::*;
use crate::{
    io::{
        Clock as _, Listener as _, Net as _, Signal, Stream as _, TaskClass, Tasks as _,
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

    fn serve(self: &Rc<Self>, request: Request, _records: &mut [u8], reply_to: ReplyTo<SimIo>) {
        self.asked.borrow_mut().push((request, reply_to));
        self.served.raise();
    }

    async fn room(&self) {}

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

    fn closed(&self, _peer: Option<SocketAddr>, _reason: &ReceiveError) {}

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
    let body = encode_body(request);
    let header = FrameHeader {
        api: R::API as u16,
        body_size: u32::try_from(body.len()).expect("a small body"),
        ..FrameHeader::default()
    };
    [header.encode().as_slice(), &body].concat()
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

fn greeting(wanted_shard: u32) -> Vec<u8> {
    frame(&HandshakeRequest {
        wanted_shard,
        auth_data: vec![7; 50_000],
        ..HandshakeRequest::default()
    })
}

/// What lies behind a greeting would need memory on its way to another shard and there, without
/// limit: it stays in the socket.
#[test]
fn a_connection_moves_with_nothing_but_its_greeting() {
    Sim::new(1).run(|io| async move {
        let stub = Stub::new();
        let stream = connected(&io, &stub).await;
        let behind: Vec<u8> = (0..100_000_u32).map(|at| at.to_le_bytes()[0]).collect();
        send(&stream, &[greeting(1), behind.clone()].concat()).await;
        stub.served
            .wait_until(|| !stub.moved.borrow().is_empty())
            .await;
        let adopted = stub.moved.borrow_mut().pop().expect("it moved");
        assert_eq!(adopted.request.auth_data.len(), 0);
        let there = io.attach(adopted.connection).expect("it goes on");
        assert_eq!(receive_exactly(&there, behind.len()).await, behind);
        assert_eq!(stub.buffers.used(), 0);
    });
}

/// Requests behind a greeting are served where the connection goes on.
#[test]
fn what_lies_behind_a_greeting_is_served_after_it() {
    Sim::new(1).run(|io| async move {
        let stub = Stub::new();
        let stream = connected(&io, &stub).await;
        let asked = frame(&MetadataRequest::default());
        send(&stream, &[greeting(1), asked.repeat(3)].concat()).await;
        stub.served
            .wait_until(|| !stub.moved.borrow().is_empty())
            .await;
        let adopted = stub.moved.borrow_mut().pop().expect("it moved");
        let (own, there) = (io.clone(), Rc::clone(&stub));
        io.spawn(TaskClass::Foreground, async move {
            let served = serve_adopted(own, there, adopted).await;
            served.expect("it can be used");
        });
        stub.served
            .wait_until(|| stub.asked.borrow().len() == 3)
            .await;
        assert_eq!(receive(&stream).await.0.api, HandshakeRequest::API as u16);
        for (_, reply_to) in stub.asked.take() {
            reply_to.refuse(ErrorCode::NotLeader, "as the test wants it");
        }
        for _ in 0..3 {
            let (header, body) = receive(&stream).await;
            assert!(header.flags.contains(FrameFlags::ERROR));
            let error: ErrorReply = decode_body(&body).expect("an error reply");
            assert_eq!(error.error, ErrorCode::NotLeader);
        }
        drop(stream);
        stub.served.wait_until(|| stub.open.get() == 0).await;
        io.sleep(Duration::from_secs(1)).await;
        assert_eq!(stub.buffers.used(), 0);
    });
}
