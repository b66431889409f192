//! [`Delivery`]: the future of one record, cheap because a batch's records share its outcome.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
};

use millstream_protocol::{Offset, PartitionIndex};

use super::record::Delivered;
use crate::error::ProduceError;

/// What became of a batch, awaited by the deliveries of its records.
#[derive(Clone, Debug)]
pub(crate) struct BatchOutcome(Arc<Mutex<State>>);

#[derive(Debug)]
enum State {
    Pending(Vec<Waker>),
    Done(Result<BatchPlace, ProduceError>),
}

/// Where a whole batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchPlace {
    /// The partition.
    pub partition: PartitionIndex,
    /// Offset of the first record, or -1 if unknown.
    pub base_offset: Offset,
    /// The append's time for log-append-time topics, else -1.
    pub append_time_ms: i64,
}

impl Default for BatchOutcome {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State::Pending(Vec::new()))))
    }
}

impl BatchOutcome {
    /// Settles the batch and wakes who waits. The first outcome stands.
    pub(crate) fn settle(&self, result: Result<BatchPlace, ProduceError>) {
        let wakers = {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match &mut *state {
                State::Done(_) => return,
                State::Pending(wakers) => {
                    let wakers = std::mem::take(wakers);
                    *state = State::Done(result);
                    wakers
                }
            }
        };
        for waker in wakers {
            waker.wake();
        }
    }
}

/// Resolves once the record is durable on the broker, or has failed. Dropping it changes nothing:
/// the record is delivered all the same.
#[derive(Debug)]
#[must_use = "a delivery tells whether the record arrived; drop it on purpose with `drop`"]
pub struct Delivery {
    outcome: BatchOutcome,
    index: u32,
    timestamp_ms: i64,
    is_delayed: bool,
    /// Where this delivery's waker is, so that polling again does not add another.
    waker_slot: Option<usize>,
}

impl Delivery {
    pub(crate) fn new(outcome: BatchOutcome, index: u32, timestamp_ms: i64) -> Self {
        Self {
            outcome,
            index,
            timestamp_ms,
            is_delayed: false,
            waker_slot: None,
        }
    }

    /// The same of a delayed record: what the broker answers is no offset.
    pub(crate) fn delayed(self, is_delayed: bool) -> Self {
        Self { is_delayed, ..self }
    }

    /// The outcome, if it is known already.
    #[must_use]
    pub fn outcome(&self) -> Option<Result<Delivered, ProduceError>> {
        let state = self
            .outcome
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match &*state {
            State::Pending(_) => None,
            State::Done(result) => Some(self.of_record(result)),
        }
    }

    /// Whether both records are in one batch, and so have one outcome: who sends very many need await
    /// only one of them.
    #[must_use]
    pub fn shares_batch_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.outcome.0, &other.outcome.0)
    }

    fn of_record(
        &self,
        batch: &Result<BatchPlace, ProduceError>,
    ) -> Result<Delivered, ProduceError> {
        let place = batch.as_ref().map_err(Clone::clone)?;
        let known = (place.base_offset.0 >= 0).then(|| place.base_offset.plus(self.index));
        Ok(Delivered {
            partition: place.partition,
            offset: known.filter(|_| !self.is_delayed).unwrap_or(Offset(-1)),
            delay_id: known.filter(|_| self.is_delayed),
            timestamp_ms: match place.append_time_ms {
                ..0 => self.timestamp_ms,
                append_time_ms => append_time_ms,
            },
        })
    }
}

impl Future for Delivery {
    type Output = Result<Delivered, ProduceError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let shared = Arc::clone(&self.outcome.0);
        let mut state = shared.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *state {
            State::Done(result) => Poll::Ready(self.of_record(result)),
            State::Pending(wakers) => {
                match self.waker_slot.and_then(|slot| wakers.get_mut(slot)) {
                    Some(waker) => waker.clone_from(context.waker()),
                    None => {
                        self.waker_slot = Some(wakers.len());
                        wakers.push(context.waker().clone());
                    }
                }
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn place(base_offset: i64, append_time_ms: i64) -> BatchPlace {
        BatchPlace {
            partition: PartitionIndex(2),
            base_offset: Offset(base_offset),
            append_time_ms,
        }
    }

    #[test]
    fn a_record_is_its_batch_plus_its_index() {
        let outcome = BatchOutcome::default();
        let mut delivery = Delivery::new(outcome.clone(), 3, 77);
        assert_eq!((&mut delivery).now_or_never().map(|r| r.is_ok()), None);
        assert!(delivery.outcome().is_none());
        outcome.settle(Ok(place(10, -1)));
        outcome.settle(Err(ProduceError::Closed));
        let delivered = delivery
            .now_or_never()
            .expect("settled")
            .expect("delivered");
        assert_eq!((delivered.offset, delivered.timestamp_ms), (Offset(13), 77));
        assert_eq!(delivered.partition, PartitionIndex(2));
    }

    #[test]
    fn a_delayed_record_has_an_id_and_no_offset() {
        let outcome = BatchOutcome::default();
        outcome.settle(Ok(place(10, -1)));
        let delivery = Delivery::new(outcome, 3, 77).delayed(true);
        let delivered = delivery.now_or_never().expect("settled");
        let delivered = delivered.expect("accepted");
        let known = (delivered.offset, delivered.delay_id);
        assert_eq!(known, (Offset(-1), Some(Offset(13))));
    }

    #[test]
    fn the_append_time_and_an_unknown_offset_show() {
        let outcome = BatchOutcome::default();
        outcome.settle(Ok(place(-1, 1000)));
        let delivery = Delivery::new(outcome, 3, 77);
        let delivered = delivery
            .now_or_never()
            .expect("settled")
            .expect("delivered");
        assert_eq!(
            (delivered.offset, delivered.timestamp_ms),
            (Offset(-1), 1000)
        );
    }
}
