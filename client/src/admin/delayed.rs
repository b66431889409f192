//! Delayed records that wait: list them, count them, take them back.

use millstream_protocol::{
    ErrorCode, Offset, PartitionIndex, TopicPartition,
    messages::{
        CancelDelayed, CancelDelayedRequest, CancelOutcome, DelayedStatus, DescribeDelayedRequest,
        ListDelayedPartition, ListDelayedRequest,
    },
};

use super::Admin;
use crate::error::RequestError;

/// Which delayed record of a topic is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DelayRef {
    /// By its partition and what the broker calls it there.
    DelayId(PartitionIndex, Offset),
    /// By the id its producer gave it, in one partition or, without that, in whichever it is.
    Id(Option<PartitionIndex>, String),
}

/// A record that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DelayedRecord {
    /// Where it is going.
    pub partition: PartitionIndex,
    /// What the broker calls it there.
    pub delay_id: Offset,
    /// The id its producer gave it, or empty.
    pub id: String,
    /// When it is due, in milliseconds since 1970.
    pub due_ms: i64,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Bytes of its value.
    pub value_size: u32,
}

impl Admin {
    /// Records of a topic that wait, soonest first, at most so many.
    ///
    /// # Errors
    /// [`RequestError`] if the topic is unknown or a partition can't answer.
    pub async fn list_delayed(
        &self,
        topic: &str,
        partition: Option<PartitionIndex>,
        max_records: usize,
    ) -> Result<Vec<DelayedRecord>, RequestError> {
        let mut all = Vec::new();
        for at in self.delay_partitions(topic, partition).await? {
            let mut after = (i64::MIN, Offset(-1));
            let mut left = max_records;
            loop {
                let (page, more) = self.delayed_page(at, after, left).await?;
                left = left.saturating_sub(page.len());
                match page.last() {
                    Some(last) if more && left > 0 => after = (last.due_ms, last.delay_id),
                    _ => {
                        all.extend(page);
                        break;
                    }
                }
                all.extend(page);
            }
        }
        all.sort_by_key(|it| (it.due_ms, it.partition, it.delay_id));
        all.truncate(max_records);
        Ok(all)
    }

    /// One page of one partition, and whether there is more.
    async fn delayed_page(
        &self,
        at: TopicPartition,
        after: (i64, Offset),
        max_records: usize,
    ) -> Result<(Vec<DelayedRecord>, bool), RequestError> {
        let request = ListDelayedRequest {
            partitions: vec![ListDelayedPartition {
                topic: at.topic,
                partition: at.partition,
                after_ms: after.0,
                after_delay_id: after.1,
                max_records: u32::try_from(max_records).unwrap_or(u32::MAX),
            }],
        };
        let response = self.client.shared.metadata.ask_any(&request).await?;
        let page = response.partitions.into_iter().next();
        let page = page.ok_or_else(left_out)?;
        check(page.error, &page.message)?;
        let records = page.records.into_iter().map(|it| DelayedRecord {
            partition: at.partition,
            delay_id: it.delay_id,
            id: it.id,
            due_ms: it.due_ms,
            key: it.key,
            value_size: it.value_size,
        });
        Ok((records.collect(), page.more))
    }

    /// How many wait in each partition, in order; a partition's own trouble is in its status.
    ///
    /// # Errors
    /// [`RequestError`] if the topic is unknown or the broker can't be asked.
    pub async fn count_delayed(&self, topic: &str) -> Result<Vec<DelayedStatus>, RequestError> {
        let request = DescribeDelayedRequest {
            partitions: self.delay_partitions(topic, None).await?,
        };
        let response = self.client.shared.metadata.ask_any(&request).await?;
        Ok(response.partitions)
    }

    /// Takes a delayed record back. What is answered is durable: a cancelled record is never delivered.
    ///
    /// # Errors
    /// [`RequestError`] if the topic or partition is unknown, or a partition can't answer.
    pub async fn cancel_delayed(
        &self,
        topic: &str,
        record: &DelayRef,
    ) -> Result<CancelOutcome, RequestError> {
        let (partition, delay_id, id) = match record {
            DelayRef::DelayId(partition, delay_id) => (Some(*partition), *delay_id, ""),
            DelayRef::Id(partition, id) => (*partition, Offset(-1), &**id),
        };
        let partitions = self.delay_partitions(topic, partition).await?;
        let records = partitions.into_iter().map(|at| CancelDelayed {
            topic: at.topic,
            partition: at.partition,
            delay_id,
            id: id.to_owned(),
        });
        let request = CancelDelayedRequest {
            records: records.collect(),
        };
        let response = self.client.shared.metadata.ask_any(&request).await?;
        let mut outcomes = Vec::with_capacity(response.results.len());
        for result in &response.results {
            check(result.error, &result.message)?;
            outcomes.push(CancelOutcome::from_number(result.outcome));
        }
        // In most partitions nothing is known of it.
        let best = [CancelOutcome::Cancelled, CancelOutcome::Delivered];
        let known = best.into_iter().find(|best| outcomes.contains(best));
        Ok(known.unwrap_or(CancelOutcome::Unknown))
    }

    async fn delay_partitions(
        &self,
        topic: &str,
        partition: Option<PartitionIndex>,
    ) -> Result<Vec<TopicPartition>, RequestError> {
        let info = self.topic(topic).await?;
        let all = info.partitions.iter().map(|it| it.partition);
        let wanted: Vec<PartitionIndex> = match partition {
            Some(partition) => vec![partition],
            None => all.collect(),
        };
        let of = |partition| TopicPartition {
            topic: info.id,
            partition,
        };
        Ok(wanted.into_iter().map(of).collect())
    }
}

fn check(code: ErrorCode, message: &str) -> Result<(), RequestError> {
    match code {
        ErrorCode::None => Ok(()),
        code => Err(RequestError::Broker {
            code,
            message: message.into(),
        }),
    }
}

fn left_out() -> RequestError {
    RequestError::Broker {
        code: ErrorCode::Internal,
        message: "the broker's answer leaves the partition out".into(),
    }
}
