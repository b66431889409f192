//! The lives of a log: each truncation starts one, so that bytes of an older life that lie beyond
//! the cut can never be taken for data again.

use millstream_protocol::Offset;

use super::limits::{MAX_NUMBER, MAX_OFFSET};

/// First offset and number of each life, both ascending. Offsets from one entry's up to the next
/// one's belong to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Incarnations {
    lives: Vec<(Offset, u64)>,
    /// See [`super::RecoveryChecks`].
    checked: bool,
}

impl Incarnations {
    /// The first life of a log that begins at `start`, and its number.
    pub fn first(start: Offset, number: u64) -> Self {
        Self {
            lives: vec![(start, number)],
            checked: true,
        }
    }

    /// From a checkpoint; `None` if it is not ascending, or no broker would write it.
    pub fn from_entries(entries: &[(i64, u64)]) -> Option<Self> {
        let ascending = entries
            .windows(2)
            .all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1);
        let in_range = |(start, number): &(i64, u64)| {
            (0..=MAX_OFFSET).contains(start) && (1..=MAX_NUMBER).contains(number)
        };
        let valid = !entries.is_empty() && ascending && entries.iter().all(in_range);
        valid.then(|| {
            let entries = entries.iter();
            let lives = entries.map(|(start, number)| (Offset(*start), *number));
            Self {
                lives: lives.collect(),
                checked: true,
            }
        })
    }

    /// Believes any life, so that a test can show what comes of it.
    pub fn unchecked(mut self) -> Self {
        self.checked = false;
        self
    }

    /// For a checkpoint.
    pub fn entries(&self) -> Vec<(i64, u64)> {
        let entries = self.lives.iter();
        entries.map(|(start, number)| (start.0, *number)).collect()
    }

    /// Number of the present life.
    pub fn current(&self) -> u64 {
        self.lives.last().expect("never empty").1
    }

    /// Where the present life began: all below was durable then.
    pub fn current_start(&self) -> Offset {
        self.lives.last().expect("never empty").0
    }

    /// The life that the record at `offset` belongs to.
    pub fn life_at(&self, offset: Offset) -> u64 {
        self.lives[self.position_of(offset)].1
    }

    /// Where the next life begins, behind `offset`.
    pub fn next_start(&self, offset: Offset) -> Option<Offset> {
        let behind = self.lives.iter().find(|(start, _)| *start > offset);
        behind.map(|(start, _)| *start)
    }

    /// Where the first life after life `number` began, as far as anything of it is left.
    pub fn begun_after(&self, number: u64) -> Option<Offset> {
        let mut lives = self.lives.iter();
        let found = lives.find(|(_, other)| *other > number);
        found.map(|(start, _)| *start)
    }

    /// Begins a life at `start`; lives that began there or later leave nothing behind.
    pub fn begin(&mut self, start: Offset) {
        let number = self.current() + 1;
        self.lives.retain(|(begun, _)| *begun < start);
        self.lives.push((start, number));
    }

    /// Forgets lives that lie wholly below `log_start`.
    pub fn forget_below(&mut self, log_start: Offset) {
        let keep_from = self.position_of(log_start);
        self.lives.drain(..keep_from);
    }

    /// Whether a chunk of life `number` with these offsets belongs to the log, and if so where its
    /// part ends: records from there on were cut.
    ///
    /// A sealing chunk (`base == next`) of any life so far is harmless and accepted: the one that
    /// ended a life lies exactly where the next one starts, and that life's entry may be gone.
    pub fn admit(&self, number: u64, base: Offset, next: Offset) -> Option<Offset> {
        if base == next {
            return (number <= self.current()).then_some(next);
        }
        if !self.checked {
            return Some(next);
        }
        let at = self.position_of(base);
        let until = self.lives.get(at + 1).map_or(next, |(start, _)| *start);
        (self.lives[at].1 == number).then(|| next.min(until))
    }

    fn position_of(&self, offset: Offset) -> usize {
        let after = self.lives.partition_point(|(start, _)| *start <= offset);
        after.saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn o(offset: i64) -> Offset {
        Offset(offset)
    }

    #[test]
    fn a_cut_hides_the_older_life_beyond_it() {
        let mut lives = Incarnations::first(o(0), 1);
        lives.begin(o(10));
        assert_eq!(lives.admit(1, o(5), o(12)), Some(o(10)));
        assert_eq!(lives.admit(1, o(10), o(12)), None);
        assert_eq!(lives.admit(2, o(10), o(12)), Some(o(12)));
        assert_eq!(lives.admit(2, o(5), o(8)), None);
    }

    #[test]
    fn a_deeper_cut_forgets_lives_that_left_nothing() {
        let mut lives = Incarnations::first(o(0), 1);
        lives.begin(o(10));
        lives.begin(o(10));
        assert_eq!(lives.entries(), vec![(0, 1), (10, 3)]);
        lives.begin(o(4));
        assert_eq!(lives.entries(), vec![(0, 1), (4, 4)]);
        lives.begin(o(0));
        assert_eq!(lives.entries(), vec![(0, 5)]);
        assert_eq!(lives.begun_after(4), Some(o(0)));
        assert_eq!(lives.begun_after(5), None);
    }

    #[test]
    fn a_seal_is_accepted_where_the_next_life_starts() {
        let mut lives = Incarnations::first(o(0), 1);
        lives.begin(o(10));
        assert_eq!(lives.admit(1, o(10), o(10)), Some(o(10)));
        assert_eq!(lives.admit(7, o(10), o(10)), None);
    }

    #[test]
    fn trimmed_lives_go() {
        let mut lives = Incarnations::first(o(0), 1);
        lives.begin(o(10));
        lives.begin(o(20));
        lives.forget_below(o(15));
        assert_eq!(lives.entries(), vec![(10, 2), (20, 3)]);
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(Incarnations::from_entries(&[]), None);
        assert_eq!(Incarnations::from_entries(&[(0, 0)]), None);
        assert_eq!(Incarnations::from_entries(&[(0, u64::MAX)]), None);
        assert_eq!(Incarnations::from_entries(&[(-1, 1)]), None);
        assert_eq!(Incarnations::from_entries(&[(0, 1), (i64::MAX, 2)]), None);
        assert_eq!(Incarnations::from_entries(&[(5, 1), (5, 2)]), None);
        assert_eq!(Incarnations::from_entries(&[(5, 2), (6, 1)]), None);
    }
}
