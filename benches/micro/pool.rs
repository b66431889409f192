//! Buffers for direct I/O: taken and given back at once, and as a cache holds them.

use std::{collections::VecDeque, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput};
use millstream::io::{
    Clock as _, Disk as _,
    uring::{ShardOptions, UringIo, spawn_shard},
};

/// Sizes of buffers, in bytes: a small chunk, a batch with its header, a large chunk.
const SIZES: [usize; 3] = [4 << 10, 68 << 10, 1028 << 10];
/// How many buffers a cache of the size of this machine's tests holds.
const HELD: usize = 256;

pub fn benchmarks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("buffer_pool");
    group.throughput(Throughput::Elements(1));
    for size in SIZES {
        group.bench_function(BenchmarkId::new("take_and_give", size), |bencher| {
            bencher.iter_custom(|count| {
                on_shard(move |io| {
                    for _ in 0..count {
                        std::hint::black_box(io.buffer(size));
                    }
                })
            });
        });
    }
    group.bench_function("first_in_first_out", |bencher| {
        bencher.iter_custom(|count| on_shard(move |io| churn(io, count)));
    });
    group.finish();
}

/// The oldest goes as the newest comes, in mixed sizes.
fn churn(io: &UringIo, count: u64) {
    let mut held = VecDeque::with_capacity(HELD);
    for size in (0..count)
        .zip(SIZES.into_iter().cycle())
        .map(|(_, size)| size)
    {
        if held.len() == HELD {
            held.pop_front();
        }
        held.push_back(io.buffer(size));
    }
}

/// The time that a piece of work takes on a shard of its own.
fn on_shard(work: impl FnOnce(&UringIo) + Send + 'static) -> Duration {
    let shard = spawn_shard(0, None, &ShardOptions::default(), move |io| async move {
        let begin = io.now();
        work(&io);
        io.now().since(begin)
    });
    shard.expect("a shard starts").join()
}
