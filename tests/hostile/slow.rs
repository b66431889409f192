//! Clients that say nothing, speak slowly, stop in the middle, or do not listen: cut off within the
//! stated limits, while others are served.

use std::{
    io::Write as _,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use millstream_protocol::{
    ErrorCode, FrameHeader, limits,
    messages::{Api, HandshakeRequest, MetadataRequest, encode_body},
};

use crate::{
    broker::Broker,
    bystander::Bystander,
    memory::Watch,
    peer::{Outcome, PATIENCE, Peer, frame_of, plain_handshake},
    topics,
};

/// The protocol's limit for a handshake, and for a frame that is small.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How much later than its limit a connection may end on a busy machine.
const SLACK: Duration = Duration::from_secs(4);

#[track_caller]
fn ends_in_time(peer: &mut Peer, begun: Instant) {
    let (answers, end) = peer.drain();
    let took = begun.elapsed();
    assert!(matches!(end, Outcome::Closed), "{end:?} after {took:?}");
    assert_eq!(answers.len(), 0);
    let early = TIMEOUT
        .checked_sub(Duration::from_secs(1))
        .expect("more than a second");
    assert!(took >= early && took <= TIMEOUT + SLACK, "after {took:?}");
}

#[test]
fn silence_and_half_said_things_end_at_their_timeouts() {
    let Some(mut broker) = Broker::start(&[]) else {
        return;
    };
    let address = broker.address();
    let greeting = frame_of(
        Api::Handshake as u16,
        1,
        &encode_body(&plain_handshake()),
        &[],
    );
    let bystander = Bystander::begin(address, "bystander");
    thread::scope(|scope| {
        scope.spawn(|| ends_in_time(&mut Peer::silent(address), Instant::now()));
        // A byte every now and then is no handshake either.
        scope.spawn(|| {
            let mut peer = Peer::silent(address);
            let begun = Instant::now();
            let mut bytes = greeting.iter();
            while begun.elapsed() < TIMEOUT {
                peer.send(&[*bytes.next().expect("longer than ten bytes")]);
                thread::park_timeout(Duration::from_millis(900));
            }
            ends_in_time(&mut peer, begun);
        });
        for cut in [1, 23, 24, 40] {
            let request = frame_of(Api::Metadata as u16, 7, &[0; 100], &[]);
            scope.spawn(move || {
                let mut peer = Peer::ready(address);
                peer.send(&request[..cut]);
                ends_in_time(&mut peer, Instant::now());
            });
        }
    });
    bystander.finish("silent clients");
    assert!(broker.is_alive());
}

#[test]
fn clients_that_die_in_mid_frame_leave_nothing_behind() {
    let Some(mut broker) = Broker::start(&[]) else {
        return;
    };
    let address = broker.address();
    let info = topics::create(address, "target", 1);
    let records = topics::batch(&[&[7; 100_000]]);
    let request = topics::produce_of(info.id, 0, &records);
    let frame = frame_of(Api::Produce as u16, 3, &encode_body(&request), &records);
    let memory = Watch::begin(broker.pid());
    let bystander = Bystander::begin(address, "bystander");
    for round in 0..300 {
        let mut peer = Peer::ready(address);
        peer.send(&frame[..1 + round * 331 % (frame.len() - 1)]);
    }
    bystander.finish("deaths in mid-frame");
    memory.check();
    let mut peer = Peer::ready(address);
    let result = topics::produce(&mut peer, info.id, 0, &records);
    assert_eq!((result.error, result.base_offset.0), (ErrorCode::None, 0));
    assert!(broker.is_alive());
}

/// Asks until the broker takes no more, and reads nothing.
fn ask_without_reading(address: SocketAddr, shard: u32, request: &[u8]) -> (Peer, usize) {
    let handshake = HandshakeRequest {
        wanted_shard: shard,
        ..plain_handshake()
    };
    let (mut peer, _) = Peer::greeting(address, &handshake);
    let patience = Some(Duration::from_millis(500));
    peer.stream
        .set_write_timeout(patience)
        .expect("a socket option");
    let requests = request.repeat(1000);
    let mut asked = 0;
    while asked < 2_000_000 && peer.stream.write_all(&requests).is_ok() {
        asked += 1000;
    }
    (peer, asked)
}

#[test]
fn one_who_asks_and_does_not_read_is_not_heard_any_more() {
    let Some(mut broker) = Broker::start(&[]) else {
        return;
    };
    let address = broker.address();
    let memory = Watch::begin(broker.pid());
    topics::create(address, "wide", 400);
    let bystander = Bystander::begin(address, "bystander");
    let metadata = frame_of(
        Api::Metadata as u16,
        5,
        &encode_body(&MetadataRequest::default()),
        &[],
    );
    let deaf: Vec<_> = thread::scope(|scope| {
        let asking: Vec<_> = (0..8)
            .map(|number| {
                let metadata = &metadata;
                scope.spawn(move || ask_without_reading(address, number % 2, metadata))
            })
            .collect();
        asking
            .into_iter()
            .map(|it| it.join().expect("no panic"))
            .collect()
    });
    for (_, asked) in &deaf {
        assert!(*asked < 2_000_000, "the broker went on reading");
    }
    bystander.finish("clients that do not read");
    println!("deaf clients: memory at most {} MiB", memory.check() >> 20);
    drop(deaf);
    assert!(broker.is_alive());
}

/// Fetches of megabytes that nobody takes, on both shards, while someone else reads the same topic.
#[test]
fn slow_readers_do_not_hold_up_others() {
    let Some(mut broker) = Broker::start(&[]) else {
        return;
    };
    let address = broker.address();
    let info = topics::create(address, "large", 2);
    let records = topics::batch(&[&[5; 500_000]]);
    for partition in &info.partitions {
        let mut peer = Peer::ready(address);
        for _ in 0..16 {
            let result = topics::produce(&mut peer, info.id, partition.partition.0, &records);
            assert_eq!(result.error, ErrorCode::None, "{result:?}");
        }
    }
    let memory = Watch::begin(broker.pid());
    let bystander = Bystander::begin(address, "bystander");
    let slow: Vec<Peer> = (0..24)
        .map(|number| {
            let partition = &info.partitions[number % 2];
            let handshake = HandshakeRequest {
                wanted_shard: partition.shard.0,
                ..plain_handshake()
            };
            let (mut peer, _) = Peer::greeting(address, &handshake);
            for _ in 0..20 {
                let mut request = topics::fetch_of(info.id, partition.partition.0, 0, 1000);
                request.max_bytes = limits::MAX_FETCH_SIZE;
                request.partitions[0].max_bytes = limits::MAX_FETCH_SIZE;
                peer.post(&request, &[]);
            }
            peer
        })
        .collect();
    // One that does read gets everything, behind the same budget.
    let mut reader = Peer::ready(address);
    let mut longest = Duration::ZERO;
    for partition in &info.partitions {
        for offset in 0..16 {
            let begun = Instant::now();
            let mut request = topics::fetch_of(info.id, partition.partition.0, offset, 1000);
            request.max_bytes = limits::MAX_FETCH_SIZE;
            let answer = reader.ask_with(&request, &[]).expect("an answer");
            longest = longest.max(begun.elapsed());
            assert!(!answer.1.is_empty(), "{:?}", answer.0);
        }
    }
    println!("slow readers: a fetch took at most {longest:?}");
    assert!(longest < PATIENCE);
    bystander.finish("slow readers");
    println!("slow readers: memory at most {} MiB", memory.check() >> 20);
    drop(slow);
    assert!(broker.is_alive());
}

/// Sixty-four frames of 64 MiB announced at once, a little of each sent now and then.
#[test]
fn large_claims_sent_slowly_do_not_hold_up_others() {
    let Some(mut broker) = Broker::start(&[]) else {
        return;
    };
    let address = broker.address();
    let info = topics::create(address, "target", 2);
    let memory = Watch::begin(broker.pid());
    let bystander = Bystander::begin(address, "bystander");
    let claim = FrameHeader {
        api: Api::Produce as u16,
        body_size: 100,
        records_size: limits::MAX_BATCH_SIZE,
        ..FrameHeader::default()
    };
    let mut claims: Vec<Peer> = (0..64)
        .map(|number| {
            let handshake = HandshakeRequest {
                wanted_shard: number % 2,
                ..plain_handshake()
            };
            let (mut peer, _) = Peer::greeting(address, &handshake);
            peer.send(&claim.encode());
            peer
        })
        .collect();
    let large = topics::batch(&[&[3; 1_000_000]]);
    let mut others = Peer::ready(address);
    let mut longest = Duration::ZERO;
    for round in 0..20 {
        for peer in &mut claims {
            peer.send(&[0; 4096]);
        }
        let begun = Instant::now();
        let result = topics::produce(&mut others, info.id, round % 2, &large);
        longest = longest.max(begun.elapsed());
        assert_eq!(result.error, ErrorCode::None, "{result:?}");
    }
    println!("large claims: a produce of 1 MB took at most {longest:?}");
    assert!(longest < PATIENCE);
    bystander.finish("large claims");
    println!("large claims: memory at most {} MiB", memory.check() >> 20);
    assert!(broker.is_alive());
}

/// Produces that name the other shard's partition, sent faster than any disk, by who does not wait.
#[test]
fn produces_for_the_other_shard_are_held_back_too() {
    let Some(mut broker) = Broker::start(&[]) else {
        return;
    };
    let address = broker.address();
    let info = topics::create(address, "elsewhere", 2);
    let memory = Watch::begin(broker.pid());
    let bystander = Bystander::begin(address, "bystander");
    let records = topics::batch(&[&[9; 1_000_000]]);
    thread::scope(|scope| {
        for partition in &info.partitions {
            let records = &records;
            scope.spawn(move || {
                let handshake = HandshakeRequest {
                    wanted_shard: 1 - partition.shard.0,
                    ..plain_handshake()
                };
                let (mut peer, _) = Peer::greeting(address, &handshake);
                let request = topics::produce_of(info.id, partition.partition.0, records);
                for _ in 0..300 {
                    peer.post(&request, records);
                }
                for _ in 0..300 {
                    match peer.receive() {
                        Outcome::Answered(frame) => assert!(frame.error().is_none()),
                        other => panic!("{other:?}"),
                    }
                }
            });
        }
    });
    bystander.finish("produces for the other shard");
    println!(
        "for the other shard: memory at most {} MiB",
        memory.check() >> 20
    );
    assert!(broker.is_alive());
}

/// An operator's stop, with every kind of client still there.
#[test]
fn a_stop_does_not_wait_for_those_who_misbehave() {
    let Some(mut broker) = Broker::start(&[]) else {
        return;
    };
    let address = broker.address();
    let info = topics::create(address, "target", 2);
    let mut peers = Vec::new();
    for _ in 0..50 {
        peers.push(Peer::silent(address));
        peers.push(Peer::ready(address));
        let mut half = Peer::ready(address);
        half.send(&[100, 0, 0, 0, 6]);
        peers.push(half);
        let mut waiting = Peer::ready(address);
        waiting.post(&topics::fetch_of(info.id, 0, 0, 60_000), &[]);
        peers.push(waiting);
    }
    let metadata = frame_of(
        Api::Metadata as u16,
        5,
        &encode_body(&MetadataRequest::default()),
        &[],
    );
    for shard in [0, 1] {
        peers.push(ask_without_reading(address, shard, &metadata).0);
    }
    let begun = Instant::now();
    broker.stop();
    println!("stopped in {:.1?}", begun.elapsed());
    assert!(begun.elapsed() < PATIENCE);
    drop(peers);
}
