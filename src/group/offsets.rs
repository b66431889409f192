//! The committed offsets of one group: what is durable, and when it is too old.

use std::collections::BTreeMap;

use millstream_protocol::{LeaderEpoch, Offset, TopicPartition};

/// What takes part in the bookkeeping of one committed offset besides its metadata, in bytes.
const ENTRY_SIZE: usize = 128;

/// How far a group has read a partition, in its own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The next record to read.
    pub offset: Offset,
    /// Leader epoch of the last record read, or -1.
    pub leader_epoch: LeaderEpoch,
    /// Whatever the member wants to know again.
    pub metadata: String,
    /// When it was committed, in milliseconds since 1970.
    pub commit_ms: i64,
}

/// The committed offsets of a group.
#[derive(Debug, Default)]
pub struct Offsets {
    by_partition: BTreeMap<TopicPartition, Committed>,
    newest_ms: Option<i64>,
    size: usize,
}

impl Offsets {
    /// Takes what became durable: an offset, or that there is none any more.
    pub fn take(&mut self, partition: TopicPartition, committed: Option<Committed>) {
        let size_of = |it: &Committed| ENTRY_SIZE + it.metadata.len();
        let former = match committed {
            Some(committed) => {
                self.newest_ms = self.newest_ms.max(Some(committed.commit_ms));
                self.size += size_of(&committed);
                self.by_partition.insert(partition, committed)
            }
            None => self.by_partition.remove(&partition),
        };
        self.size -= former.as_ref().map_or(0, size_of);
    }

    /// The offset of a partition.
    #[must_use]
    pub fn of(&self, partition: TopicPartition) -> Option<&Committed> {
        self.by_partition.get(&partition)
    }

    /// Every partition with an offset.
    pub fn iter(&self) -> impl Iterator<Item = (TopicPartition, &Committed)> {
        self.by_partition
            .iter()
            .map(|(at, committed)| (*at, committed))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_partition.is_empty()
    }

    /// About how much memory they take, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// Whether a group that has been empty since then, and committed nothing since, is to be forgotten.
    #[must_use]
    pub fn have_expired(
        &self,
        empty_since_ms: Option<i64>,
        retention_ms: i64,
        now_ms: i64,
    ) -> bool {
        let since = self.newest_ms.max(empty_since_ms);
        since.is_some_and(|since| now_ms.saturating_sub(since) >= retention_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_expire_after_the_last_commit_and_the_last_member() {
        let mut offsets = Offsets::default();
        assert!(
            !offsets.have_expired(None, 10, 1000),
            "nothing ever happened"
        );
        let committed = Committed {
            offset: Offset(7),
            leader_epoch: LeaderEpoch(1),
            metadata: "abc".to_owned(),
            commit_ms: 100,
        };
        offsets.take(TopicPartition::default(), Some(committed.clone()));
        assert_eq!(offsets.size(), ENTRY_SIZE + 3);
        assert!(!offsets.have_expired(None, 10, 109));
        assert!(offsets.have_expired(None, 10, 110));
        assert!(!offsets.have_expired(Some(105), 10, 114));
        assert!(offsets.have_expired(Some(105), 10, 115));
        offsets.take(TopicPartition::default(), Some(committed));
        assert_eq!(offsets.size(), ENTRY_SIZE + 3);
        offsets.take(TopicPartition::default(), None);
        assert!(offsets.is_empty() && offsets.size() == 0);
    }
}
