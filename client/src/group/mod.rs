//! Consumer groups: members share the partitions of their topics, the broker decides who reads which.

mod builder;
mod commits;
pub(crate) mod coordinator;
mod driver;
pub(crate) mod machine;
pub(crate) mod offsets;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicUsize},
    time::Duration,
};

use futures_core::Stream;
use millstream_protocol::{
    Offset, PartitionIndex, TopicPartition,
    messages::{AssignedTopic, CommittedOffset},
};
use tokio::{sync::Notify, time::timeout_at};

pub use builder::{DEFAULT_SESSION_TIMEOUT, GroupAssignor, GroupConsumerBuilder};
pub use commits::CommitOffset;

use self::{
    commits::AutoCommit,
    machine::{Action, Config, Event, Machine, Work, partitions_of},
    offsets::{ToCommit, commit, fetch_committed},
};
use crate::{
    client::Client,
    clock::FAR_AWAY,
    consumer::{Consumer, ConsumerRecord, Polled, StartAt, stream_of},
    error::ConsumeError,
};

/// A member that is dropped has so long to say so.
const LEAVE_WITHIN: Duration = Duration::from_secs(5);

/// Where to begin a partition of which nothing was committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AutoOffsetReset {
    /// The first offset there is.
    #[default]
    Earliest,
    /// Behind the last record.
    Latest,
    /// Nowhere: `poll` reports it, and the partition waits for a seek.
    None,
}

/// A member of a consumer group. Dropped, it leaves without committing; see [`close`](Self::close).
#[derive(Debug)]
pub struct GroupConsumer {
    consumer: Consumer,
    core: Arc<Core>,
    reset: AutoOffsetReset,
    auto_commit: Option<AutoCommit>,
    /// What is read, by name.
    names: BTreeMap<TopicPartition, Arc<str>>,
    /// What was last committed of it, or found committed.
    committed: BTreeMap<TopicPartition, Offset>,
    /// Said once, by the next poll.
    troubles: Vec<ConsumeError>,
}

#[derive(Debug)]
struct Core {
    client: Client,
    group: Arc<str>,
    state: Mutex<State>,
    /// Wakes the driver.
    wake: Notify,
    /// Wakes a poll: the machine has work for it.
    news: Notify,
    ended: Notify,
    /// One commit at a time, so that an older one never comes after a newer.
    committing: tokio::sync::Mutex<()>,
    /// Commits that were begun and have not ended; rung when one ends.
    begun: AtomicUsize,
    fewer: Notify,
}

#[derive(Debug)]
struct State {
    machine: Machine,
    actions: Vec<Action>,
    closed: bool,
    abandoned: bool,
}

impl State {
    fn apply(&mut self, now: Duration, event: Event) {
        self.machine.apply(now, event, &mut self.actions);
    }
}

impl Core {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply(&self, event: Event) {
        let now = self.client.shared.clock.now();
        self.state().apply(now, event);
        self.wake.notify_one();
    }

    async fn commit(&self, offsets: &[ToCommit]) -> Result<(), ConsumeError> {
        let _alone = self.committing.lock().await;
        let identity = || self.state().machine.identity();
        commit(&self.client.shared, &self.group, identity, offsets).await
    }
}

/// Tells the machine that a poll is over, however it ends.
struct Polling<'a>(&'a Core);

impl Drop for Polling<'_> {
    fn drop(&mut self) {
        self.0.apply(Event::PollEnded);
    }
}

impl GroupConsumer {
    fn start(
        client: Client,
        consumer: Consumer,
        config: Config,
        auto_commit: Option<Duration>,
        reset: AutoOffsetReset,
    ) -> Self {
        let core = Arc::new(Core {
            client,
            group: Arc::clone(&config.group),
            state: Mutex::new(State {
                machine: Machine::new(config),
                actions: Vec::new(),
                closed: false,
                abandoned: false,
            }),
            wake: Notify::new(),
            news: Notify::new(),
            ended: Notify::new(),
            committing: tokio::sync::Mutex::default(),
            begun: AtomicUsize::new(0),
            fewer: Notify::new(),
        });
        tokio::spawn(driver::drive(Arc::clone(&core)));
        Self {
            consumer,
            core,
            reset,
            auto_commit: auto_commit.map(AutoCommit::new),
            names: BTreeMap::new(),
            committed: BTreeMap::new(),
            troubles: Vec::new(),
        }
    }

    /// Records of the partitions that this member has; waits up to `timeout` for the first, then
    /// returns nothing. What earlier polls returned counts as done from here on: it is what automatic
    /// commits commit, and what is committed before a partition goes to another member.
    ///
    /// # Errors
    /// [`ConsumeError`] once for each obstacle; the other partitions go on. A member that was fenced for
    /// good says so on every poll.
    pub async fn poll(&mut self, timeout: Duration) -> Result<Vec<ConsumerRecord>, ConsumeError> {
        tokio::task::coop::consume_budget().await;
        self.core.apply(Event::Polled);
        let core = Arc::clone(&self.core);
        let _polling = Polling(&core);
        let deadline = tokio::time::Instant::now() + timeout.min(FAR_AWAY);
        loop {
            self.commit_if_due().await;
            self.settle().await?;
            if let Some(trouble) = self.troubles.pop() {
                return Err(trouble);
            }
            let taken = self.consumer.take_now()?;
            if !taken.is_empty() {
                return Ok(taken);
            }
            let more = async {
                tokio::select! {
                    () = self.consumer.wait_for_more() => {}
                    () = self.core.news.notified() => {}
                }
            };
            // What is committed automatically is so while a poll waits as well.
            let until = self
                .next_auto_commit()
                .map_or(deadline, |at| at.min(deadline));
            if timeout_at(until, more).await.is_err() && until == deadline {
                return Ok(Vec::new());
            }
        }
    }

    /// Does what the group asks for: lets go, takes, or drops everything.
    async fn settle(&mut self) -> Result<(), ConsumeError> {
        let work = self.core.state().machine.work()?;
        match work {
            Work::Nothing => Ok(()),
            Work::DropAll(why) => {
                let all: Vec<TopicPartition> = self.names.keys().copied().collect();
                self.stop_reading(&all);
                self.forget_auto_commit();
                self.core.apply(Event::Dropped);
                why.map_or(Ok(()), Err)
            }
            Work::TakeOn(epoch, assignment) => self.take_on(epoch, &assignment).await,
        }
    }

    async fn take_on(
        &mut self,
        epoch: i64,
        assignment: &[AssignedTopic],
    ) -> Result<(), ConsumeError> {
        let wanted: BTreeSet<TopicPartition> = partitions_of(assignment).collect();
        let held = self.names.keys().copied();
        let leaving: Vec<TopicPartition> = held.filter(|at| !wanted.contains(at)).collect();
        if !leaving.is_empty() {
            self.commit_before_leaving(&leaving).await;
            self.stop_reading(&leaving);
            self.core.apply(Event::Released(leaving));
        }
        self.start_reading(assignment).await?;
        let held = wanted.into_iter().collect();
        self.core.apply(Event::TakenOn(epoch, held));
        Ok(())
    }

    fn stop_reading(&mut self, partitions: &[TopicPartition]) {
        for at in partitions {
            if let Some(topic) = self.names.remove(at) {
                self.consumer.unassign(&topic, at.partition);
            }
            self.committed.remove(at);
        }
    }

    async fn start_reading(&mut self, assignment: &[AssignedTopic]) -> Result<(), ConsumeError> {
        let new: Vec<TopicPartition> = partitions_of(assignment)
            .filter(|at| !self.names.contains_key(at))
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        let shared = &self.core.client.shared;
        let found = fetch_committed(shared, &self.core.group, Some(new)).await?;
        let found: BTreeMap<TopicPartition, CommittedOffset> = found
            .into_iter()
            .map(|it| {
                let (topic, partition) = (it.topic, it.partition);
                (TopicPartition { topic, partition }, it)
            })
            .collect();
        for topic in assignment {
            let name: Arc<str> = topic.name.as_str().into();
            for assigned in &topic.partitions {
                let at = TopicPartition {
                    topic: topic.topic,
                    partition: assigned.partition,
                };
                let Some(committed) = found.get(&at) else {
                    continue;
                };
                self.begin(at, &name, committed, assigned.is_new).await?;
            }
        }
        Ok(())
    }

    async fn begin(
        &mut self,
        at: TopicPartition,
        topic: &Arc<str>,
        committed: &CommittedOffset,
        is_new: bool,
    ) -> Result<(), ConsumeError> {
        let has = committed.offset >= Offset::ZERO;
        let start = match self.reset {
            _ if has => StartAt::Offset(committed.offset),
            _ if is_new => StartAt::Beginning,
            AutoOffsetReset::Earliest => StartAt::Beginning,
            AutoOffsetReset::Latest => StartAt::End,
            AutoOffsetReset::None => {
                self.names.insert(at, Arc::clone(topic));
                self.troubles.push(ConsumeError::NoCommittedOffset {
                    group: Arc::clone(&self.core.group),
                    topic: Arc::clone(topic),
                    partition: at.partition,
                });
                return Ok(());
            }
        };
        let epoch = committed.leader_epoch;
        let partition = at.partition;
        let assigned = self.consumer.assign_after(topic, partition, start, epoch);
        assigned.await?;
        if has {
            self.committed.insert(at, committed.offset);
        }
        self.names.insert(at, Arc::clone(topic));
        Ok(())
    }

    fn at(&self, topic: &str, partition: PartitionIndex) -> Result<TopicPartition, ConsumeError> {
        let mut held = self.names.iter();
        let found = held.find(|(at, name)| at.partition == partition && &***name == topic);
        let found = found.map(|(at, _)| *at);
        found.ok_or_else(|| ConsumeError::NotAssigned {
            topic: topic.into(),
            partition,
        })
    }

    /// What this member has now.
    #[must_use]
    pub fn assignment(&self) -> Vec<(Arc<str>, PartitionIndex)> {
        let held = self.names.iter();
        held.map(|(at, topic)| (Arc::clone(topic), at.partition))
            .collect()
    }

    /// What the next poll will let go, so that it can be committed before.
    #[must_use]
    pub fn leaving(&self) -> Vec<(Arc<str>, PartitionIndex)> {
        let leaving = self.core.state().machine.leaving().into_iter();
        leaving
            .filter_map(|at| Some((Arc::clone(self.names.get(&at)?), at.partition)))
            .collect()
    }

    /// Moves a partition; what was read ahead is dropped.
    ///
    /// # Errors
    /// [`ConsumeError::NotAssigned`], or the broker can't be asked.
    pub async fn seek(
        &mut self,
        topic: &str,
        partition: PartitionIndex,
        to: StartAt,
    ) -> Result<(), ConsumeError> {
        self.at(topic, partition)?;
        self.consumer.assign(topic, partition, to).await
    }

    /// Returns nothing of a partition until it is resumed or goes to another member.
    ///
    /// # Errors
    /// [`ConsumeError::NotAssigned`].
    pub fn pause(&mut self, topic: &str, partition: PartitionIndex) -> Result<(), ConsumeError> {
        self.consumer.pause(topic, partition)
    }

    /// Goes on with a partition that was paused.
    ///
    /// # Errors
    /// [`ConsumeError::NotAssigned`].
    pub fn resume(&mut self, topic: &str, partition: PartitionIndex) -> Result<(), ConsumeError> {
        self.consumer.resume(topic, partition)
    }

    /// Offset of the next record that `poll` will return of a partition.
    #[must_use]
    pub fn position(&self, topic: &str, partition: PartitionIndex) -> Option<Offset> {
        self.consumer.position(topic, partition)
    }

    /// As [`Consumer::lag`].
    #[must_use]
    pub fn lag(&self, topic: &str, partition: PartitionIndex) -> Option<u64> {
        self.consumer.lag(topic, partition)
    }

    /// Whether this member has partitions and has returned all they hold, as of the last replies.
    #[must_use]
    pub fn at_end(&self) -> bool {
        !self.names.is_empty() && self.consumer.at_end()
    }

    /// All records as a stream, without end. An obstacle is an item.
    pub fn into_stream(self) -> impl Stream<Item = Result<ConsumerRecord, ConsumeError>> + Send {
        stream_of(self)
    }

    /// Ends as a process does that is killed: nothing is committed, nobody is told. For tests of what others
    /// make of that.
    #[doc(hidden)]
    pub fn abandon(self) {
        self.core.state().abandoned = true;
    }

    /// Commits what polls have returned, if commits are automatic, and leaves, so that others go on at
    /// once. A static member stays: its next life gets what it has.
    ///
    /// # Errors
    /// The commit failed; it has left all the same.
    pub async fn close(mut self) -> Result<(), ConsumeError> {
        let committed = match self.auto_commit {
            Some(_) => self.commit().await,
            None => Ok(()),
        };
        let core = Arc::clone(&self.core);
        drop(self);
        let _ = tokio::time::timeout(LEAVE_WITHIN, core.ended.notified()).await;
        committed
    }
}

impl Polled for GroupConsumer {
    async fn next_records(
        &mut self,
        timeout: Duration,
    ) -> Result<Vec<ConsumerRecord>, ConsumeError> {
        self.poll(timeout).await
    }
}

impl Drop for GroupConsumer {
    fn drop(&mut self) {
        self.core.state().closed = true;
        self.core.apply(Event::Closed);
    }
}
