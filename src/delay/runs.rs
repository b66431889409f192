//! Records that wait on disk: runs, each a file of entries sorted by due time, of which the head is in memory.
//! What is over stays in a run until it comes to the head; the set of pending ids says so then.

use std::collections::{BTreeSet, VecDeque};

use millstream_protocol::{DecodeError, Reader, Wire};

use super::recent::Entry;

/// Entries of a run that are in memory at most, once it is on disk.
pub const HEAD_ENTRIES: usize = 2_032;
/// With fewer than these in memory, more are wanted.
const LOW: usize = HEAD_ENTRIES / 4;

/// One run.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Run {
    number: u64,
    /// Entries that were in it at first.
    count: u64,
    /// The next entries, in order.
    head: VecDeque<Entry>,
    /// Entries before this one are in the head or gone.
    loaded: u64,
    /// There is a file of it, durable. Until then all of it is in the head.
    on_disk: bool,
}

impl Run {
    /// Entries that are gone.
    fn position(&self) -> u64 {
        self.loaded - self.head.len() as u64
    }
}

/// A run as a checkpoint names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunRef {
    /// Its file.
    pub number: u64,
    /// Entries that were in it at first.
    pub count: u64,
    /// How many of them, from the front, are over.
    pub position: u64,
}

impl RunRef {
    /// No run: there should be others, and the index is to be made again.
    pub const LOST: Self = Self {
        number: u64::MAX,
        count: 0,
        position: 0,
    };
    /// Numbers are below: nobody counts as far, and what is added to one does not overflow.
    const END: u64 = 1 << 62;
    /// The same of entries.
    const MAX_COUNT: u64 = 1 << 48;

    /// Checks the number of a run.
    pub(super) fn number_of(number: u64) -> Result<u64, DecodeError> {
        match number < Self::END {
            true => Ok(number),
            false => Err(DecodeError::OutOfRange("the number of a run")),
        }
    }
}

impl Wire for RunRef {
    const MIN_SIZE: usize = 24;

    fn encode(&self, out: &mut Vec<u8>) {
        self.number.encode(out);
        self.count.encode(out);
        self.position.encode(out);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let run = Self {
            number: Wire::decode(reader)?,
            count: Wire::decode(reader)?,
            position: Wire::decode(reader)?,
        };
        if run == Self::LOST {
            return Ok(run);
        }
        Self::number_of(run.number)?;
        match run.position <= run.count && run.count < Self::MAX_COUNT {
            true => Ok(run),
            false => Err(DecodeError::OutOfRange("a run ends before its position")),
        }
    }
}

/// Every run of a schedule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Runs {
    all: Vec<Run>,
    /// The first entry of each head, and its run.
    fronts: BTreeSet<(Entry, u64)>,
    pub next_number: u64,
    /// Runs that are used up, whose files a checkpoint may still name.
    garbage: Vec<u64>,
}

impl Runs {
    /// Entries in memory.
    pub fn in_memory(&self) -> usize {
        self.all.iter().map(|run| run.head.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    fn run(&mut self, number: u64) -> Option<&mut Run> {
        self.all.iter_mut().find(|run| run.number == number)
    }

    /// A run of these entries, which are sorted; in memory until it is written.
    pub fn add(&mut self, entries: Vec<Entry>) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        let count = entries.len() as u64;
        self.fronts
            .extend(entries.first().map(|first| (*first, number)));
        self.all.push(Run {
            number,
            count,
            head: entries.into(),
            loaded: count,
            on_disk: false,
        });
        number
    }

    /// A run that has no file, under a new number: whatever there is of a file under the old one is garbage.
    pub fn unwritten_again(&mut self) -> Option<(u64, Vec<Entry>)> {
        let number = self.next_number;
        let run = self.all.iter_mut().find(|run| !run.on_disk)?;
        self.next_number += 1;
        self.garbage.push(run.number);
        let front = *run.head.front().expect("a run without any left is gone");
        self.fronts.remove(&(front, run.number));
        self.fronts.insert((front, number));
        run.number = number;
        run.count = run.head.len() as u64;
        run.loaded = run.count;
        Some((number, run.head.iter().copied().collect()))
    }

    /// A run that a checkpoint names. Its head is to be loaded.
    pub fn add_known(&mut self, run: RunRef) {
        self.next_number = self.next_number.max(run.number + 1);
        self.all.push(Run {
            number: run.number,
            count: run.count,
            head: VecDeque::new(),
            loaded: run.position,
            on_disk: true,
        });
    }

    /// Its file is durable: most of it need not be in memory.
    pub fn written(&mut self, number: u64) {
        if let Some(run) = self.run(number) {
            run.on_disk = true;
            let spare = run.head.len().saturating_sub(HEAD_ENTRIES);
            run.head.truncate(HEAD_ENTRIES);
            run.head.shrink_to_fit();
            run.loaded -= spare as u64;
        }
    }

    /// A run whose head runs low, and which entry of its file is next.
    pub fn wants_load(&self) -> Option<RunRef> {
        let low = |run: &&Run| run.head.len() < LOW && run.loaded < run.count;
        self.all.iter().find(low).map(|run| RunRef {
            number: run.number,
            count: run.count,
            position: run.loaded,
        })
    }

    /// Nothing can be said about the order: a head is empty and its run is not.
    pub fn is_blocked(&self) -> bool {
        let empty = |run: &Run| run.head.is_empty() && run.loaded < run.count;
        self.all.iter().any(empty)
    }

    /// The next entries of a run.
    pub fn loaded(&mut self, number: u64, entries: &[Entry]) {
        let Some(run) = self.run(number) else { return };
        let was_empty = run.head.is_empty();
        run.loaded += entries.len() as u64;
        run.head.extend(entries);
        let front = run.head.front().copied().filter(|_| was_empty);
        self.fronts.extend(front.map(|front| (front, number)));
    }

    /// The soonest entry of all heads.
    pub fn first(&self) -> Option<Entry> {
        self.fronts.first().map(|(entry, _)| *entry)
    }

    /// Takes the soonest entry out.
    pub fn pop(&mut self) -> Option<Entry> {
        let (entry, number) = self.fronts.pop_first()?;
        let run = self.run(number).expect("it has a front");
        run.head.pop_front();
        if let Some(front) = run.head.front().copied() {
            self.fronts.insert((front, number));
        } else if run.loaded == run.count {
            self.all.retain(|run| run.number != number);
            self.garbage.push(number);
        }
        Some(entry)
    }

    /// Runs on disk, for a checkpoint.
    pub fn on_disk(&self) -> impl Iterator<Item = RunRef> + '_ {
        let on_disk = self.all.iter().filter(|run| run.on_disk);
        on_disk.map(|run| RunRef {
            number: run.number,
            count: run.count,
            position: run.position(),
        })
    }

    /// Entries of runs that are not on disk.
    pub fn unwritten(&self) -> impl Iterator<Item = Entry> + '_ {
        let unwritten = self.all.iter().filter(|run| !run.on_disk);
        unwritten.flat_map(|run| run.head.iter().copied())
    }

    /// Files that no later checkpoint names.
    pub fn take_garbage(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.garbage)
    }

    /// No run counts any more: what they held is read from the delay log again.
    pub fn clear(&mut self) {
        self.garbage
            .extend(self.all.drain(..).map(|run| run.number));
        self.fronts.clear();
    }

    /// Whether the file of a run is still of use.
    pub fn holds(&self, number: u64) -> bool {
        self.all.iter().any(|run| run.number == number)
    }
}
