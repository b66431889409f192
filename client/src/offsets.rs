//! Offsets by time: the broker answers with a batch, the record within it is found here.

use std::collections::BTreeMap;

use bytes::Bytes;
use millstream_protocol::{
    LeaderEpoch, Offset, PartitionIndex, TopicPartition,
    batch::{BatchError, Batches, DecodedBatch},
    messages::{
        FetchPartition, FetchRequest, FetchResponse, ListOffsetsPartition, ListOffsetsRequest,
        ListOffsetsResponse,
    },
};

use crate::{
    client::Shared,
    error::RequestError,
    routing::{PartitionAnswer, ask_leaders},
};

/// The offset of the first record at or after `timestamp_ms` in each partition (or the first or
/// last offset, for the protocol's special timestamps).
pub(crate) async fn list_offsets(
    shared: &Shared,
    topic: &str,
    partitions: &[PartitionIndex],
    timestamp_ms: i64,
) -> Result<BTreeMap<PartitionIndex, Offset>, RequestError> {
    let request = |group: &[TopicPartition]| ListOffsetsRequest {
        partitions: group
            .iter()
            .map(|at| ListOffsetsPartition {
                topic: at.topic,
                partition: at.partition,
                timestamp_ms,
            })
            .collect(),
    };
    let found = ask_leaders(shared, topic, partitions, request, offset_answers).await?;
    let mut offsets = BTreeMap::new();
    for (partition, (base_offset, max_timestamp_ms)) in found {
        let in_a_batch = timestamp_ms >= 0 && max_timestamp_ms >= timestamp_ms;
        let offset = match in_a_batch {
            true => find_record(shared, topic, partition, base_offset, timestamp_ms).await?,
            false => base_offset,
        };
        offsets.insert(partition, offset);
    }
    Ok(offsets)
}

fn offset_answers(
    response: ListOffsetsResponse,
    _records: Bytes,
) -> Vec<PartitionAnswer<(Offset, i64)>> {
    let answers = response.partitions.into_iter().map(|it| PartitionAnswer {
        partition: it.partition,
        error: it.error,
        message: it.message,
        value: (it.offset, it.timestamp_ms),
    });
    answers.collect()
}

/// Reads the batch at `base_offset` and finds the first record at or after a time.
async fn find_record(
    shared: &Shared,
    topic: &str,
    partition: PartitionIndex,
    base_offset: Offset,
    timestamp_ms: i64,
) -> Result<Offset, RequestError> {
    let request = |group: &[TopicPartition]| FetchRequest {
        max_wait_ms: 0,
        min_bytes: 0,
        max_bytes: 1,
        partitions: group
            .iter()
            .map(|at| FetchPartition {
                topic: at.topic,
                partition: at.partition,
                leader_epoch: LeaderEpoch::UNKNOWN,
                fetch_offset: base_offset,
                last_fetched_epoch: LeaderEpoch::UNKNOWN,
                max_bytes: 1,
            })
            .collect(),
    };
    let answers = |response: FetchResponse, records: Bytes| {
        let answers = response.partitions.into_iter().map(|it| PartitionAnswer {
            partition: it.partition,
            error: it.error,
            message: it.message,
            value: records.clone(),
        });
        answers.collect()
    };
    let batches = ask_leaders(shared, topic, &[partition], request, answers).await?;
    let bytes = batches.get(&partition).cloned().unwrap_or_default();
    first_at_or_after(&bytes, base_offset, timestamp_ms).map_err(|error| RequestError::Protocol {
        address: format!("{topic}/{partition}").into(),
        reason: format!("its batch at offset {base_offset} can't be read: {error}").into(),
    })
}

/// The first record at or after `timestamp_ms`; `from` if there is none, as when the log has moved on
/// since the batch was named.
fn first_at_or_after(bytes: &[u8], from: Offset, timestamp_ms: i64) -> Result<Offset, BatchError> {
    for batch in Batches::checked(bytes) {
        let (_, batch) = batch?;
        for record in DecodedBatch::open(batch)?.records() {
            let record = record?;
            if record.timestamp_ms >= timestamp_ms && record.offset >= from {
                return Ok(record.offset);
            }
        }
    }
    Ok(from)
}

#[cfg(test)]
mod tests {
    use millstream_protocol::batch::{BatchBuilder, Compression, NO_HEADERS, place};

    use super::*;

    #[test]
    fn a_time_is_refined_to_the_record() {
        let mut builder = BatchBuilder::new();
        for timestamp_ms in [10, 30, 20, 40] {
            builder
                .push(timestamp_ms, None, Some(b"v"), NO_HEADERS)
                .expect("small");
        }
        let mut batch = builder.finish(None, Compression::Lz4);
        place(&mut batch, Offset(100), LeaderEpoch(1));
        let find = |timestamp_ms| first_at_or_after(&batch, Offset(100), timestamp_ms);
        assert_eq!(find(0), Ok(Offset(100)));
        assert_eq!(find(20), Ok(Offset(101)));
        assert_eq!(find(31), Ok(Offset(103)));
        assert_eq!(find(41), Ok(Offset(100)));
        assert_eq!(first_at_or_after(&[], Offset(7), 0), Ok(Offset(7)));
    }
}
