//! Frames in and out of a socket without copying records: a reply is one allocation that its body
//! and records are slices of; a request's records are written from where they are.

use std::{collections::VecDeque, io, io::IoSlice};

use bytes::{Buf, Bytes, BytesMut};
use millstream_protocol::{
    FRAME_HEADER_SIZE, FrameFlags, FrameHeader,
    frame::FrameError,
    limits::MAX_FRAME_SIZE,
    messages::{Api, Request, encode_body},
};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes asked of the socket at once while no large frame is under way.
const READ_SIZE: usize = 64 << 10;
/// Below this much room the buffer grows, so that no read is tiny.
const MIN_READ_SIZE: usize = 8 << 10;

/// A request ready for the socket.
#[derive(Debug)]
pub(crate) struct OutgoingFrame {
    /// Header and body.
    pub head: Bytes,
    /// Record batches, behind the body.
    pub records: Vec<Bytes>,
}

impl OutgoingFrame {
    /// Frames a request with its record batches.
    ///
    /// # Panics
    /// If the frame passes 4 GiB; producer and admin keep theirs far below.
    pub(crate) fn new<R: Request>(request: &R, records: Vec<Bytes>, correlation_id: u64) -> Self {
        let body = encode_body(request);
        let records_size: usize = records.iter().map(Bytes::len).sum();
        let header = FrameHeader {
            api: R::API as u16,
            version: version_of(R::API),
            flags: FrameFlags::default(),
            body_size: u32::try_from(body.len()).expect("a body below 4 GiB"),
            records_size: u32::try_from(records_size).expect("records below 4 GiB"),
            correlation_id,
        };
        let mut head = Vec::with_capacity(FRAME_HEADER_SIZE + body.len());
        head.extend_from_slice(&header.encode());
        head.extend_from_slice(&body);
        Self {
            head: head.into(),
            records,
        }
    }
}

/// Every API has one version so far; a second one is chosen here from what the handshake tells.
fn version_of(_api: Api) -> u16 {
    0
}

/// Frames on their way into the socket, written with one vectored call for as many as fit.
#[derive(Debug, Default)]
pub(crate) struct WriteQueue {
    slices: VecDeque<Bytes>,
    size: usize,
}

impl WriteQueue {
    pub(crate) fn push(&mut self, frame: OutgoingFrame) {
        for slice in std::iter::once(frame.head).chain(frame.records) {
            // An empty slice would look like the end of the queue to a writer.
            if !slice.is_empty() {
                self.size += slice.len();
                self.slices.push_back(slice);
            }
        }
    }
}

impl Buf for WriteQueue {
    fn remaining(&self) -> usize {
        self.size
    }

    fn chunk(&self) -> &[u8] {
        self.slices.front().map_or(&[], |slice| slice)
    }

    fn chunks_vectored<'a>(&'a self, dst: &mut [IoSlice<'a>]) -> usize {
        let mut count = 0;
        for (to, slice) in dst.iter_mut().zip(&self.slices) {
            *to = IoSlice::new(slice);
            count += 1;
        }
        count
    }

    fn advance(&mut self, mut count: usize) {
        self.size -= count;
        while let Some(front) = self.slices.front_mut() {
            if count < front.len() {
                front.advance(count);
                return;
            }
            count -= front.len();
            self.slices.pop_front();
        }
    }
}

/// A frame that came in.
#[derive(Debug)]
pub(crate) struct IncomingFrame {
    pub header: FrameHeader,
    pub body: Bytes,
    pub records: Bytes,
}

/// Why no further frame can be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("the broker closed it")]
    Closed,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// Cuts a stream into frames.
#[derive(Debug, Default)]
pub(crate) struct FrameReader {
    buffer: BytesMut,
}

impl FrameReader {
    /// The next frame. Not cancel-safe in theory but in fact: what was read stays in the buffer.
    pub(crate) async fn next(
        &mut self,
        socket: &mut (impl AsyncRead + Unpin),
    ) -> Result<IncomingFrame, ReadError> {
        self.fill(socket, FRAME_HEADER_SIZE).await?;
        let mut header = [0; FRAME_HEADER_SIZE];
        header.copy_from_slice(&self.buffer[..FRAME_HEADER_SIZE]);
        let header = FrameHeader::decode(&header, MAX_FRAME_SIZE)?;
        let size = FRAME_HEADER_SIZE + header.rest_size();
        self.fill(socket, size).await?;
        let mut body = self.buffer.split_to(size).freeze();
        body.advance(FRAME_HEADER_SIZE);
        let records = body.split_off(header.body_size as usize);
        Ok(IncomingFrame {
            header,
            body,
            records,
        })
    }

    /// Reads until the buffer holds `size` bytes. A large frame gets a buffer of its own size, and
    /// only what had come already is moved into it.
    async fn fill(
        &mut self,
        socket: &mut (impl AsyncRead + Unpin),
        size: usize,
    ) -> Result<(), ReadError> {
        while self.buffer.len() < size {
            let missing = size - self.buffer.len();
            let room = self.buffer.capacity() - self.buffer.len();
            let wanted = match self.buffer.len() {
                // Growing moves next to nothing now.
                ..FRAME_HEADER_SIZE => missing.max(MIN_READ_SIZE),
                _ => missing,
            };
            if room < wanted {
                self.buffer.reserve(missing.max(READ_SIZE));
            }
            if socket.read_buf(&mut self.buffer).await? == 0 {
                return Err(ReadError::Closed);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use millstream_protocol::messages::{MetadataRequest, decode_body};

    use super::*;

    fn bytes_of(frame: OutgoingFrame) -> Vec<u8> {
        let mut queue = WriteQueue::default();
        queue.push(frame);
        let mut out = Vec::new();
        while queue.has_remaining() {
            // Odd steps, so that slices are cut anywhere.
            let count = queue.chunk().len().min(7);
            out.extend_from_slice(&queue.chunk()[..count]);
            queue.advance(count);
        }
        out
    }

    #[tokio::test]
    async fn frames_survive_a_stream_cut_anywhere() {
        let request = MetadataRequest {
            topics: Some(vec!["a-topic".to_owned()]),
            include_internal: false,
        };
        let large = Bytes::from(vec![7; 300_000]);
        let mut stream = bytes_of(OutgoingFrame::new(&request, Vec::new(), 1));
        let records = vec![large.clone(), Bytes::new(), Bytes::from_static(b"end")];
        stream.extend(bytes_of(OutgoingFrame::new(&request, records, 2)));
        stream.extend(bytes_of(OutgoingFrame::new(&request, Vec::new(), 3)));

        for step in [1, 23, 1000, 100_000, 1 << 20] {
            let mut reader = FrameReader::default();
            let (mut here, mut there) = tokio::io::duplex(step);
            let stream = stream.clone();
            let writer = tokio::spawn(async move {
                tokio::io::AsyncWriteExt::write_all(&mut there, &stream).await
            });
            for id in 1..=3 {
                let frame = reader.next(&mut here).await.expect("a frame");
                assert_eq!(frame.header.correlation_id, id);
                assert_eq!(
                    decode_body::<MetadataRequest>(&frame.body),
                    Ok(request.clone())
                );
                let expected = if id == 2 { large.len() + 3 } else { 0 };
                assert_eq!(frame.records.len(), expected);
                assert!(id != 2 || frame.records.ends_with(b"end"));
            }
            assert!(matches!(
                reader.next(&mut here).await,
                Err(ReadError::Closed)
            ));
            writer.await.expect("no panic").expect("written");
        }
    }

    #[test]
    fn vectored_chunks_cover_what_remains() {
        let mut queue = WriteQueue::default();
        for id in 0..3 {
            queue.push(OutgoingFrame {
                head: Bytes::from(vec![id; 10]),
                records: vec![Bytes::from(vec![id; 5])],
            });
        }
        queue.advance(12);
        let mut slices = [IoSlice::new(&[]); 16];
        let count = queue.chunks_vectored(&mut slices);
        let seen: Vec<usize> = slices[..count].iter().map(|slice| slice.len()).collect();
        assert_eq!(seen, [3, 10, 5, 10, 5]);
        assert_eq!(queue.remaining(), 33);
    }
}
