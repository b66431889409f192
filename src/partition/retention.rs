//! Which segments retention lets go: a pure plan over what a log holds.

use millstream_protocol::Offset;

use crate::types::{RetentionClock, TopicConfig};

/// What retention needs to know of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentAge {
    /// The offset after its last record.
    pub next_offset: Offset,
    /// Bytes it takes.
    pub size: u64,
    /// Largest record timestamp in it, in milliseconds.
    pub max_timestamp_ms: i64,
    /// When it was last appended to, in milliseconds.
    pub last_append_ms: i64,
}

/// Where the log shall start: the first segment that retention keeps. Segments go whole and oldest
/// first, and the one that is appended to stays. `None` if nothing goes.
#[must_use]
pub fn retained_start(
    segments: &[SegmentAge],
    config: &TopicConfig,
    now_ms: i64,
) -> Option<Offset> {
    if !config.cleanup_policy.deletes() {
        return None;
    }
    let (_active, closed) = segments.split_last()?;
    let mut size: u64 = segments.iter().map(|segment| segment.size).sum();
    let mut start = None;
    for segment in closed {
        let time_ms = match config.retention_clock {
            RetentionClock::Append => segment.last_append_ms,
            RetentionClock::Record => segment.max_timestamp_ms,
        };
        let age_ms = u64::try_from(now_ms.saturating_sub(time_ms)).unwrap_or(0);
        let too_old = config.retention_ms.is_some_and(|limit| age_ms > limit);
        let too_large = config.retention_bytes.is_some_and(|limit| size > limit);
        if !too_old && !too_large {
            break;
        }
        size -= segment.size;
        start = Some(segment.next_offset);
    }
    start
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::CleanupPolicy;

    fn segment(base: i64, size: u64, last_append_ms: i64) -> SegmentAge {
        SegmentAge {
            next_offset: Offset(base + 10),
            size,
            max_timestamp_ms: 0,
            last_append_ms,
        }
    }

    fn config(retention_ms: Option<u64>, retention_bytes: Option<u64>) -> TopicConfig {
        let mut config = TopicConfig::default();
        config.retention_ms = retention_ms;
        config.retention_bytes = retention_bytes;
        config
    }

    #[test]
    fn old_segments_go_and_the_active_one_stays() {
        let segments = [segment(0, 5, 100), segment(10, 5, 200), segment(20, 5, 300)];
        let at = |now_ms| retained_start(&segments, &config(Some(1000), None), now_ms);
        assert_eq!(at(1100), None);
        assert_eq!(at(1101), Some(Offset(10)));
        assert_eq!(at(99_999), Some(Offset(20)));
    }

    #[test]
    fn the_oldest_bytes_beyond_the_limit_go() {
        let segments = [segment(0, 5, 100), segment(10, 5, 200), segment(20, 5, 300)];
        let within = |bytes| retained_start(&segments, &config(None, Some(bytes)), 0);
        assert_eq!(within(15), None);
        assert_eq!(within(14), Some(Offset(10)));
        assert_eq!(within(1), Some(Offset(20)));
        assert_eq!(retained_start(&[], &config(None, Some(1)), 0), None);
    }

    #[test]
    fn what_is_only_compacted_has_no_retention() {
        let segments = [segment(0, 5, 100), segment(10, 5, 200)];
        let mut config = config(Some(1), Some(1));
        config.cleanup_policy = CleanupPolicy::Compact;
        assert_eq!(retained_start(&segments, &config, 99_999), None);
        config.cleanup_policy = CleanupPolicy::CompactDelete;
        let kept = retained_start(&segments, &config, 99_999);
        assert_eq!(kept, Some(Offset(10)));
    }

    #[test]
    fn a_clock_that_stepped_back_deletes_nothing() {
        let segments = [segment(0, 5, 5000), segment(10, 5, 6000)];
        assert_eq!(retained_start(&segments, &config(Some(1), None), 100), None);
    }
}
