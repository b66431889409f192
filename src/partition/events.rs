//! What can happen to a partition, and what it then wants done.

use millstream_protocol::{
    ErrorCode, LeaderEpoch, Offset, batch::BatchHeader, messages::DivergingEpoch,
};

use super::{Epochs, Producers};

/// How far ahead of the broker's clock a record's timestamp may be, in milliseconds.
pub const MAX_TIMESTAMP_AHEAD_MS: i64 = 60 * 60 * 1000;

/// What a partition starts from: what recovery found.
#[derive(Debug, Default)]
pub struct Recovered {
    /// First offset it still has.
    pub log_start: Offset,
    /// Offset of the next record; all below is durable.
    pub log_end: Offset,
    /// Who wrote what.
    pub epochs: Epochs,
    /// Its idempotent producers.
    pub producers: Producers,
    /// Acknowledged data is damaged: nothing new is taken, what is below this offset is served.
    pub damaged_below: Option<Offset>,
}

/// What can happen to a partition. `T` is the caller's token for an answer it owes.
#[derive(Debug)]
pub enum Event<'a, T> {
    /// A producer's batches arrived, validated, in order.
    Produce {
        /// Answered by exactly one [`Action::Answer`].
        token: T,
        /// Their headers; at least one.
        batches: &'a [BatchHeader],
        /// The epoch the producer knows, or -1.
        leader_epoch: LeaderEpoch,
        /// The wall clock in milliseconds.
        now_ms: i64,
    },
    /// Everything below is durable as the topic promises.
    Persisted {
        /// The durable offset.
        up_to: Offset,
    },
    /// There was no room for what lies at or above `end`; nobody was told of it.
    Refused {
        /// The log ends here again.
        end: Offset,
        /// Why.
        error: ErrorCode,
    },
    /// The disk failed. Nothing is acknowledged after this.
    Failed,
    /// A read came upon damage to acknowledged data: nothing new is taken. What was appended before is still
    /// acknowledged when it is durable, and all that can be read is served.
    Damaged,
    /// The log starts here now, durably.
    LogStartMoved {
        /// The new log start offset.
        offset: Offset,
    },
    /// The broker leads with this epoch from now.
    Led {
        /// Larger than every epoch before.
        epoch: LeaderEpoch,
    },
}

/// What the shell must do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action<T> {
    /// Append the batches of the event: the first at `base_offset`, each other right behind.
    Append {
        /// Leave out this many at the front: a crash kept them and cut what followed.
        skip: usize,
        /// Offset of the first record.
        base_offset: Offset,
        /// Offset after the last record.
        next_offset: Offset,
        /// The epoch to stamp on them.
        epoch: LeaderEpoch,
    },
    /// Answer a produce.
    Answer {
        /// The produce's token.
        token: T,
        /// Base offset, or what is wrong.
        result: Result<Offset, Refusal>,
    },
    /// The high watermark moved: readers that wait may find something.
    HighWatermarkMoved,
}

/// Why a produce was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The wire's code.
    pub error: ErrorCode,
    /// What happened, where the code alone does not say.
    pub detail: Detail,
}

/// The facts behind a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// The code says it all.
    None,
    /// The partition's epoch.
    CurrentEpoch(LeaderEpoch),
    /// The sequence that would be next.
    ExpectedSequence(i32),
    /// A timestamp in the batch, in milliseconds.
    Timestamp(i64),
}

/// What a fetch gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchVerdict {
    /// Read from the offset up to (excluding) the high watermark.
    Read {
        /// The high watermark.
        up_to: Offset,
    },
    /// Nothing there yet: wait or answer empty.
    AtEnd,
    /// The reader's last epoch ended before its offset: what it read was cut away.
    Diverged(DivergingEpoch),
    /// Not possible.
    Refused(Refusal),
}
