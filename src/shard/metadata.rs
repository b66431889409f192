//! Metadata and its changes: read from this shard's image, changed by the control plane.

use std::{collections::BTreeSet, rc::Rc};

use futures_channel::oneshot;
use millstream_protocol::{
    ErrorCode, PartitionIndex, ProducerEpoch, TopicId, TopicPartition, Wire,
    messages::{
        BrokerInfo, BrokerStatus, CreatePartitionsRequest, CreateTopicsRequest,
        DeleteTopicsRequest, DescribeClusterResponse, InitProducerIdRequest,
        InitProducerIdResponse, MetadataRequest, MetadataResponse, PartitionInfo, TopicInfo,
    },
    names::is_internal,
};

use crate::{
    control::{ControlAnswer, ControlReply, ControlRequest},
    controller::TopicImage,
    io::{Io, TaskClass},
    net::ReplyTo,
    shard::{BROKER_VERSION, FEATURE_LEVEL, Shard, metrics::Counter},
};

/// Up to so many bytes metadata is answered at once.
const SMALL_REPLY: usize = 16 << 10;
/// About what a topic takes in an answer, with its settings, in bytes ...
const TOPIC_SIZE: usize = 512;
/// ... and each of its partitions.
const PARTITION_SIZE: usize = 48;

impl<I: Io> Shard<I> {
    /// Serves a Metadata of a client.
    pub(super) fn metadata(self: &Rc<Self>, request: &MetadataRequest, reply_to: ReplyTo<I>) {
        self.take_newer_image();
        let names = request.topics.iter().flatten();
        if !all_different(names) {
            // Each repeat would be answered in full: a small request could ask for gigabytes.
            let message = "a topic is named more than once";
            return reply_to.refuse(ErrorCode::InvalidRequest, message);
        }
        let size = self.metadata_size(request);
        if size <= SMALL_REPLY {
            return reply_to.send(&self.metadata_now(request));
        }
        // A request of a few bytes may ask for megabytes: its answer waits for memory as records do.
        let (shard, request) = (Rc::clone(self), request.clone());
        self.io().spawn(TaskClass::Foreground, async move {
            reply_to.turn().await;
            let charge = reply_to.reserve(size).await;
            reply_to.send_with(&shard.metadata_now(&request), Vec::new(), charge);
        });
    }

    /// About how large the answer is, in bytes.
    fn metadata_size(&self, request: &MetadataRequest) -> usize {
        let image = self.image.borrow();
        let of = |topic: &TopicImage| TOPIC_SIZE + topic.partitions.len() * PARTITION_SIZE;
        match &request.topics {
            Some(names) => names
                .iter()
                .map(|name| {
                    image
                        .topic_named(name)
                        .map_or(TOPIC_SIZE, |topic| of(topic))
                })
                .sum(),
            None => image.topics().map(|topic| of(topic)).sum(),
        }
    }

    fn metadata_now(&self, request: &MetadataRequest) -> MetadataResponse {
        let image = self.image.borrow();
        let topics = match &request.topics {
            Some(names) => names
                .iter()
                .map(|name| match image.topic_named(name) {
                    Some(topic) => self.topic_info(topic),
                    None => unknown_topic(name),
                })
                .collect(),
            None => image
                .topics()
                .filter(|topic| request.include_internal || !is_internal(&topic.name))
                .map(|topic| self.topic_info(topic))
                .collect(),
        };
        let (host, port) = self.config.advertised.clone().unwrap_or_default();
        let broker = BrokerInfo {
            id: image.broker_id,
            host,
            port,
            rack: String::new(),
            shard_count: self.config.shard_count,
        };
        MetadataResponse {
            metadata_index: image.index,
            cluster_id: image.cluster_id,
            controller: image.controller,
            brokers: vec![broker],
            topics,
        }
    }

    fn topic_info(&self, topic: &TopicImage) -> TopicInfo {
        let partitions = (0..).zip(&topic.partitions).map(|(number, partition)| {
            let id = TopicPartition {
                topic: topic.id,
                partition: PartitionIndex(number),
            };
            PartitionInfo {
                partition: id.partition,
                error: ErrorCode::None,
                leader: partition.leader,
                leader_epoch: partition.leader_epoch,
                shard: self.owner(id),
                replicas: partition.replicas.clone(),
                isr: partition.isr.clone(),
            }
        });
        TopicInfo {
            error: ErrorCode::None,
            name: topic.name.clone(),
            id: topic.id,
            configs: topic.config.entries(),
            partitions: partitions.collect(),
        }
    }

    /// Asks the control plane; `None` after the client was told that it could not be.
    async fn change(
        self: &Rc<Self>,
        request: ControlRequest,
        reply_to: ReplyTo<I>,
    ) -> Option<(ControlAnswer, ReplyTo<I>)> {
        let (send, answer) = oneshot::channel();
        let pass_on = Box::new(move |reply: ControlReply| {
            let _ = send.send(reply);
        });
        if let Err(overloaded) = self.control.submit(request, pass_on) {
            reply_to.refuse(ErrorCode::Overloaded, overloaded.to_string());
            return None;
        }
        match answer.await {
            Ok(Ok(answer)) => {
                self.refresh_everywhere().await;
                Some((answer, reply_to))
            }
            Ok(Err(error)) => {
                reply_to.refuse(ErrorCode::from(&error), error.to_string());
                None
            }
            Err(oneshot::Canceled) => {
                reply_to.refuse(ErrorCode::ShuttingDown, "the broker is shutting down");
                None
            }
        }
    }

    pub(super) async fn serve_change<M: Wire>(
        self: Rc<Self>,
        request: ControlRequest,
        reply_to: ReplyTo<I>,
        response_of: impl FnOnce(ControlAnswer) -> Option<M>,
    ) {
        if let Some((answer, reply_to)) = self.change(request, reply_to).await {
            match response_of(answer) {
                Some(response) => reply_to.send(&response),
                None => reply_to.refuse(ErrorCode::Internal, "the answer is of another kind"),
            }
        }
    }

    /// Serves a CreateTopics of a client.
    pub(super) async fn create_topics(
        self: Rc<Self>,
        request: CreateTopicsRequest,
        reply_to: ReplyTo<I>,
    ) {
        let request = ControlRequest::CreateTopics(request);
        self.serve_change(request, reply_to, |answer| match answer {
            ControlAnswer::CreateTopics(response) => Some(response),
            _ => None,
        })
        .await;
    }

    /// Serves a DeleteTopics of a client.
    pub(super) async fn delete_topics(
        self: Rc<Self>,
        request: DeleteTopicsRequest,
        reply_to: ReplyTo<I>,
    ) {
        let request = ControlRequest::DeleteTopics(request);
        self.serve_change(request, reply_to, |answer| match answer {
            ControlAnswer::DeleteTopics(response) => Some(response),
            _ => None,
        })
        .await;
    }

    /// Serves a CreatePartitions of a client.
    pub(super) async fn create_partitions(
        self: Rc<Self>,
        request: CreatePartitionsRequest,
        reply_to: ReplyTo<I>,
    ) {
        let request = ControlRequest::CreatePartitions(request);
        self.serve_change(request, reply_to, |answer| match answer {
            ControlAnswer::CreatePartitions(response) => Some(response),
            _ => None,
        })
        .await;
    }

    /// Serves an InitProducerId of a client.
    pub(super) async fn init_producer_id(
        self: Rc<Self>,
        request: InitProducerIdRequest,
        reply_to: ReplyTo<I>,
    ) {
        if request.transactional_id.is_some() {
            let message = "transactions are not supported";
            return reply_to.refuse(ErrorCode::InvalidRequest, message);
        }
        self.serve_change(
            ControlRequest::InitProducerId,
            reply_to,
            |answer| match answer {
                ControlAnswer::InitProducerId(producer_id) => Some(InitProducerIdResponse {
                    producer_id,
                    producer_epoch: ProducerEpoch(0),
                }),
                _ => None,
            },
        )
        .await;
    }

    /// Serves a DescribeCluster of a client.
    pub(super) async fn describe_cluster(self: Rc<Self>, reply_to: ReplyTo<I>) {
        let facts = &self.config.broker;
        let sum = |pick: fn(&super::metrics::ShardCounters) -> &Counter| -> u64 {
            facts
                .counters
                .iter()
                .map(|counters| pick(counters).value())
                .sum()
        };
        let image = std::sync::Arc::clone(&self.image.borrow());
        let space = self.io().space(&self.config.storage.data_dir).await.ok();
        let narrow = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        let uptime = self.io().now().since(self.started);
        let status = BrokerStatus {
            id: image.broker_id,
            version: BROKER_VERSION.to_owned(),
            shard_count: self.config.shard_count,
            uptime_ms: u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX),
            connections: narrow(sum(|c| &c.connections)),
            partitions: narrow(sum(|c| &c.partitions)),
            partitions_failed: narrow(sum(|c| &c.partitions_failed)),
            memory_budget: facts.memory,
            memory_used: sum(|c| &c.cached_bytes)
                + sum(|c| &c.unflushed_bytes)
                + sum(|c| &c.receive_buffer_bytes)
                + sum(|c| &c.reply_bytes),
            data_dir: facts.data_dir.clone(),
            disk_free: space.map_or(0, |space| space.free),
            disk_total: space.map_or(0, |space| space.total),
            direct_io: facts.direct_io,
            forwarded_requests: sum(|c| &c.forwarded_requests),
        };
        reply_to.send(&DescribeClusterResponse {
            cluster_id: image.cluster_id,
            controller: image.controller,
            feature_level: FEATURE_LEVEL,
            metadata_index: image.index,
            brokers: vec![status],
        });
    }
}

fn unknown_topic(name: &str) -> TopicInfo {
    TopicInfo {
        error: ErrorCode::UnknownTopic,
        name: name.to_owned(),
        id: TopicId::default(),
        ..TopicInfo::default()
    }
}

fn all_different<'a>(names: impl Iterator<Item = &'a String>) -> bool {
    let mut seen = BTreeSet::new();
    names.into_iter().all(|name| seen.insert(name))
}
