//! Fetches of several partitions: over two shards, for more than there is, of what goes away.

use std::{
    thread,
    time::{Duration, Instant},
};

use millstream_protocol::{
    ErrorCode, TopicId,
    messages::{DeleteTopicsRequest, DescribeClusterRequest, FetchRequest, HandshakeRequest},
};

use crate::{
    broker::Broker,
    peer::{Outcome, Peer, plain_handshake},
    topics,
};

fn fetch_of_two(topic: TopicId, max_wait_ms: u32) -> FetchRequest {
    let mut request = topics::fetch_of(topic, 0, 0, max_wait_ms);
    let second = topics::fetch_of(topic, 1, 0, 0).partitions.remove(0);
    request.partitions.push(second);
    request
}

fn forwarded(peer: &mut Peer) -> u64 {
    let answer = peer.ask(&DescribeClusterRequest {}).expect("an answer");
    answer.brokers[0].forwarded_requests
}

/// A partition of another shard has something, but less than was asked for.
#[test]
fn a_fetch_for_more_than_another_shard_has_waits_in_peace() {
    let Some(broker) = Broker::start(&[]) else {
        return;
    };
    let address = broker.address();
    let info = topics::create(address, "some", 2);
    let mut peer = Peer::ready(address);
    for partition in [0, 1] {
        let result = topics::produce(&mut peer, info.id, partition, &topics::batch(&[b"little"]));
        assert_eq!(result.error, ErrorCode::None, "{result:?}");
    }
    let before = forwarded(&mut peer);
    let begun = Instant::now();
    let mut request = fetch_of_two(info.id, 1000);
    request.min_bytes = 1 << 20;
    let (answer, records) = peer.ask_with(&request, &[]).expect("an answer");
    assert!(begun.elapsed() >= Duration::from_millis(900));
    assert!(answer.partitions.iter().all(|it| it.records_size > 0));
    assert!(!records.is_empty());
    let rounds = forwarded(&mut peer) - before;
    assert!(rounds < 20, "looked {rounds} times in a second");
}

/// The next batch does not fit into the reply, or the partition may give no more of it: nothing that comes
/// later could change that.
#[test]
fn a_fetch_that_can_carry_no_more_does_not_wait_for_more() {
    let Some(broker) = Broker::start(&[]) else {
        return;
    };
    let address = broker.address();
    let info = topics::create(address, "enough", 2);
    let mut peer = Peer::ready(address);
    for _ in 0..20 {
        topics::produce(&mut peer, info.id, 0, &topics::batch(&[&[1; 300_000]]));
    }
    for shard in [0, 1] {
        let handshake = HandshakeRequest {
            wanted_shard: shard,
            ..plain_handshake()
        };
        let (mut peer, _) = Peer::greeting(address, &handshake);
        for (most, batches) in [(1 << 20, 3), (1, 1)] {
            let mut request = fetch_of_two(info.id, 20_000);
            request.min_bytes = 1 << 20;
            request.partitions[0].max_bytes = most;
            let begun = Instant::now();
            let (_, records) = peer.ask_with(&request, &[]).expect("an answer");
            let took = begun.elapsed();
            assert_eq!(records.len() / 300_000, batches);
            assert!(took < Duration::from_secs(10), "shard {shard}: {took:?}");
        }
    }
}

/// What comes behind the first batch keeps to the limit of the whole reply.
#[test]
fn a_large_batch_behind_a_small_one_waits_for_the_next_fetch() {
    let Some(broker) = Broker::start(&[]) else {
        return;
    };
    let address = broker.address();
    let info = topics::create(address, "sizes", 2);
    for shard in [0, 1] {
        let handshake = HandshakeRequest {
            wanted_shard: shard,
            ..plain_handshake()
        };
        let (mut peer, _) = Peer::greeting(address, &handshake);
        if shard == 0 {
            topics::produce(&mut peer, info.id, 0, &topics::batch(&[&[1; 10_000]]));
            topics::produce(&mut peer, info.id, 1, &topics::batch(&[&[2; 100_000]]));
        }
        let mut request = fetch_of_two(info.id, 0);
        request.max_bytes = 20_000;
        let (answer, _) = peer.ask_with(&request, &[]).expect("an answer");
        let sizes: Vec<u32> = answer.partitions.iter().map(|it| it.records_size).collect();
        assert!(sizes[0] > 0 && sizes[1] == 0, "shard {shard}: {sizes:?}");
        // First, it comes, however large it is.
        request.partitions.reverse();
        let (answer, _) = peer.ask_with(&request, &[]).expect("an answer");
        let sizes: Vec<u32> = answer.partitions.iter().map(|it| it.records_size).collect();
        assert!(sizes[0] > 100_000 && sizes[1] == 0, "{sizes:?}");
    }
}

#[test]
fn a_fetch_that_waits_hears_that_its_topic_is_gone() {
    let Some(broker) = Broker::start(&[]) else {
        return;
    };
    let address = broker.address();
    let info = topics::create(address, "gone", 2);
    let mut waiting = Peer::ready(address);
    let id = waiting.post(&fetch_of_two(info.id, 60_000), &[]);
    thread::sleep(Duration::from_millis(200));
    let names = vec!["gone".to_owned()];
    let request = DeleteTopicsRequest { names };
    Peer::ready(address).ask(&request).expect("an answer");
    match waiting.receive() {
        Outcome::Answered(answer) => assert_eq!(answer.header.correlation_id, id),
        other => panic!("{other:?}"),
    }
}
