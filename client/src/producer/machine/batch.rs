//! One batch on its way: open, sealed, in flight, waiting to be tried again.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use millstream_protocol::{ProducerEpoch, ProducerId, batch::BatchBuilder};

/// Numbers batches of one producer in the order they were begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BatchId(pub u64);

/// Numbers the requests of one producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// An idempotent producer's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub id: ProducerId,
    pub epoch: ProducerEpoch,
}

/// What tells the broker that it has a batch already (KIP-98). Given at the first attempt and kept
/// through every retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub identity: Identity,
    pub base_sequence: i32,
}

/// Where a batch's records are.
#[derive(Debug)]
pub(super) enum Payload {
    /// Taking records. Only the last batch of a partition is open.
    Open(BatchBuilder),
    /// Full, not encoded yet.
    Sealed(BatchBuilder),
    /// Given to the shell to encode; in flight.
    Encoding,
    /// Encoded, with this stamp.
    Encoded(Bytes, Option<Stamp>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BatchState {
    Waiting,
    InFlight(RequestId),
}

#[derive(Debug)]
pub(super) struct Batch<H> {
    pub id: BatchId,
    pub handle: H,
    pub created_at: Duration,
    pub record_count: u32,
    /// Bytes charged to the buffer.
    pub size: usize,
    pub payload: Payload,
    pub stamp: Option<Stamp>,
    /// Counts the partition's stamped batches: how far back this one is for the broker's memory.
    pub stamp_number: u64,
    pub state: BatchState,
    /// An attempt ended without an answer: the batch may be in the log.
    pub uncertain: bool,
    /// Why the last attempt failed.
    pub trouble: Option<Arc<str>>,
}

impl<H> Batch<H> {
    pub(super) fn is_open(&self) -> bool {
        matches!(self.payload, Payload::Open(_))
    }

    pub(super) fn is_in_flight(&self) -> bool {
        matches!(self.state, BatchState::InFlight(_))
    }

    /// Takes no more records from now on.
    pub(super) fn seal(&mut self) {
        self.payload = match std::mem::replace(&mut self.payload, Payload::Encoding) {
            Payload::Open(builder) => Payload::Sealed(builder),
            other => other,
        };
    }

    /// About how many bytes it takes in a request.
    pub(super) fn wire_size(&self) -> usize {
        match &self.payload {
            Payload::Encoded(bytes, _) => bytes.len(),
            Payload::Open(_) | Payload::Sealed(_) | Payload::Encoding => self.size,
        }
    }
}

/// The sequence `count` records further; they wrap from 2^31 - 1 to 0 (KIP-98).
pub(super) fn sequence_after(sequence: i32, count: u32) -> i32 {
    let sum = i64::from(sequence) + i64::from(count);
    i32::try_from(sum & i64::from(i32::MAX)).expect("masked to 31 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_wrap_to_zero() {
        assert_eq!(sequence_after(0, 5), 5);
        assert_eq!(sequence_after(i32::MAX, 1), 0);
        assert_eq!(sequence_after(i32::MAX - 1, 3), 1);
    }
}
