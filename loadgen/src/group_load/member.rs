//! One member: polls, tells the judge what it has and reads, and leaves or dies when told.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use millstream_client::{Client, GroupConsumer, PartitionIndex};
use tokio::{sync::oneshot, task::JoinHandle};

use super::{
    Setting,
    judge::{Fact, What},
};

static NEXT_NUMBER: AtomicU64 = AtomicU64::new(0);

const POLL_WAIT: Duration = Duration::from_millis(500);
const COMMIT_EVERY: Duration = Duration::from_millis(500);

/// How a member ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// It commits and leaves.
    Leave,
    /// It is gone without a word.
    Die,
}

pub(super) struct Member {
    pub(super) group: usize,
    pub(super) number: u64,
    order: oneshot::Sender<Order>,
    task: JoinHandle<()>,
}

impl Setting {
    pub(super) fn fact(&self, group: usize, member: u64, what: What) -> Fact {
        Fact {
            at_us: self.clock.now_us(),
            group,
            member,
            what,
        }
    }
}

impl Member {
    pub(super) fn start(setting: &Setting, client: &Client, group: usize) -> Self {
        let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
        let args = &setting.args;
        let topic = setting.topic(group);
        let consumer = client
            .consumer()
            .group_id(topic.clone())
            .subscribe([topic])
            .session_timeout(args.session_timeout)
            .heartbeat_interval(args.heartbeat)
            .auto_commit(COMMIT_EVERY)
            .build();
        let (order, ordered) = oneshot::channel();
        let (clock, facts) = (setting.clock, setting.facts.clone());
        let tell = move |what| {
            let at_us = clock.now_us();
            // The judge outlives everyone.
            let _ = facts.send(Fact {
                at_us,
                group,
                member: number,
                what,
            });
        };
        let task = tokio::spawn(live(consumer, tell, ordered));
        Self {
            group,
            number,
            order,
            task,
        }
    }

    pub(super) async fn end(self, order: Order) {
        let _ = self.order.send(order);
        let _ = self.task.await;
    }
}

async fn live(
    mut consumer: GroupConsumer,
    tell: impl Fn(What),
    mut ordered: oneshot::Receiver<Order>,
) {
    let mut held: BTreeSet<(Arc<str>, PartitionIndex)> = BTreeSet::new();
    let order = loop {
        let polled = tokio::select! {
            order = &mut ordered => break order.unwrap_or(Order::Die),
            polled = consumer.poll(POLL_WAIT) => polled,
        };
        let now: BTreeSet<_> = consumer.assignment().into_iter().collect();
        for (_, partition) in held.difference(&now) {
            tell(What::LetGo(*partition));
        }
        for (_, partition) in now.difference(&held) {
            tell(What::Took(*partition));
        }
        held = now;
        match polled {
            Ok(records) => {
                for record in records {
                    tell(What::Read(record.partition, record.offset));
                }
            }
            Err(error) if error.is_retriable() => {}
            Err(error) => {
                eprintln!("error: a member ended: {error}");
                return;
            }
        }
    };
    match order {
        Order::Die => consumer.abandon(),
        Order::Leave => {
            if let Err(error) = consumer.close().await {
                eprintln!("warning: {error}");
            }
        }
    }
}
