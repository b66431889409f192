//! Records one by one, from whatever is polled.

use std::{future::Future, time::Duration};

use futures_core::Stream;

use super::ConsumerRecord;
use crate::{clock::FAR_AWAY, error::ConsumeError};

/// A consumer, alone or in a group.
pub(crate) trait Polled: Send {
    fn next_records(
        &mut self,
        timeout: Duration,
    ) -> impl Future<Output = Result<Vec<ConsumerRecord>, ConsumeError>> + Send;
}

/// All records, without end. An obstacle is an item.
pub(crate) fn stream_of(
    consumer: impl Polled,
) -> impl Stream<Item = Result<ConsumerRecord, ConsumeError>> + Send {
    let start = (consumer, Vec::new().into_iter());
    futures_util::stream::unfold(start, |(mut consumer, mut records)| async move {
        loop {
            if let Some(record) = records.next() {
                return Some((Ok(record), (consumer, records)));
            }
            match consumer.next_records(FAR_AWAY).await {
                Ok(more) => records = more.into_iter(),
                Err(error) => return Some((Err(error), (consumer, records))),
            }
        }
    })
}
