//! Requests about partitions, sent to those who lead them and tried again when they moved.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use millstream_protocol::{ErrorCode, PartitionIndex, TopicPartition, messages::Request};

use crate::{
    client::Shared,
    connection::Purpose,
    error::RequestError,
    metadata::{Node, Topic},
};

/// Pause before asking again.
pub(crate) const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// What one partition answers.
#[derive(Debug)]
pub(crate) struct PartitionAnswer<T> {
    pub partition: PartitionIndex,
    pub error: ErrorCode,
    pub message: String,
    pub value: T,
}

/// Asks the leaders of some partitions of a topic, until each has answered well or with an error
/// that will not pass; gives up after the client's request timeout.
pub(crate) async fn ask_leaders<R, T>(
    shared: &Shared,
    topic: &str,
    partitions: &[PartitionIndex],
    request: impl Fn(&[TopicPartition]) -> R,
    answers: impl Fn(R::Response, Bytes) -> Vec<PartitionAnswer<T>>,
) -> Result<BTreeMap<PartitionIndex, T>, RequestError>
where
    R: Request,
{
    let give_up_at = shared.clock.now() + shared.request_timeout;
    let mut known = shared.metadata.topic(topic).await?;
    let mut left = partitions.to_vec();
    let mut done = BTreeMap::new();
    loop {
        let mut trouble = None;
        let (groups, leaderless) = by_leader(&known, &left)?;
        for partition in leaderless {
            trouble = Some(RequestError::Broker {
                code: ErrorCode::NotLeader,
                message: format!("{topic}/{partition} has no leader now; try again later").into(),
            });
        }
        let asked = groups.into_iter().map(|(node, group)| {
            let reply = shared
                .metadata
                .connection(node, Purpose::Control)
                .map(|it| it.request(&request(&group), Vec::new(), shared.request_timeout));
            async move { reply?.await }
        });
        for reply in join_all(asked).await {
            match reply {
                Err(error) if error.is_retriable() => trouble = Some(error),
                Err(error) => return Err(error),
                Ok(reply) => {
                    for answer in answers(reply.body, reply.records) {
                        match accept(topic, &answer) {
                            Ok(()) => drop(done.insert(answer.partition, answer.value)),
                            Err(error) if error.is_retriable() => trouble = Some(error),
                            Err(error) => return Err(error),
                        }
                    }
                }
            }
        }
        left.retain(|partition| !done.contains_key(partition));
        if left.is_empty() {
            return Ok(done);
        }
        let trouble = trouble.unwrap_or_else(|| RequestError::Broker {
            code: ErrorCode::Internal,
            message: format!("the broker's answer leaves out {topic}/{}", left[0]).into(),
        });
        if !trouble.is_retriable() || shared.clock.now() >= give_up_at {
            return Err(trouble);
        }
        tokio::time::sleep(RETRY_PAUSE).await;
        // If metadata can't be had, the next round says why.
        if let Ok(fresh) = shared.metadata.refresh(topic, known.heard_at).await {
            known = fresh;
        }
    }
}

type Groups = BTreeMap<Node, Vec<TopicPartition>>;

fn by_leader(
    topic: &Topic,
    partitions: &[PartitionIndex],
) -> Result<(Groups, Vec<PartitionIndex>), RequestError> {
    let mut groups = Groups::new();
    let mut leaderless = Vec::new();
    for partition in partitions {
        let at = topic.partition(*partition)?;
        match topic.leaders[partition.0 as usize] {
            Some(leader) => groups.entry(leader.node).or_default().push(at),
            None => leaderless.push(*partition),
        }
    }
    Ok((groups, leaderless))
}

fn accept<T>(topic: &str, answer: &PartitionAnswer<T>) -> Result<(), RequestError> {
    match answer.error {
        ErrorCode::None => Ok(()),
        code => Err(RequestError::Broker {
            code,
            message: match answer.message.as_str() {
                "" => format!("{topic}/{} refused", answer.partition).into(),
                message => format!("{topic}/{}: {message}", answer.partition).into(),
            },
        }),
    }
}
