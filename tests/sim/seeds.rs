//! Which seeds a test runs, and what it prints when one fails.

use std::{cell::Cell, ops::Range};

/// Runs one seed only, and alone replays a failure.
const SEED: &str = "MILLSTREAM_SEED";
/// Runs so many seeds instead of the usual few, from 0 on; or those of a range such as `100..200`.
const SEEDS: &str = "MILLSTREAM_SEEDS";

thread_local! {
    static CURRENT: Cell<Option<(&'static str, u64)>> = const { Cell::new(None) };
}

/// The test and the seed that run on this thread.
pub fn current() -> Option<(&'static str, u64)> {
    CURRENT.get()
}

/// Names the seed and the command that replays it if the test panics while this lives.
struct Replay {
    test: &'static str,
    seed: u64,
}

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { test, seed } = self;
            eprintln!(
                "seed {seed} failed; replay it with: {SEED}={seed} cargo test --test sim {test}"
            );
        }
    }
}

fn number(text: &str) -> u64 {
    text.parse()
        .unwrap_or_else(|_| panic!("{SEED} and {SEEDS} take numbers, not {text:?}"))
}

fn wanted(few: u64) -> Range<u64> {
    match std::env::var(SEEDS) {
        Err(_) => 0..few,
        Ok(text) => match text.split_once("..") {
            Some((first, end)) => number(first)..number(end),
            None => 0..number(&text),
        },
    }
}

/// Runs `few` seeds, or what the environment asks for.
pub fn each(test: &'static str, few: u64, run: impl Fn(u64)) {
    let seeds = match std::env::var(SEED) {
        Ok(seed) => {
            // One history: what the broker has to say about it is wanted.
            let _ = tracing_subscriber::fmt()
                .with_test_writer()
                .without_time()
                .try_init();
            let seed = number(&seed);
            seed..seed + 1
        }
        Err(_) => wanted(few),
    };
    assert!(!seeds.is_empty(), "no seed, no test");
    for seed in seeds {
        let _replay = Replay { test, seed };
        CURRENT.set(Some((test, seed)));
        run(seed);
    }
}
