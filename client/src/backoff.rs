//! Pauses before trying again: doubling, with jitter, so that many producers that failed together
//! do not return together.

use std::time::Duration;

const MIN_PAUSE: Duration = Duration::from_millis(20);
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// A small generator (xorshift64*, Vigna 2016), seeded by the shell: machines bring no randomness.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    state: u64,
}

impl Backoff {
    pub(crate) fn new(seed: u64) -> Self {
        // Zero is the one state it never leaves.
        Self { state: seed.max(1) }
    }

    fn next(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// The pause after the `failures`-th failure in a row, from 1: 80 % to 120 % of its nominal time.
    pub(crate) fn pause(&mut self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(16);
        let nominal = (MIN_PAUSE * (1 << doublings)).min(MAX_PAUSE);
        let permille = u32::try_from(self.next() % 401).expect("below 401");
        nominal * (800 + permille) / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_within_their_jitter() {
        let mut backoff = Backoff::new(0);
        for failures in 1..40 {
            let nominal = (20u128 << (failures - 1).min(16)).min(1000);
            let pause = backoff.pause(failures).as_millis();
            assert!((nominal * 8 / 10..=nominal * 12 / 10).contains(&pause));
        }
    }

    #[test]
    fn seeds_differ() {
        let pauses = |seed| -> Vec<Duration> {
            let mut backoff = Backoff::new(seed);
            (0..4).map(|_| backoff.pause(9)).collect()
        };
        assert_eq!(pauses(7), pauses(7));
        assert_ne!(pauses(7), pauses(8));
    }
}
