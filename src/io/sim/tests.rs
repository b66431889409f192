//! The simulation against the rules of `io`, and what only a simulation can do.

use std::{
    cell::RefCell,
    future::Future,
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use super::{CrashPolicy, Errno, Fault, Operation, Sim, SimDisk, SimFile, SimIo};
use crate::io::{
    BLOCK_SIZE, Buffer, Clock, Disk, DiskFile, Io as _, OpenMode, TaskClass, Tasks,
    conformance::conformance_tests,
};

const BLOCK: u64 = BLOCK_SIZE as u64;

fn run_conformance<F: Future<Output = ()> + 'static>(check: impl Fn(SimIo, PathBuf) -> F) {
    for seed in 0..10 {
        let disk = SimDisk::new();
        let mut sim = Sim::new(seed).with_disk(&disk);
        sim.run(|io| async move { io.create_dir_all(Path::new("/data")).await.unwrap() });
        sim.run(|io| check(io, PathBuf::from("/data")));
    }
}

conformance_tests!(run_conformance);

fn block(io: &SimIo, byte: u8) -> Rc<super::SimBuffer> {
    let mut buffer = io.buffer(BLOCK_SIZE);
    buffer.bytes_mut().fill(byte);
    Rc::new(buffer)
}

async fn read_all(file: &SimFile) -> Vec<u8> {
    file.read_at(0, 64 * BLOCK_SIZE)
        .await
        .unwrap()
        .bytes()
        .to_vec()
}

/// Writes 1 and flushes it, then writes 2 over it and 3 behind it without a flush.
async fn write_some(io: SimIo) {
    io.create_dir_all(Path::new("/d")).await.unwrap();
    io.sync_dir(Path::new("/")).await.unwrap();
    let file = io
        .open(Path::new("/d/f"), OpenMode::CreateNew)
        .await
        .unwrap();
    io.sync_dir(Path::new("/d")).await.unwrap();
    file.write_at(block(&io, 1), 0).await.unwrap();
    file.sync_data().await.unwrap();
    file.write_at(block(&io, 2), 0).await.unwrap();
    file.write_at(block(&io, 3), BLOCK).await.unwrap();
}

fn contents(disk: &SimDisk) -> Vec<u8> {
    Sim::new(1).with_disk(disk).run(|io| async move {
        let file = io.open(Path::new("/d/f"), OpenMode::Read).await.unwrap();
        read_all(&file).await
    })
}

#[test]
fn unsynced_writes_are_lost_kept_or_torn() {
    let disk = SimDisk::new();
    disk.ignore_flushes(false);
    Sim::new(1).with_disk(&disk).run(write_some);
    let image = disk.image();

    disk.crash(CrashPolicy::DropAll);
    assert_eq!(contents(&disk), vec![1; BLOCK_SIZE]);

    let disk = image.to_disk();
    disk.crash(CrashPolicy::KeepAll);
    assert_eq!(
        contents(&disk),
        [vec![2; BLOCK_SIZE], vec![3; BLOCK_SIZE]].concat()
    );

    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let disk = image.to_disk();
        disk.crash(CrashPolicy::Random { seed });
        let bytes = contents(&disk);
        let (first, rest) = bytes.split_at(BLOCK_SIZE);
        assert!(
            first
                .chunks(512)
                .all(|sector| sector == [1; 512] || sector == [2; 512])
        );
        assert!(
            rest.chunks(512)
                .all(|sector| sector == [0; 512] || sector == [3; 512])
        );
        let kind = |bytes: &[u8], old: u8| match bytes.iter().filter(|byte| **byte == old).count() {
            0 => "kept",
            BLOCK_SIZE => "dropped",
            _ => "torn",
        };
        seen.insert((
            kind(first, 1),
            if rest.is_empty() {
                "short"
            } else {
                kind(rest, 0)
            },
        ));
    }
    assert_eq!(seen.len(), 12, "every combination happens: {seen:?}");
}

#[test]
fn a_flush_covers_only_what_had_completed_when_it_began() {
    let mut late_lost = 0;
    for seed in 0..50 {
        let disk = SimDisk::new();
        disk.ignore_flushes(false);
        Sim::new(seed).with_disk(&disk).run(|io| async move {
            io.create_dir_all(Path::new("/d")).await.unwrap();
            io.sync_dir(Path::new("/")).await.unwrap();
            let file = io
                .open(Path::new("/d/f"), OpenMode::CreateNew)
                .await
                .unwrap();
            io.sync_dir(Path::new("/d")).await.unwrap();
            file.write_at(block(&io, 1), 0).await.unwrap();
            let (other, buffer) = (file.clone(), block(&io, 2));
            io.spawn(TaskClass::Foreground, async move {
                other.write_at(buffer, BLOCK).await.unwrap();
            });
            file.sync_data().await.unwrap();
            io.sleep(Duration::from_secs(1)).await;
        });
        disk.crash(CrashPolicy::DropAll);
        let bytes = contents(&disk);
        assert_eq!(bytes[0], 1, "flushed");
        late_lost += u32::from(bytes.len() == BLOCK_SIZE);
    }
    assert_eq!(late_lost, 50, "the later write is never covered");
}

#[test]
fn ignored_flushes_keep_nothing() {
    let disk = SimDisk::new();
    disk.ignore_flushes(true);
    Sim::new(1).with_disk(&disk).run(write_some);
    disk.crash(CrashPolicy::DropAll);
    let found = Sim::new(1)
        .with_disk(&disk)
        .run(|io| async move { io.read_dir(Path::new("/")).await.unwrap() });
    assert!(found.is_empty());
}

#[test]
fn names_need_a_flush_of_their_directory() {
    let disk = SimDisk::new();
    disk.ignore_flushes(false);
    Sim::new(1).with_disk(&disk).run(|io| async move {
        let root = Path::new("/");
        for name in ["/kept", "/removed", "/old"] {
            io.open(Path::new(name), OpenMode::CreateNew).await.unwrap();
        }
        io.create_dir_all(Path::new("/sub")).await.unwrap();
        io.sync_dir(root).await.unwrap();
        io.open(Path::new("/lost"), OpenMode::CreateNew)
            .await
            .unwrap();
        io.remove_file(Path::new("/removed")).await.unwrap();
        io.rename(Path::new("/old"), Path::new("/sub/new"))
            .await
            .unwrap();
    });
    let names = |disk: &SimDisk| {
        Sim::new(1).with_disk(disk).run(|io| async move {
            let mut names = io.read_dir(Path::new("/")).await.unwrap();
            names.extend(io.read_dir(Path::new("/sub")).await.unwrap());
            names
                .iter()
                .map(|path| path.display().to_string())
                .collect::<Vec<_>>()
        })
    };
    let image = disk.image();
    disk.crash(CrashPolicy::DropAll);
    assert_eq!(names(&disk), ["/kept", "/old", "/removed", "/sub"]);
    let disk = image.to_disk();
    disk.crash(CrashPolicy::KeepAll);
    assert_eq!(names(&disk), ["/kept", "/lost", "/sub", "/sub/new"]);
    for seed in 0..100 {
        let disk = image.to_disk();
        disk.crash(CrashPolicy::Random { seed });
        let names = names(&disk);
        let moved = names
            .iter()
            .filter(|name| *name == "/old" || *name == "/sub/new")
            .count();
        assert_eq!(moved, 1, "a rename happens or does not: {names:?}");
    }
}

#[test]
fn a_flushed_rename_does_not_bring_the_old_name_back() {
    let disk = SimDisk::new();
    disk.ignore_flushes(false);
    Sim::new(1).with_disk(&disk).run(|io| async move {
        io.create_dir_all(Path::new("/sub")).await.unwrap();
        io.sync_dir(Path::new("/")).await.unwrap();
        io.open(Path::new("/a"), OpenMode::CreateNew).await.unwrap();
        io.rename(Path::new("/a"), Path::new("/sub/a"))
            .await
            .unwrap();
        io.sync_dir(Path::new("/sub")).await.unwrap();
        io.sync_dir(Path::new("/")).await.unwrap();
    });
    disk.crash(CrashPolicy::DropAll);
    let names = Sim::new(1).with_disk(&disk).run(|io| async move {
        (
            io.read_dir(Path::new("/")).await.unwrap(),
            io.read_dir(Path::new("/sub")).await.unwrap(),
        )
    });
    assert_eq!(
        names,
        (vec![PathBuf::from("/sub")], vec![PathBuf::from("/sub/a")])
    );
}

#[test]
fn a_cut_ends_the_run_before_the_next_change() {
    let total = {
        let disk = SimDisk::new();
        Sim::new(1).with_disk(&disk).run(write_some);
        disk.operations()
    };
    assert_eq!(total, 8);
    for count in 0..total {
        let disk = SimDisk::new();
        disk.cut_after(count);
        let mut sim = Sim::new(1).with_disk(&disk);
        assert!(sim.run_until_cut(write_some).is_none());
        assert_eq!(disk.operations(), count);
    }
    let disk = SimDisk::new();
    disk.cut_after(total);
    assert!(
        Sim::new(1)
            .with_disk(&disk)
            .run_until_cut(write_some)
            .is_some()
    );
}

#[test]
fn handles_die_with_a_crash() {
    let disk = SimDisk::new();
    let same = disk.clone();
    Sim::new(1).with_disk(&disk).run(|io| async move {
        let file = io.open(Path::new("/f"), OpenMode::CreateNew).await.unwrap();
        same.crash(CrashPolicy::KeepAll);
        assert!(file.write_at(block(&io, 1), 0).await.is_err());
        assert!(file.sync_data().await.is_err());
        let file = io.open(Path::new("/f"), OpenMode::Write).await.unwrap();
        file.write_at(block(&io, 1), 0).await.unwrap();
    });
}

#[test]
fn planned_faults_strike() {
    let disk = SimDisk::new();
    disk.ignore_flushes(false);
    let same = disk.clone();
    Sim::new(1).with_disk(&disk).run(|io| async move {
        let file = io.open(Path::new("/f"), OpenMode::CreateNew).await.unwrap();
        io.sync_dir(Path::new("/")).await.unwrap();
        same.fail(Fault::nth(Operation::Write, 2, Errno::Io).on("/f"));
        file.write_at(block(&io, 1), 0).await.unwrap();
        let error = file.write_at(block(&io, 2), 0).await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(5));
        file.write_at(block(&io, 3), 0).await.unwrap();

        same.set_capacity(16 * BLOCK);
        let error = file.allocate(17 * BLOCK).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        file.allocate(16 * BLOCK).await.unwrap();
        assert_eq!(io.space(Path::new("/")).await.unwrap().free, 0);

        // After a failed flush, a later one that succeeds covers nothing of the first.
        same.fail(Fault::nth(Operation::SyncData, 1, Errno::Io));
        file.sync_data().await.unwrap_err();
        file.sync_data().await.unwrap();
    });
    disk.crash(CrashPolicy::DropAll);
    let size = Sim::new(1).with_disk(&disk).run(|io| async move {
        io.open(Path::new("/f"), OpenMode::Read)
            .await
            .unwrap()
            .size()
            .await
            .unwrap()
    });
    assert_eq!(size, 0);
}

#[test]
fn bits_flip() {
    let disk = SimDisk::new();
    Sim::new(1).with_disk(&disk).run(write_some);
    disk.corrupt(Path::new("/d/f"), BLOCK + 7, 0x81).unwrap();
    assert_eq!(contents(&disk)[BLOCK_SIZE + 7], 3 ^ 0x81);
    assert!(disk.corrupt(Path::new("/missing"), 0, 1).is_err());
}

#[test]
fn removed_files_give_their_space_back() {
    let disk = SimDisk::new();
    disk.set_capacity(100 * BLOCK);
    Sim::new(1).with_disk(&disk).run(|io| async move {
        for _ in 0..10 {
            let path = Path::new("/f");
            let file = io.open(path, OpenMode::CreateNew).await.unwrap();
            file.allocate(60 * BLOCK).await.unwrap();
            io.remove_file(path).await.unwrap();
            drop(file);
            io.sync_dir(Path::new("/")).await.unwrap();
        }
        assert_eq!(io.space(Path::new("/")).await.unwrap().free, 100 * BLOCK);
    });
}

/// A few tasks that write, sleep and choose: the order in which they log is the seed's.
async fn wander(io: SimIo) -> Vec<(u64, u64)> {
    let log = Rc::new(RefCell::new(Vec::new()));
    let file = io.open(Path::new("/f"), OpenMode::CreateNew).await.unwrap();
    for task in 0..5_u64 {
        let (io_of_task, file, log) = (io.clone(), file.clone(), Rc::clone(&log));
        io.spawn(TaskClass::Foreground, async move {
            for step in 0..10 {
                let io = &io_of_task;
                file.write_at(block(io, 1), (io.random_u64() % 16) * BLOCK)
                    .await
                    .unwrap();
                io.yield_if_needed().await;
                log.borrow_mut().push((task, step));
            }
        });
    }
    while log.borrow().len() < 50 {
        io.sleep(Duration::from_micros(50)).await;
    }
    log.take()
}

#[test]
fn one_seed_takes_one_path() {
    let run = |seed| {
        let mut sim = Sim::new(seed);
        let log = sim.run(wander);
        (log, sim.trace_hash())
    };
    assert_eq!(run(7), run(7));
    let hashes: std::collections::BTreeSet<u64> = (0..50).map(|seed| run(seed).1).collect();
    assert_eq!(hashes.len(), 50, "seeds differ");
    assert_ne!(run(7).0, run(8).0);
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_deadlock_is_reported() {
    Sim::new(1).run(|_| std::future::pending::<()>());
}

#[test]
#[should_panic(expected = "dropped half-way")]
fn a_disk_operation_must_not_be_abandoned() {
    Sim::new(1).run(|io| async move {
        let file = io.open(Path::new("/f"), OpenMode::CreateNew).await.unwrap();
        let mut write = Box::pin(file.write_at(block(&io, 1), 0));
        std::future::poll_fn(|context| {
            let _ = write.as_mut().poll(context);
            std::task::Poll::Ready(())
        })
        .await;
        drop(write);
    });
}

#[test]
fn the_wall_clock_steps_alone() {
    Sim::new(1).run(|io| async move {
        let (wall, now) = (io.wall_ms(), io.now());
        io.step_wall(-3_600_000);
        assert_eq!(io.wall_ms(), wall - 3_600_000);
        assert!(io.now().since(now) < Duration::from_millis(1));
    });
}

#[test]
fn a_killed_node_stops_and_lets_go() {
    Sim::new(1).run(|io| async move {
        let other = io.node(1, &SimDisk::new());
        let alive = Rc::new(());
        let (held, sleeper) = (Rc::clone(&alive), other.clone());
        other.spawn(TaskClass::Foreground, async move {
            let _held = held;
            sleeper.sleep(Duration::from_secs(1_000)).await;
        });
        io.sleep(Duration::from_secs(1)).await;
        assert_eq!(Rc::strong_count(&alive), 2);
        other.kill();
        assert_eq!(Rc::strong_count(&alive), 1);
    });
}

#[test]
fn a_process_that_ends_loses_nothing_and_flushes_nothing() {
    let disk = SimDisk::new();
    disk.ignore_flushes(false);
    Sim::new(1).with_disk(&disk).run(write_some);
    disk.remount();
    assert_eq!(contents(&disk), [[2; BLOCK_SIZE], [3; BLOCK_SIZE]].concat());
    disk.crash(CrashPolicy::DropAll);
    assert_eq!(contents(&disk), [1; BLOCK_SIZE]);

    // Cut with a write in flight: it arrives after the process is gone.
    let disk = SimDisk::new();
    disk.ignore_flushes(false);
    disk.cut_after(2);
    let cut = Sim::new(1).with_disk(&disk).run_until_cut(|io| async move {
        let file = io.open(Path::new("/f"), OpenMode::CreateNew).await.unwrap();
        let (first, second) = (file.clone(), block(&io, 2));
        let buffer = block(&io, 1);
        io.spawn(TaskClass::Foreground, async move {
            first.write_at(buffer, 0).await.unwrap()
        });
        io.yield_if_needed().await;
        io.sleep(Duration::from_micros(5)).await;
        file.write_at(second, BLOCK).await.unwrap();
    });
    assert!(cut.is_none());
    disk.remount();
    let size = Sim::new(2).with_disk(&disk).run(|io| async move {
        let file = io.open(Path::new("/f"), OpenMode::Read).await.unwrap();
        read_all(&file).await
    });
    assert_eq!(size, [1; BLOCK_SIZE]);
}

#[test]
fn space_is_counted_once() {
    Sim::new(1).run(|io| async move {
        let file = io.open(Path::new("/f"), OpenMode::CreateNew).await.unwrap();
        let physical = |file: SimFile| async move { file.physical_size().await.unwrap() / BLOCK };
        file.write_at(block(&io, 1), 10 * BLOCK).await.unwrap();
        file.write_at(block(&io, 1), 10 * BLOCK).await.unwrap();
        assert_eq!(physical(file.clone()).await, 1);
        file.allocate(4 * BLOCK).await.unwrap();
        assert_eq!(physical(file.clone()).await, 5);
        file.allocate(20 * BLOCK).await.unwrap();
        assert_eq!(physical(file.clone()).await, 20);
        file.write_at(block(&io, 1), 20 * BLOCK).await.unwrap();
        assert_eq!(physical(file.clone()).await, 21);
        file.truncate(5 * BLOCK + 1).await.unwrap();
        assert_eq!(physical(file.clone()).await, 6);
    });
}
