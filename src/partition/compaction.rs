//! When a log is worth compacting: a pure plan over what its segments say of themselves.

use millstream_protocol::Offset;

use crate::types::{Ratio, TopicConfig};

/// What the plan needs to know of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentDirt {
    /// The offset after its last record.
    pub next_offset: Offset,
    /// Bytes it takes.
    pub size: u64,
    /// When it was first appended to, in milliseconds.
    pub first_append_ms: i64,
    /// When it was last appended to, in milliseconds.
    pub last_append_ms: i64,
    /// What compaction made of it, if it did.
    pub clean: Option<Clean>,
}

/// What compaction made of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clean {
    /// Up to here.
    pub end: Offset,
    /// Since when, in milliseconds.
    pub since_ms: i64,
    /// It still holds tombstones.
    pub has_tombstones: bool,
}

impl SegmentDirt {
    fn is_clean(&self) -> bool {
        self.clean
            .is_some_and(|clean| clean.end >= self.next_offset)
    }
}

/// Bytes of closed segments that compaction has been through, and of those behind the first that it has
/// not.
#[must_use]
pub fn clean_and_dirty(segments: &[SegmentDirt]) -> (u64, u64) {
    let (clean, dirty) = split(segments);
    let size = |part: &[SegmentDirt]| part.iter().map(|segment| segment.size).sum();
    (size(clean), size(dirty))
}

/// The closed segments, oldest first: those that are clean, and the rest.
fn split(segments: &[SegmentDirt]) -> (&[SegmentDirt], &[SegmentDirt]) {
    let closed = segments.split_last().map_or(segments, |(_, closed)| closed);
    let clean = closed.iter().take_while(|segment| segment.is_clean());
    closed.split_at(clean.count())
}

/// How much a log wants to be compacted, if it does: its dirty ratio, or 1 if it has waited for as long as
/// it may.
#[must_use]
pub fn compaction_due(
    segments: &[SegmentDirt],
    config: &TopicConfig,
    now_ms: i64,
) -> Option<Ratio> {
    if !config.cleanup_policy.compacts() {
        return None;
    }
    let (clean, dirty) = split(segments);
    let age_ms = |since_ms: i64| u64::try_from(now_ms.saturating_sub(since_ms)).unwrap_or(0);
    let old_enough =
        |segment: &&SegmentDirt| age_ms(segment.last_append_ms) >= config.min_compaction_lag_ms;
    let ready = dirty.iter().take_while(old_enough);
    let ready_size: u64 = ready.clone().map(|segment| segment.size).sum();
    let clean_size: u64 = clean.iter().map(|segment| segment.size).sum();
    let ratio = Ratio::of(ready_size, clean_size + ready_size);
    let waited = ready.clone().next().is_some_and(|first| {
        let lag_ms = config.max_compaction_lag_ms;
        lag_ms.is_some_and(|limit| age_ms(first.first_append_ms) >= limit)
    });
    let expired = clean.iter().filter_map(|segment| segment.clean);
    let expired = expired.filter(|clean| clean.has_tombstones);
    let mut expired = expired.filter(|it| age_ms(it.since_ms) >= config.delete_retention_ms);
    if waited || expired.next().is_some() {
        return Some(Ratio::of(1, 1));
    }
    (ready_size > 0 && ratio >= config.min_cleanable_dirty_ratio).then_some(ratio)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::CleanupPolicy;

    fn segment(number: i64, size: u64, clean: bool) -> SegmentDirt {
        let next_offset = Offset(number * 10 + 10);
        SegmentDirt {
            next_offset,
            size,
            first_append_ms: number * 1000,
            last_append_ms: number * 1000 + 900,
            clean: clean.then_some(Clean {
                end: next_offset,
                since_ms: 50_000,
                has_tombstones: false,
            }),
        }
    }

    fn config() -> TopicConfig {
        let mut config = TopicConfig::default();
        config.cleanup_policy = CleanupPolicy::Compact;
        config
    }

    #[test]
    fn a_log_is_due_from_a_ratio_on_and_its_active_segment_does_not_count() {
        let segments = [
            segment(0, 60, true),
            segment(1, 30, false),
            segment(2, 30, false),
            segment(3, 999, false),
        ];
        assert_eq!(clean_and_dirty(&segments), (60, 60));
        let due = |segments: &[SegmentDirt]| compaction_due(segments, &config(), 99_999);
        assert_eq!(due(&segments), Some(Ratio::HALF));
        assert_eq!(due(&segments[..3]), None);
        assert_eq!(due(&segments[..1]), None);
        assert_eq!(due(&[]), None);
        let mut other = config();
        other.cleanup_policy = CleanupPolicy::Delete;
        assert_eq!(compaction_due(&segments, &other, 99_999), None);
    }

    #[test]
    fn what_is_young_waits_and_what_is_old_does_not() {
        let segments = [
            segment(0, 900, true),
            segment(1, 10, false),
            segment(2, 10, false),
            segment(3, 10, false),
        ];
        let mut config = config();
        let due = |config: &TopicConfig, now_ms| compaction_due(&segments, config, now_ms);
        assert_eq!(due(&config, 9_000), None);
        config.max_compaction_lag_ms = Some(8_000);
        assert_eq!(due(&config, 8_999), None);
        assert_eq!(due(&config, 9_000), Some(Ratio::of(1, 1)));
        // The least that compaction waits goes before the most.
        config.min_compaction_lag_ms = 10_000;
        assert_eq!(due(&config, 9_000), None);
        assert_eq!(due(&config, 11_900), Some(Ratio::of(1, 1)));
    }

    #[test]
    fn tombstones_whose_time_is_over_are_a_reason() {
        let mut segments = [segment(0, 900, true), segment(1, 10, false)];
        let mut config = config();
        config.delete_retention_ms = 1_000;
        let due = |segments: &[SegmentDirt]| compaction_due(segments, &config, 51_000);
        assert_eq!(due(&segments), None);
        segments[0].clean.as_mut().unwrap().has_tombstones = true;
        assert_eq!(due(&segments), Some(Ratio::of(1, 1)));
        assert_eq!(compaction_due(&segments, &config, 50_999), None);
    }

    #[test]
    fn a_segment_that_is_clean_in_part_is_dirty() {
        let mut segments = [segment(0, 70, true), segment(1, 10, false)];
        segments[0].clean.as_mut().unwrap().end = Offset(9);
        assert_eq!(clean_and_dirty(&segments), (0, 70));
    }
}
