//! Which seeds a test runs, and what it prints when one fails.

/// Runs one seed only, and alone replays a failure.
const SEED: &str = "MILLSTREAM_SEED";
/// Runs so many seeds instead of the usual few.
const SEEDS: &str = "MILLSTREAM_SEEDS";

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

fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name} takes a number, not {value:?}")),
    )
}

/// Runs `few` seeds, or what the environment asks for.
pub fn each(test: &'static str, few: u64, run: impl Fn(u64)) {
    let seeds = match number(SEED) {
        Some(seed) => {
            // One history: what the broker has to say about it is wanted.
            let _ = tracing_subscriber::fmt()
                .with_test_writer()
                .without_time()
                .try_init();
            seed..seed + 1
        }
        None => 0..number(SEEDS).unwrap_or(few),
    };
    assert!(!seeds.is_empty(), "no seed, no test");
    for seed in seeds {
        let _replay = Replay { test, seed };
        run(seed);
    }
}
