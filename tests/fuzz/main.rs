//! Fuzz targets: bytes from anywhere, and files from a bad disk. Each runs a bounded number of cases as an ordinary
//! test, the committed corpus first; `MILLSTREAM_FUZZ=100000 cargo test --test fuzz` runs more, and
//! `cargo bolero test --test fuzz TARGET` has a fuzzer drive one.
//!
//! A failure prints its input and `BOLERO_RANDOM_SEED`, with which it is run again.

#![allow(missing_docs, reason = "nobody uses it from outside")]

mod batches;
mod frames;
#[path = "../crash/oracle.rs"]
#[allow(dead_code, reason = "the crash tests use all of it")]
mod oracle;
mod recovery;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Cases of a target, if nobody asks for more.
pub fn cases(usual: usize) -> usize {
    let asked = std::env::var("MILLSTREAM_FUZZ").ok();
    asked.map_or(usual, |text| text.parse().expect("a number of cases"))
}

/// Long enough that the number of cases is the limit.
pub const TIME: Duration = Duration::from_secs(3_600);

/// What a target did: cases, and those among them that got past the first checks.
#[derive(Default)]
pub struct Tally {
    pub all: AtomicU64,
    pub deep: AtomicU64,
}

impl Tally {
    pub const fn new() -> Self {
        Self {
            all: AtomicU64::new(0),
            deep: AtomicU64::new(0),
        }
    }

    pub fn case(&self) {
        self.all.fetch_add(1, Ordering::Relaxed);
    }

    pub fn deep(&self) {
        self.deep.fetch_add(1, Ordering::Relaxed);
    }

    /// Says how many there were; too few, or none that got anywhere, is a failure.
    pub fn finish(&self, target: &str, expected: usize) {
        let (all, deep) = (
            self.all.load(Ordering::Relaxed),
            self.deep.load(Ordering::Relaxed),
        );
        println!("fuzz {target}: {all} cases, {deep} of them got past the first checks");
        // A fuzzer that drives the target counts for itself.
        if std::env::var_os("CARGO_BOLERO_SELECT").is_none() {
            assert!(
                all >= expected as u64 && deep > 0,
                "{target}: {all} cases, {deep} deep"
            );
        }
    }
}

/// Changes that an input describes, five bytes each: how, where, with what.
pub struct Edits<'a>(pub &'a [u8]);

impl Edits<'_> {
    /// How, a place below `size`, and a value.
    pub fn within(&self, size: usize) -> impl Iterator<Item = (u8, usize, u8)> + '_ {
        self.0.chunks_exact(5).map(move |edit| {
            let place = u32::from_le_bytes([edit[1], edit[2], edit[3], 0]) as usize;
            (edit[0], place % size.max(1), edit[4])
        })
    }
}
