//! Consumer groups: members share the partitions of their topics, the broker decides who reads which.

mod builder;
pub(crate) mod coordinator;
mod driver;
pub(crate) mod machine;
pub(crate) mod offsets;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_core::Stream;
use millstream_protocol::{
    LeaderEpoch, Offset, PartitionIndex, TopicPartition,
    messages::{AssignedTopic, CommittedOffset},
};
use tokio::{sync::Notify, time::timeout_at};

pub use builder::{DEFAULT_SESSION_TIMEOUT, GroupAssignor, GroupConsumerBuilder};

use self::{
    machine::{Action, Config, Event, Machine, Work, partitions_of},
    offsets::{ToCommit, commit, fetch_committed},
};
use crate::{
    client::Client,
    consumer::{Consumer, ConsumerRecord, StartAt},
    error::ConsumeError,
};

/// A timeout longer than this is as good as none.
const FAR_AWAY: Duration = Duration::from_secs(86_400 * 365);

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

/// An offset to commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitOffset {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: PartitionIndex,
    /// The next record to read: one more than that of the last record done.
    pub offset: Offset,
    /// Whatever is to be known again with it; at most 4 KiB.
    pub metadata: String,
}

/// A member of a consumer group. Dropped, it leaves without committing; see [`close`](Self::close).
#[derive(Debug)]
pub struct GroupConsumer {
    consumer: Consumer,
    core: Arc<Core>,
    reset: AutoOffsetReset,
    auto_commit: Option<Duration>,
    next_auto_commit: Duration,
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

/// A commit in the background, from its beginning to its end.
struct Begun(Arc<Core>);

impl Begun {
    fn new(core: &Arc<Core>) -> Self {
        core.begun.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(core))
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.0.begun.fetch_sub(1, Ordering::SeqCst);
        self.0.fewer.notify_one();
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
            auto_commit,
            next_auto_commit: Duration::ZERO,
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
        self.commit_if_due();
        let deadline = tokio::time::Instant::now() + timeout.min(FAR_AWAY);
        loop {
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
            if timeout_at(deadline, more).await.is_err() {
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
            if self.auto_commit.is_some() {
                let offsets = self.uncommitted(|at| leaving.contains(&at));
                if let Err(error) = self.core.commit(&offsets).await {
                    // The next owner does again what was done; nothing is lost.
                    tracing::warn!(%error, "not committed before it was let go");
                }
            }
            // What was begun before counts only as long as they are not let go.
            while self.core.begun.load(Ordering::SeqCst) > 0 {
                self.core.fewer.notified().await;
            }
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

    /// How far earlier polls have read what this member has, where that is not committed yet.
    fn uncommitted(&self, which: impl Fn(TopicPartition) -> bool) -> Vec<ToCommit> {
        let read = self.names.iter().filter(|(at, _)| which(**at));
        read.filter_map(|(at, topic)| {
            let (offset, leader_epoch) = self.consumer.done_up_to(*at)?;
            let known = self.committed.get(at) == Some(&offset);
            (!known).then(|| ToCommit {
                at: *at,
                topic: Arc::clone(topic),
                offset,
                leader_epoch,
                metadata: String::new(),
            })
        })
        .collect()
    }

    fn commit_if_due(&mut self) {
        let now = self.core.client.shared.clock.now();
        let Some(interval) = self.auto_commit else {
            return;
        };
        if now < self.next_auto_commit {
            return;
        }
        self.next_auto_commit = now + interval;
        let offsets = self.uncommitted(|_| true);
        if offsets.is_empty() {
            return;
        }
        self.note_committed(&offsets);
        let begun = Begun::new(&self.core);
        tokio::spawn(async move {
            if let Err(error) = begun.0.commit(&offsets).await {
                tracing::warn!(%error, "an automatic commit failed");
            }
        });
    }

    fn note_committed(&mut self, offsets: &[ToCommit]) {
        for offset in offsets {
            self.committed.insert(offset.at, offset.offset);
        }
    }

    /// Commits what polls have returned so far; durable when it returns.
    ///
    /// # Errors
    /// [`ConsumeError::CommitRefused`] if a partition has gone to another member.
    pub async fn commit(&mut self) -> Result<(), ConsumeError> {
        let offsets = self.uncommitted(|_| true);
        self.core.commit(&offsets).await?;
        self.note_committed(&offsets);
        Ok(())
    }

    /// Commits these offsets; durable when it returns.
    ///
    /// # Errors
    /// [`ConsumeError::NotAssigned`] for a partition that this member does not have, else as
    /// [`commit`](Self::commit).
    pub async fn commit_offsets(&mut self, offsets: &[CommitOffset]) -> Result<(), ConsumeError> {
        let offsets = self.to_commit(offsets)?;
        self.core.commit(&offsets).await?;
        self.note_committed(&offsets);
        Ok(())
    }

    /// Begins to commit these offsets, behind every commit that was begun before, and goes on at once. The
    /// future tells how it went; it need not be awaited.
    ///
    /// # Errors
    /// [`ConsumeError::NotAssigned`] for a partition that this member does not have.
    pub fn commit_async(
        &mut self,
        offsets: &[CommitOffset],
    ) -> Result<impl Future<Output = Result<(), ConsumeError>> + Send + use<>, ConsumeError> {
        let offsets = self.to_commit(offsets)?;
        let begun = Begun::new(&self.core);
        let group = Arc::clone(&self.core.group);
        let task = tokio::spawn(async move { begun.0.commit(&offsets).await });
        Ok(async move {
            let stopped = |_| ConsumeError::Group {
                group,
                code: millstream_protocol::ErrorCode::Unknown,
                message: "the runtime stopped before the commit was answered".into(),
            };
            task.await.map_err(stopped)?
        })
    }

    fn to_commit(&self, offsets: &[CommitOffset]) -> Result<Vec<ToCommit>, ConsumeError> {
        let of = |it: &CommitOffset| {
            let at = self.at(&it.topic, it.partition)?;
            let done = self.consumer.done_up_to(at);
            let epoch = done.filter(|done| done.0 >= it.offset).map(|done| done.1);
            Ok(ToCommit {
                at,
                topic: Arc::clone(&it.topic),
                offset: it.offset,
                leader_epoch: epoch.unwrap_or(LeaderEpoch::UNKNOWN),
                metadata: it.metadata.clone(),
            })
        };
        offsets.iter().map(of).collect()
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

    /// What the group has committed of a partition, with its metadata; none if nothing.
    ///
    /// # Errors
    /// [`ConsumeError::NotAssigned`], or the coordinator can't be asked.
    pub async fn committed(
        &self,
        topic: &str,
        partition: PartitionIndex,
    ) -> Result<Option<(Offset, String)>, ConsumeError> {
        let at = self.at(topic, partition)?;
        let shared = &self.core.client.shared;
        let found = fetch_committed(shared, &self.core.group, Some(vec![at])).await?;
        let found = found.into_iter().find(|it| it.offset >= Offset::ZERO);
        Ok(found.map(|it| (it.offset, it.metadata)))
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
        let start = (self, Vec::new().into_iter());
        futures_util::stream::unfold(start, |(mut consumer, mut records)| async move {
            loop {
                if let Some(record) = records.next() {
                    return Some((Ok(record), (consumer, records)));
                }
                match consumer.poll(FAR_AWAY).await {
                    Ok(more) => records = more.into_iter(),
                    Err(error) => return Some((Err(error), (consumer, records))),
                }
            }
        })
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

impl Drop for GroupConsumer {
    fn drop(&mut self) {
        self.core.state().closed = true;
        self.core.apply(Event::Closed);
    }
}
