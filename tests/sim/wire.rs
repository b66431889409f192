//! The native protocol over the simulated network: connections by shard, requests pipelined,
//! everything unanswered failed together.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    future::Future,
    io::IoSlice,
    pin::pin,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_channel::oneshot;
use futures_util::future::{Either, select};
use millstream::io::{
    Clock as _, Io as _, Net as _, Signal, Stream as _, TaskClass, Tasks as _,
    sim::{SimIo, SimStream},
};
use millstream_client::RequestError;
use millstream_protocol::{
    ErrorCode, FRAME_HEADER_SIZE, FrameFlags, FrameHeader, limits,
    messages::{
        Api, ErrorReply, HandshakeRequest, HandshakeResponse, Request, decode_body, encode_body,
    },
};

use crate::broker::address;

/// A request without an answer for so long has failed, and its connection with it.
const PATIENCE: Duration = Duration::from_secs(4);

type Reply = Result<(Bytes, Bytes), RequestError>;

/// The connections of one client.
pub struct Connections {
    io: SimIo,
    open: RefCell<BTreeMap<(u16, u32), Rc<Connection>>>,
}

struct Connection {
    io: SimIo,
    outgoing: RefCell<VecDeque<Vec<u8>>>,
    /// Frames that may be sent: the handshake alone until it is answered, unless it is eager.
    welcome: Cell<bool>,
    wake: Signal,
    pending: RefCell<BTreeMap<u64, oneshot::Sender<Reply>>>,
    next_id: Cell<u64>,
    dead: Cell<bool>,
    stream: RefCell<Option<Rc<SimStream>>>,
}

impl Connections {
    pub fn new(io: SimIo) -> Rc<Self> {
        Rc::new(Self {
            io,
            open: RefCell::default(),
        })
    }

    /// Queues a request at once, on a connection of its API's own; the future waits for the answer.
    pub fn request<R: Request>(
        &self,
        shard: u32,
        request: &R,
        records: &[Bytes],
    ) -> impl Future<Output = Result<(R::Response, Bytes), RequestError>> + use<R> {
        let connection = self.connection(R::API, shard);
        let answer = connection.queue(R::API, &encode_body(request), records);
        let io = self.io.clone();
        async move {
            let answered = match select(answer, pin!(io.sleep(PATIENCE))).await {
                Either::Left((answered, _)) => answered.unwrap_or_else(|_| Err(lost("dropped"))),
                Either::Right(((), _)) => {
                    connection.fail(&lost("another request took too long"));
                    let address: Arc<str> = address().to_string().into();
                    Err(RequestError::TimedOut {
                        address,
                        timeout: PATIENCE,
                    })
                }
            };
            let (body, records) = answered?;
            let body = decode_body(&body).expect("the broker speaks the protocol");
            Ok((body, records))
        }
    }

    fn connection(&self, api: Api, shard: u32) -> Rc<Connection> {
        let mut open = self.open.borrow_mut();
        match open.get(&(api as u16, shard)) {
            Some(connection) if !connection.dead.get() => Rc::clone(connection),
            _ => {
                let connection = Connection::open(self.io.clone(), shard);
                open.insert((api as u16, shard), Rc::clone(&connection));
                connection
            }
        }
    }

    /// Closes every connection from this side; what was sent may still be served.
    pub fn close(&self) {
        for connection in std::mem::take(&mut *self.open.borrow_mut()).into_values() {
            connection.fail(&lost("closed here"));
        }
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        self.close();
    }
}

impl Connection {
    fn open(io: SimIo, shard: u32) -> Rc<Self> {
        // Some clients send requests behind the handshake without waiting for its answer.
        let eager = io.random_u64().is_multiple_of(2);
        let connection = Rc::new(Self {
            io: io.clone(),
            outgoing: RefCell::default(),
            welcome: Cell::new(eager),
            wake: Signal::default(),
            pending: RefCell::default(),
            next_id: Cell::new(0),
            dead: Cell::new(false),
            stream: RefCell::default(),
        });
        let handshake = HandshakeRequest {
            client_name: "sim".to_owned(),
            wanted_shard: shard,
            ordered_replies: io.random_u64().is_multiple_of(8),
            ..HandshakeRequest::default()
        };
        let answer = connection.queue(Api::Handshake, &encode_body(&handshake), &[]);
        let greeted = Rc::clone(&connection);
        io.spawn(TaskClass::Foreground, async move {
            let Ok(Ok((body, _))) = answer.await else {
                return;
            };
            let welcome: HandshakeResponse = decode_body(&body).expect("a handshake's answer");
            assert_eq!(welcome.error, ErrorCode::None, "{}", welcome.message);
            // It may be of another shard: one that is stopping hands nobody over.
            assert!(welcome.shard.0 < welcome.shard_count);
            greeted.welcome.set(true);
            greeted.wake.raise();
        });
        io.spawn(TaskClass::Foreground, Rc::clone(&connection).run());
        connection
    }

    fn queue(&self, api: Api, body: &[u8], records: &[Bytes]) -> oneshot::Receiver<Reply> {
        let (send, answer) = oneshot::channel();
        if self.dead.get() {
            let _ = send.send(Err(lost("it is dead")));
            return answer;
        }
        let correlation_id = self.next_id.replace(self.next_id.get() + 1);
        let records_size = records.iter().map(Bytes::len).sum::<usize>();
        let header = FrameHeader {
            api: api as u16,
            version: 0,
            flags: FrameFlags::default(),
            body_size: u32::try_from(body.len()).expect("small"),
            records_size: u32::try_from(records_size).expect("small"),
            correlation_id,
        };
        let mut frame = [header.encode().as_slice(), body].concat();
        records
            .iter()
            .for_each(|records| frame.extend_from_slice(records));
        self.pending.borrow_mut().insert(correlation_id, send);
        self.outgoing.borrow_mut().push_back(frame);
        self.wake.raise();
        answer
    }

    fn fail(&self, error: &RequestError) {
        if self.dead.replace(true) {
            return;
        }
        if let Some(stream) = self.stream.take() {
            stream.shutdown();
        }
        self.wake.raise();
        for send in std::mem::take(&mut *self.pending.borrow_mut()).into_values() {
            let _ = send.send(Err(error.clone()));
        }
    }

    async fn run(self: Rc<Self>) {
        let stream = match self.io.connect(address()).await {
            Ok(stream) => Rc::new(stream),
            Err(error) => {
                let reason: Arc<str> = error.to_string().into();
                let address: Arc<str> = address().to_string().into();
                return self.fail(&RequestError::Connect { address, reason });
            }
        };
        if self.dead.get() {
            return;
        }
        self.stream.replace(Some(Rc::clone(&stream)));
        let (writer, written_to) = (Rc::clone(&self), Rc::clone(&stream));
        self.io.spawn(TaskClass::Foreground, async move {
            if let Err(error) = writer.write(&written_to).await {
                writer.fail(&lost(&error.to_string()));
            }
        });
        let ended = self.read(&stream).await;
        self.fail(&lost(
            &ended.map_or_else(|error| error.to_string(), |()| "closed".to_owned()),
        ));
    }

    async fn write(&self, stream: &SimStream) -> std::io::Result<()> {
        let mut first = true;
        loop {
            let ticket = self.wake.ticket();
            if self.dead.get() {
                return Ok(());
            }
            let may_send = first || self.welcome.get();
            let frame = may_send
                .then(|| self.outgoing.borrow_mut().pop_front())
                .flatten();
            let Some(frame) = frame else {
                self.wake.raised_since(ticket).await;
                continue;
            };
            first = false;
            let mut rest = frame.as_slice();
            while !rest.is_empty() {
                let sent = stream.send(&[IoSlice::new(rest)]).await?;
                rest = &rest[sent..];
            }
        }
    }

    async fn read(&self, stream: &SimStream) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        let mut piece = vec![0; 16 << 10];
        loop {
            while let Some((header, body, records)) = take_frame(&mut bytes) {
                self.answered(header, body, records);
            }
            match stream.receive(&mut piece).await? {
                0 => return Ok(()),
                count => bytes.extend_from_slice(&piece[..count]),
            }
        }
    }

    fn answered(&self, header: FrameHeader, body: Bytes, records: Bytes) {
        assert!(header.flags.contains(FrameFlags::RESPONSE));
        let waiting = self.pending.borrow_mut().remove(&header.correlation_id);
        let Some(waiting) = waiting else {
            // Only what this side has given up may be answered without being asked.
            assert!(self.dead.get(), "an answer to nothing: {header:?}");
            return;
        };
        let reply = if header.flags.contains(FrameFlags::ERROR) {
            let error: ErrorReply = decode_body(&body).expect("an error's body");
            let (code, message) = (error.error, error.message.into());
            Err(RequestError::Broker { code, message })
        } else {
            Ok((body, records))
        };
        let _ = waiting.send(reply);
    }
}

fn take_frame(bytes: &mut Vec<u8>) -> Option<(FrameHeader, Bytes, Bytes)> {
    let header = bytes.first_chunk::<FRAME_HEADER_SIZE>()?;
    let header = FrameHeader::decode(header, limits::MAX_FRAME_SIZE).expect("a sound frame");
    let size = FRAME_HEADER_SIZE + header.rest_size();
    if bytes.len() < size {
        return None;
    }
    let rest = bytes.split_off(size);
    let mut body = Bytes::from(std::mem::replace(bytes, rest)).split_off(FRAME_HEADER_SIZE);
    let records = body.split_off(header.body_size as usize);
    Some((header, body, records))
}

fn lost(reason: &str) -> RequestError {
    RequestError::ConnectionLost {
        address: address().to_string().into(),
        reason: reason.into(),
    }
}
