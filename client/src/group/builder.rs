//! The settings of a member of a group.

use std::time::Duration;

use uuid::Uuid;

use super::{AutoOffsetReset, GroupConsumer, machine::Config};
use crate::{
    client::Client,
    clock::jitter_seed,
    consumer::{ConsumerBuilder, OutOfRangePolicy},
};

/// How long a member that is not heard of is waited for, unless set.
pub const DEFAULT_SESSION_TIMEOUT: Duration = Duration::from_secs(15);

/// How a group's partitions are handed out; the group uses what most of its members say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupAssignor {
    /// A run of neighbours of each topic, so that equal numbers of several topics meet.
    Range,
    /// Evenly, whatever was before.
    Uniform,
    /// Evenly, and everyone keeps what can be kept.
    #[default]
    Sticky,
}

/// Settings of a [`GroupConsumer`]; made by [`ConsumerBuilder::group_id`].
#[derive(Clone, Debug)]
pub struct GroupConsumerBuilder {
    client: Client,
    consumer: ConsumerBuilder,
    config: Config,
    pub(super) auto_commit: Option<Duration>,
    pub(super) reset: AutoOffsetReset,
}

impl GroupConsumerBuilder {
    pub(crate) fn new(client: Client, consumer: ConsumerBuilder, group: String) -> Self {
        let config = Config {
            group: group.into(),
            member_id: Uuid::new_v4().to_string(),
            instance_id: None,
            topics: Vec::new(),
            pattern: None,
            assignor: String::new(),
            session_timeout: DEFAULT_SESSION_TIMEOUT,
            heartbeat_interval: Duration::from_secs(3),
            max_poll_interval: Duration::from_secs(300),
            seed: jitter_seed(),
        };
        Self {
            client,
            consumer,
            config,
            auto_commit: Some(Duration::from_secs(5)),
            reset: AutoOffsetReset::default(),
        }
    }

    /// Topics by name. One that does not exist yet is taken up once it does.
    #[must_use]
    pub fn subscribe<T: Into<String>>(mut self, topics: impl IntoIterator<Item = T>) -> Self {
        self.config
            .topics
            .extend(topics.into_iter().map(Into::into));
        self
    }

    /// Topics whose whole name a regular expression matches, those that come later too. The broker
    /// decides; names are ASCII.
    #[must_use]
    pub fn subscribe_pattern(mut self, pattern: impl Into<String>) -> Self {
        self.config.pattern = Some(pattern.into());
        self
    }

    /// A name that survives restarts: who comes with it within the session timeout gets what its last
    /// life had, and nothing else moves. No two members that live may share one.
    #[must_use]
    pub fn instance_id(mut self, id: impl Into<String>) -> Self {
        self.config.instance_id = Some(id.into());
        self
    }

    /// How partitions are handed out. `Sticky` by default.
    #[must_use]
    pub fn assignor(mut self, assignor: GroupAssignor) -> Self {
        self.config.assignor = match assignor {
            GroupAssignor::Range => "range",
            GroupAssignor::Uniform => "uniform",
            GroupAssignor::Sticky => "sticky",
        }
        .to_owned();
        self
    }

    /// Unheard of for so long, the member is replaced. 15 s by default.
    #[must_use]
    pub fn session_timeout(mut self, timeout: Duration) -> Self {
        self.config.session_timeout = timeout;
        self
    }

    /// Between two heartbeats, at most a third of the session timeout. 3 s by default; news come at once
    /// all the same.
    #[must_use]
    pub fn heartbeat_interval(mut self, interval: Duration) -> Self {
        self.config.heartbeat_interval = interval.max(Duration::from_millis(10));
        self
    }

    /// Longest time between two polls: beyond, the member leaves, and the next poll says so. 5 min by
    /// default. Also how long the member may take to let go of a partition, which it does in a poll.
    #[must_use]
    pub fn max_poll_interval(mut self, interval: Duration) -> Self {
        self.config.max_poll_interval = interval;
        self
    }

    /// Commits what earlier polls returned, so often; `None` leaves it to the caller. 5 s by default.
    #[must_use]
    pub fn auto_commit(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.auto_commit = interval.into();
        self
    }

    /// Where to begin a partition of which the group has committed nothing, and where to go on when
    /// retention has taken the position. `Earliest` by default. Partitions younger than the group
    /// always begin at their beginning.
    #[must_use]
    pub fn auto_offset_reset(mut self, reset: AutoOffsetReset) -> Self {
        self.reset = reset;
        self
    }

    /// Starts the member; it joins with its first poll. Call it within a tokio runtime.
    #[must_use]
    pub fn build(self) -> GroupConsumer {
        let policy = match self.reset {
            AutoOffsetReset::Earliest => OutOfRangePolicy::Earliest,
            AutoOffsetReset::Latest => OutOfRangePolicy::Latest,
            AutoOffsetReset::None => OutOfRangePolicy::Error,
        };
        let consumer = self.consumer.out_of_range(policy).build();
        GroupConsumer::start(
            self.client,
            consumer,
            self.config,
            self.auto_commit,
            self.reset,
        )
    }
}
