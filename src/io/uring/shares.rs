//! Whose turn it is: three classes of tasks share a core by what they have used of it, weighted.

use std::cell::Cell;

/// How much of the core each class gets when all have work: what a nanosecond costs it.
const COSTS: [u64; 3] = [3, 10, 30];
/// So far, in costs, the foreground may run ahead of the others before it waits for them.
const FOREGROUND_LEAD: u64 = 3_000_000;
/// Who had nothing to do for long does not get all of that back at once, but so much of it.
const CREDIT: u64 = 2 * FOREGROUND_LEAD;

/// The foreground.
pub(super) const FOREGROUND: usize = 0;

/// See the module.
#[derive(Default)]
pub(super) struct Shares {
    /// What each class has used, in costs.
    used: [Cell<u64>; 3],
    /// What the class had used that ran last, or one before it that had used more.
    clock: Cell<u64>,
}

impl Shares {
    /// Notes that a class ran for so long.
    pub(super) fn charge(&self, class: usize, duration_ns: u64) {
        let used = &self.used[class];
        used.set(used.get() + duration_ns * COSTS[class]);
    }

    /// The class to run next, of those that are ready; the foreground if none is.
    ///
    /// The foreground goes first unless it is far ahead of the others in what it used.
    pub(super) fn next(&self, ready: [bool; 3]) -> usize {
        let least = self.clock.get().saturating_sub(CREDIT);
        for used in &self.used {
            used.set(used.get().max(least));
        }
        let others = (1..3).filter(|class| ready[*class]);
        let other = others.min_by_key(|class| self.used[*class].get());
        let foreground = self.used[FOREGROUND].get();
        let class = other.filter(|other| {
            let lead = foreground.saturating_sub(self.used[*other].get());
            !ready[FOREGROUND] || lead > FOREGROUND_LEAD
        });
        let class = class.unwrap_or(FOREGROUND);
        let used = self.used[class].get();
        if class != FOREGROUND {
            // The foreground gets nothing back for having left the core to others.
            self.used[FOREGROUND].set(foreground.max(used));
        }
        self.clock.set(self.clock.get().max(used));
        class
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLICE_NS: u64 = 10_000;
    const MILLISECOND_NS: u64 = 1_000_000;

    /// Runs classes that always have work for so long; how long each of them ran.
    fn run(shares: &Shares, ready: [bool; 3], duration_ns: u64) -> [u64; 3] {
        let mut ran = [0; 3];
        for _ in 0..duration_ns / SLICE_NS {
            let class = shares.next(ready);
            assert!(ready[class]);
            shares.charge(class, SLICE_NS);
            ran[class] += SLICE_NS;
        }
        ran
    }

    #[test]
    fn all_that_have_work_get_their_part() {
        let shares = Shares::default();
        let [foreground, catch_up, background] = run(&shares, [true; 3], 1000 * MILLISECOND_NS);
        assert!((680..740).contains(&(foreground / MILLISECOND_NS)));
        assert!((190..240).contains(&(catch_up / MILLISECOND_NS)));
        assert!((60..80).contains(&(background / MILLISECOND_NS)));
    }

    /// Whoever had nothing to do for long would otherwise have the core for as long.
    #[test]
    fn nobody_gets_back_what_was_long_ago() {
        for (idle, busy) in [(1, 2), (2, 1), (0, 1), (0, 2), (1, 0), (2, 0)] {
            let shares = Shares::default();
            let mut ready = [false; 3];
            ready[busy] = true;
            run(&shares, ready, 10_000 * MILLISECOND_NS);
            ready[idle] = true;
            let ran = run(&shares, ready, 20 * MILLISECOND_NS);
            assert!(
                ran[busy] >= MILLISECOND_NS,
                "class {busy} beside {idle}: {ran:?}"
            );
        }
    }

    #[test]
    fn the_foreground_goes_first() {
        let shares = Shares::default();
        run(&shares, [false, true, true], 100 * MILLISECOND_NS);
        assert_eq!(shares.next([true; 3]), FOREGROUND);
    }
}
