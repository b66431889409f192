//! Many connections: a thousand that end at once, ten thousand that do nothing, and fetches without
//! number.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use millstream_protocol::{
    ErrorCode, FRAME_HEADER_SIZE, FrameHeader,
    messages::{Api, DescribeClusterRequest, HandshakeRequest, encode_body},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{
    broker::Broker,
    bystander::Bystander,
    memory::{Watch, resident},
    peer::{Outcome, Peer, frame_of, plain_handshake},
    topics,
};

const ENV_ADDRESS: &str = "MILLSTREAM_HOSTILE_IDLE_ADDRESS";
const ENV_COUNT: &str = "MILLSTREAM_HOSTILE_IDLE_COUNT";

/// Another process that holds idle connections; it ends, and they with it, when this is dropped.
struct Crowd {
    child: Child,
    opened: usize,
}

impl Crowd {
    fn gather(address: SocketAddr, count: usize) -> Self {
        let this = std::env::current_exe().expect("the test's own binary");
        let mut child = Command::new(this)
            .args(["--exact", "crowd::idle_crowd", "--ignored", "--nocapture"])
            .env(ENV_ADDRESS, address.to_string())
            .env(ENV_COUNT, count.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the test's own binary runs");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let opened = lines.find_map(|line| {
            let line = line.expect("text");
            line.strip_prefix("holding ")?.parse().ok()
        });
        let opened = opened.expect("the crowd says how many it is");
        Self { child, opened }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Not a test: the other process of the tests below.
#[test]
#[ignore = "started by other tests as a process of its own"]
fn idle_crowd() {
    let (Ok(address), Ok(count)) = (std::env::var(ENV_ADDRESS), std::env::var(ENV_COUNT)) else {
        return;
    };
    raise_open_files();
    let address: SocketAddr = address.parse().expect("an address");
    let count: usize = count.parse().expect("a number");
    let mut peers: Vec<Peer> = Vec::with_capacity(count);
    // Greeted in waves: all of a wave are under way at once.
    while peers.len() < count {
        let begun = peers.len();
        for number in begun..count.min(begun + 500) {
            let handshake = HandshakeRequest {
                wanted_shard: u32::from(number % 2 == 1),
                ..plain_handshake()
            };
            let mut peer = Peer::silent(address);
            peer.post(&handshake, &[]);
            peers.push(peer);
        }
        for peer in &mut peers[begun..] {
            assert!(matches!(peer.receive(), Outcome::Answered(_)));
        }
    }
    println!("\nholding {}", peers.len());
    let mut line = String::new();
    let _ = std::io::stdin().read_line(&mut line);
}

fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let _ = setrlimit(Resource::Nofile, raised);
    limit.maximum.unwrap_or(u64::MAX)
}

fn connections(address: SocketAddr) -> u32 {
    let answer = Peer::ready(address).ask(&DescribeClusterRequest {});
    answer.expect("an answer").brokers[0].connections
}

/// Waits until the broker counts no more connections than this.
fn await_connections(address: SocketAddr, most: u32) {
    let begun = Instant::now();
    loop {
        let count = connections(address);
        if count <= most {
            return;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "{count} are left"
        );
        thread::park_timeout(Duration::from_millis(50));
    }
}

#[test]
fn a_thousand_connections_closed_at_once_disturb_no_write() {
    let Some(mut broker) = Broker::start(&[]) else {
        return;
    };
    raise_open_files();
    let address = broker.address();
    let info = topics::create(address, "waited-for", 2);
    let bystander = Bystander::begin(address, "bystander");
    for round in 0..5 {
        let mut crowd: Vec<Peer> = (0..1000)
            .map(|number| {
                let handshake = HandshakeRequest {
                    wanted_shard: u32::from(number % 2 == 1),
                    ..plain_handshake()
                };
                Peer::greeting(address, &handshake).0
            })
            .collect();
        for (number, peer) in crowd.iter_mut().enumerate() {
            // Idle, waiting for records, or in the middle of a frame.
            match number % 3 {
                0 => {}
                1 => _ = peer.post(&topics::fetch_of(info.id, 0, 0, 60_000), &[]),
                _ => peer.send(&[200, 0, 0, 0, 7]),
            }
        }
        drop(crowd);
        await_connections(address, 10);
        assert!(broker.is_alive(), "round {round}");
    }
    bystander.finish("a thousand closed at once");
    let log = broker.log();
    let troubled: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("ERROR") || line.contains("offline") || line.contains("flush"))
        .collect();
    assert!(troubled.is_empty(), "{troubled:#?}");
}

#[test]
fn ten_thousand_idle_connections_fit_the_budget() {
    let Some(mut broker) = Broker::start(&[]) else {
        return;
    };
    let address = broker.address();
    let allowed = usize::try_from(raise_open_files()).unwrap_or(usize::MAX);
    // The broker leaves a part of its descriptors to the logs.
    let count = 10_000.min((allowed * 3 / 4).saturating_sub(400));
    let before = resident(broker.pid());
    let watch = Watch::begin(broker.pid());
    let crowd = Crowd::gather(address, count);
    assert_eq!(crowd.opened, count);
    assert!(connections(address) as usize >= count);
    let held = resident(broker.pid());
    let bystander = Bystander::begin(address, "bystander");
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(1) {
        thread::park_timeout(Duration::from_millis(100));
    }
    bystander.finish("ten thousand idle");
    println!(
        "{count} idle connections (open files: {allowed}): {} MiB before, {} MiB with them, at most {} MiB",
        before >> 20,
        held >> 20,
        watch.check() >> 20
    );
    drop(crowd);
    await_connections(address, 10);
    assert!(broker.is_alive());
}

#[test]
fn connections_beyond_the_limit_are_refused_and_the_logs_go_on() {
    let Some(mut broker) = Broker::start_limited(1200) else {
        return;
    };
    raise_open_files();
    let address = broker.address();
    let bystander = Bystander::begin(address, "bystander");
    let mut crowd: Vec<Peer> = Vec::new();
    for _ in 0..2000 {
        crowd.push(Peer::silent(address));
    }
    let handshake = frame_of(
        Api::Handshake as u16,
        1,
        &encode_body(&plain_handshake()),
        &[],
    );
    let mut refused = 0;
    for peer in &mut crowd {
        peer.send(&handshake);
        refused += usize::from(matches!(peer.receive(), Outcome::Closed));
    }
    assert!((500..2000).contains(&refused), "{refused} of 2000 refused");
    // A new partition needs files of its own.
    drop(crowd.drain(..1000).collect::<Vec<_>>());
    bystander.finish("beyond the limit");
    drop(crowd);
    await_connections(address, 10);
    let info = topics::create(address, "afterwards", 4);
    let mut peer = Peer::ready(address);
    for partition in 0..4 {
        let result = topics::produce(&mut peer, info.id, partition, &topics::batch(&[b"x"]));
        assert_eq!(result.error, ErrorCode::None, "{result:?}");
    }
    assert!(!broker.log().contains("ERROR"), "{}", broker.log());
    assert!(broker.is_alive());
}

/// Thirty connections with a thousand waiting fetches each, woken by every produce.
#[test]
fn a_storm_of_fetches_does_not_stop_the_others() {
    let Some(mut broker) = Broker::start(&[]) else {
        return;
    };
    let address = broker.address();
    let info = topics::create(address, "popular", 2);
    let watch = Watch::begin(broker.pid());
    let bystander = Bystander::begin(address, "bystander");
    let mut storm: Vec<Peer> = (0..30)
        .map(|number| {
            let mut peer = Peer::ready(address);
            let mut fetch = topics::fetch_of(info.id, number % 2, 0, 60_000);
            // Too much to ask for, so that they go on waiting.
            fetch.min_bytes = 1 << 20;
            let body = encode_body(&fetch);
            let one = frame_of(Api::Fetch as u16, 9, &body, &[]);
            peer.send(&one.repeat(1000));
            peer
        })
        .collect();
    let mut producer = Peer::ready(address);
    let begun = Instant::now();
    for round in 0..40 {
        let records = topics::batch(&[&[1; 100]]);
        let result = topics::produce(&mut producer, info.id, round % 2, &records);
        assert_eq!(result.error, ErrorCode::None, "{result:?}");
    }
    println!("fetch storm: 40 produces in {:?}", begun.elapsed());
    bystander.finish("fetch storm");
    // The client closes its sending side: every fetch is answered with what there is.
    for peer in &mut storm {
        peer.finish();
    }
    let mut answers = 0;
    for peer in &mut storm {
        let mut bytes = BufReader::new(peer.stream.try_clone().expect("a descriptor"));
        answers += count_frames(&mut bytes);
    }
    assert_eq!(answers, 30_000, "each request gets its reply");
    println!("fetch storm: memory at most {} MiB", watch.check() >> 20);
    assert!(broker.is_alive());
}

fn count_frames(bytes: &mut impl std::io::Read) -> usize {
    let mut count = 0;
    let mut header = [0; FRAME_HEADER_SIZE];
    while bytes.read_exact(&mut header).is_ok() {
        let header = FrameHeader::decode(&header, u32::MAX).expect("a sound header");
        let mut rest = vec![0; header.rest_size()];
        bytes.read_exact(&mut rest).expect("a whole frame");
        count += 1;
    }
    count
}
