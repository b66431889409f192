//! The power goes before every single write, flush and change of a name.

use millstream::{
    io::sim::{CrashPolicy, Sim, SimDisk},
    storage::{Durability, RecoveryChecks},
};
use millstream_protocol::LeaderEpoch;

use crate::{
    cuts::{check_each, crashes_of, no_panic, policies},
    oracle::{Found, Oracle, Shared, disk, recover, with_checks},
    workload::Workload,
};

const SEEDS: u64 = 4;
const STEPS: u32 = 26;

fn workload(seed: u64, epoch: i32) -> Workload {
    Workload {
        seed,
        steps: STEPS,
        durability: Durability::Flushed,
        epoch: LeaderEpoch(epoch),
    }
}

/// Runs a workload on `disk` until `cut` changes were begun, or to its end.
fn run(seed: u64, epoch: i32, disk: &SimDisk, cut: Option<u64>, shared: &Shared) {
    if let Some(cut) = cut {
        disk.cut_after(cut);
    }
    let (shared, workload) = (shared.clone(), workload(seed, epoch));
    Sim::new(seed)
        .with_disk(disk)
        .run_until_cut(|io| workload.run(io, shared));
}

fn recovered(seed: u64, disk: &SimDisk) -> Found {
    Sim::new(seed ^ 0x5eed).with_disk(disk).run(recover)
}

/// Crashes a copy of the disk, recovers, compares; then does it once more.
fn check(seed: u64, disk: &SimDisk, policy: CrashPolicy, oracle: &Oracle) -> Result<(), String> {
    let disk = disk.image().to_disk();
    disk.crash(policy);
    let first = recovered(seed, &disk);
    oracle.verdict(&first)?;
    disk.crash(CrashPolicy::DropAll);
    let second = recovered(seed, &disk);
    if (&first.recovered, &first.bytes) != (&second.recovered, &second.bytes) {
        return Err(format!(
            "a second recovery found another log: {:?}, then {:?}",
            first.recovered, second.recovered
        ));
    }
    Ok(())
}

/// How many changes a whole run makes.
fn changes(seed: u64) -> u64 {
    let disk = disk();
    let before = disk.operations();
    run(seed, 0, &disk, None, &Shared::default());
    disk.operations() - before
}

/// The one case to run again, from the environment.
fn asked_for() -> Option<(u64, u64)> {
    let asked = std::env::var("MILLSTREAM_CRASH").ok()?;
    let (seed, cut) = asked.split_once(',')?;
    Some((seed.parse().ok()?, cut.parse().ok()?))
}

/// Every cut of one workload; the first thing that is wrong.
fn every_cut(seed: u64, ignore_flushes: bool) -> Result<u64, String> {
    let mut cases = 0;
    for cut in 0..=changes(seed) {
        if asked_for().is_some_and(|asked| asked != (seed, cut)) {
            continue;
        }
        let disk = disk();
        disk.ignore_flushes(ignore_flushes);
        let shared = Shared::default();
        run(seed, 0, &disk, Some(cut), &shared);
        let oracle = shared.0.borrow();
        let check = |policy| check(seed, &disk, policy, &oracle);
        cases += check_each(seed, cut, policies(seed, cut, 3), check)?;
    }
    Ok(cases)
}

#[test]
fn every_cut_keeps_what_was_acknowledged() {
    let cases = crashes_of(SEEDS, |seed| every_cut(seed, false));
    assert!(cases > 1000 || asked_for().is_some(), "only {cases} cases");
}

/// The process dies and the disk does not: what its successor finds stays, whatever comes then.
#[test]
fn what_a_killed_process_left_is_made_durable() {
    for seed in 0..3 {
        for cut in (0..=changes(seed)).step_by(2) {
            let disk = disk();
            let shared = Shared::default();
            run(seed, 0, &disk, Some(cut), &shared);
            disk.remount();
            let first = recovered(seed, &disk);
            disk.crash(CrashPolicy::DropAll);
            let second = recovered(seed, &disk);
            let oracle = shared.0.borrow();
            assert_eq!(oracle.verdict(&first), Ok(()), "seed {seed}, cut {cut}");
            let same = (&first.recovered, &first.bytes) == (&second.recovered, &second.bytes);
            assert!(
                same,
                "seed {seed}, cut {cut}: shown {:?}, then {:?}",
                first.recovered, second.recovered
            );
        }
    }
}

#[test]
fn without_flushes_the_test_fails() {
    let problems = (0..SEEDS).filter(|seed| every_cut(*seed, true).is_err());
    assert_eq!(problems.count() as u64, SEEDS);
}

/// Crash, recover, go on, crash again: lives follow lives on one disk.
fn crashes_in_a_row(seed: u64) -> Result<(), String> {
    let disk = disk();
    let shared = Shared::default();
    for life in 0..8u64 {
        let salt = seed << 16 ^ life;
        let cut = 3 + (salt.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) % 120;
        let epoch = i32::try_from(life).unwrap();
        // Now and then only the process dies.
        let killed = salt % 6 == 5;
        let policy = policies(salt, cut, 3)[usize::try_from(salt % 5).unwrap()];
        let lived = no_panic(|| {
            run(salt, epoch, &disk, Some(cut), &shared);
            check(salt, &disk, policy, &shared.0.borrow())
        });
        if let Err(problem) = lived {
            let place = format!("seed {seed}, life {life}, cut {cut}, {policy:?}");
            return Err(format!("{place}: {problem}"));
        }
        match killed {
            true => disk.remount(),
            false => disk.crash(policy),
        }
    }
    Ok(())
}

#[test]
fn many_crashes_in_a_row() {
    for seed in 0..40 {
        if let Err(problem) = crashes_in_a_row(seed) {
            panic!("{problem}");
        }
    }
}

#[test]
fn without_the_check_of_lives_stale_chunks_come_back() {
    let checks = RecoveryChecks {
        incarnations: false,
        ..RecoveryChecks::default()
    };
    let problem = with_checks(checks, || {
        (0..40).find_map(|seed| crashes_in_a_row(seed).err())
    });
    assert!(problem.is_some(), "the crash tests do not need the check");
}

/// A buffered log may lose what it acknowledged, but holds nothing else.
#[test]
fn a_buffered_log_keeps_a_prefix() {
    for seed in 100..102 {
        let whole = disk();
        let before = whole.operations();
        run_buffered(seed, &whole, None);
        for cut in 0..=whole.operations() - before {
            let disk = disk();
            let shared = run_buffered(seed, &disk, Some(cut));
            let check = |policy| check(seed, &disk, policy, &shared.0.borrow());
            let checked = check_each(seed, cut, policies(seed, cut, 3), check);
            checked.unwrap_or_else(|problem| panic!("{problem}"));
        }
    }
}

fn run_buffered(seed: u64, disk: &SimDisk, cut: Option<u64>) -> Shared {
    if let Some(cut) = cut {
        disk.cut_after(cut);
    }
    let shared = Shared::default();
    shared.0.borrow_mut().buffered = true;
    let workload = Workload {
        durability: Durability::Buffered,
        ..workload(seed, 0)
    };
    let listener = shared.clone();
    Sim::new(seed)
        .with_disk(disk)
        .run_until_cut(|io| workload.run(io, listener));
    shared
}
