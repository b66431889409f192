//! A broker with one partition and no clients but the test itself.

use std::{cell::RefCell, rc::Rc, time::Duration};

use bytes::Bytes;
use millstream::io::Clock as _;
use millstream_client::RequestError;
use millstream_protocol::{
    ErrorCode, LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId, TopicId,
    TopicPartition,
    batch::{BatchBuilder, Compression, NO_HEADERS},
    headers::DELIVER_AFTER,
    messages::{
        ANY_SHARD, DeleteRecordsPartition, DeleteRecordsRequest, DescribeDelayedRequest,
        EARLIEST_TIMESTAMP, FetchPartition, FetchPartitionResult, FetchRequest, LATEST_TIMESTAMP,
        ListOffsetsPartition, ListOffsetsRequest, NewTopic, ProduceDelayedRequest,
        ProducePartition, ProducePartitionResult, ProduceRequest,
    },
};

use crate::{history::History, scenario::Scenario, world::World};

/// See the module.
pub struct Small {
    pub world: World,
    pub topic: TopicId,
}

impl Small {
    pub async fn start(io: millstream::io::sim::SimIo, topic: NewTopic) -> Self {
        let name = topic.name.clone();
        let scenario = Scenario {
            topics: vec![topic],
            producers: 0,
            consumers: 0,
            ..Scenario::default()
        };
        let world = World::new(io, 1, scenario, &Rc::<RefCell<History>>::default()).await;
        let image = world.broker.metadata().image();
        let topic = image.topic_named(&name).expect("it was created").id;
        Self { world, topic }
    }

    pub async fn sleep(&self, time: Duration) {
        self.world.io.sleep(time).await;
    }

    fn partition(&self) -> TopicPartition {
        TopicPartition {
            topic: self.topic,
            partition: PartitionIndex(0),
        }
    }

    /// Sends one record of an idempotent producer.
    pub async fn try_produce(
        &self,
        sequence: i32,
        size: usize,
    ) -> Result<ProducePartitionResult, RequestError> {
        let mut builder = BatchBuilder::new();
        let value = vec![7; size];
        builder
            .push(1, None, Some(&value), NO_HEADERS)
            .expect("a record");
        let producer = (ProducerId(7), ProducerEpoch(0), sequence);
        let batch = builder.finish(Some(producer), Compression::None);
        let request = ProduceRequest {
            partitions: vec![ProducePartition {
                topic: self.topic,
                leader_epoch: LeaderEpoch::UNKNOWN,
                records_size: u32::try_from(batch.len()).expect("small"),
                ..ProducePartition::default()
            }],
            ..ProduceRequest::default()
        };
        let records = [Bytes::from(batch)];
        let answered = self.world.admin.request(ANY_SHARD, &request, &records);
        Ok(answered.await?.0.partitions.remove(0))
    }

    pub async fn produce(&self, sequence: i32, size: usize) -> ProducePartitionResult {
        let answered = self.try_produce(sequence, size).await;
        answered.expect("it is answered in time")
    }

    /// Sends one record that is due after a while.
    pub async fn produce_delayed(&self, after: Duration) -> ProducePartitionResult {
        let mut builder = BatchBuilder::new();
        let after_ms = after.as_millis().to_string();
        let headers = [(DELIVER_AFTER.as_bytes(), Some(after_ms.as_bytes()))];
        builder
            .push(1, None, Some(b"later"), &headers)
            .expect("a record");
        let batch = builder.finish(None, Compression::None);
        let request = ProduceDelayedRequest {
            partitions: vec![ProducePartition {
                topic: self.topic,
                leader_epoch: LeaderEpoch::UNKNOWN,
                records_size: u32::try_from(batch.len()).expect("small"),
                ..ProducePartition::default()
            }],
            ..ProduceDelayedRequest::default()
        };
        let records = [Bytes::from(batch)];
        let answered = self.world.admin.request(ANY_SHARD, &request, &records);
        let (mut answer, _) = answered.await.expect("it is answered in time");
        answer.partitions.remove(0)
    }

    /// Delayed records that wait.
    pub async fn pending(&self) -> u64 {
        let partitions = vec![self.partition()];
        let request = DescribeDelayedRequest { partitions };
        let answer = self.world.ask(&request).await;
        let status = &answer.partitions[0];
        assert_eq!(status.error, ErrorCode::None, "{}", status.message);
        status.pending
    }

    /// Where the log starts and ends.
    pub async fn range(&self) -> (Offset, Offset) {
        let of = |timestamp_ms| ListOffsetsPartition {
            topic: self.topic,
            timestamp_ms,
            ..ListOffsetsPartition::default()
        };
        let mut found = Vec::new();
        for timestamp_ms in [EARLIEST_TIMESTAMP, LATEST_TIMESTAMP] {
            let request = ListOffsetsRequest {
                partitions: vec![of(timestamp_ms)],
            };
            found.push(self.world.ask(&request).await.partitions[0].offset);
        }
        (found[0], found[1])
    }

    /// Bytes that a fetch from an offset gives.
    pub async fn fetch(&self, offset: Offset) -> usize {
        self.fetched(offset).await.1
    }

    /// What a fetch from an offset is told, and the bytes that it gives. It is sent at once.
    pub fn fetched(
        &self,
        offset: Offset,
    ) -> impl Future<Output = (FetchPartitionResult, usize)> + use<> {
        let at = self.partition();
        let request = FetchRequest {
            max_bytes: 1 << 20,
            partitions: vec![FetchPartition {
                topic: at.topic,
                fetch_offset: offset,
                max_bytes: 1 << 20,
                leader_epoch: LeaderEpoch::UNKNOWN,
                last_fetched_epoch: LeaderEpoch::UNKNOWN,
                ..FetchPartition::default()
            }],
            ..FetchRequest::default()
        };
        let answered = self.world.admin.request(ANY_SHARD, &request, &[]);
        async move {
            let (mut reply, records) = answered.await.expect("it is answered in time");
            (reply.partitions.remove(0), records.len())
        }
    }

    /// Deletes records below an offset.
    pub async fn trim(&self, before: Offset) {
        let request = DeleteRecordsRequest {
            partitions: vec![DeleteRecordsPartition {
                topic: self.topic,
                before_offset: before,
                ..DeleteRecordsPartition::default()
            }],
        };
        let done = self.world.ask(&request).await;
        let error = done.partitions[0].error;
        assert_eq!(error, ErrorCode::None);
    }
}
