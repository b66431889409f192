//! What the tests have in common that cut at every operation.

use std::panic::{AssertUnwindSafe, catch_unwind};

use millstream::io::sim::CrashPolicy;

/// What a crash may leave of what was not flushed: nothing, all of it, or any part, as often as is said.
pub fn policies(seed: u64, cut: u64, random_count: u64) -> Vec<CrashPolicy> {
    let random = (0..random_count).map(|round| CrashPolicy::Random {
        seed: seed << 32 ^ cut << 8 ^ round,
    });
    [CrashPolicy::DropAll, CrashPolicy::KeepAll]
        .into_iter()
        .chain(random)
        .collect()
}

/// A panic is a problem like others.
pub fn no_panic(check: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(check)).unwrap_or_else(|_| Err("a panic".to_owned()))
}

/// Checks each crash of one cut; how many there were, or the first thing that is wrong.
pub fn check_each(
    seed: u64,
    cut: u64,
    policies: Vec<CrashPolicy>,
    check: impl Fn(CrashPolicy) -> Result<(), String>,
) -> Result<u64, String> {
    let count = policies.len() as u64;
    for policy in policies {
        let checked = no_panic(|| check(policy));
        checked.map_err(|problem| format!("seed {seed}, cut {cut}, {policy:?}: {problem}"))?;
    }
    Ok(count)
}

/// How many crashes `every_cut` made of these seeds.
///
/// # Panics
/// If one of them went wrong.
pub fn crashes_of(seeds: u64, every_cut: impl Fn(u64) -> Result<u64, String>) -> u64 {
    let crashes =
        (0..seeds).map(|seed| every_cut(seed).unwrap_or_else(|problem| panic!("{problem}")));
    let count = crashes.sum();
    println!("{count} crashes");
    count
}
