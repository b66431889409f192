//! One assigned partition: where it is fetched from, where the caller is.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use millstream_protocol::{LeaderEpoch, Offset};

use super::{FetchId, Item};
use crate::metadata::Leader;

#[derive(Debug)]
pub(super) struct Partition {
    pub topic: Arc<str>,
    pub leader: Option<Leader>,
    /// Next offset to ask for.
    pub fetch_offset: Offset,
    /// Next offset that the caller gets.
    pub position: Offset,
    /// Leader epoch of the batch before the position, as far as it is known.
    pub position_epoch: LeaderEpoch,
    /// Leader epoch of the last batch that was read, so that the broker can tell if it was cut away
    /// (KIP-320).
    pub last_fetched_epoch: LeaderEpoch,
    /// Where the log parted from what was read, and the epoch that is good up to there: a seek to
    /// just this offset goes on with the check unbroken.
    pub diverged: Option<(Offset, LeaderEpoch)>,
    pub in_flight: Option<FetchId>,
    /// Bytes read ahead.
    pub buffered: usize,
    pub high_watermark: Option<Offset>,
    /// An obstacle was reported: nothing happens until a seek.
    pub obstructed: bool,
    /// The caller wants nothing of it for now.
    pub paused: bool,
    /// What was read ahead while paused; else that is in the machine's queue.
    pub held: VecDeque<Item>,
    pub failures: u32,
    pub backoff_until: Option<Duration>,
}

impl Partition {
    pub(super) fn new(topic: Arc<str>, leader: Option<Leader>, offset: Offset) -> Self {
        Self {
            topic,
            leader,
            fetch_offset: offset,
            position: offset,
            position_epoch: LeaderEpoch::UNKNOWN,
            last_fetched_epoch: LeaderEpoch::UNKNOWN,
            diverged: None,
            in_flight: None,
            buffered: 0,
            high_watermark: None,
            obstructed: false,
            paused: false,
            held: VecDeque::new(),
            failures: 0,
            backoff_until: None,
        }
    }

    /// Moves to an offset that has nothing to do with what was read so far. A reply under way is no
    /// longer expected.
    pub(super) fn seek(&mut self, offset: Offset) {
        self.fetch_offset = offset;
        self.position = offset;
        self.position_epoch = LeaderEpoch::UNKNOWN;
        self.last_fetched_epoch = match self.diverged.take() {
            Some((at, epoch)) if at == offset => epoch,
            Some(_) | None => LeaderEpoch::UNKNOWN,
        };
        self.in_flight = None;
        self.buffered = 0;
        self.obstructed = false;
        self.failures = 0;
        self.backoff_until = None;
    }

    /// Whether to read on, up to `share` bytes ahead.
    pub(super) fn wants_fetch(&self, now: Duration, share: usize) -> bool {
        !self.obstructed
            && !self.paused
            && self.in_flight.is_none()
            && self.buffered < share
            && self.backoff_until.is_none_or(|until| until <= now)
    }

    /// Takes a newer leader. False if nothing is new.
    pub(super) fn set_leader(&mut self, leader: Leader) -> bool {
        let newer = self.leader.is_none_or(|known| {
            leader.epoch > known.epoch || (leader.epoch == known.epoch && leader != known)
        });
        if newer {
            self.leader = Some(leader);
            self.backoff_until = None;
        }
        newer
    }

    /// Offsets up to the high watermark that have not been handed out.
    pub(super) fn lag(&self) -> Option<u64> {
        let end = self.high_watermark?;
        Some(u64::try_from(end.0 - self.position.0).unwrap_or(0))
    }

    /// Everything up to the high watermark has been handed out.
    pub(super) fn is_at_end(&self) -> bool {
        self.high_watermark.is_some_and(|end| self.position >= end)
    }
}
