//! Rules of the disk.

use std::{cell::Cell, io::ErrorKind, path::PathBuf, rc::Rc};

use crate::io::{BLOCK_SIZE, Buffer, DiskFile, Io, OpenMode, TaskClass};

const BLOCK: u64 = BLOCK_SIZE as u64;

fn filled<I: Io>(io: &I, size: usize, byte: u8) -> Rc<I::Buffer> {
    let mut buffer = io.buffer(size);
    buffer.bytes_mut().fill(byte);
    Rc::new(buffer)
}

pub async fn writes_are_read_back<I: Io>(io: I, directory: PathBuf) {
    let file = io
        .open(&directory.join("f"), OpenMode::CreateNew)
        .await
        .unwrap();
    file.write_at(filled(&io, 2 * BLOCK_SIZE, 1), 0)
        .await
        .unwrap();
    file.write_at(filled(&io, BLOCK_SIZE, 2), BLOCK)
        .await
        .unwrap();
    file.write_at(filled(&io, BLOCK_SIZE, 3), 2 * BLOCK)
        .await
        .unwrap();
    file.sync_data().await.unwrap();
    assert_eq!(file.size().await.unwrap(), 3 * BLOCK);
    // More is asked for than there is: the buffer is cut to what was read.
    let read = file.read_at(0, 16 * BLOCK_SIZE).await.unwrap();
    let firsts: Vec<u8> = read
        .bytes()
        .chunks(BLOCK_SIZE)
        .map(|block| block[0])
        .collect();
    assert_eq!(firsts, [1, 2, 3]);
    assert!(
        read.bytes()
            .chunks(BLOCK_SIZE)
            .all(|block| block.iter().all(|b| *b == block[0]))
    );
    assert!(
        file.read_at(3 * BLOCK, BLOCK_SIZE)
            .await
            .unwrap()
            .bytes()
            .is_empty()
    );
    assert!(
        file.read_at(30 * BLOCK, BLOCK_SIZE)
            .await
            .unwrap()
            .bytes()
            .is_empty()
    );
    file.close().await.unwrap();
    let file = io.open(&directory.join("f"), OpenMode::Read).await.unwrap();
    assert_eq!(
        file.read_at(2 * BLOCK, BLOCK_SIZE).await.unwrap().bytes()[7],
        3
    );
}

pub async fn open_modes_are_kept<I: Io>(io: I, directory: PathBuf) {
    let path = directory.join("f");
    let kind = |result: std::io::Result<I::File>| result.err().map(|error| error.kind());
    assert_eq!(
        kind(io.open(&path, OpenMode::Read).await),
        Some(ErrorKind::NotFound)
    );
    assert_eq!(
        kind(io.open(&path, OpenMode::Write).await),
        Some(ErrorKind::NotFound)
    );
    let file = io.open(&path, OpenMode::CreateNew).await.unwrap();
    assert_eq!(
        kind(io.open(&path, OpenMode::CreateNew).await),
        Some(ErrorKind::AlreadyExists)
    );
    file.write_at(filled(&io, BLOCK_SIZE, 1), 0).await.unwrap();
    let reader = io.open(&path, OpenMode::Read).await.unwrap();
    assert!(
        reader
            .write_at(filled(&io, BLOCK_SIZE, 2), 0)
            .await
            .is_err()
    );
    let writer = io.open(&path, OpenMode::Write).await.unwrap();
    writer
        .write_at(filled(&io, BLOCK_SIZE, 3), 0)
        .await
        .unwrap();
    assert_eq!(reader.read_at(0, BLOCK_SIZE).await.unwrap().bytes()[0], 3);
}

pub async fn the_last_partial_block_is_zero_filled<I: Io>(io: I, directory: PathBuf) {
    let file = io
        .open(&directory.join("f"), OpenMode::CreateNew)
        .await
        .unwrap();
    file.write_at(filled(&io, 2 * BLOCK_SIZE, 9), 0)
        .await
        .unwrap();
    file.truncate(BLOCK + 100).await.unwrap();
    assert_eq!(file.size().await.unwrap(), BLOCK + 100);
    for (position, size) in [(0, 2 * BLOCK_SIZE), (0, 8 * BLOCK_SIZE)] {
        let read = file.read_at(position, size).await.unwrap();
        assert_eq!(read.bytes().len(), 2 * BLOCK_SIZE);
        assert!(
            read.bytes()[..BLOCK_SIZE + 100]
                .iter()
                .all(|byte| *byte == 9)
        );
        assert!(
            read.bytes()[BLOCK_SIZE + 100..]
                .iter()
                .all(|byte| *byte == 0)
        );
    }
    let tail = file.read_at(BLOCK, BLOCK_SIZE).await.unwrap();
    assert_eq!(tail.bytes().len(), BLOCK_SIZE);
    assert_eq!((tail.bytes()[99], tail.bytes()[100]), (9, 0));
}

pub async fn allocated_space_reads_as_zeros_and_never_shrinks<I: Io>(io: I, directory: PathBuf) {
    let file = io
        .open(&directory.join("f"), OpenMode::CreateNew)
        .await
        .unwrap();
    assert_eq!(file.size().await.unwrap(), 0);
    file.write_at(filled(&io, BLOCK_SIZE, 5), 0).await.unwrap();
    file.allocate(64 * BLOCK).await.unwrap();
    file.allocate(2 * BLOCK).await.unwrap();
    file.sync_data().await.unwrap();
    assert_eq!(file.size().await.unwrap(), 64 * BLOCK);
    assert!(file.physical_size().await.unwrap() >= 64 * BLOCK);
    let read = file.read_at(0, 64 * BLOCK_SIZE).await.unwrap();
    assert_eq!(read.bytes().len(), 64 * BLOCK_SIZE);
    assert!(read.bytes()[..BLOCK_SIZE].iter().all(|byte| *byte == 5));
    assert!(read.bytes()[BLOCK_SIZE..].iter().all(|byte| *byte == 0));
    let before = file.physical_size().await.unwrap();
    file.write_at(filled(&io, 4 * BLOCK_SIZE, 6), 8 * BLOCK)
        .await
        .unwrap();
    file.sync_data().await.unwrap();
    assert_eq!(file.size().await.unwrap(), 64 * BLOCK);
    assert_eq!(
        file.physical_size().await.unwrap(),
        before,
        "the space was already there"
    );
}

pub async fn truncated_bytes_do_not_come_back<I: Io>(io: I, directory: PathBuf) {
    let file = io
        .open(&directory.join("f"), OpenMode::CreateNew)
        .await
        .unwrap();
    file.write_at(filled(&io, 8 * BLOCK_SIZE, 7), 0)
        .await
        .unwrap();
    file.truncate(BLOCK + 1).await.unwrap();
    file.allocate(8 * BLOCK).await.unwrap();
    let read = file.read_at(0, 8 * BLOCK_SIZE).await.unwrap();
    assert_eq!(read.bytes().len(), 8 * BLOCK_SIZE);
    assert_eq!(
        read.bytes().iter().filter(|byte| **byte == 7).count(),
        BLOCK_SIZE + 1
    );
    file.truncate(0).await.unwrap();
    assert_eq!(file.size().await.unwrap(), 0);
    assert!(
        file.read_at(0, BLOCK_SIZE)
            .await
            .unwrap()
            .bytes()
            .is_empty()
    );
}

pub async fn holes_read_as_zeros<I: Io>(io: I, directory: PathBuf) {
    let file = io
        .open(&directory.join("f"), OpenMode::CreateNew)
        .await
        .unwrap();
    file.write_at(filled(&io, BLOCK_SIZE, 8), 4 * BLOCK)
        .await
        .unwrap();
    assert_eq!(file.size().await.unwrap(), 5 * BLOCK);
    let read = file.read_at(0, 5 * BLOCK_SIZE).await.unwrap();
    assert!(read.bytes()[..4 * BLOCK_SIZE].iter().all(|byte| *byte == 0));
    assert!(read.bytes()[4 * BLOCK_SIZE..].iter().all(|byte| *byte == 8));
}

pub async fn a_shortened_buffer_writes_what_is_left<I: Io>(io: I, directory: PathBuf) {
    let file = io
        .open(&directory.join("f"), OpenMode::CreateNew)
        .await
        .unwrap();
    let mut buffer = io.buffer(4 * BLOCK_SIZE);
    assert_eq!(buffer.bytes().len(), 4 * BLOCK_SIZE);
    buffer.bytes_mut().fill(4);
    buffer.shorten(BLOCK_SIZE);
    assert_eq!(buffer.bytes().len(), BLOCK_SIZE);
    file.write_at(Rc::new(buffer), BLOCK).await.unwrap();
    assert_eq!(file.size().await.unwrap(), 2 * BLOCK);
}

pub async fn names_move_and_go<I: Io>(io: I, directory: PathBuf) {
    let deep = directory.join("a/b/c");
    io.create_dir_all(&deep).await.unwrap();
    io.create_dir_all(&deep).await.unwrap();
    for (name, byte) in [("2", 2), ("1", 1), ("10", 10)] {
        let file = io
            .open(&deep.join(name), OpenMode::CreateNew)
            .await
            .unwrap();
        file.write_at(filled(&io, BLOCK_SIZE, byte), 0)
            .await
            .unwrap();
        file.sync_data().await.unwrap();
    }
    io.sync_dir(&deep).await.unwrap();
    let names = [deep.join("1"), deep.join("10"), deep.join("2")];
    assert_eq!(io.read_dir(&deep).await.unwrap(), names);
    io.rename(&deep.join("1"), &deep.join("2")).await.unwrap();
    assert_eq!(io.read_dir(&deep).await.unwrap(), names[1..]);
    let moved = io.open(&deep.join("2"), OpenMode::Read).await.unwrap();
    assert_eq!(moved.read_at(0, BLOCK_SIZE).await.unwrap().bytes()[0], 1);
    io.rename(&deep.join("10"), &directory.join("a/10"))
        .await
        .unwrap();
    assert_eq!(
        io.read_dir(&directory.join("a")).await.unwrap(),
        [directory.join("a/10"), directory.join("a/b")]
    );
    assert!(io.remove_dir(&deep).await.is_err(), "not empty");
    io.remove_file(&deep.join("2")).await.unwrap();
    let error = io.remove_file(&deep.join("2")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    io.remove_dir(&deep).await.unwrap();
    io.sync_dir(&directory.join("a/b")).await.unwrap();
    let error = io.read_dir(&deep).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let error = io.rename(&deep, &directory.join("x")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

pub async fn a_file_outlives_its_name<I: Io>(io: I, directory: PathBuf) {
    let path = directory.join("f");
    let file = io.open(&path, OpenMode::CreateNew).await.unwrap();
    file.write_at(filled(&io, BLOCK_SIZE, 1), 0).await.unwrap();
    io.remove_file(&path).await.unwrap();
    io.sync_dir(&directory).await.unwrap();
    file.write_at(filled(&io, BLOCK_SIZE, 2), BLOCK)
        .await
        .unwrap();
    file.sync_data().await.unwrap();
    assert_eq!(file.size().await.unwrap(), 2 * BLOCK);
    assert!(file.physical_size().await.unwrap() >= 2 * BLOCK);
    assert_eq!(
        file.read_at(0, 2 * BLOCK_SIZE).await.unwrap().bytes()[BLOCK_SIZE],
        2
    );
    let other = io.open(&path, OpenMode::CreateNew).await.unwrap();
    assert_eq!(other.size().await.unwrap(), 0);
    file.close().await.unwrap();
}

pub async fn many_writes_in_flight_all_arrive<I: Io>(io: I, directory: PathBuf) {
    const COUNT: u8 = 64;
    let file = io
        .open(&directory.join("f"), OpenMode::CreateNew)
        .await
        .unwrap();
    file.allocate(u64::from(COUNT) * 4 * BLOCK).await.unwrap();
    let left = Rc::new(Cell::new(COUNT));
    for index in 0..COUNT {
        let buffer = filled(&io, 4 * BLOCK_SIZE, index);
        let (file, left) = (file.clone(), Rc::clone(&left));
        io.spawn(TaskClass::Foreground, async move {
            file.write_at(buffer, u64::from(index) * 4 * BLOCK)
                .await
                .unwrap();
            left.set(left.get() - 1);
        });
    }
    while left.get() > 0 {
        io.sleep(std::time::Duration::from_micros(100)).await;
    }
    file.sync_data().await.unwrap();
    for index in 0..COUNT {
        let read = file
            .read_at(u64::from(index) * 4 * BLOCK, 4 * BLOCK_SIZE)
            .await
            .unwrap();
        assert!(
            read.bytes().iter().all(|byte| *byte == index),
            "write {index}"
        );
    }
}

pub async fn a_disk_tells_its_kind_and_space<I: Io>(io: I, directory: PathBuf) {
    let space = io.space(&directory).await.unwrap();
    assert!(space.free > 0 && space.free <= space.total, "{space:?}");
    assert!(!io.info(&directory).await.unwrap().file_system.is_empty());
    let missing = io.space(&directory.join("missing")).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}
