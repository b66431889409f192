//! Recently written and read chunks of a shard's logs, up to a budget in bytes: readers at the tail
//! get the very buffers that were written, readers behind share what one of them read.

use std::{collections::BTreeMap, rc::Rc};

use millstream_protocol::Offset;

use super::{
    limits::{CACHE_GROWTH, CACHE_START, MAX_READ_STREAMS, MAX_READS_AHEAD},
    run::Run,
};
use crate::io::Buffer;

/// A log within its shard.
pub(super) type LogKey = u64;

type Key = (LogKey, Offset);

struct Entry<B> {
    run: Rc<Run<B>>,
    used: u64,
    size: usize,
}

/// Least recently used goes first.
pub(super) struct Cache<B> {
    runs: BTreeMap<Key, Entry<B>>,
    by_use: BTreeMap<u64, Key>,
    clock: u64,
    size: usize,
    /// What it may hold by now: see [`Cache::insert`].
    allowed: usize,
    budget: usize,
}

impl<B: Buffer> Cache<B> {
    /// An empty cache of `budget` bytes.
    pub fn new(budget: usize) -> Self {
        Self {
            runs: BTreeMap::new(),
            by_use: BTreeMap::new(),
            clock: 0,
            size: 0,
            allowed: budget.min(CACHE_START),
            budget,
        }
    }

    /// Bytes held.
    pub fn size(&self) -> usize {
        self.size
    }

    /// How many reads of `window` bytes to have ahead of a reader in order, such that several readers
    /// do not push out of the cache what was read for them.
    pub fn reads_ahead(&self, window: usize) -> usize {
        let share = self.allowed / (2 * MAX_READ_STREAMS);
        (share / window).clamp(1, MAX_READS_AHEAD)
    }

    /// The run that holds `offset`.
    pub fn find(&mut self, log: LogKey, offset: Offset) -> Option<Rc<Run<B>>> {
        let mut below = self.runs.range_mut((log, Offset(i64::MIN))..=(log, offset));
        let (key, entry) = below.next_back()?;
        if entry.run.next() <= offset {
            return None;
        }
        self.clock += 1;
        self.by_use.remove(&entry.used);
        entry.used = self.clock;
        self.by_use.insert(self.clock, *key);
        Some(Rc::clone(&entry.run))
    }

    /// Base offset of the first run of `log` at or after `offset`: a read up to there is enough.
    pub fn next_base(&self, log: LogKey, offset: Offset) -> Option<Offset> {
        let mut above = self.runs.range((log, offset)..=(log, Offset(i64::MAX)));
        above.next().map(|((_, base), _)| *base)
    }

    /// Keeps a run, and lets go of what was not used for longest.
    ///
    /// The cache grows to its budget by a part of what passes through it. Memory that is used again costs
    /// nothing; memory from the system costs more than all else that is done for a chunk.
    ///
    /// `size` is what of its buffer is the run's: a frame of the journal holds runs of many logs.
    pub fn insert(&mut self, log: LogKey, run: Rc<Run<B>>, size: usize) {
        let key = (log, run.base());
        let mut below = self.runs.range((log, Offset(i64::MIN))..=key);
        if below
            .next_back()
            .is_some_and(|(_, held)| held.run.next() > run.next())
        {
            return;
        }
        let covered = self.runs.range(key..(log, run.next()));
        let covered: Vec<Key> = covered.map(|(key, _)| *key).collect();
        for key in covered {
            self.remove(key);
        }
        self.clock += 1;
        self.size += size;
        self.allowed = self.budget.min(self.allowed + size / CACHE_GROWTH);
        self.by_use.insert(self.clock, key);
        let used = self.clock;
        self.runs.insert(key, Entry { run, used, size });
        while self.size > self.allowed {
            let Some((_, oldest)) = self.by_use.first_key_value() else {
                break;
            };
            self.remove(*oldest);
        }
    }

    /// Forgets what a log holds beyond `offset`.
    pub fn forget(&mut self, log: LogKey, offset: Offset) {
        let runs = self
            .runs
            .range((log, Offset(i64::MIN))..=(log, Offset(i64::MAX)));
        let beyond = runs.filter(|(_, entry)| entry.run.next() > offset);
        let keys: Vec<Key> = beyond.map(|(key, _)| *key).collect();
        for key in keys {
            self.remove(key);
        }
    }

    /// Forgets what a log holds of the offsets from `from` up to `to`.
    pub fn forget_between(&mut self, log: LogKey, from: Offset, to: Offset) {
        let runs = self.runs.range((log, Offset(i64::MIN))..(log, to));
        let within = runs.filter(|(_, entry)| entry.run.next() > from);
        let keys: Vec<Key> = within.map(|(key, _)| *key).collect();
        for key in keys {
            self.remove(key);
        }
    }

    fn remove(&mut self, key: Key) {
        if let Some(entry) = self.runs.remove(&key) {
            self.by_use.remove(&entry.used);
            self.size -= entry.size;
        }
    }
}

#[cfg(test)]
mod tests {
    use millstream_protocol::LeaderEpoch;

    use super::*;
    use crate::storage::{run::ChunkView, test_buffer::Memory};

    fn run(base: i64, next: i64, size: usize) -> Rc<Run<Memory>> {
        let chunk = ChunkView {
            base: Offset(base),
            next: Offset(next),
            epoch: LeaderEpoch(0),
            max_timestamp_ms: 0,
            append_time_ms: 0,
            flushed: Offset(0),
            payload: 0..0,
            end: size,
        };
        Rc::new(Run::new(Memory(vec![0; size]), vec![chunk], None))
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut cache = Cache::new(200);
        cache.insert(1, run(0, 10, 100), 100);
        cache.insert(1, run(10, 20, 100), 100);
        assert!(cache.find(1, Offset(5)).is_some());
        cache.insert(1, run(20, 30, 100), 100);
        assert!(cache.find(1, Offset(5)).is_some());
        assert!(cache.find(1, Offset(15)).is_none());
        assert!(cache.find(1, Offset(20)).is_some());
        assert!(cache.find(1, Offset(30)).is_none());
        assert!(cache.find(2, Offset(5)).is_none());
        assert_eq!(cache.size(), 200);
    }

    #[test]
    fn what_is_replaced_is_forgotten() {
        let mut cache = Cache::new(1000);
        for base in [0, 10, 20, 30] {
            cache.insert(1, run(base, base + 10, 100), 100);
        }
        cache.insert(2, run(10, 20, 100), 100);
        cache.forget_between(1, Offset(10), Offset(30));
        let found = [0, 10, 20, 30].map(|at| cache.find(1, Offset(at)).is_some());
        assert_eq!(found, [true, false, false, true]);
        assert!(cache.find(2, Offset(10)).is_some());
        assert_eq!(cache.size(), 300);
    }

    #[test]
    fn a_truncation_forgets_what_reaches_beyond() {
        let mut cache = Cache::new(1000);
        cache.insert(1, run(0, 10, 100), 100);
        cache.insert(1, run(10, 20, 100), 100);
        cache.insert(2, run(0, 20, 100), 100);
        cache.forget(1, Offset(15));
        assert!(cache.find(1, Offset(0)).is_some());
        assert!(cache.find(1, Offset(10)).is_none());
        assert!(cache.find(2, Offset(10)).is_some());
        assert_eq!(cache.size(), 200);
    }
}
