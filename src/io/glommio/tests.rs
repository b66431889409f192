//! glommio against the rules of `io`, and what only the real world can do.

use std::{
    cell::RefCell,
    future::Future,
    path::PathBuf,
    rc::Rc,
    sync::{Arc, Mutex},
    task::Poll,
    time::Duration,
};

use futures_util::task::AtomicWaker;

use super::{GlommioIo, ShardOptions, io_uring_available, spawn_shard};
use crate::io::{
    BLOCK_SIZE, Buffer, Clock, Disk, DiskFile, Listener, Net, OpenMode, Stream, TaskClass, Tasks,
    conformance::conformance_tests,
};

/// Whether to run; without io_uring a test is skipped, unless it was required.
fn can_run() -> bool {
    let Err(reason) = io_uring_available() else {
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
    F: FnOnce(GlommioIo, PathBuf) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + 'static,
{
    if !can_run() {
        return;
    }
    let directory = scratch();
    let path = directory.path().to_path_buf();
    let options = ShardOptions {
        direct,
        ..ShardOptions::default()
    };
    spawn_shard(0, None, &options, |io| program(io, path))
        .unwrap()
        .join();
}

mod direct {
    use super::*;

    fn run_direct<F, Fut>(program: F)
    where
        F: FnOnce(GlommioIo, PathBuf) -> Fut + Send + 'static,
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
        F: FnOnce(GlommioIo, PathBuf) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        run(false, program);
    }

    conformance_tests!(run_buffered);
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
        for _ in 0..50 {
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

/// Dropped connections with requests pending used to cancel their way into healthy flushes.
#[test]
fn many_sockets_closed_at_once_disturb_no_flush() {
    const COUNT: usize = 1_000;
    run(true, |io, directory| async move {
        let file = io
            .open(&directory.join("f"), OpenMode::CreateNew)
            .await
            .unwrap();
        file.allocate(64 * BLOCK_SIZE as u64).await.unwrap();
        let listener = io.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_address().unwrap();
        let (mut clients, mut servers) = (Vec::new(), Vec::new());
        for _ in 0..COUNT {
            clients.push(io.connect(address).await.unwrap());
            servers.push(Rc::new(listener.accept().await.unwrap().0));
        }
        let ended = Rc::new(RefCell::new(0));
        for server in servers {
            // Two requests pending on each: a reader, and one that was polled and left.
            let ended = Rc::clone(&ended);
            io.spawn(TaskClass::Foreground, async move {
                let _ = server.receive(&mut [0; 16]).await;
                *ended.borrow_mut() += 1;
            });
        }
        for client in &clients {
            let mut buffer = [0; 16];
            let mut receive = std::pin::pin!(client.receive(&mut buffer));
            let polled =
                std::future::poll_fn(|context| Poll::Ready(receive.as_mut().poll(context)));
            assert!(polled.await.is_pending());
        }
        io.sleep(Duration::from_millis(10)).await;
        drop(clients);
        for round in 0..200_u64 {
            let mut buffer = io.buffer(BLOCK_SIZE);
            buffer.bytes_mut().fill(1);
            file.write_at(Rc::new(buffer), round % 64 * BLOCK_SIZE as u64)
                .await
                .unwrap();
            file.sync_data().await.unwrap();
        }
        while *ended.borrow() < COUNT {
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
    let options = ShardOptions {
        shard_count: 2,
        ..ShardOptions::default()
    };
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
