//! Millstream's wire vocabulary: identifiers, record batches, frames, messages and error codes.
//!
//! Pure code: no runtime, no I/O, no clock, no unsafe. The broker, the client and the tools share
//! it; `docs/protocol.md` is the normative text. Bytes from a peer become values here, at the edge,
//! and nothing that a peer can send reaches a panic.

#![forbid(unsafe_code)]

pub mod batch;
pub mod codec;
pub mod error_code;
pub mod frame;
pub mod headers;
pub mod ids;
pub mod limits;
pub mod messages;
pub mod names;
pub mod partitioner;
pub mod schema;

pub use codec::{DecodeError, Reader, Wire};
pub use error_code::ErrorCode;
pub use frame::{FRAME_HEADER_SIZE, FrameFlags, FrameHeader};
pub use ids::{
    BrokerId, ClusterId, LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId, ShardId,
    TopicId, TopicPartition,
};
