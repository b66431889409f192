//! What is known of the cluster: brokers' addresses, topics, who leads each partition and where.
//!
//! Asked on demand and kept until someone finds it wrong; refreshing one topic is rate-limited, so a
//! storm of refusals costs one request per interval.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use millstream_protocol::{
    BrokerId, ErrorCode, LeaderEpoch, PartitionIndex, ShardId, TopicId, TopicPartition,
    messages::{
        ANY_SHARD, BrokerInfo, MetadataRequest, MetadataResponse, PartitionInfo, Request, TopicInfo,
    },
};

use crate::{
    clock::Clock,
    connection::{Connection, Pool, Purpose},
    error::RequestError,
};

/// Shortest time between two refreshes of one topic.
const MIN_REFRESH_INTERVAL: Duration = Duration::from_millis(100);

/// A shard of a broker: what requests are sent to, and what they are batched by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Node {
    /// The broker.
    pub broker: BrokerId,
    /// Its shard.
    pub shard: ShardId,
}

/// Who leads a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leader {
    /// Where it is led.
    pub node: Node,
    /// Since when.
    pub epoch: LeaderEpoch,
}

/// A topic as last heard.
#[derive(Clone, Debug)]
pub struct Topic {
    /// Its name.
    pub name: Arc<str>,
    /// Its identity.
    pub id: TopicId,
    /// By partition index; none while a partition has no leader.
    pub leaders: Vec<Option<Leader>>,
    /// When it was heard, on the client's clock.
    pub heard_at: Duration,
}

impl Topic {
    /// The partition, if the topic has it.
    pub(crate) fn partition(
        &self,
        partition: PartitionIndex,
    ) -> Result<TopicPartition, RequestError> {
        if (partition.0 as usize) < self.leaders.len() {
            return Ok(TopicPartition {
                topic: self.id,
                partition,
            });
        }
        Err(RequestError::UnknownPartition {
            topic: Arc::clone(&self.name),
            partition,
            count: self.leaders.len(),
        })
    }
}

#[derive(Debug)]
pub(crate) struct Metadata {
    pool: Arc<Pool>,
    clock: Clock,
    request_timeout: Duration,
    servers: Vec<Arc<str>>,
    state: Mutex<State>,
    /// One refresh at a time; who waited looks again before asking.
    refreshing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    /// Which of the servers answered last.
    server: usize,
    brokers: BTreeMap<BrokerId, Arc<str>>,
    topics: BTreeMap<Arc<str>, Arc<Topic>>,
    /// Of topics that have one: how old a record may be for a reader, in milliseconds.
    ttls: BTreeMap<TopicId, i64>,
}

impl Metadata {
    pub(crate) fn new(
        pool: Arc<Pool>,
        clock: Clock,
        servers: Vec<Arc<str>>,
        request_timeout: Duration,
    ) -> Self {
        Self {
            pool,
            clock,
            request_timeout,
            servers,
            state: Mutex::default(),
            refreshing: tokio::sync::Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A topic, from memory or asked for.
    pub(crate) async fn topic(&self, name: &str) -> Result<Arc<Topic>, RequestError> {
        if let Some(topic) = self.cached(name) {
            return Ok(topic);
        }
        self.refresh(name, Duration::ZERO).await
    }

    pub(crate) fn cached(&self, name: &str) -> Option<Arc<Topic>> {
        self.state().topics.get(name).cloned()
    }

    /// A topic as heard no earlier than `newer_than`; asks at most once per interval.
    pub(crate) async fn refresh(
        &self,
        name: &str,
        newer_than: Duration,
    ) -> Result<Arc<Topic>, RequestError> {
        if let Some(topic) = self.cached(name) {
            if topic.heard_at > newer_than {
                return Ok(topic);
            }
            let due = topic.heard_at + MIN_REFRESH_INTERVAL;
            tokio::time::sleep_until(self.clock.instant(due)).await;
        }
        let _alone = self.refreshing.lock().await;
        // Whoever was first may have brought it.
        if let Some(topic) = self.cached(name)
            && topic.heard_at > newer_than
        {
            return Ok(topic);
        }
        let info = self.ask(Some(vec![name.to_owned()]), false).await?.topics;
        let Some(info) = info.into_iter().next() else {
            return Err(RequestError::UnknownTopic(name.into()));
        };
        if let Err(error) = check(&info) {
            // A deleted topic must be looked up again, should it come back.
            self.state().topics.remove(name);
            return Err(error);
        }
        let ttl_ms = ttl_ms_of(&info);
        let topic = Arc::new(topic_of(info, self.clock.now()));
        let mut state = self.state();
        match ttl_ms {
            Some(ttl_ms) => _ = state.ttls.insert(topic.id, ttl_ms),
            None => _ = state.ttls.remove(&topic.id),
        }
        let name = Arc::clone(&topic.name);
        state.topics.insert(name, Arc::clone(&topic));
        Ok(topic)
    }

    /// How old a topic's records may be for a reader, in milliseconds, if there is a limit.
    pub(crate) fn ttl_ms(&self, id: TopicId) -> Option<i64> {
        self.state().ttls.get(&id).copied()
    }

    /// Drops a topic that turned out to be gone, so that its name is looked up again.
    pub(crate) fn forget(&self, id: TopicId) {
        let mut state = self.state();
        state.topics.retain(|_, topic| topic.id != id);
        state.ttls.remove(&id);
    }

    /// Asks any broker for topics and learns the brokers on the way.
    pub(crate) async fn ask(
        &self,
        topics: Option<Vec<String>>,
        include_internal: bool,
    ) -> Result<MetadataResponse, RequestError> {
        let request = MetadataRequest {
            topics,
            include_internal,
        };
        let response = self.ask_any(&request).await?;
        self.pool.set_cluster_id(response.cluster_id);
        let mut state = self.state();
        let connected_to = Arc::clone(&self.servers[state.server]);
        for broker in &response.brokers {
            let address = address_of(broker, &connected_to);
            state.brokers.insert(broker.id, address);
        }
        drop(state);
        Ok(response)
    }

    /// Sends a request that any broker can answer, trying each known server once.
    pub(crate) async fn ask_any<R: Request + Sync>(
        &self,
        request: &R,
    ) -> Result<R::Response, RequestError> {
        let first = self.state().server;
        let mut last_error = None;
        for attempt in 0..self.servers.len() {
            let server = (first + attempt) % self.servers.len();
            let connection =
                self.pool
                    .connection(&self.servers[server], ANY_SHARD, Purpose::Control);
            let reply = connection.request(request, Vec::new(), self.request_timeout);
            match reply.await {
                Ok(reply) => {
                    self.state().server = server;
                    return Ok(reply.body);
                }
                // Only a server that could not be reached is worth asking another.
                Err(error @ RequestError::Connect { .. }) => last_error = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last_error.expect("there is a server, and it was asked"))
    }

    /// A connection to a shard of a broker.
    pub(crate) fn connection(
        &self,
        node: Node,
        purpose: Purpose,
    ) -> Result<Connection, RequestError> {
        let address = self.state().brokers.get(&node.broker).cloned();
        let address = address.ok_or_else(|| RequestError::Broker {
            code: ErrorCode::NotLeader,
            message: format!(
                "broker {} leads, and its address is unknown yet",
                node.broker
            )
            .into(),
        })?;
        Ok(self.pool.connection(&address, node.shard.0, purpose))
    }
}

/// An empty host means: where you connected to, through whatever forwards there.
fn address_of(broker: &BrokerInfo, connected_to: &Arc<str>) -> Arc<str> {
    match broker.host.as_str() {
        "" => Arc::clone(connected_to),
        host if host.contains(':') => format!("[{host}]:{}", broker.port).into(),
        host => format!("{host}:{}", broker.port).into(),
    }
}

/// Refuses what is no topic.
pub(crate) fn check(info: &TopicInfo) -> Result<(), RequestError> {
    match info.error {
        ErrorCode::None => Ok(()),
        ErrorCode::UnknownTopic => Err(RequestError::UnknownTopic(info.name.as_str().into())),
        code => Err(RequestError::Broker {
            code,
            message: format!("topic {:?} can't be described", info.name).into(),
        }),
    }
}

fn ttl_ms_of(info: &TopicInfo) -> Option<i64> {
    let setting = info.configs.iter().find(|it| it.name == "ttl.ms")?;
    setting.value.parse().ok().filter(|ttl_ms| *ttl_ms >= 0)
}

fn topic_of(info: TopicInfo, heard_at: Duration) -> Topic {
    Topic {
        name: info.name.into(),
        id: info.id,
        leaders: info.partitions.iter().map(leader_of).collect(),
        heard_at,
    }
}

fn leader_of(info: &PartitionInfo) -> Option<Leader> {
    (info.error == ErrorCode::None).then_some(Leader {
        node: Node {
            broker: info.leader,
            shard: info.shard,
        },
        epoch: info.leader_epoch,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_host_is_where_we_connected() {
        let connected_to: Arc<str> = "forwarded:1234".into();
        let broker = |host: &str| BrokerInfo {
            host: host.to_owned(),
            port: 7400,
            ..BrokerInfo::default()
        };
        assert_eq!(&*address_of(&broker(""), &connected_to), "forwarded:1234");
        assert_eq!(&*address_of(&broker("a.b"), &connected_to), "a.b:7400");
        assert_eq!(&*address_of(&broker("::1"), &connected_to), "[::1]:7400");
    }
}
