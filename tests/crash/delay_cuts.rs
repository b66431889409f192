//! The power goes before every single write, flush and change of a name while delayed records are accepted,
//! delivered, cancelled and cleaned up. In the end each is there once; or not at all, if it was taken back.

use std::time::Duration;

use millstream::io::{
    Clock, Random,
    sim::{CrashPolicy, Sim, SimDisk, SimIo},
};

use crate::{
    cuts::{check_each, crashes_of, policies},
    delay_world::{Delivered, Shared, open},
    oracle::disk,
};

const SEEDS: u64 = 4;
const STEPS: u32 = 22;

async fn workload(io: SimIo, seed: u64, shared: Shared) -> Result<(), String> {
    let journal = !seed.is_multiple_of(3);
    let mut place = open(&io, 0, journal).await?;
    let mut random = Random::new(seed);
    let mut sequence = 0;
    for step in 0..STEPS {
        match random.below(16) {
            0..=6 => place.send(&shared, &mut random, &mut sequence).await,
            7..=8 => place.cancel(&shared, &mut random).await,
            9 => place.produce(&mut random),
            10 => io.sleep(Duration::from_millis(random.below(200))).await,
            11 => place.shell.delay().checkpoint_soon(),
            12 => place.shell.checkpoint_soon(),
            13 => place.shell.delay().clean().await,
            14 => io.step_wall([-3_000, 3_000][usize::try_from(random.below(2)).expect("two")]),
            _ if step > 8 => {
                place
                    .shell
                    .close()
                    .await
                    .map_err(|error| error.to_string())?;
                place = open(&io, i32::try_from(step).expect("few"), journal).await?;
            }
            _ => {}
        }
    }
    io.sleep(Duration::from_millis(300)).await;
    place.shell.close().await.map_err(|error| error.to_string())
}

/// Runs the workload until `cut` changes were begun, or to its end.
fn run(seed: u64, disk: &SimDisk, cut: Option<u64>) -> Shared {
    let shared = Shared::default();
    if let Some(cut) = cut {
        disk.cut_after(cut);
    }
    let told = shared.clone();
    Sim::new(seed)
        .with_disk(disk)
        .run_until_cut(|io| async move {
            let _ = workload(io, seed, told).await;
        });
    shared
}

/// What is there after the last record was due.
fn recover(seed: u64, disk: &SimDisk, epoch: i32) -> Result<Vec<Delivered>, String> {
    Sim::new(seed ^ 0x5eed)
        .with_disk(disk)
        .run(|io| async move {
            let place = open(&io, epoch, true).await?;
            let before = place.delivered().await?.len();
            let delivered = place.delivered_all(&io).await?;
            let fresh = delivered[before..].iter().map(|it| (it.due_ms, it.number));
            if !fresh.is_sorted() {
                return Err(format!("not in order of due time: {delivered:?}"));
            }
            Ok(delivered)
        })
}

fn check(seed: u64, disk: &SimDisk, policy: CrashPolicy, shared: &Shared) -> Result<(), String> {
    let disk = disk.image().to_disk();
    disk.crash(policy);
    let first = recover(seed, &disk, 1_000)?;
    shared.borrow().verdict(&first)?;
    disk.crash(CrashPolicy::DropAll);
    let second = recover(seed, &disk, 2_000)?;
    match first == second {
        true => Ok(()),
        false => Err(format!("first {first:?}, then {second:?}")),
    }
}

fn every_cut(seed: u64, ignore_flushes: bool) -> Result<u64, String> {
    let whole = disk();
    let before = whole.operations();
    let shared = run(seed, &whole, None);
    let delivered = recover(seed, &whole, 1_000)?;
    shared.borrow().verdict(&delivered)?;
    assert!(
        delivered.len() > 5,
        "only {} were delivered",
        delivered.len()
    );
    let mut cases = 0;
    for cut in 0..=whole.operations() - before {
        let disk = disk();
        disk.ignore_flushes(ignore_flushes);
        let shared = run(seed, &disk, Some(cut));
        let check = |policy| check(seed, &disk, policy, &shared);
        cases += check_each(seed, cut, policies(seed, cut, 2), check)?;
    }
    Ok(cases)
}

#[test]
fn every_cut_delivers_each_delayed_record_once() {
    let cases = crashes_of(SEEDS, |seed| every_cut(seed, false));
    assert!(cases > 300, "only {cases} cases");
}

#[test]
fn without_flushes_delayed_records_are_lost() {
    let problems = (0..SEEDS).filter(|seed| every_cut(*seed, true).is_err());
    assert_eq!(problems.count() as u64, SEEDS);
}
