//! The schedule machine of one partition: what its delay log accepted, what is due next, and what may still
//! be cancelled.
//!
//! A record is, in turn: *waiting*; *taken*, while the shell reads it; *handed over*, once it is appended to
//! the partition; and over, once that is durable. What is handed over counts as delivered. A cancelled or
//! replaced record is over at once, and waits again if the log refuses the note that says so.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use millstream_protocol::{
    Offset, ProducerId,
    batch::{BatchError, BatchHeader, DecodedBatch},
    headers::{Delay, Due},
    messages::CancelOutcome,
};

use super::{
    deliver::noted,
    finished::{End, Finished},
    pending::Pending,
    recent::{Entry, IdHash},
    runs::Runs,
    settle::Uncertain,
    spill::SPILL_AT,
    undone::{AllUndone, Undone},
};

/// So many records that are over may stand in line, besides as many as wait.
const SWEPT_BEYOND: usize = 32_768;

/// A batch of records that was appended to the partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HandedOver {
    pub base: Offset,
    pub next: Offset,
    pub entries: Vec<Entry>,
}

/// Which record is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// By what the broker calls it.
    Offset(Offset),
    /// By what its producer calls it.
    Id(&'a str),
}

/// What is to be done about a cancellation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelVerdict {
    /// Append a note about this record; when it is durable, the answer is "cancelled".
    Note(Offset),
    /// Ask again when something has become durable.
    Busy,
    /// It is decided already.
    Over(CancelOutcome, Offset),
}

/// The delayed records of one partition.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// Makes hashes of ids.
    pub(super) key: (u64, u64),
    pub(super) pending: Pending,
    pub(super) waiting: BTreeMap<(i64, Offset), IdHash>,
    /// The rest of the line, on disk but for the heads.
    pub(super) runs: Runs,
    /// With more than so many in memory, some are brought to disk.
    pub(super) spill_at: usize,
    pub(super) ids: BTreeSet<(IdHash, Offset)>,
    pub(super) taken: Vec<Entry>,
    pub(super) handed_over: VecDeque<HandedOver>,
    pub(super) undone: AllUndone,
    /// What is taken or handed over.
    moving: BTreeSet<Offset>,
    pub(super) finished: Finished,
    /// The delay log's end, and how far it is durable.
    pub(super) end: Offset,
    pub(super) durable: Offset,
    /// Deliveries below this offset of the partition are taken in.
    pub(super) delivered_below: Offset,
    /// Ids accepted since the checkpoint that this began with, until the runs it names were gone through: an
    /// older record of such an id, there, is over.
    pub(super) newer_ids: BTreeMap<IdHash, Offset>,
    pub(super) recovering: bool,
    /// See [`Uncertain`].
    pub(super) uncertain: Option<Uncertain>,
    /// The runs do not hold all that they should: see [`Schedule::lose_index`].
    pub(super) index_lost: bool,
    /// Every id of what waits is in `ids`.
    pub(super) ids_known: bool,
    /// A batch of the delay log that passed its checksum is none.
    unreadable: Option<BatchError>,
}

impl Schedule {
    /// Nothing waits. `key` is random.
    #[must_use]
    pub fn new(key: (u64, u64)) -> Self {
        Self {
            key,
            pending: Pending::default(),
            waiting: BTreeMap::new(),
            runs: Runs::default(),
            spill_at: SPILL_AT,
            ids: BTreeSet::new(),
            taken: Vec::new(),
            handed_over: VecDeque::new(),
            undone: AllUndone::default(),
            moving: BTreeSet::new(),
            finished: Finished::default(),
            end: Offset::ZERO,
            durable: Offset::ZERO,
            delivered_below: Offset::ZERO,
            newer_ids: BTreeMap::new(),
            recovering: true,
            uncertain: None,
            index_lost: false,
            ids_known: false,
            unreadable: None,
        }
    }

    /// Records that wait or are being delivered.
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.pending.count()
    }

    /// The delay log is needed from here on: the least delay id that is pending, or will be again if what
    /// took it out is lost.
    #[must_use]
    pub fn needed_from(&self) -> Option<Offset> {
        let undone = self.undone.first();
        self.pending.first().into_iter().chain(undone).min()
    }

    /// Something in the delay log cannot be understood.
    #[must_use]
    pub fn unreadable(&self) -> Option<BatchError> {
        self.unreadable
    }

    /// Takes in a batch that the delay log has, at the start or as it is appended.
    pub fn batch(&mut self, header: &BatchHeader, bytes: &[u8]) {
        let done = if header.producer_id == ProducerId::BROKER {
            noted(bytes).map(|notes| {
                for note in notes {
                    let id = note.id.map_or(IdHash::NONE, |id| IdHash::of(self.key, &id));
                    self.take_out(note.offset, note.cancelled, id);
                }
            })
        } else {
            self.accepted_batch(bytes)
        };
        if let Err(error) = done {
            self.unreadable.get_or_insert(error);
        }
        self.end = header.next_offset();
    }

    fn accepted_batch(&mut self, bytes: &[u8]) -> Result<(), BatchError> {
        let batch = DecodedBatch::open(bytes)?;
        for record in batch.records() {
            let record = record?;
            if let Ok(Delay {
                due: Due::At(due_ms),
                id,
            }) = Delay::of(record.headers)
            {
                self.accepted(record.offset, due_ms, id);
            }
        }
        Ok(())
    }

    fn accepted(&mut self, offset: Offset, due_ms: i64, id: Option<&str>) {
        let id = id.map_or(IdHash::NONE, |id| IdHash::of(self.key, id));
        if let Some(before) = self.offset_of(id)
            && !self.is_moving(before)
        {
            self.take_out(offset, before, id);
        }
        if self.recovering && id != IdHash::NONE && (self.index_lost || !self.runs.is_empty()) {
            self.newer_ids.insert(id, offset);
        }
        self.wait(Entry { due_ms, offset, id });
        self.pending.insert(offset);
    }

    pub(super) fn wait(&mut self, entry: Entry) {
        self.waiting.insert((entry.due_ms, entry.offset), entry.id);
        if entry.id != IdHash::NONE {
            self.ids.insert((entry.id, entry.offset));
        }
    }

    /// A record is cancelled by a note, or replaced by another record.
    fn take_out(&mut self, by: Offset, offset: Offset, id: IdHash) {
        if self.pending.remove(offset) {
            self.ids.remove(&(id, offset));
            self.undone.add(Undone {
                by,
                offset,
                id,
                entry: None,
            });
        }
    }

    /// The pending record of an id.
    fn offset_of(&self, id: IdHash) -> Option<Offset> {
        if id == IdHash::NONE {
            return None;
        }
        let all = self.ids.range((id, Offset::ZERO)..=(id, Offset(i64::MAX)));
        let mut all = all.rev().map(|(_, offset)| *offset);
        all.find(|offset| self.pending.contains(*offset))
    }

    /// The record of an id that was cancelled by what the broker calls it.
    fn cancelled_of(&self, id: IdHash) -> Option<(Offset, bool)> {
        let all = self.ids.range((id, Offset::ZERO)..=(id, Offset(i64::MAX)));
        let mut over = all
            .rev()
            .map(|(_, offset)| (*offset, self.finished.of_offset(*offset)));
        over.find_map(|(offset, delivered)| Some((offset, delivered?)))
    }

    /// It is on its way into the partition.
    pub(super) fn is_moving(&self, offset: Offset) -> bool {
        self.moving.contains(&offset)
    }

    /// Everything below is durable in the delay log.
    pub fn persisted(&mut self, up_to: Offset) {
        self.durable = self.durable.max(up_to);
        while let Some(undone) = self.undone.pop_below(self.durable) {
            self.finished.add(End {
                offset: undone.offset,
                id: undone.id,
                delivered: false,
            });
        }
        self.sweep();
    }

    /// What is over leaves the line when it comes to its head. Where much is replaced again and again,
    /// that is too late.
    fn sweep(&mut self) {
        let limit = usize::try_from(self.pending.count()).unwrap_or(usize::MAX);
        if self.waiting.len() / 2 > limit.saturating_add(SWEPT_BEYOND) {
            let (pending, undone) = (&self.pending, &self.undone);
            let kept = |offset: Offset| pending.contains(offset) || undone.contains(offset);
            self.waiting.retain(|(_, offset), _| kept(*offset));
            self.ids.retain(|(_, offset)| kept(*offset));
        }
    }

    /// The delay log ends here again: what lay above was refused.
    pub fn cut(&mut self, end: Offset) {
        self.pending.cut(end);
        self.waiting.retain(|(_, offset), _| *offset < end);
        self.ids.retain(|(_, offset)| *offset < end);
        while let Some(it) = self.undone.pop_from(end) {
            if it.offset < end {
                self.pending.insert(it.offset);
                if it.id != IdHash::NONE {
                    self.ids.insert((it.id, it.offset));
                }
                if let Some(entry) = it.entry {
                    self.wait(entry);
                }
            }
        }
        self.end = self.end.min(end);
    }

    /// The head of the line, and whether it is that of a run.
    fn first(&self) -> Option<(Entry, bool)> {
        let waiting = self.waiting.first_key_value();
        let waiting = waiting.map(|((due_ms, offset), id)| Entry {
            due_ms: *due_ms,
            offset: *offset,
            id: *id,
        });
        match (waiting, self.runs.first()) {
            (Some(waiting), Some(run)) if run < waiting => Some((run, true)),
            (Some(waiting), _) => Some((waiting, false)),
            (None, run) => run.map(|run| (run, true)),
        }
    }

    /// When something is to be done: a record falls due that can be delivered.
    #[must_use]
    pub fn deadline(&self) -> Option<i64> {
        let (first, _) = self.first()?;
        (first.offset < self.durable).then_some(first.due_ms)
    }

    /// The head of the line is not durable yet.
    #[must_use]
    pub fn waits_for_log(&self) -> bool {
        let first = self.first();
        first.is_some_and(|(first, _)| first.offset >= self.durable)
    }

    /// Deliveries below this offset of the partition are taken in.
    #[must_use]
    pub fn delivered_below(&self) -> Offset {
        match self.uncertain {
            // Until the index was gone through, the next start has to do it all again.
            Some(uncertain) => uncertain.delivered_below,
            None => self.delivered_below,
        }
    }

    /// The records that are due, in order, at most so many. The shell reads them, and then calls
    /// [`Schedule::handed_over`], or [`Schedule::put_back`].
    pub fn take_due(&mut self, now_ms: i64, max_count: usize) -> Vec<Entry> {
        let before = self.taken.len();
        while self.taken.len() - before < max_count
            && !self.runs.is_blocked()
            && let Some((entry, of_run)) = self.first()
        {
            if entry.due_ms > now_ms || entry.offset >= self.durable {
                break;
            }
            if of_run {
                self.runs.pop();
            } else {
                self.waiting.remove(&(entry.due_ms, entry.offset));
            }
            if !self.pending.contains(entry.offset) {
                self.forget(entry);
            } else if self.moving.insert(entry.offset) {
                // An index that was made again may hold a record twice.
                self.taken.push(entry);
            }
        }
        self.taken[before..].to_vec()
    }

    /// What came to the head of the line is over.
    fn forget(&mut self, entry: Entry) {
        if entry.id != IdHash::NONE {
            self.ids.remove(&(entry.id, entry.offset));
        }
        self.undone.place(entry);
    }

    fn untake(&mut self, entries: &[Entry]) {
        let these: BTreeSet<Offset> = entries.iter().map(|entry| entry.offset).collect();
        self.taken.retain(|taken| !these.contains(&taken.offset));
    }

    /// Nothing came of it: these wait again.
    pub fn put_back(&mut self, entries: &[Entry]) {
        self.untake(entries);
        for entry in entries {
            self.moving.remove(&entry.offset);
            self.wait(*entry);
        }
    }

    /// Records that were taken are now a batch in the partition, from `base` to `next`.
    ///
    /// # Panics
    /// If it lies below one that was handed over before.
    pub fn handed_over(&mut self, base: Offset, next: Offset, entries: Vec<Entry>) {
        let last = self.handed_over.back();
        assert!(last.is_none_or(|last| last.next <= base), "in order");
        self.untake(&entries);
        self.handed_over.push_back(HandedOver {
            base,
            next,
            entries,
        });
    }

    /// Records that were taken are not in the delay log any more, though what lay around them is: they are over.
    pub fn gone(&mut self, entries: &[Entry]) {
        self.untake(entries);
        for entry in entries {
            self.over(*entry);
        }
    }

    /// Some delivery is not durable yet.
    #[must_use]
    pub fn is_under_way(&self) -> bool {
        !self.handed_over.is_empty()
    }

    /// Records handed over whose delivery is not durable yet.
    #[must_use]
    pub fn under_way(&self) -> usize {
        let handed_over = self.handed_over.iter();
        handed_over.map(|it| it.entries.len()).sum()
    }

    /// The partition's log is on stable storage up to here.
    pub fn delivered(&mut self, durable_end: Offset) {
        while self
            .handed_over
            .front()
            .is_some_and(|it| it.next <= durable_end)
        {
            let batch = self.handed_over.pop_front().expect("just seen");
            for entry in batch.entries {
                self.over(entry);
            }
        }
        let first = self.handed_over.front().map(|it| it.base);
        let known = first.unwrap_or(durable_end).min(durable_end);
        self.delivered_below = self.delivered_below.max(known);
    }

    pub(super) fn over(&mut self, entry: Entry) {
        self.moving.remove(&entry.offset);
        self.pending.remove(entry.offset);
        if entry.id != IdHash::NONE {
            self.ids.remove(&(entry.id, entry.offset));
            self.finished.add(End {
                offset: entry.offset,
                id: entry.id,
                delivered: true,
            });
        }
    }

    /// The partition's log ends here again: what was handed over above waits again.
    pub fn partition_cut(&mut self, end: Offset) {
        while self.handed_over.back().is_some_and(|it| it.base >= end) {
            let batch = self.handed_over.pop_back().expect("just seen");
            for entry in batch.entries {
                self.moving.remove(&entry.offset);
                self.wait(entry);
            }
        }
    }

    /// What is to be done so that a record is not delivered.
    #[must_use]
    pub fn cancel(&self, target: Target<'_>) -> CancelVerdict {
        let outcome = |delivered| match delivered {
            true => CancelOutcome::Delivered,
            false => CancelOutcome::Cancelled,
        };
        let offset = match target {
            Target::Offset(offset) => offset,
            Target::Id(id) => {
                let id = IdHash::of(self.key, id);
                let leaving = self.undone.has_id(id);
                let over = self.finished.of_id(id);
                match (
                    self.offset_of(id),
                    leaving,
                    over.or_else(|| self.cancelled_of(id)),
                ) {
                    (Some(offset), _, _) => offset,
                    (None, true, _) => return CancelVerdict::Busy,
                    (None, false, Some((offset, delivered))) => {
                        return CancelVerdict::Over(outcome(delivered), offset);
                    }
                    (None, false, None) => {
                        return CancelVerdict::Over(CancelOutcome::Unknown, Offset(-1));
                    }
                }
            }
        };
        if self.pending.contains(offset) {
            return match self.is_moving(offset) {
                true => CancelVerdict::Busy,
                false => CancelVerdict::Note(offset),
            };
        }
        if self.undone.contains(offset) {
            return CancelVerdict::Busy;
        }
        let known = (Offset::ZERO..self.end).contains(&offset);
        CancelVerdict::Over(
            match self.finished.of_offset(offset) {
                Some(delivered) => outcome(delivered),
                None if known => CancelOutcome::Delivered,
                None => CancelOutcome::Unknown,
            },
            offset,
        )
    }

    /// Asserts every invariant.
    ///
    /// # Panics
    /// If one is broken.
    pub fn check(&self) {
        assert!(self.durable <= self.end.max(self.durable));
        let moving = self.taken.iter();
        let moving = moving.chain(self.handed_over.iter().flat_map(|it| &it.entries));
        let moving: BTreeSet<Offset> = moving.map(|entry| entry.offset).collect();
        let waiting: BTreeSet<Offset> = self.waiting.keys().map(|(_, offset)| *offset).collect();
        assert_eq!(waiting.len(), self.waiting.len(), "each waits once");
        assert!(waiting.is_disjoint(&moving), "waits or moves");
        for offset in self.pending.iter_from(Offset::ZERO) {
            let somewhere = waiting.contains(&offset) || moving.contains(&offset);
            assert!(
                somewhere || self.index_lost || !self.runs.is_empty(),
                "{offset} is nowhere"
            );
            assert!(offset < self.end, "within the log");
        }
        assert!(moving.iter().all(|offset| *offset < self.durable));
        assert_eq!(moving, self.moving);
        let mut undone = self.undone.iter();
        let both = undone.any(|undone| moving.contains(&undone.offset));
        assert!(!both, "what moves is not taken out");
    }
}
