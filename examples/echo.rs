//! The bare cost of a round trip between two cores of this host: 1,000 bytes over a TCP connection on
//! loopback and back, blocking calls, nothing else. What a broker adds is measured against this.
//!
//! `cargo run --release --example echo -- [ROUNDS]` prints the median in microseconds. With `--rate N` the
//! round trips are due N times a second for four seconds; one that is late holds up those behind it. Printed are
//! p50, p99 and p99.9 from when each was due: what a host does by itself to those who wait for their turn.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use rustix::thread::{CpuSet, sched_setaffinity};

const SIZE: usize = 1000;

fn pin_to(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    // On a host with one core both ends share it.
    let _ = sched_setaffinity(None, &set);
}

fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    pin_to(0);
    stream.set_nodelay(true)?;
    let mut bytes = [0; SIZE];
    while stream.read_exact(&mut bytes).is_ok() {
        stream.write_all(&bytes)?;
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a clock is what this is about")]
fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let first = arguments.next();
    let rate = match first.as_deref() {
        Some("--rate") => arguments.next().and_then(|it| it.parse::<u32>().ok()),
        _ => None,
    };
    let rounds = match rate {
        Some(rate) => rate * 4,
        None => first.and_then(|it| it.parse().ok()).unwrap_or(20_000),
    };
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    let server = listener.accept()?.0;
    let server = thread::spawn(move || echo(server));
    pin_to(1);
    client.set_nodelay(true)?;
    let mut bytes = [7; SIZE];
    let mut times = Vec::new();
    let start = Instant::now();
    for round in 0..rounds {
        let began = match rate {
            Some(rate) => until(start + Duration::from_secs(1) * round / rate),
            None => Instant::now(),
        };
        client.write_all(&bytes)?;
        client.read_exact(&mut bytes)?;
        times.push(began.elapsed());
    }
    drop(client);
    server.join().expect("the echo ends with its client")?;
    times.sort_unstable();
    let micros = |part: usize| times[times.len() * part / 1000].as_secs_f64() * 1e6;
    match rate {
        Some(_) => println!("{:.1} {:.1} {:.1}", micros(500), micros(990), micros(999)),
        None => println!("{:.1}", micros(500)),
    }
    Ok(())
}

/// Sleeps until then; gives it.
#[expect(clippy::disallowed_methods, reason = "a clock is what this is about")]
fn until(due: Instant) -> Instant {
    thread::sleep(due.saturating_duration_since(Instant::now()));
    due
}
