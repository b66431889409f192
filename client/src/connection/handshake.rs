//! Connecting: TCP without delay, then the handshake that names the wanted shard.

use std::{sync::Arc, time::Duration};

use bytes::Buf;
use millstream_protocol::{
    ClusterId, ErrorCode,
    frame::FrameError,
    messages::{HandshakeRequest, HandshakeResponse},
};
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};

use super::{
    decode_reply,
    frame::{FrameReader, OutgoingFrame, ReadError, WriteQueue},
};
use crate::error::RequestError;

/// Who connects, and to what part of the broker.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub client_name: Arc<str>,
    pub wanted_shard: u32,
    /// The cluster the client has met before.
    pub cluster_id: Option<ClusterId>,
    /// Longest wait for connection and handshake together.
    pub timeout: Duration,
}

/// A connected socket behind its handshake, and the reader that may hold bytes beyond it.
pub(super) async fn connect(
    address: &Arc<str>,
    identity: &Identity,
) -> Result<(TcpStream, FrameReader), RequestError> {
    let failed = |reason: String| RequestError::Connect {
        address: Arc::clone(address),
        reason: reason.into(),
    };
    let connecting = async {
        let mut socket = TcpStream::connect(&**address)
            .await
            .map_err(|error| failed(error.to_string()))?;
        // Batching is the machines' business; a delayed small frame is only latency.
        socket
            .set_nodelay(true)
            .map_err(|error| failed(error.to_string()))?;
        let reader = shake_hands(address, identity, &mut socket).await?;
        Ok((socket, reader))
    };
    match timeout(identity.timeout, connecting).await {
        Ok(outcome) => outcome,
        Err(_elapsed) => Err(failed(format!("no answer within {:?}", identity.timeout))),
    }
}

/// The size of a frame that begins with `HTTP`, as the answer of a server that was taken for a broker does.
const HTTP_FRAME_SIZE: u64 = u32::from_le_bytes(*b"HTTP") as u64 + FRAME_LENGTH_SIZE;

/// The length field, which does not count itself.
const FRAME_LENGTH_SIZE: u64 = 4;

async fn shake_hands(
    address: &Arc<str>,
    identity: &Identity,
    socket: &mut TcpStream,
) -> Result<FrameReader, RequestError> {
    let failed = |reason: &dyn std::fmt::Display| RequestError::Connect {
        address: Arc::clone(address),
        reason: format!("the handshake failed: {reason}").into(),
    };
    let request = HandshakeRequest {
        client_name: identity.client_name.to_string(),
        client_version: env!("CARGO_PKG_VERSION").to_owned(),
        features: 0,
        wanted_shard: identity.wanted_shard,
        ordered_replies: false,
        cluster_id: identity.cluster_id,
        auth_mechanism: String::new(),
        auth_data: Vec::new(),
    };
    let mut queue = WriteQueue::default();
    queue.push(OutgoingFrame::new(&request, Vec::new(), 0));
    while queue.has_remaining() {
        socket
            .write_buf(&mut queue)
            .await
            .map_err(|error| failed(&error))?;
    }
    let mut reader = FrameReader::default();
    let frame = reader.next(socket).await.map_err(|error| match error {
        ReadError::Frame(FrameError::TooLarge { size, .. }) if size == HTTP_FRAME_SIZE => {
            RequestError::Protocol {
                address: Arc::clone(address),
                reason: "it speaks HTTP, as a broker's --admin-listen does; clients connect to its --listen"
                    .into(),
            }
        }
        error => failed(&error),
    })?;
    let reply: HandshakeResponse = decode_reply::<HandshakeRequest>(address, &frame)?.body;
    if reply.error != ErrorCode::None {
        return Err(RequestError::Broker {
            code: reply.error,
            message: reply.message.into(),
        });
    }
    if let Some(expected) = identity.cluster_id
        && expected != reply.cluster_id
    {
        return Err(failed(&format_args!(
            "it is of cluster {}, not {expected}; was its data directory replaced?",
            reply.cluster_id
        )));
    }
    if reply.auth_continues {
        return Err(failed(
            &"the broker asks for authentication, which this client lacks",
        ));
    }
    Ok(reader)
}
