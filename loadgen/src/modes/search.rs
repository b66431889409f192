//! Which rate to try next, on the way to the highest one that holds. Pure.

use std::collections::BTreeSet;

/// Runs at most, whatever they say: a host whose noise is larger than the precision must end, too.
const MAX_RUNS: usize = 20;

/// A search between nothing and a ceiling, by halves; the best rate has to hold twice.
#[derive(Clone, Debug)]
pub struct Search {
    precision: f64,
    /// Rates below this are not tried.
    lowest: u64,
    /// Rates that held, once.
    held: BTreeSet<u64>,
    /// The lowest that did not hold.
    failed: u64,
    confirmed: Option<u64>,
    runs: usize,
}

impl Search {
    /// A search below `ceiling`, which is taken not to hold, down to steps of `precision` times the
    /// rate.
    #[must_use]
    pub fn new(ceiling: u64, precision: f64) -> Self {
        Self {
            precision,
            lowest: 1,
            held: BTreeSet::new(),
            failed: ceiling.max(1),
            confirmed: None,
            runs: 0,
        }
    }

    /// Tries no rate below this one, of which a run would have too few records to tell anything.
    #[must_use]
    pub fn not_below(mut self, lowest: u64) -> Self {
        self.lowest = lowest.max(1);
        self
    }

    /// The rate to try next; none when the search is over.
    #[must_use]
    pub fn next(&self) -> Option<u64> {
        if self.confirmed.is_some() || self.runs >= MAX_RUNS {
            return None;
        }
        let best = self.best();
        let middle = best.midpoint(self.failed);
        match best {
            0 if middle < self.lowest => None,
            _ if self.is_close(best) => Some(best),
            _ => Some(middle),
        }
    }

    /// How a rate did.
    pub fn told(&mut self, rate: u64, holds: bool) {
        self.runs += 1;
        if !holds {
            self.failed = self.failed.min(rate);
            // What held above it, or held just this once, was luck.
            self.held.split_off(&rate);
            return;
        }
        let again = !self.held.insert(rate);
        if again && self.is_close(rate) {
            self.confirmed = Some(rate);
        }
    }

    /// Whether the rate found held again when it was tried again.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        self.confirmed.is_some()
    }

    /// The highest rate that holds, if any does.
    #[must_use]
    pub fn found(&self) -> Option<u64> {
        self.confirmed
            .or(Some(self.best()).filter(|rate| *rate > 0))
    }

    /// The lowest rate that did not hold.
    #[must_use]
    pub fn lowest_failed(&self) -> u64 {
        self.failed
    }

    fn best(&self) -> u64 {
        self.held.last().copied().unwrap_or(0)
    }

    /// Whether nothing worth trying lies between this rate and one that failed.
    fn is_close(&self, rate: u64) -> bool {
        #[expect(clippy::cast_precision_loss, reason = "rates are far below 2^53")]
        let (rate, failed) = (rate as f64, self.failed as f64);
        rate > 0.0 && failed - rate <= (rate * self.precision).max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches where `holds` tells the truth; the rates tried, and what was found.
    fn search(ceiling: u64, mut holds: impl FnMut(u64) -> bool) -> (Vec<u64>, Option<u64>) {
        let mut search = Search::new(ceiling, 0.05);
        let mut tried = Vec::new();
        while let Some(rate) = search.next() {
            tried.push(rate);
            search.told(rate, holds(rate));
        }
        (tried, search.found())
    }

    #[test]
    fn the_highest_rate_is_found_and_confirmed() {
        let (tried, found) = search(1_000_000, |rate| rate <= 630_000);
        let found = found.unwrap();
        assert!((600_000..=630_000).contains(&found), "{found}");
        assert_eq!(tried.last(), Some(&found), "it was tried again");
        assert!(tried.len() <= 8, "{tried:?}");
    }

    #[test]
    fn rates_too_low_to_tell_anything_are_not_tried() {
        let mut search = Search::new(1_000, 0.05).not_below(50);
        let mut tried = Vec::new();
        while let Some(rate) = search.next() {
            tried.push(rate);
            search.told(rate, false);
        }
        assert_eq!(tried, [500, 250, 125, 62]);
        assert_eq!(search.found(), None);
    }

    #[test]
    fn where_nothing_holds_nothing_is_found() {
        let (tried, found) = search(1_000, |_| false);
        assert_eq!(found, None);
        assert!(tried.len() <= MAX_RUNS);
        assert!(tried.contains(&1), "{tried:?}");
    }

    #[test]
    fn what_held_by_luck_is_not_found() {
        let mut seen = BTreeSet::new();
        // Somewhat above 500 a rate holds the first time and never again.
        let (_, found) = search(1_000, |rate| {
            rate <= 500 || (rate <= 650 && seen.insert(rate))
        });
        let found = found.unwrap();
        assert!((475..=500).contains(&found), "{found}");
    }
}
