//! The bare cost of a round trip between two cores of this host: 1,000 bytes over a TCP connection on
//! loopback and back, blocking calls, nothing else. What a broker adds is measured against this.
//!
//! `cargo run --release --example echo -- [ROUNDS]` prints the median in microseconds.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::Instant,
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
    let rounds = std::env::args().nth(1).and_then(|it| it.parse().ok());
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    let server = listener.accept()?.0;
    let server = thread::spawn(move || echo(server));
    pin_to(1);
    client.set_nodelay(true)?;
    let mut bytes = [7; SIZE];
    let mut times = Vec::new();
    for _ in 0..rounds.unwrap_or(20_000) {
        let began = Instant::now();
        client.write_all(&bytes)?;
        client.read_exact(&mut bytes)?;
        times.push(began.elapsed());
    }
    drop(client);
    server.join().expect("the echo ends with its client")?;
    times.sort_unstable();
    println!("{:.1}", times[times.len() / 2].as_secs_f64() * 1e6);
    Ok(())
}
