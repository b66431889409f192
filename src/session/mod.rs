//! The session machine: what one connection may say next, and in which order it is answered. Pure.
//!
//! A session begins with a handshake, which may send it to another shard. After that, requests are
//! pipelined; each is answered once, in any order, or in the order of the requests if the client
//! asked for that. Bytes it cannot make sense of are answered with an error where the frame
//! boundaries still hold, and end the session where they do not.

mod authorize;
mod requests;

#[cfg(test)]
mod tests;

use std::{collections::VecDeque, time::Duration};

use millstream_protocol::{
    ErrorCode, FrameFlags, FrameHeader, limits,
    messages::{Api, HandshakeRequest, decode_body},
};

use crate::io::Monotonic;

pub use authorize::{Operation, Principal, Resource, authorize};
pub use requests::Request;

/// A client has this long to finish its handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// What the session wants done.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Answer the handshake: the session begins.
    Welcome {
        /// To answer.
        ticket: Ticket,
        /// What the client said.
        request: Box<HandshakeRequest>,
    },
    /// Serve a request.
    Serve {
        /// To answer.
        ticket: Ticket,
        /// What is asked.
        request: Request,
    },
    /// Answer with an error frame.
    Refuse {
        /// To answer.
        ticket: Ticket,
        /// The code.
        error: ErrorCode,
        /// A sentence.
        message: String,
        /// End the session after the answer.
        close: bool,
    },
}

/// A request that is owed an answer. Each must come back through [`Session::answered`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket {
    /// Number of the request in its session.
    sequence: u64,
    /// The request's header, which the answer repeats.
    pub api: u16,
    /// Version of the request, and so of its answer.
    pub version: u16,
    /// Chosen by the client.
    pub correlation_id: u64,
}

impl Ticket {
    /// Header of the answer.
    #[must_use]
    pub fn header(&self, flags: FrameFlags, body_size: u32, records_size: u32) -> FrameHeader {
        FrameHeader {
            api: self.api,
            version: self.version,
            flags: FrameFlags::RESPONSE.with(flags),
            body_size,
            records_size,
            correlation_id: self.correlation_id,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Handshake,
    Ready,
    Closing,
}

/// One connection's session. `R` is a reply, held back while earlier ones are missing if the
/// client wants them in order.
#[derive(Debug)]
pub struct Session<R> {
    phase: Phase,
    principal: Principal,
    /// What the client calls itself.
    client_name: String,
    opened: Monotonic,
    next_sequence: u64,
    in_flight: usize,
    ordered: bool,
    /// With ordered replies: a slot for each unanswered request, oldest first.
    held: VecDeque<(u64, Option<R>)>,
}

impl<R> Session<R> {
    /// A session of a connection accepted at `now`.
    #[must_use]
    pub fn new(now: Monotonic) -> Self {
        Self {
            phase: Phase::Handshake,
            principal: Principal::Anonymous,
            client_name: String::new(),
            opened: now,
            next_sequence: 0,
            in_flight: 0,
            ordered: false,
            held: VecDeque::new(),
        }
    }

    /// A session whose handshake another shard has read: answer the ticket with a welcome.
    #[must_use]
    pub fn adopt(
        now: Monotonic,
        correlation_id: u64,
        request: &HandshakeRequest,
    ) -> (Self, Ticket) {
        let mut session = Self::new(now);
        let header = FrameHeader {
            api: Api::Handshake as u16,
            correlation_id,
            ..FrameHeader::default()
        };
        let ticket = session.ticket(&header);
        session.begin(request);
        (session, ticket)
    }

    /// Whom the session speaks for.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// What the client calls itself.
    #[must_use]
    pub fn client_name(&self) -> &str {
        &self.client_name
    }

    /// Largest frame it takes now, in bytes.
    #[must_use]
    pub fn max_frame_size(&self) -> u32 {
        match self.phase {
            Phase::Handshake | Phase::Closing => limits::MAX_FRAME_SIZE_BEFORE_HANDSHAKE,
            Phase::Ready => limits::MAX_FRAME_SIZE,
        }
    }

    /// Whether another request may be read now; otherwise when one has been answered.
    #[must_use]
    pub fn may_read(&self) -> bool {
        self.phase != Phase::Closing && self.in_flight < limits::MAX_REQUESTS_IN_FLIGHT
    }

    /// Whether the handshake is done: the connection stays where it is.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.phase != Phase::Handshake
    }

    /// Whether the session is over as soon as everything has been answered and sent.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.phase == Phase::Closing
    }

    /// Requests that are owed an answer.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// When the session ends unless something happens.
    #[must_use]
    pub fn deadline(&self) -> Option<Monotonic> {
        (self.phase == Phase::Handshake).then(|| self.opened + HANDSHAKE_TIMEOUT)
    }

    /// Takes one frame.
    pub fn frame(&mut self, header: &FrameHeader, body: &[u8]) -> Action {
        let ticket = self.ticket(header);
        if header.flags.contains(FrameFlags::RESPONSE) {
            let message = "a reply came where a request was expected".to_owned();
            return self.refuse(ticket, ErrorCode::MalformedRequest, message, true);
        }
        let Some(api) = Api::from_number(header.api) else {
            let message = format!("API {} is unknown to this broker", header.api);
            return self.refuse(ticket, ErrorCode::UnknownApi, message, false);
        };
        if header.version > api.max_version() {
            let message = format!(
                "{api:?} is known in versions 0 to {}, not {}",
                api.max_version(),
                header.version
            );
            return self.refuse(ticket, ErrorCode::UnsupportedVersion, message, false);
        }
        match (self.phase, api) {
            (Phase::Handshake, Api::Handshake) => self.handshake(ticket, body),
            (Phase::Handshake, _) => {
                let message = format!("{api:?} came before the handshake");
                self.refuse(ticket, ErrorCode::HandshakeRequired, message, true)
            }
            (_, Api::Handshake) => {
                let message = "the handshake is done already".to_owned();
                self.refuse(ticket, ErrorCode::InvalidRequest, message, false)
            }
            _ => self.serve(ticket, api, header, body),
        }
    }

    fn handshake(&mut self, ticket: Ticket, body: &[u8]) -> Action {
        let request: HandshakeRequest = match decode_body(body) {
            Ok(request) => request,
            Err(error) => {
                return self.refuse(ticket, ErrorCode::MalformedRequest, error.to_string(), true);
            }
        };
        let longest = request.client_name.len().max(request.client_version.len());
        if longest > limits::MAX_CLIENT_NAME {
            let message = format!(
                "client name or version is longer than {}",
                limits::MAX_CLIENT_NAME
            );
            return self.refuse(ticket, ErrorCode::InvalidRequest, message, true);
        }
        if !request.auth_mechanism.is_empty() {
            let shown: String = request.auth_mechanism.chars().take(40).collect();
            let message = format!(
                "authentication mechanism {shown:?} is not known; this listener asks for none"
            );
            return self.refuse(ticket, ErrorCode::NotAuthorized, message, true);
        }
        self.begin(&request);
        Action::Welcome {
            ticket,
            request: Box::new(HandshakeRequest {
                // Nobody has asked for it, and it may be large.
                auth_data: Vec::new(),
                ..request
            }),
        }
    }

    fn begin(&mut self, request: &HandshakeRequest) {
        self.phase = Phase::Ready;
        self.ordered = request.ordered_replies;
        self.client_name.clone_from(&request.client_name);
    }

    fn serve(&mut self, ticket: Ticket, api: Api, header: &FrameHeader, body: &[u8]) -> Action {
        let allowed = authorize::required(api)
            .is_none_or(|(operation, resource)| authorize(&self.principal, operation, resource));
        if !allowed {
            let message = format!("{api:?} is not allowed for this session");
            return self.refuse(ticket, ErrorCode::NotAuthorized, message, false);
        }
        match Request::decode(api, body, header.records_size as usize) {
            Ok(request) => Action::Serve { ticket, request },
            Err(error) => self.refuse(
                ticket,
                ErrorCode::MalformedRequest,
                error.to_string(),
                false,
            ),
        }
    }

    fn refuse(&mut self, ticket: Ticket, error: ErrorCode, message: String, close: bool) -> Action {
        if close {
            self.phase = Phase::Closing;
        }
        Action::Refuse {
            ticket,
            error,
            message,
            close,
        }
    }

    fn ticket(&mut self, header: &FrameHeader) -> Ticket {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.in_flight += 1;
        if self.ordered {
            self.held.push_back((sequence, None));
        }
        Ticket {
            sequence,
            api: header.api,
            version: header.version,
            correlation_id: header.correlation_id,
        }
    }

    /// Takes the answer to a request; `send` gets what may go out now, in order.
    ///
    /// # Panics
    /// If the ticket was answered before.
    pub fn answered(&mut self, ticket: Ticket, reply: R, mut send: impl FnMut(R)) {
        self.in_flight = self
            .in_flight
            .checked_sub(1)
            .expect("each ticket is answered once");
        let Ok(at) = self
            .held
            .binary_search_by_key(&ticket.sequence, |(sequence, _)| *sequence)
        else {
            return send(reply);
        };
        self.held[at].1 = Some(reply);
        while let Some((_, Some(_))) = self.held.front() {
            if let Some((_, Some(reply))) = self.held.pop_front() {
                send(reply);
            }
        }
    }

    /// Whether an answer to this ticket could go out at once. If not, whoever would hold memory for
    /// it waits: the answers before it may need that memory first.
    #[must_use]
    pub fn is_next(&self, ticket: Ticket) -> bool {
        let oldest = self.held.front();
        oldest.is_none_or(|(sequence, _)| *sequence >= ticket.sequence)
    }

    /// No more requests are taken: the broker is on its way down.
    pub fn close(&mut self) {
        self.phase = Phase::Closing;
    }
}
