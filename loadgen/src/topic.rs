//! The topic of a run: found, or created; and its offsets, asked for until the broker answers.

use std::{collections::BTreeMap, future::Future, time::Duration};

use anyhow::{Result, bail, ensure};
use millstream_client::{Admin, ErrorCode, NewTopic, OffsetSpec, RequestError, TopicInfo};

use crate::{clock::Clock, spread::Spread, workload::Writing};

/// Pause between attempts while the broker is away.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Tries until success, a final error, or until patience is at an end.
///
/// # Errors
/// The last error.
pub async fn patiently<T, F>(
    clock: &Clock,
    patience: Duration,
    mut attempt: impl FnMut() -> F,
) -> Result<T, RequestError>
where
    F: Future<Output = Result<T, RequestError>>,
{
    let began_us = clock.now_us();
    loop {
        let error = match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let waited_us = u128::try_from(clock.now_us() - began_us).unwrap_or(0);
        if !error.is_retriable() || waited_us > patience.as_micros() {
            return Err(error);
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// The topic to write to, and a sentence if it had to be created.
///
/// # Errors
/// If it is there and not as asked for, or can't be created.
pub async fn ensure_topic(
    admin: &Admin,
    name: &str,
    writing: &Writing,
) -> Result<(TopicInfo, Option<String>)> {
    match admin.topic(name).await {
        Ok(topic) => {
            check(&topic, writing)?;
            Ok((topic, None))
        }
        Err(error) if error.code() == Some(ErrorCode::UnknownTopic) => {
            let partitions = writing.partitions.unwrap_or(1);
            let mut new = NewTopic::new(name).partitions(partitions);
            if let Some(durability) = writing.durability {
                new = new.config("durability", durability.name());
            }
            for (name, value) in &writing.topic_config {
                new = new.config(name, value);
            }
            admin.create_topic(new).await?;
            let topic = admin.topic(name).await?;
            let durability = durability(&topic).unwrap_or("flushed").to_owned();
            let noun = if partitions == 1 {
                "partition"
            } else {
                "partitions"
            };
            let said =
                format!("created topic {name:?}: {partitions} {noun}, durability={durability}");
            Ok((topic, Some(said)))
        }
        Err(error) => Err(error.into()),
    }
}

fn check(topic: &TopicInfo, writing: &Writing) -> Result<()> {
    let name = &topic.name;
    let count = topic.partitions.len();
    if let Some(wanted) = writing.partitions {
        ensure!(
            usize::try_from(wanted) == Ok(count),
            "topic {name:?} has {count} partitions, not {wanted}; leave --partitions away, name \
             another --topic, or: millstream topic delete {name}"
        );
    }
    if let (Some(wanted), Some(durability)) = (writing.durability, durability(topic))
        && wanted.name() != durability
    {
        let wanted = wanted.name();
        bail!(
            "topic {name:?} has durability={durability}; change it with: millstream topic alter \
             {name} --config durability={wanted}"
        );
    }
    Ok(())
}

/// The topic's durability.
pub fn durability(topic: &TopicInfo) -> Option<&str> {
    let entry = topic
        .configs
        .iter()
        .find(|entry| entry.name == "durability")?;
    Some(&entry.value)
}

/// An offset of each partition, by its number over all topics.
///
/// # Errors
/// The last error, once patience is at an end.
pub async fn offsets(
    admin: &Admin,
    clock: &Clock,
    patience: Duration,
    spread: &Spread,
    spec: OffsetSpec,
) -> Result<BTreeMap<u32, i64>> {
    let mut found = BTreeMap::new();
    for topic in spread.topics() {
        let offsets = patiently(clock, patience, || admin.list_offsets(topic, spec)).await?;
        let offsets = offsets.into_iter().filter_map(|(partition, offset)| {
            Some((spread.number_of(topic, partition)?, offset.0))
        });
        found.extend(offsets);
    }
    Ok(found)
}
