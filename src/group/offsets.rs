//! The committed offsets of one group: what is durable, what is on its way there, and when it is too old.

use std::collections::{BTreeMap, BTreeSet};

use millstream_protocol::{LeaderEpoch, Offset, PartitionIndex, TopicId, TopicPartition};

/// What one committed offset takes besides its metadata, in bytes.
pub const ENTRY_SIZE: usize = 128;

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

/// Commits of one partition that were appended and have not ended.
#[derive(Clone, Copy, Debug, Default)]
struct UnderWay {
    count: usize,
    /// A record behind them says that there is no offset any more.
    void: bool,
}

/// The committed offsets of a group.
#[derive(Debug, Default)]
pub struct Offsets {
    by_partition: BTreeMap<TopicPartition, Committed>,
    under_way: BTreeMap<TopicPartition, UnderWay>,
    newest_ms: Option<i64>,
    size: usize,
}

/// What one of them takes, in bytes.
#[must_use]
pub fn size_of(committed: &Committed) -> usize {
    ENTRY_SIZE + committed.metadata.len()
}

impl Offsets {
    /// A commit is appended: from now on it takes room, and the group is not forgotten.
    pub fn begin(&mut self, partition: TopicPartition, committed: Option<&Committed>) {
        self.under_way.entry(partition).or_default().count += 1;
        self.size += committed.map_or(0, size_of);
    }

    /// A commit that began has ended, in the order in which they began. It counts if it is durable, and no
    /// record behind it undoes it.
    pub fn end(
        &mut self,
        partition: TopicPartition,
        committed: Option<Committed>,
        is_durable: bool,
    ) {
        self.size -= committed.as_ref().map_or(0, size_of);
        let under_way = self.under_way.get_mut(&partition).expect("it began");
        let void = under_way.void;
        under_way.count -= 1;
        if under_way.count == 0 {
            self.under_way.remove(&partition);
        }
        if is_durable && !void {
            self.take(partition, committed);
        }
    }

    /// The partition is gone for ever: what is under way is undone by what is appended now.
    pub fn forget(&mut self, partition: TopicPartition) {
        self.take(partition, None);
        if let Some(under_way) = self.under_way.get_mut(&partition) {
            under_way.void = true;
        }
    }

    /// Takes what is durable: an offset, or that there is none any more.
    pub fn take(&mut self, partition: TopicPartition, committed: Option<Committed>) {
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

    /// Every partition of which a record may be in the log.
    #[must_use]
    pub fn recorded(&self) -> BTreeSet<TopicPartition> {
        let durable = self.by_partition.keys();
        durable.chain(self.under_way.keys()).copied().collect()
    }

    /// The partitions of a topic of which a record may be in the log.
    #[must_use]
    pub fn recorded_of(&self, topic: TopicId) -> BTreeSet<TopicPartition> {
        let of = |number| TopicPartition {
            topic,
            partition: PartitionIndex(number),
        };
        let range = of(0)..=of(u32::MAX);
        let durable = self.by_partition.range(range.clone()).map(|it| it.0);
        let under_way = self.under_way.range(range).map(|it| it.0);
        durable.chain(under_way).copied().collect()
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

    /// Whether there is none, and none under way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_partition.is_empty() && self.under_way.is_empty()
    }

    /// About how much memory they take, those under way too, in bytes.
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
        // A commit that is under way is newer than any.
        self.under_way.is_empty()
            && since.is_some_and(|since| now_ms.saturating_sub(since) >= retention_ms)
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

    fn committed(offset: i64) -> Committed {
        Committed {
            offset: Offset(offset),
            leader_epoch: LeaderEpoch(1),
            metadata: "abc".to_owned(),
            commit_ms: 100,
        }
    }

    #[test]
    fn what_is_under_way_keeps_the_group_and_is_charged_once() {
        let mut offsets = Offsets::default();
        let at = TopicPartition::default();
        offsets.take(at, Some(committed(7)));
        offsets.begin(at, Some(&committed(8)));
        assert_eq!(offsets.size(), 2 * (ENTRY_SIZE + 3));
        assert!(!offsets.have_expired(None, 10, 1_000_000));
        offsets.end(at, Some(committed(8)), true);
        assert_eq!(offsets.of(at).map(|it| it.offset), Some(Offset(8)));
        assert_eq!(offsets.size(), ENTRY_SIZE + 3);
        assert!(offsets.have_expired(None, 10, 1_000_000));
        offsets.begin(at, None);
        offsets.end(at, None, false);
        assert_eq!(
            offsets.of(at).map(|it| it.offset),
            Some(Offset(8)),
            "a commit that failed changes nothing"
        );
    }

    #[test]
    fn what_a_later_record_undoes_does_not_count() {
        let mut offsets = Offsets::default();
        let at = TopicPartition::default();
        offsets.begin(at, Some(&committed(8)));
        assert_eq!(offsets.recorded_of(at.topic), BTreeSet::from([at]));
        offsets.forget(at);
        assert!(!offsets.is_empty(), "it is still under way");
        offsets.end(at, Some(committed(8)), true);
        assert!(offsets.is_empty() && offsets.size() == 0);
        offsets.begin(at, Some(&committed(9)));
        offsets.end(at, Some(committed(9)), true);
        assert_eq!(offsets.of(at).map(|it| it.offset), Some(Offset(9)));
    }
}
