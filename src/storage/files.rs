//! Open segment files of a shard, a budgeted number of them: a partition that is neither written
//! nor read holds no descriptor for long.

use std::collections::BTreeMap;

use millstream_protocol::Offset;

use super::cache::LogKey;

type Key = (LogKey, Offset);

/// Least recently used is closed first. A file in use stays open until its users let go.
pub(super) struct OpenFiles<F> {
    files: BTreeMap<Key, (F, u64)>,
    by_use: BTreeMap<u64, Key>,
    clock: u64,
    limit: usize,
}

impl<F: Clone> OpenFiles<F> {
    /// Holds at most `limit` files.
    pub fn new(limit: usize) -> Self {
        Self {
            files: BTreeMap::new(),
            by_use: BTreeMap::new(),
            clock: 0,
            limit: limit.max(1),
        }
    }

    /// How many are open.
    pub fn count(&self) -> usize {
        self.files.len()
    }

    /// An open file.
    pub fn find(&mut self, log: LogKey, segment: Offset) -> Option<F> {
        let key = (log, segment);
        let (file, used) = self.files.get_mut(&key)?;
        self.clock += 1;
        self.by_use.remove(used);
        *used = self.clock;
        self.by_use.insert(self.clock, key);
        Some(file.clone())
    }

    /// Keeps a file open; closes the one that was not used for longest.
    pub fn insert(&mut self, log: LogKey, segment: Offset, file: F) {
        self.forget(log, segment);
        self.clock += 1;
        self.by_use.insert(self.clock, (log, segment));
        self.files.insert((log, segment), (file, self.clock));
        if self.files.len() > self.limit
            && let Some((_, (log, segment))) = self.by_use.first_key_value()
        {
            let (log, segment) = (*log, *segment);
            self.forget(log, segment);
        }
    }

    /// Lets go of one file.
    pub fn forget(&mut self, log: LogKey, segment: Offset) {
        if let Some((_, used)) = self.files.remove(&(log, segment)) {
            self.by_use.remove(&used);
        }
    }

    /// Lets go of all files of a log.
    pub fn forget_log(&mut self, log: LogKey) {
        drop(self.take_log(log));
    }

    /// Hands over all files of a log.
    pub fn take_log(&mut self, log: LogKey) -> Vec<F> {
        let files = self
            .files
            .range((log, Offset(i64::MIN))..=(log, Offset(i64::MAX)));
        let segments: Vec<Offset> = files.map(|((_, segment), _)| *segment).collect();
        let files = segments.into_iter().filter_map(|segment| {
            let (file, used) = self.files.remove(&(log, segment))?;
            self.by_use.remove(&used);
            Some(file)
        });
        files.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_is_closed() {
        let mut files = OpenFiles::new(2);
        files.insert(1, Offset(0), "a");
        files.insert(1, Offset(1), "b");
        assert_eq!(files.find(1, Offset(0)), Some("a"));
        files.insert(2, Offset(0), "c");
        assert_eq!(files.find(1, Offset(1)), None);
        assert_eq!(files.count(), 2);
        files.forget_log(1);
        assert_eq!(files.find(1, Offset(0)), None);
        assert_eq!(files.find(2, Offset(0)), Some("c"));
    }
}
