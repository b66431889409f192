//! One member: what it wants, what it has, what it was told.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use millstream_protocol::{TopicId, TopicPartition};

use super::{
    event::{Assigned, Epoch, Speaker, Wants},
    format::MemberRecord,
    topics::Topics,
};
use crate::io::Monotonic;

/// About what a member takes besides what it wants and has, and its names, in bytes: its place, and a
/// heartbeat that waits.
pub(super) const MEMBER_SIZE: usize = 2 << 10;
/// An entry of a map that is small itself ...
pub(super) const MAP_ENTRY_SIZE: usize = 48;
/// ... and a partition that is owned, in the member's map and in the group's with the member's name.
const OWNED_SIZE: usize = 192;

/// A heartbeat whose answer waits for news.
#[derive(Debug)]
pub(super) struct Parked<T> {
    pub(super) token: T,
    pub(super) until: Monotonic,
}

#[derive(Debug)]
pub(super) struct Member<T> {
    /// Known from the log since the coordinator loaded, and not heard of yet: it may come back with what
    /// it holds.
    pub(super) absent: bool,
    pub(super) wants: Wants,
    /// About how much memory `wants` takes, in bytes.
    wants_size: usize,
    pub(super) speaker: Speaker,
    /// The topics that `wants` means now.
    pub(super) topics: BTreeSet<TopicId>,
    /// Of its newest assignment.
    pub(super) epoch: Epoch,
    /// What it has, or may still have, and since which epoch.
    pub(super) owned: BTreeMap<TopicPartition, Epoch>,
    /// What of that it is asked to let go.
    pub(super) revoking: BTreeSet<TopicPartition>,
    /// What it is to have.
    pub(super) target: BTreeSet<TopicPartition>,
    pub(super) heard_at: Monotonic,
    /// It has until then to let go.
    pub(super) revoke_by: Option<Monotonic>,
    pub(super) parked: Option<Parked<T>>,
}

impl<T> Member<T> {
    pub(super) fn new(wants: Wants, speaker: Speaker, epoch: Epoch, now: Monotonic) -> Self {
        Self {
            absent: false,
            wants_size: wants.size(),
            wants,
            speaker,
            topics: BTreeSet::new(),
            epoch,
            owned: BTreeMap::new(),
            revoking: BTreeSet::new(),
            target: BTreeSet::new(),
            heard_at: now,
            revoke_by: None,
            parked: None,
        }
    }

    /// A member that the log tells of.
    pub(super) fn absent(record: MemberRecord, epoch: Epoch, now: Monotonic) -> Self {
        let wants = Wants {
            instance_id: record.instance_id,
            session_timeout: Duration::from_millis(record.session_timeout_ms.into()),
            ..Wants::default()
        };
        Self {
            absent: true,
            ..Self::new(wants, Speaker::default(), epoch, now)
        }
    }

    pub(super) fn set_wants(&mut self, wants: Wants) {
        self.wants_size = wants.size();
        self.wants = wants;
    }

    pub(super) fn wants_size(&self) -> usize {
        self.wants_size
    }

    /// About how much memory it takes, in bytes.
    pub(super) fn size(&self) -> usize {
        let entries = self.topics.len() + self.revoking.len() + self.target.len();
        let names = self.speaker.client.len() + self.speaker.host.len();
        MEMBER_SIZE
            + self.wants_size
            + names
            + entries * MAP_ENTRY_SIZE
            + self.owned.len() * OWNED_SIZE
    }

    pub(super) fn record(&self) -> MemberRecord {
        let timeout_ms = self.wants.session_timeout.as_millis();
        MemberRecord {
            instance_id: self.wants.instance_id.clone(),
            session_timeout_ms: u32::try_from(timeout_ms).unwrap_or(u32::MAX),
        }
    }

    pub(super) fn expires(&self) -> Monotonic {
        self.heard_at + self.wants.session_timeout
    }

    /// When something is due although nothing happens.
    pub(super) fn deadline(&self) -> Monotonic {
        let parked = self.parked.as_ref().map(|parked| parked.until);
        let dues = [Some(self.expires()), self.revoke_by, parked];
        dues.into_iter().flatten().min().expect("it expires")
    }

    /// What it is told to have.
    pub(super) fn assignment(&self, is_new: impl Fn(TopicPartition) -> bool) -> Vec<Assigned> {
        let owned = self.owned.keys().copied();
        owned
            .filter(|partition| !self.revoking.contains(partition))
            .map(|partition| Assigned {
                partition,
                is_new: is_new(partition),
            })
            .collect()
    }

    /// Looks all of its topics up.
    pub(super) fn resolve(&mut self, table: &Topics) {
        let named = self.wants.topics.iter().filter_map(|name| table.id(name));
        self.topics = named.collect();
        if let Some(pattern) = &self.wants.pattern {
            let matching = table.iter().filter(|(name, _)| pattern.matches(name));
            self.topics.extend(matching.map(|(_, id)| id));
        }
    }

    /// Whether it wants a topic of this name.
    pub(super) fn means(&self, name: &str) -> bool {
        let pattern = self.wants.pattern.as_ref();
        self.wants.topics.contains(name) || pattern.is_some_and(|it| it.matches(name))
    }
}
