//! What of a schedule is in memory and what on disk: the near future here, the rest in runs.

use millstream_protocol::{
    Offset, ProducerId,
    batch::{BatchError, BatchHeader, DecodedBatch},
    headers::{Delay, Due},
};

use super::{
    recent::{Entry, IdHash},
    runs::RunRef,
    schedule::Schedule,
};

/// Entries in memory, beyond which most are brought to disk.
pub(super) const SPILL_AT: usize = 65_536;

impl Schedule {
    /// Takes the later part of what is in memory, sorted, to be written as a run; `None` if there is not
    /// much. Until [`Schedule::run_written`] it counts as a run in memory.
    pub fn spill(&mut self) -> Option<(u64, Vec<Entry>)> {
        if self.waiting.len() <= self.spill_at {
            return None;
        }
        let near = self.waiting.keys().nth(self.waiting.len() / 4).copied()?;
        let mut later = Vec::with_capacity(self.waiting.len());
        let mut kept = Vec::new();
        for ((due_ms, offset), id) in self.waiting.split_off(&near) {
            let entry = Entry { due_ms, offset, id };
            let is_undone = || self.undone.contains(offset);
            if offset >= self.durable || !self.pending.contains(offset) && is_undone() {
                // A crash, or a refusal, may still say otherwise.
                kept.push(entry);
            } else if self.pending.contains(offset) {
                later.push(entry);
            } else {
                self.ids.remove(&(id, offset));
            }
        }
        for entry in kept {
            self.waiting.insert((entry.due_ms, entry.offset), entry.id);
        }
        if later.is_empty() {
            return None;
        }
        Some((self.runs.add(later.clone()), later))
    }

    /// A run whose file could not be written, under another number, to be written again: what it still holds.
    pub fn spill_again(&mut self) -> Option<(u64, Vec<Entry>)> {
        self.runs.unwritten_again()
    }

    /// From now on no more than so many are in memory, besides the heads of runs.
    pub fn spill_beyond(&mut self, count: usize) {
        self.spill_at = count;
    }

    /// The file of a run is durable.
    pub fn run_written(&mut self, number: u64) {
        self.runs.written(number);
    }

    /// A run of which more is to be read, and from where.
    #[must_use]
    pub fn wants_load(&self) -> Option<RunRef> {
        self.runs.wants_load()
    }

    /// The next entries of a run.
    pub fn run_loaded(&mut self, number: u64, entries: &[Entry]) {
        self.runs.loaded(number, entries);
    }

    /// Runs that are on disk.
    pub fn runs_on_disk(&self) -> impl Iterator<Item = RunRef> + '_ {
        self.runs.on_disk()
    }

    /// Whether the file of a run is of use.
    #[must_use]
    pub fn holds_run(&self, number: u64) -> bool {
        self.runs.holds(number)
    }

    /// Runs that are used up. A checkpoint from now on names none of them.
    pub fn take_garbage(&mut self) -> Vec<u64> {
        self.runs.take_garbage()
    }

    /// At the start: takes in the ids of entries of a run that still wait.
    pub fn know_ids(&mut self, entries: &[Entry]) {
        for entry in entries {
            if !self.is_doubtful(*entry)
                && entry.id != IdHash::NONE
                && self.still_waits(entry.offset, entry.id)
            {
                self.ids.insert((entry.id, entry.offset));
            }
        }
    }

    /// Every run has been gone through, or made again.
    pub fn runs_known(&mut self) {
        self.newer_ids.clear();
        self.index_lost = false;
        self.ids_known = true;
    }

    /// Whether the index has been whole since the start, so that an id that is not found is no record's that
    /// waits. Until then nothing may be accepted, and nothing said of ids.
    #[must_use]
    pub fn ids_known(&self) -> bool {
        self.ids_known
    }

    /// Whether a record waits that was in a run when the last process died: not if another of its id came.
    fn still_waits(&mut self, offset: Offset, id: IdHash) -> bool {
        let newer = self.newer_ids.get(&id);
        if newer.is_some_and(|newer| *newer > offset) {
            self.pending.remove(offset);
        }
        self.is_waiting(offset)
    }

    /// Entries that are in memory.
    #[must_use]
    pub fn in_memory(&self) -> usize {
        self.waiting.len() + self.runs.in_memory()
    }

    /// It waits, and nothing has happened to it.
    #[must_use]
    pub fn is_waiting(&self, offset: Offset) -> bool {
        self.pending.contains(offset) && !self.is_moving(offset)
    }

    /// What waits in memory behind a due time and delay id, in order of due time within each part.
    pub fn list(&self, after: (i64, Offset)) -> impl Iterator<Item = Entry> + '_ {
        let behind = (after.0, Offset(after.1.0.saturating_add(1)));
        let waiting = self.waiting.range(behind..);
        let waiting = waiting.map(|((due_ms, offset), id)| Entry {
            due_ms: *due_ms,
            offset: *offset,
            id: *id,
        });
        let unwritten = self.runs.unwritten();
        let unwritten = unwritten.filter(move |entry| (entry.due_ms, entry.offset) > after);
        let all = waiting.chain(unwritten);
        all.filter(|entry| self.pending.contains(entry.offset))
    }

    /// The runs cannot be used: they are forgotten, and the delay log is to be read from where it is needed
    /// to its durable end, with [`Schedule::rebuild`]; then [`Schedule::runs_known`]. A checkpoint
    /// between the two says so.
    pub fn lose_index(&mut self) {
        self.runs.clear();
        self.index_lost = true;
    }

    /// The index is to be made again before anything can be said of what waits.
    #[must_use]
    pub fn index_is_lost(&self) -> bool {
        self.index_lost
    }

    /// Takes in again what a batch of the delay log accepted and still waits; how many that are.
    ///
    /// # Errors
    /// The batch is none.
    pub fn rebuild(&mut self, header: &BatchHeader, bytes: &[u8]) -> Result<u64, BatchError> {
        let mut count = 0;
        if header.producer_id == ProducerId::BROKER {
            return Ok(count);
        }
        for record in DecodedBatch::open(bytes)?.records() {
            let record = record?;
            let delay = Delay::of(record.headers);
            let Ok(Delay {
                due: Due::At(due_ms),
                id,
            }) = delay
            else {
                continue;
            };
            let offset = record.offset;
            let id = id.map_or(IdHash::NONE, |id| IdHash::of(self.key, id));
            let entry = Entry { due_ms, offset, id };
            // It waits again if what took it out is refused.
            self.undone.place(entry);
            if !self.is_doubtful(entry) && self.still_waits(offset, id) {
                self.wait(entry);
                count += 1;
            }
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::runs::HEAD_ENTRIES, *};

    #[test]
    fn a_run_that_could_not_be_written_is_written_again() {
        let mut schedule = Schedule::new((1, 2));
        for at in 0..100 {
            schedule.wait(Entry {
                due_ms: at,
                offset: Offset(at),
                id: IdHash::NONE,
            });
            schedule.pending.insert(Offset(at));
        }
        schedule.end = Offset(100);
        schedule.persisted(schedule.end);
        schedule.spill_beyond(8);
        let (number, mut entries) = schedule.spill().expect("much is in memory");
        // It could not be written; meanwhile some of it is due.
        let due = schedule.take_due(40, 100);
        assert_eq!(due.len(), 41);
        entries.retain(|entry| entry.due_ms > 40);
        let (again, rest) = schedule.spill_again().expect("it is in no file");
        assert_ne!(again, number);
        assert_eq!(rest, entries);
        assert_eq!(schedule.take_garbage(), [number]);
        schedule.run_written(again);
        assert_eq!(schedule.spill_again(), None);
        let written: Vec<RunRef> = schedule.runs_on_disk().collect();
        let whole = RunRef {
            number: again,
            count: rest.len() as u64,
            position: 0,
        };
        assert_eq!(written, [whole]);
        assert_eq!(schedule.take_due(99, 100).len(), 59);
    }

    /// Half a million records, due at random, most of them far away: what is in memory does not grow with
    /// them, and they come in order.
    #[test]
    fn memory_holds_the_near_future_only() {
        let mut schedule = Schedule::new((1, 2));
        let mut disk: Vec<(u64, Vec<Entry>)> = Vec::new();
        let mut random = 7_u64;
        let count = 500_000;
        let mut most = 0;
        for at in 0..count {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let due_ms = i64::try_from(random >> 40).expect("24 bits");
            let entry = Entry {
                due_ms,
                offset: Offset(at),
                id: IdHash::NONE,
            };
            schedule.wait(entry);
            schedule.pending.insert(entry.offset);
            schedule.end = Offset(at + 1);
            schedule.persisted(schedule.end);
            if let Some((number, entries)) = schedule.spill() {
                disk.push((number, entries));
                schedule.run_written(number);
            }
            most = most.max(schedule.in_memory());
        }
        let heads = disk.len() * HEAD_ENTRIES;
        assert!(most <= SPILL_AT + 1 + heads, "{most} in memory");
        assert!(heads < SPILL_AT, "{heads} of {count} in heads");
        let mut last = (i64::MIN, Offset::ZERO);
        let mut delivered = 0;
        while schedule.pending() > 0 {
            while let Some(run) = schedule.wants_load() {
                let (_, entries) = disk
                    .iter()
                    .find(|(number, _)| *number == run.number)
                    .expect("written");
                let from = usize::try_from(run.position).expect("small");
                let to = (from + 2_000).min(entries.len());
                schedule.run_loaded(run.number, &entries[from..to]);
            }
            let taken = schedule.take_due(i64::MAX, 300);
            for entry in &taken {
                assert!((entry.due_ms, entry.offset) > last, "in order");
                last = (entry.due_ms, entry.offset);
            }
            delivered += taken.len();
            let (base, next) = (
                schedule.delivered_below(),
                Offset(i64::try_from(delivered).expect("small")),
            );
            schedule.handed_over(base, next, taken);
            schedule.delivered(next);
        }
        assert_eq!(delivered, usize::try_from(count).expect("small"));
        assert_eq!(schedule.take_garbage().len(), disk.len());
    }
}
