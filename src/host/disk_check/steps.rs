//! The steps: zeros, large writes, small writes with flushes, large reads.

use std::{cell::Cell, io, rc::Rc, time::Duration};

use futures_util::future::join_all;

use super::{DEPTH, Flushes, LARGE_SIZE, Latencies, MIN_SIZE, SMALL_SIZE, Throughput};
use crate::io::{BLOCK_SIZE, Buffer, DiskFile, Io, Monotonic};

/// Zeros are written in larger pieces: only their end matters.
const FILL_SIZE: usize = 1 << 20;

/// A file under trial.
pub(super) struct Trial<'a, I: Io> {
    io: &'a I,
    file: I::File,
    /// Bytes from the start that may be used.
    size: u64,
    step_time: Duration,
}

impl<'a, I: Io> Trial<'a, I> {
    pub(super) fn new(io: &'a I, file: I::File, step_time: Duration) -> Self {
        Self {
            io,
            file,
            size: 0,
            step_time,
        }
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Writes zeros up to `size`, or as far as the time goes, and flushes them.
    pub(super) async fn fill(mut self, size: u64) -> io::Result<Self> {
        self.file.allocate(size).await?;
        let deadline = self.io.now() + self.step_time;
        let next = Cell::new(0_u64);
        let mut zeros = self.io.buffer(FILL_SIZE);
        zeros.bytes_mut().fill(0);
        let zeros = Rc::new(zeros);
        let lanes = (0..DEPTH).map(|_| async {
            while next.get() < size && (next.get() < MIN_SIZE || self.io.now() < deadline) {
                let position = next.replace(next.get() + FILL_SIZE as u64);
                self.file.write_at(Rc::clone(&zeros), position).await?;
            }
            Ok::<(), io::Error>(())
        });
        all_of(lanes).await?;
        self.file.sync_data().await?;
        // The last piece may reach beyond what was asked for: no matter, it is there.
        self.size = next.get();
        Ok(self)
    }

    /// Large writes, several at once, and a flush that counts into the time.
    pub(super) async fn write(&self) -> io::Result<Throughput> {
        let begin = self.io.now();
        let place = Place::new(self.size, LARGE_SIZE);
        let lanes = (0..DEPTH).map(|_| async {
            let mut times = Vec::new();
            let mut buffer = Rc::new(self.noise(LARGE_SIZE));
            while self.io.now().since(begin) < self.step_time {
                // Nobody else holds it once the write has come back.
                if let Some(buffer) = Rc::get_mut(&mut buffer) {
                    self.stamp(buffer);
                }
                let start = self.io.now();
                let position = place.next();
                self.file.write_at(Rc::clone(&buffer), position).await?;
                times.push(self.io.now().since(start));
            }
            Ok::<_, io::Error>(times)
        });
        let times = all_of(lanes).await?;
        self.file.sync_data().await?;
        Ok(self.throughput(begin, times))
    }

    /// Small writes, one at a time, each flushed: what an acknowledgement waits for.
    pub(super) async fn flush(&self) -> io::Result<Flushes> {
        let begin = self.io.now();
        let place = Place::new(self.size, SMALL_SIZE);
        let mut buffer = Rc::new(self.noise(SMALL_SIZE));
        let (mut writes, mut flushes) = (Vec::new(), Vec::new());
        while self.io.now().since(begin) < self.step_time {
            if let Some(buffer) = Rc::get_mut(&mut buffer) {
                self.stamp(buffer);
            }
            let start = self.io.now();
            let position = place.next();
            self.file.write_at(Rc::clone(&buffer), position).await?;
            let written = self.io.now();
            self.file.sync_data().await?;
            writes.push(written.since(start));
            flushes.push(self.io.now().since(written));
        }
        let both = writes
            .iter()
            .zip(&flushes)
            .map(|(write, flush)| *write + *flush);
        Ok(Flushes {
            elapsed: self.io.now().since(begin),
            both: Latencies::of(both),
            writes: Latencies::of(writes),
            flushes: Latencies::of(flushes),
        })
    }

    /// Large reads, several at once.
    pub(super) async fn read(&self) -> io::Result<Throughput> {
        let begin = self.io.now();
        let place = Place::new(self.size, LARGE_SIZE);
        let lanes = (0..DEPTH).map(|_| async {
            let mut times = Vec::new();
            while self.io.now().since(begin) < self.step_time {
                let start = self.io.now();
                let read = self.file.read_at(place.next(), LARGE_SIZE).await?;
                if read.bytes().len() != LARGE_SIZE {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                times.push(self.io.now().since(start));
            }
            Ok::<_, io::Error>(times)
        });
        let times = all_of(lanes).await?;
        Ok(self.throughput(begin, times))
    }

    pub(super) async fn close(self) -> io::Result<()> {
        self.file.close().await
    }

    fn throughput(&self, begin: Monotonic, times: Vec<Vec<Duration>>) -> Throughput {
        let elapsed = self.io.now().since(begin);
        let latencies = Latencies::of(times.into_iter().flatten());
        Throughput {
            bytes: latencies.count() * LARGE_SIZE as u64,
            elapsed,
            latencies,
        }
    }

    /// A buffer that no disk makes smaller.
    fn noise(&self, size: usize) -> I::Buffer {
        let mut buffer = self.io.buffer(size);
        for word in buffer.bytes_mut().chunks_exact_mut(8) {
            word.copy_from_slice(&self.io.random_u64().to_le_bytes());
        }
        buffer
    }

    /// Makes each block another one than any before.
    fn stamp(&self, buffer: &mut I::Buffer) {
        let number = self.io.random_u64();
        for (block, bytes) in (0_u64..).zip(buffer.bytes_mut().chunks_exact_mut(BLOCK_SIZE)) {
            bytes[..8].copy_from_slice(&number.wrapping_add(block).to_le_bytes());
        }
    }
}

/// Waits for every lane, also where one fails: what is on its way is not abandoned.
async fn all_of<T>(
    lanes: impl Iterator<Item = impl Future<Output = io::Result<T>>>,
) -> io::Result<Vec<T>> {
    join_all(lanes).await.into_iter().collect()
}

/// Where the next operation goes: one behind the other, and from the start again.
struct Place {
    next: Cell<u64>,
    size: u64,
    step: u64,
}

impl Place {
    fn new(size: u64, step: usize) -> Self {
        let step = step as u64;
        assert!(size >= step, "a file that holds one operation");
        Self {
            next: Cell::new(0),
            size,
            step,
        }
    }

    fn next(&self) -> u64 {
        let at = self.next.get();
        let after = at + self.step;
        let wraps = after + self.step > self.size;
        self.next.set(if wraps { 0 } else { after });
        at
    }
}
