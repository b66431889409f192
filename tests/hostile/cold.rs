//! Readers of what no cache holds any more, who ask for little of much: what they are sent lies in
//! buffers far larger than it.

use std::{io::Write as _, thread};

use millstream_protocol::{
    ErrorCode, TopicId,
    messages::{Api, FetchRequest, HandshakeRequest, encode_body},
};

use crate::{
    broker::Broker,
    memory::Watch,
    peer::{Outcome, Peer, frame_of, plain_handshake},
    topics,
};

/// As large as a topic's settings allow a batch to be, about: each lies in a read of its own.
const LARGE: usize = 1_000_000;

fn peer_of(broker: &Broker, shard: u32) -> Peer {
    let handshake = HandshakeRequest {
        wanted_shard: shard,
        ..plain_handshake()
    };
    Peer::greeting(broker.address(), &handshake).0
}

/// A fetch of the one batch at `offset`.
fn fetch_of_one(topic: TopicId, partition: u32, offset: i64) -> FetchRequest {
    let mut fetch = topics::fetch_of(topic, partition, offset, 0);
    fetch.max_bytes = 1;
    fetch.partitions[0].max_bytes = 1;
    fetch
}

fn produce(peer: &mut Peer, topic: TopicId, partition: u32, size: usize) {
    let batch = topics::batch(&[&vec![7; size]]);
    let result = topics::produce(peer, topic, partition, &batch);
    assert_eq!(result.error, ErrorCode::None, "{result:?}");
}

/// A reply of a hundred bytes waits for a client that does not read, and the megabyte it was read with
/// does not wait along.
#[test]
fn little_replies_that_wait_do_not_hold_the_reads_they_came_from() {
    let Some(mut broker) = Broker::start(&[]) else {
        return;
    };
    let info = topics::create(broker.address(), "little-and-large", 1);
    let shard = info.partitions[0].shard.0;
    let mut peer = peer_of(&broker, shard);
    for _ in 0..400 {
        produce(&mut peer, info.id, 0, 100);
        produce(&mut peer, info.id, 0, LARGE);
    }
    let filler = topics::create(broker.address(), "filler", 2);
    let ours = |partition: &u32| filler.partitions[*partition as usize].shard.0 == shard;
    let partition = (0..2).find(ours).expect("a partition on each shard");
    produce(&mut peer, filler.id, partition, 100_000);
    let memory = Watch::begin(broker.pid());
    // Sockets take some megabytes first. What some of these ask for ends between there and the limit of
    // what may be unsent.
    let deaf: Vec<Peer> = (20..80)
        .step_by(6)
        .map(|filling| {
            let mut deaf = peer_of(&broker, shard);
            for _ in 0..filling {
                deaf.post(&fetch_of_one(filler.id, partition, 0), &[]);
            }
            for offset in (0..800).step_by(2) {
                let fetch = fetch_of_one(info.id, 0, offset);
                deaf.post(&fetch, &[]);
                peer.ask_with(&fetch, &[]).expect("an answer");
            }
            deaf
        })
        .collect();
    memory.check();
    drop(deaf);
    assert!(broker.is_alive());
}

/// Each asks for a hundred bytes, and has a megabyte read for it.
#[test]
fn reads_from_disk_at_once_stay_within_the_memory() {
    const READS: u16 = 550;
    let Some(mut broker) = Broker::start(&[]) else {
        return;
    };
    let info = topics::create(broker.address(), "cold", 1);
    let mut peer = peer_of(&broker, info.partitions[0].shard.0);
    for _ in 0..READS + 50 {
        produce(&mut peer, info.id, 0, LARGE);
    }
    let memory = Watch::begin(broker.pid());
    let fetches: Vec<u8> = (0..READS)
        .flat_map(|offset| {
            let body = encode_body(&fetch_of_one(info.id, 0, offset.into()));
            frame_of(Api::Fetch as u16, u64::from(offset) + 10_000, &body, &[])
        })
        .collect();
    let mut stream = peer.stream.try_clone().expect("a descriptor");
    let asking = thread::spawn(move || stream.write_all(&fetches));
    let mut answered = 0;
    for _ in 0..READS {
        match peer.receive() {
            Outcome::Answered(frame) => answered += u16::from(frame.error().is_none()),
            other => panic!("{other:?} after {answered}"),
        }
    }
    asking.join().expect("no panic").expect("a connection");
    assert!(answered > 0);
    memory.check();
    assert!(broker.is_alive());
}
