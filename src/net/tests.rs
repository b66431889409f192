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
    /// Requests for metadata are refused at once, with this many bytes.
    refusal_size: usize,
    refused: Cell<usize>,
    /// No more may be appended for now; raised when that changes.
    full: Cell<bool>,
    changed: Signal,
    /// A large request was served.
    large: Cell<bool>,
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
        let asked = frame(&DescribeClusterRequest {});
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

/// Replies that wait for an earlier one take memory as those do that wait to be sent.
#[test]
fn replies_held_for_their_order_are_bounded() {
    const COUNT: usize = 100;
    Sim::new(1).run(|io| async move {
        let stub = Stub::new();
        let stream = connected(&io, &stub).await;
        let hello = HandshakeRequest {
            ordered_replies: true,
            ..HandshakeRequest::default()
        };
        send(&stream, &frame(&hello)).await;
        receive(&stream).await;
        send(&stream, &frame(&DescribeClusterRequest {})).await;
        send(&stream, &frame(&MetadataRequest::default()).repeat(COUNT)).await;
        io.sleep(Duration::from_secs(5)).await;
        let refused = stub.refused.get();
        assert!(refused < 30, "{refused} replies of 60 KB are held");
        let (_, first) = stub.asked.borrow_mut().pop().expect("it was asked first");
        first.refuse(ErrorCode::NotLeader, "the first");
        assert!(receive(&stream).await.1.len() < 1_000);
        for _ in 0..COUNT {
            assert!(receive(&stream).await.1.len() > 60_000);
        }
        assert_eq!(stub.buffers.heads.used(), 0);
    });
}

/// A little for each, and a limit for all together.
#[test]
fn replies_that_nobody_reads_are_bounded() {
    const CONNECTIONS: usize = 30;
    Sim::new(1).run(|io| async move {
        let stub = Stub::new();
        let mut streams = Vec::new();
        for _ in 0..CONNECTIONS {
            let stream = connected(&io, &stub).await;
            let asked = frame(&MetadataRequest::default()).repeat(100);
            send(
                &stream,
                &[frame(&HandshakeRequest::default()), asked].concat(),
            )
            .await;
            streams.push(stream);
        }
        io.sleep(Duration::from_millis(500)).await;
        let used = stub.buffers.heads.used();
        let most = stub.buffers.heads.total() + CONNECTIONS * (60_000 + (16 << 10));
        assert!(used <= most, "{used} bytes of replies, not {most}");
        // Nobody reads: those who hold more than a little are cut off, as all of them hold too much.
        io.sleep(Duration::from_secs(10)).await;
        assert!(!stub.buffers.heads.is_over());
    });
}

/// Greets and asks so often that the broker stops reading in the middle, with a medium buffer full.
async fn ask_too_much(io: &SimIo, stub: &Rc<Stub>, asked: &[u8]) -> Rc<SimStream> {
    let stream = Rc::new(connected(io, stub).await);
    let bytes = [frame(&HandshakeRequest::default()), asked.to_vec()].concat();
    let sending = Rc::clone(&stream);
    io.spawn(TaskClass::Foreground, async move {
        // It may be cut off meanwhile.
        let mut bytes = &bytes[..];
        while let Ok(sent) = sending.send(&[IoSlice::new(bytes)]).await
            && sent < bytes.len()
        {
            bytes = &bytes[sent..];
        }
    });
    io.sleep(Duration::from_millis(100)).await;
    stream
}

async fn receive_all(stream: &SimStream, count: usize) {
    for _ in 0..count {
        receive(stream).await;
    }
}

/// Answers after an hour, or when it should be answered at once.
async fn wait_long(io: SimIo, reply_to: ReplyTo<SimIo>) {
    {
        let gone = pin!(reply_to.gone());
        select(gone, pin!(io.sleep(Duration::from_secs(3600)))).await;
    }
    reply_to.refuse(ErrorCode::NotLeader, "no more waiting");
}

/// More requests than one connection may have unanswered.
const MANY: usize = 12_000;
/// More connections than there are medium buffers.
const HOLDERS: usize = 8;

/// Clients that wait for records with more requests behind: what they hold is given back when others
/// wait for it, however long they wanted to wait.
#[test]
fn requests_that_wait_give_way_to_who_needs_their_memory() {
    Sim::new(1).run(|io| async move {
        let stub = Stub::new();
        let asked = frame(&ProduceRequest::default()).repeat(MANY);
        for _ in 0..HOLDERS {
            let stream = ask_too_much(&io, &stub, &asked).await;
            io.spawn(TaskClass::Foreground, async move {
                receive_all(&stream, usize::MAX).await;
            });
        }
        let (own, waiting) = (io.clone(), Rc::clone(&stub));
        io.spawn(TaskClass::Foreground, async move {
            loop {
                let asked = || !waiting.asked.borrow().is_empty();
                waiting.served.wait_until(asked).await;
                for (request, reply_to) in waiting.asked.take() {
                    if matches!(request, Request::DescribePartitions(_)) {
                        waiting.large.set(true);
                    }
                    own.spawn(TaskClass::Foreground, wait_long(own.clone(), reply_to));
                }
            }
        });
        let large = DescribePartitionsRequest {
            partitions: vec![TopicPartition::default(); 2_000],
        };
        let begun = io.now();
        let _stream = ask_too_much(&io, &stub, &frame(&large)).await;
        while !stub.large.get() {
            io.sleep(Duration::from_millis(100)).await;
        }
        let passed = io.now().since(begun);
        assert!(passed < Duration::from_secs(30), "{passed:?}");
    });
}

/// Clients that do not read their replies hold what was received behind their requests.
#[test]
fn clients_that_do_not_read_give_way_to_who_needs_their_memory() {
    Sim::new(1).run(|io| async move {
        let stub = Stub::new();
        let asked = frame(&MetadataRequest::default()).repeat(MANY);
        for _ in 0..HOLDERS {
            let stream = ask_too_much(&io, &stub, &asked).await;
            // Never read, never closed.
            std::mem::forget(stream);
        }
        let begun = io.now();
        let stream = ask_too_much(&io, &stub, &asked).await;
        receive_all(&stream, 1000).await;
        let passed = io.now().since(begun);
        assert!(passed < Duration::from_secs(20), "{passed:?}");
    });
}

/// Large requests that wait for their answer take memory from all connections together.
#[test]
fn large_requests_without_answer_are_bounded() {
    Sim::new(1).run(|io| async move {
        let stub = Stub::new();
        let request = DescribePartitionsRequest {
            partitions: vec![TopicPartition::default(); 5_000],
        };
        let mut streams = Vec::new();
        for _ in 0..20 {
            let stream = connected(&io, &stub).await;
            let bytes = [frame(&HandshakeRequest::default()), frame(&request)].concat();
            send(&stream, &bytes).await;
            streams.push(stream);
        }
        io.sleep(Duration::from_secs(1)).await;
        let size = frame(&request).len();
        let served = stub.asked.borrow().len();
        let most = stub.buffers.asked.total() / size;
        assert!((1..=most).contains(&served), "{served} of {size} bytes");
        for stream in &streams[served..] {
            receive(stream).await;
            let error: ErrorReply = decode_body(&receive(stream).await.1).expect("an error");
            assert_eq!(error.error, ErrorCode::Overloaded);
        }
        stub.asked.take();
        assert_eq!(stub.buffers.asked.used(), 0);
    });
}

const PRODUCE_SIZE: u32 = 50_000;

/// A produce that can be told from others by its partition.
fn produce(number: u32) -> Vec<u8> {
    let request = ProduceRequest {
        partitions: vec![ProducePartition {
            partition: PartitionIndex(number),
            records_size: PRODUCE_SIZE,
            ..ProducePartition::default()
        }],
        ..ProduceRequest::default()
    };
    frame_with(&request, &vec![7; PRODUCE_SIZE as usize])
}

/// While the disk is full only produces wait, in their order, and no more of them than fit.
#[test]
fn what_follows_a_produce_does_not_wait_with_it() {
    Sim::new(1).run(|io| async move {
        let stub = Stub::new();
        stub.full.set(true);
        let stream = Rc::new(connected(&io, &stub).await);
        let metadata = frame(&MetadataRequest::default());
        send(&stream, &frame(&HandshakeRequest::default())).await;
        receive(&stream).await;
        for number in 0..3 {
            send(&stream, &produce(number)).await;
        }
        send(&stream, &metadata).await;
        assert!(receive(&stream).await.1.len() > 60_000);
        assert!(stub.asked.borrow().is_empty());
        // More than may be set aside: the rest stays where it is, and so does what follows.
        let sending = Rc::clone(&stream);
        io.spawn(TaskClass::Foreground, async move {
            for number in 3..40 {
                send(&sending, &produce(number)).await;
            }
            send(&sending, &frame(&MetadataRequest::default())).await;
        });
        io.sleep(Duration::from_secs(10)).await;
        let aside = stub.buffers.aside.used();
        assert!((1..=stub.buffers.aside.total()).contains(&aside), "{aside}");
        assert_eq!(stub.refused.get(), 1);
        stub.full.set(false);
        stub.changed.raise();
        assert!(receive(&stream).await.1.len() > 60_000);
        let served: Vec<u32> = stub
            .asked
            .take()
            .into_iter()
            .map(|(request, _)| match request {
                Request::Produce(request) => request.partitions[0].partition.0,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(served, (0..40).collect::<Vec<u32>>());
        assert_eq!(stub.buffers.aside.used(), 0);
    });
}

/// Ten thousand of them wait at once, and most of them for ever.
#[test]
fn a_connection_that_waits_is_small() {
    Sim::new(1).run(|io| async move {
        let stub = Stub::new();
        let stream = connected(&io, &stub).await;
        let size = size_of_val(&serve(io, stub, stream));
        assert!(size <= 2_560, "{size} bytes");
    });
}

/// Whoever has done and does not take what is owed still has a socket here: it counts, or descriptors
/// that are left for the logs would go to such clients.
#[test]
fn a_connection_counts_until_everything_is_sent() {
    const COUNT: usize = 4;
    Sim::new(1).run(|io| async move {
        let stub = Stub::new();
        let stream = connected(&io, &stub).await;
        let mut bad = frame(&MetadataRequest::default());
        bad[..4].fill(0);
        let asked = frame(&MetadataRequest::default()).repeat(COUNT);
        send(
            &stream,
            &[frame(&HandshakeRequest::default()), asked, bad].concat(),
        )
        .await;
        io.sleep(Duration::from_millis(200)).await;
        assert!(stub.buffers.heads.used() > 100_000);
        assert_eq!(stub.open.get(), 1);
        receive_all(&stream, 1 + COUNT).await;
        assert_eq!(stream.receive(&mut [0]).await.expect("an end"), 0);
        stub.served.wait_until(|| stub.open.get() == 0).await;
    });
}
