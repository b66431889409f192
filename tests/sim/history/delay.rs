//! What is told of delayed records: accepted, cancelled, and how they looked when they came.

use std::fmt::Write as _;

use millstream_protocol::{Offset, TopicPartition, messages::CancelOutcome};

use super::{History, RecordId};

/// When a record is to be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// At a time of the wall clock, in milliseconds.
    At(i64),
    /// So many milliseconds after its acceptance.
    After(i64),
}

/// That a record is delayed: when it is due, and what its producer calls it within its partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delayed {
    pub due: Due,
    pub name: Option<String>,
}

/// Which record is to be taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CancelTarget {
    /// By what the broker calls it.
    Id(Offset),
    /// By what its producers call it.
    Name(String),
}

/// Something about delayed records.
#[derive(Clone, Debug)]
pub enum DelayEvent {
    /// Its producer was told that it is accepted; and what the broker calls it, if it still knew.
    Accepted(RecordId, Option<Offset>),
    /// Someone asks to take one back.
    Cancels {
        number: u64,
        at: TopicPartition,
        target: CancelTarget,
    },
    /// What came of that, and of which record.
    CancelAnswered {
        number: u64,
        outcome: CancelOutcome,
        delay_id: Offset,
    },
    /// How a record looked that was delivered: its timestamp, when it was due, what the broker called it.
    Seen {
        id: RecordId,
        offset: Offset,
        timestamp_ms: i64,
        due_ms: Option<i64>,
        delay_id: Option<Offset>,
    },
}

impl History {
    pub(super) fn delay_place(&self, event: &DelayEvent) -> Option<TopicPartition> {
        match event {
            DelayEvent::Accepted(id, _) | DelayEvent::Seen { id, .. } => {
                Some(self.records[usize::try_from(*id).expect("an index")].at)
            }
            DelayEvent::Cancels { at, .. } => Some(*at),
            DelayEvent::CancelAnswered { .. } => None,
        }
    }

    pub(super) fn delay_line(&self, event: &DelayEvent, text: &mut String) {
        let _ = match event {
            DelayEvent::Accepted(id, delay_id) => {
                writeln!(text, "record {id} accepted, delay id {delay_id:?}")
            }
            DelayEvent::Cancels { number, at, target } => {
                writeln!(
                    text,
                    "cancellation {number} of {}: {target:?}",
                    self.place(*at)
                )
            }
            DelayEvent::CancelAnswered {
                number,
                outcome,
                delay_id,
            } => writeln!(
                text,
                "cancellation {number} answered: {outcome:?}, delay id {delay_id}"
            ),
            DelayEvent::Seen {
                id,
                offset,
                timestamp_ms,
                due_ms,
                delay_id,
            } => writeln!(
                text,
                "record {id} was delivered at {offset}, {timestamp_ms} ms, due {due_ms:?}, delay id {delay_id:?}"
            ),
        };
    }
}
