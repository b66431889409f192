//! A client without manners: blocking, byte by byte if need be, bound by no rule of the protocol.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

use millstream_protocol::{
    ErrorCode, FRAME_HEADER_SIZE, FrameFlags, FrameHeader, Wire,
    messages::{
        ANY_SHARD, ErrorReply, HandshakeRequest, HandshakeResponse, Request, decode_body,
        encode_body,
    },
};

/// Longer than any answer may take that is not asked to wait.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// A frame that came back.
#[derive(Debug)]
pub struct Frame {
    pub header: FrameHeader,
    pub body: Vec<u8>,
    pub records: Vec<u8>,
}

impl Frame {
    /// The error it carries, if it is an error reply.
    pub fn error(&self) -> Option<ErrorReply> {
        self.header
            .flags
            .contains(FrameFlags::ERROR)
            .then(|| decode_body(&self.body).expect("an error reply"))
    }
}

/// What became of a connection.
#[derive(Debug)]
pub enum Outcome {
    Answered(Box<Frame>),
    Closed,
    /// Neither an answer nor an end within [`PATIENCE`].
    Hung,
}

/// One connection.
pub struct Peer {
    pub stream: TcpStream,
    next_id: u64,
}

/// The bytes of a request.
pub fn frame_of(api: u16, correlation_id: u64, body: &[u8], records: &[u8]) -> Vec<u8> {
    let header = FrameHeader {
        api,
        correlation_id,
        body_size: u32::try_from(body.len()).expect("a small body"),
        records_size: u32::try_from(records.len()).expect("small records"),
        ..FrameHeader::default()
    };
    [&header.encode(), body, records].concat()
}

/// A handshake that wants nothing special.
pub fn plain_handshake() -> HandshakeRequest {
    HandshakeRequest {
        client_name: "hostile".to_owned(),
        wanted_shard: ANY_SHARD,
        ..HandshakeRequest::default()
    }
}

impl Peer {
    /// Connects and says nothing.
    pub fn silent(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the broker accepts");
        stream.set_nodelay(true).expect("a socket option");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a socket option");
        stream
            .set_write_timeout(Some(PATIENCE))
            .expect("a socket option");
        Self { stream, next_id: 1 }
    }

    /// Connects and greets.
    pub fn ready(address: SocketAddr) -> Self {
        Self::greeting(address, &plain_handshake()).0
    }

    /// Connects and greets in this way.
    pub fn greeting(
        address: SocketAddr,
        handshake: &HandshakeRequest,
    ) -> (Self, HandshakeResponse) {
        let mut peer = Self::silent(address);
        let welcome = peer.ask(handshake).expect("a welcome");
        (peer, welcome)
    }

    /// Sends bytes. The other end may have closed already: that is for [`Peer::receive`] to see.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Says that nothing more will come.
    pub fn finish(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Sends a request and waits for its answer.
    pub fn ask<R: Request>(&mut self, request: &R) -> Result<R::Response, ErrorReply> {
        self.ask_with(request, &[]).map(|(response, _)| response)
    }

    /// The same with record batches there and back.
    #[track_caller]
    pub fn ask_with<R: Request>(
        &mut self,
        request: &R,
        records: &[u8],
    ) -> Result<(R::Response, Vec<u8>), ErrorReply> {
        let id = self.post(request, records);
        let frame = match self.receive() {
            Outcome::Answered(frame) => frame,
            other => panic!("{:?}: {other:?}", R::API),
        };
        assert_eq!(frame.header.correlation_id, id, "{:?}", R::API);
        assert_eq!(frame.header.api, R::API as u16);
        match frame.error() {
            Some(error) => Err(error),
            None => Ok((decode(&frame.body), frame.records)),
        }
    }

    /// Sends a request and does not wait. The correlation id.
    pub fn post<R: Request>(&mut self, request: &R, records: &[u8]) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let frame = frame_of(R::API as u16, id, &encode_body(request), records);
        self.send(&frame);
        id
    }

    /// The next frame, or the end.
    pub fn receive(&mut self) -> Outcome {
        match self.try_receive() {
            Ok(frame) => Outcome::Answered(Box::new(frame)),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                ) =>
            {
                Outcome::Hung
            }
            Err(_) => Outcome::Closed,
        }
    }

    fn try_receive(&mut self) -> io::Result<Frame> {
        let mut header = [0; FRAME_HEADER_SIZE];
        self.stream.read_exact(&mut header)?;
        let header = FrameHeader::decode(&header, u32::MAX).expect("a reply has a sound header");
        assert!(header.flags.contains(FrameFlags::RESPONSE), "{header:?}");
        let mut body = vec![0; header.body_size as usize];
        self.stream.read_exact(&mut body)?;
        let mut records = vec![0; header.records_size as usize];
        self.stream.read_exact(&mut records)?;
        Ok(Frame {
            header,
            body,
            records,
        })
    }

    /// Everything that still comes: how many frames, and how it ends.
    pub fn drain(&mut self) -> (Vec<Frame>, Outcome) {
        let mut frames = Vec::new();
        loop {
            match self.receive() {
                Outcome::Answered(frame) => frames.push(*frame),
                end => return (frames, end),
            }
        }
    }

    /// The next answer must be this error; its sentence.
    #[track_caller]
    pub fn expect_error(&mut self, code: ErrorCode) -> String {
        match self.receive() {
            Outcome::Answered(frame) => {
                let error = frame.error().expect("an error reply");
                assert_eq!(error.error, code, "{}", error.message);
                assert!(!error.message.is_empty(), "an error has a sentence");
                error.message
            }
            other => panic!("{code:?} was expected, not {other:?}"),
        }
    }

    /// The connection must end without another answer.
    #[track_caller]
    pub fn expect_end(&mut self) {
        match self.receive() {
            Outcome::Closed => {}
            other => panic!("an end was expected, not {other:?}"),
        }
    }
}

fn decode<M: Wire>(body: &[u8]) -> M {
    decode_body(body).expect("a reply as the protocol has it")
}
