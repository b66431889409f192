//! io_uring against the rules of `io`, and what only the real world can do.

use std::{
    cell::Cell,
    future::Future,
    path::{Path, PathBuf},
    rc::Rc,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::task::AtomicWaker;

use super::{
    ShardOptions, UringIo, UringStream, executor::spawn_with, ring::Ring, spawn_shard, try_ring,
};
use crate::io::{
    BLOCK_SIZE, Buffer, Clock, Disk, DiskFile, Listener, Net, OpenMode, Stream, TaskClass, Tasks,
    conformance::conformance_tests,
};

/// Whether to run; without io_uring a test is skipped, unless it was required.
pub(super) fn can_run() -> bool {
    let Err(reason) = try_ring() else {
        return true;
    };
    let required = std::env::var("MILLSTREAM_REQUIRE").unwrap_or_default();
    assert!(
        !required.split(',').any(|name| name.trim() == "io_uring"),
        "io_uring is required and missing: {reason}"
    );
    eprintln!("SKIPPED: {reason}");
    false
}

/// Below the build directory, for /tmp may be a tmpfs without direct I/O.
fn scratch() -> tempfile::TempDir {
    let target = std::env::current_exe()
        .unwrap()
        .parent()
        .unwrap()
        .to_path_buf();
    tempfile::Builder::new()
        .prefix("io-test-")
        .tempdir_in(target)
        .unwrap()
}

fn run<F, Fut>(direct: bool, program: F)
where
    F: FnOnce(UringIo, PathBuf) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let options = ShardOptions {
        direct,
        ..ShardOptions::default()
    };
    run_with(options, program);
}

fn run_with<F, Fut>(options: ShardOptions, program: F)
where
    F: FnOnce(UringIo, PathBuf) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + 'static,
{
    if !can_run() {
        return;
    }
    let directory = scratch();
    let path = directory.path().to_path_buf();
    spawn_shard(0, None, &options, |io| program(io, path))
        .unwrap()
        .join();
}

mod direct {
    use super::*;

    fn run_direct<F, Fut>(program: F)
    where
        F: FnOnce(UringIo, PathBuf) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        run(true, program);
    }

    conformance_tests!(run_direct);
}

mod buffered {
    use super::*;

    fn run_buffered<F, Fut>(program: F)
    where
        F: FnOnce(UringIo, PathBuf) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        run(false, program);
    }

    conformance_tests!(run_buffered);
}

mod before_6_1 {
    use super::*;

    fn run_before_6_1<F, Fut>(program: F)
    where
        F: FnOnce(UringIo, PathBuf) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        if !can_run() {
            return;
        }
        let directory = scratch();
        let path = directory.path().to_path_buf();
        let options = ShardOptions::default();
        spawn_with(Ring::before_6_1, 0, None, &options, |io| program(io, path))
            .unwrap()
            .join();
    }

    conformance_tests!(run_before_6_1);
}

#[test]
fn a_foreign_thread_wakes_a_task() {
    run(true, |_io, _directory| async {
        #[derive(Default)]
        struct Inbox {
            letter: Mutex<Option<u32>>,
            waker: AtomicWaker,
        }
        let inbox = Arc::new(Inbox::default());
        for round in 0..200 {
            let sender = Arc::clone(&inbox);
            let thread = std::thread::spawn(move || {
                *sender.letter.lock().unwrap() = Some(round);
                sender.waker.wake();
            });
            let received = std::future::poll_fn(|context| {
                inbox.waker.register(context.waker());
                inbox
                    .letter
                    .lock()
                    .unwrap()
                    .take()
                    .map_or(Poll::Pending, Poll::Ready)
            });
            assert_eq!(received.await, round);
            thread.join().unwrap();
        }
    });
}

#[test]
fn an_error_keeps_its_number() {
    run(true, |io, directory| async move {
        let error = io
            .open(&directory.join("missing"), OpenMode::Read)
            .await
            .err()
            .unwrap();
        assert_eq!(error.raw_os_error(), Some(2));
        let file = io
            .open(&directory.join("f"), OpenMode::CreateNew)
            .await
            .unwrap();
        let error = file.allocate(1 << 60).await.unwrap_err();
        assert!(error.raw_os_error().is_some(), "{error:?}");
    });
}

#[test]
fn descriptors_are_closed() {
    run(true, |io, directory| async move {
        let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let path = directory.join("f");
        drop(io.open(&path, OpenMode::CreateNew).await.unwrap());
        io.sleep(Duration::from_millis(20)).await;
        let before = count();
        for _ in 0..100 {
            let file = io.open(&path, OpenMode::Write).await.unwrap();
            file.clone().close().await.unwrap();
            drop(file);
            io.open(&path, OpenMode::Write)
                .await
                .unwrap()
                .close()
                .await
                .unwrap();
        }
        // Other tests of this process open and close files meanwhile: look for a leak, not for zero.
        io.sleep(Duration::from_millis(50)).await;
        let after = count();
        assert!(
            after < before + 50,
            "{before} descriptors before, {after} after"
        );
    });
}

/// Connections with a request pending on each client's side.
async fn waiting_connections(io: &UringIo, count: usize) -> Vec<(UringStream, UringStream)> {
    let listener = io.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let mut connections = Vec::new();
    for _ in 0..count {
        let client = io.connect(listener.local_address().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        {
            // Polled once and left: the request stays.
            let mut buffer = [0; 16];
            let mut receive = std::pin::pin!(client.receive(&mut buffer));
            let poll = |context: &mut Context<'_>| Poll::Ready(receive.as_mut().poll(context));
            assert!(std::future::poll_fn(poll).await.is_pending());
        }
        connections.push((client, server));
    }
    connections
}

/// Tasks that write and flush until told to stop; the count is of those that still run.
async fn flushers(io: &UringIo, directory: &Path, stop: &Rc<Cell<bool>>) -> Rc<Cell<u32>> {
    let running = Rc::new(Cell::new(0));
    for number in 0..64 {
        let path = directory.join(number.to_string());
        let file = io.open(&path, OpenMode::CreateNew).await.unwrap();
        let (io_of_task, stop, running) = (io.clone(), Rc::clone(stop), Rc::clone(&running));
        running.set(running.get() + 1);
        io.spawn(TaskClass::Foreground, async move {
            while !stop.get() {
                let buffer = Rc::new(io_of_task.buffer(BLOCK_SIZE));
                file.write_at(buffer, 0).await.expect("a healthy write");
                file.sync_data().await.expect("a healthy flush");
            }
            running.set(running.get() - 1);
        });
    }
    running
}

/// Dropped connections with requests pending used to cancel their way into healthy flushes: their
/// requests completed just then, and other operations had taken over their numbers.
#[test]
fn many_sockets_closed_at_once_disturb_no_flush() {
    run(true, |io, directory| async move {
        let stop = Rc::new(Cell::new(false));
        let running = flushers(&io, &directory, &stop).await;
        for _ in 0..4 {
            let (clients, servers): (Vec<_>, Vec<_>) =
                waiting_connections(&io, 1_000).await.into_iter().unzip();
            for server in &servers {
                server.send(&[std::io::IoSlice::new(b"x")]).await.unwrap();
            }
            drop(clients);
            for server in servers {
                // Closed with a byte unread: a reset, or an end.
                assert!(matches!(server.receive(&mut [0; 1]).await, Ok(0) | Err(_)));
            }
        }
        stop.set(true);
        while running.get() > 0 {
            io.sleep(Duration::from_millis(1)).await;
        }
    });
}

#[test]
fn a_connection_moves_between_shards() {
    if !can_run() {
        return;
    }
    let (sender, receiver) = std::sync::mpsc::channel();
    let options = ShardOptions::default();
    let first = spawn_shard(0, None, &options, move |io| async move {
        let listener = io.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let client = io.connect(listener.local_address().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        sender.send(server.detach()).unwrap();
        client
            .send(&[std::io::IoSlice::new(b"hello")])
            .await
            .unwrap();
        let mut answer = [0; 16];
        assert_eq!(client.receive(&mut answer).await.unwrap(), 2);
        assert_eq!(&answer[..2], b"ok");
    });
    let second = spawn_shard(1, None, &options, move |io| async move {
        let server = io.attach(receiver.recv().unwrap()).unwrap();
        let mut bytes = [0; 16];
        assert_eq!(server.receive(&mut bytes).await.unwrap(), 5);
        server.send(&[std::io::IoSlice::new(b"ok")]).await.unwrap();
    });
    first.unwrap().join();
    second.unwrap().join();
}

#[test]
fn a_directory_on_tmpfs_is_not_direct() {
    let Ok(directory) = tempfile::Builder::new().tempdir_in("/dev/shm") else {
        eprintln!("SKIPPED: no tmpfs at /dev/shm");
        return;
    };
    let path = directory.path().to_path_buf();
    run(true, |io, on_disk| async move {
        let info = io.info(&path).await.unwrap();
        assert_eq!((info.file_system.as_str(), info.direct), ("tmpfs", false));
        let file = io.open(&path.join("f"), OpenMode::CreateNew).await.unwrap();
        let mut buffer = io.buffer(BLOCK_SIZE);
        buffer.bytes_mut().fill(7);
        file.write_at(Rc::new(buffer), 0).await.unwrap();
        file.sync_data().await.unwrap();
        assert_eq!(
            file.read_at(0, 4 * BLOCK_SIZE).await.unwrap().bytes(),
            [7; BLOCK_SIZE]
        );
        assert_ne!(io.info(&on_disk).await.unwrap().file_system, "");
    });
}

#[test]
fn what_was_read_can_be_changed_and_written_again() {
    run(true, |io, directory| async move {
        let file = io
            .open(&directory.join("f"), OpenMode::CreateNew)
            .await
            .unwrap();
        let mut buffer = io.buffer(4 * BLOCK_SIZE);
        assert!(buffer.bytes().iter().all(|byte| *byte == 0));
        buffer.bytes_mut().fill(1);
        file.write_at(Rc::new(buffer), 0).await.unwrap();
        let mut read = file.read_at(0, 4 * BLOCK_SIZE).await.unwrap();
        read.shorten(2 * BLOCK_SIZE);
        read.bytes_mut()[BLOCK_SIZE] = 9;
        file.write_at(Rc::new(read), 4 * BLOCK_SIZE as u64)
            .await
            .unwrap();
        let unchanged = file.read_at(0, BLOCK_SIZE).await.unwrap();
        file.write_at(Rc::new(unchanged), 6 * BLOCK_SIZE as u64)
            .await
            .unwrap();
        let read = file
            .read_at(4 * BLOCK_SIZE as u64, 8 * BLOCK_SIZE)
            .await
            .unwrap();
        assert_eq!(read.bytes().len(), 3 * BLOCK_SIZE);
        assert_eq!((read.bytes()[0], read.bytes()[BLOCK_SIZE]), (1, 9));
    });
}

#[test]
fn a_shard_that_ends_lets_go() {
    if !can_run() {
        return;
    }
    let directory = scratch();
    let path = directory.path().to_path_buf();
    let held = Arc::new(());
    let (sender, receiver) = std::sync::mpsc::channel();
    let task_held = Arc::clone(&held);
    let main = move |io: UringIo| async move {
        let listener = io.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_address().unwrap();
        let outside = std::net::TcpStream::connect(address).unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        sender.send((outside, address)).unwrap();
        let file = io.open(&path.join("f"), OpenMode::CreateNew).await.unwrap();
        let (io_of_task, held) = (io.clone(), Arc::clone(&task_held));
        io.spawn(TaskClass::Foreground, async move {
            let _held = held;
            let _ = listener.accept().await;
        });
        let held = Arc::clone(&task_held);
        io.spawn(TaskClass::Foreground, async move {
            let _held = held;
            let _ = stream.receive(&mut [0; 8]).await;
        });
        io.spawn(TaskClass::Background, async move {
            let _held = task_held;
            loop {
                let buffer = Rc::new(io_of_task.buffer(64 * BLOCK_SIZE));
                file.write_at(buffer, 0).await.unwrap();
                file.truncate(0).await.unwrap();
            }
        });
        io.sleep(Duration::from_millis(10)).await;
    };
    spawn_shard(0, None, &ShardOptions::default(), main)
        .unwrap()
        .join();
    assert_eq!(Arc::strong_count(&held), 1, "tasks are dropped");
    let (mut outside, address) = receiver.recv().unwrap();
    let ended = std::io::Read::read(&mut outside, &mut [0; 8]);
    assert!(
        matches!(ended, Ok(0) | Err(_)),
        "connections are closed: {ended:?}"
    );
    let refused = std::net::TcpStream::connect(address).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn a_timer_among_ten_thousand_is_never_early() {
    run(true, |io, _directory| async move {
        let done = Rc::new(Cell::new(0));
        for _ in 0..10_000 {
            let (io_of_task, done) = (io.clone(), Rc::clone(&done));
            io.spawn(TaskClass::Background, async move {
                io_of_task.sleep(Duration::from_secs(3600)).await;
                done.set(done.get() + 1);
            });
        }
        // Never early, whatever happens meanwhile, and in order.
        for wait_us in [1, 100, 999, 1_000, 1_500, 7_300, 20_000, 300_000] {
            let wait = Duration::from_micros(wait_us);
            let start = io.now();
            io.sleep(wait).await;
            let elapsed = io.now().since(start);
            assert!(elapsed >= wait, "{elapsed:?} instead of {wait:?}");
        }
        assert_eq!(done.get(), 0);
    });
}
