//! The same seed takes the same path, to the byte: a failure can be replayed, and its trace is the same.

use crate::{scenario::play, seeds, whole::scenario};

#[test]
fn determinism_of_every_choice() {
    seeds::each("determinism_of_every_choice", 2, |seed| {
        let first = play(seed, scenario(seed));
        let again = play(seed, scenario(seed));
        assert_eq!(first.trace, again.trace, "the same trace, byte for byte");
        assert_eq!(first, again);
        let other = play(seed + 1000, scenario(seed));
        assert_ne!(first.trace_hash, other.trace_hash);
        assert!(
            first.trace.lines().count() > 500,
            "there is something to read"
        );
    });
}
