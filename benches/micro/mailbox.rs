//! A message to another shard and back: what a request costs that came to the wrong one.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use millstream::{
    host,
    io::{
        Clock as _,
        uring::{ShardOptions, ShardThread, spawn_shard},
    },
    shard::mailbox::{Inbound, Outbound, lane},
};

/// Ends the echo.
const END: u64 = u64::MAX;

pub fn benchmarks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mailbox/round_trip");
    group.throughput(Throughput::Elements(1));
    let spin = Some(Duration::from_micros(200));
    for (name, spin) in [("sleeping", None), ("spinning", spin)] {
        for in_flight in [1, 64] {
            let id = BenchmarkId::new(name, in_flight);
            group.bench_function(id, |bencher| {
                bencher.iter_custom(|count| round_trips(count, in_flight, spin));
            });
        }
    }
    group.finish();
}

/// The time of so many round trips between two shards, so many of them on their way at once.
fn round_trips(count: u64, in_flight: u64, spin: Option<Duration>) -> Duration {
    let options = ShardOptions {
        spin,
        ..ShardOptions::default()
    };
    let (there, arrived) = lane::<u64>();
    let (back, returned) = lane::<u64>();
    let echo = echo(&options, arrived, back);
    let caller = call(&options, there, returned, count, in_flight);
    let elapsed = caller.join();
    echo.join();
    elapsed
}

/// A CPU for each shard: two that spin on one would take turns.
fn cpu(shard: usize) -> Option<usize> {
    let cores = host::resources().cores;
    cores.get(1).and(cores.get(shard).copied())
}

fn echo(options: &ShardOptions, mut arrived: Inbound<u64>, back: Outbound<u64>) -> ShardThread<()> {
    let shard = spawn_shard(1, cpu(1), options, move |_| async move {
        while let Some(message) = arrived.receive().await {
            if message == END {
                return;
            }
            back.try_send(message).expect("a lane with room");
        }
    });
    shard.expect("a shard starts")
}

fn call(
    options: &ShardOptions,
    there: Outbound<u64>,
    mut returned: Inbound<u64>,
    count: u64,
    in_flight: u64,
) -> ShardThread<Duration> {
    let shard = spawn_shard(0, cpu(0), options, move |io| async move {
        let send = |number| there.try_send(number).expect("a lane with room");
        let begin = io.now();
        let mut sent = in_flight.min(count);
        (0..sent).for_each(send);
        for _ in 0..count {
            returned.receive().await.expect("the echo lives");
            if sent < count {
                send(sent);
                sent += 1;
            }
        }
        let elapsed = io.now().since(begin);
        send(END);
        elapsed
    });
    shard.expect("a shard starts")
}
