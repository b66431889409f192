use std::{cell::RefCell, path::PathBuf};

use super::*;
use crate::io::{
    Disk,
    sim::{Errno, Fault, Operation, Sim, SimDisk},
};

fn plan(size: u64) -> DiskPlan {
    DiskPlan {
        size,
        step_time: Duration::from_millis(20),
    }
}

/// Runs on a disk, and says what is left in the directory afterwards.
fn run(disk: &SimDisk, size: u64) -> (Result<DiskFigures, DiskCheckError>, Vec<PathBuf>) {
    let mut sim = Sim::new(1).with_disk(disk);
    sim.run(move |io| async move {
        let directory = Path::new("/data");
        io.create_dir_all(directory).await.unwrap();
        let steps = RefCell::new(Vec::new());
        let tell = |step| steps.borrow_mut().push(step);
        let figures = check_disk(&io, directory, &plan(size), tell).await;
        if figures.is_ok() {
            assert_eq!(
                *steps.borrow(),
                [Step::Fill, Step::Write, Step::Flush, Step::Read]
            );
        }
        (figures, io.read_dir(directory).await.unwrap())
    })
}

#[test]
fn a_disk_is_measured_and_left_as_it_was() {
    let (figures, left) = run(&SimDisk::new(), 64 << 20);
    let figures = figures.unwrap();
    assert!(left.is_empty(), "{left:?}");
    assert!(figures.size >= MIN_SIZE && figures.size <= 64 << 20);
    for throughput in [&figures.write, &figures.read] {
        assert!(throughput.elapsed >= Duration::from_millis(20));
        assert_eq!(
            throughput.bytes,
            throughput.latencies.count() * LARGE_SIZE as u64
        );
        assert!(throughput.bytes_per_second() > 0.0);
    }
    let flush = &figures.flush;
    assert_eq!(flush.writes.count(), flush.flushes.count());
    let (both, alone) = (flush.both.percentiles(), flush.flushes.percentiles());
    assert!(both.mean > alone.mean && alone.mean > 0.0);
}

#[test]
fn a_broker_keeps_its_spare_space() {
    let disk = SimDisk::new();
    disk.set_capacity(MIN_SPARE + (32 << 20));
    let (figures, left) = run(&disk, 64 << 20);
    assert!(
        matches!(figures, Err(DiskCheckError::Space { .. })),
        "{figures:?}"
    );
    assert!(left.is_empty() && disk.count(Operation::Write) == 0);
    assert!(run(&disk, 32 << 20).0.is_ok());
}

#[test]
fn a_disk_that_fails_is_reported_and_left_clean() {
    for (operation, nth) in [
        (Operation::Allocate, 1),
        (Operation::Write, 3),
        (Operation::SyncData, 3),
        (Operation::Read, 20),
    ] {
        let disk = SimDisk::new();
        disk.fail(Fault::nth(operation, nth, Errno::Io));
        let (figures, left) = run(&disk, 16 << 20);
        assert!(
            matches!(figures, Err(DiskCheckError::Io(..))),
            "{operation:?}"
        );
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn what_a_killed_check_left_is_taken_away() {
    let disk = SimDisk::new();
    Sim::new(1).with_disk(&disk).run(|io| async move {
        io.create_dir_all(Path::new("/data")).await.unwrap();
        let path = Path::new("/data").join(NAME);
        io.open(&path, OpenMode::CreateNew).await.unwrap();
    });
    let (figures, left) = run(&disk, 16 << 20);
    assert!(figures.is_ok() && left.is_empty(), "{left:?}");
}
