//! A second client that goes about its business while others misbehave: it produces and fetches,
//! times every answer, and in the end finds all that was acknowledged.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use millstream_protocol::{
    ErrorCode, TopicId,
    batch::{Batches, DecodedBatch},
    messages::HandshakeRequest,
};

use crate::{
    peer::{Peer, plain_handshake},
    topics,
};

/// The longest that one produce or fetch may take while others misbehave. A test build on a busy
/// machine is slow; a stall behind someone's timeout is ten seconds or more.
const LONGEST: Duration = Duration::from_secs(8);

/// Bytes of each value.
const VALUE_SIZE: usize = 1000;

/// What one lane of the bystander saw.
struct Lane {
    produced: Vec<Duration>,
    fetched: Vec<Duration>,
}

/// Works on every shard at once until it is asked to stop.
pub struct Bystander {
    stop: Arc<AtomicBool>,
    lanes: Vec<JoinHandle<Lane>>,
}

impl Bystander {
    /// Begins, with a topic of its own.
    pub fn begin(address: SocketAddr, topic: &str) -> Self {
        let info = topics::create(address, topic, 2);
        let stop = Arc::new(AtomicBool::new(false));
        let lanes = info
            .partitions
            .iter()
            .map(|partition| {
                let (stop, topic) = (Arc::clone(&stop), info.id);
                let (shard, index) = (partition.shard.0, partition.partition.0);
                thread::spawn(move || work(address, shard, topic, index, &stop))
            })
            .collect();
        Self { stop, lanes }
    }

    /// Ends; everything must have been answered in time and be there. Prints its latencies.
    #[track_caller]
    pub fn finish(self, what: &str) {
        self.stop.store(true, Ordering::Relaxed);
        let lanes: Vec<Lane> = self
            .lanes
            .into_iter()
            .map(|lane| lane.join().expect("the bystander was served"))
            .collect();
        let merge = |pick: fn(&Lane) -> &Vec<Duration>| -> Vec<Duration> {
            let mut all: Vec<_> = lanes.iter().flat_map(pick).copied().collect();
            all.sort();
            all
        };
        for (name, times) in [
            ("produce", merge(|l| &l.produced)),
            ("fetch", merge(|l| &l.fetched)),
        ] {
            let at = |percent: usize| times[(times.len() - 1) * percent / 100];
            println!(
                "{what}: bystander: {} times {name}: p50 {:?}, p99 {:?}, max {:?}",
                times.len(),
                at(50),
                at(99),
                at(100)
            );
            assert!(at(100) <= LONGEST, "{what}: {name} took {:?}", at(100));
        }
    }
}

fn value(partition: u32, number: u64) -> Vec<u8> {
    let mut value = vec![u8::try_from(number % 251).unwrap_or(0); VALUE_SIZE];
    value[..8].copy_from_slice(&number.to_le_bytes());
    value[8..12].copy_from_slice(&partition.to_le_bytes());
    value
}

fn work(
    address: SocketAddr,
    shard: u32,
    topic: TopicId,
    partition: u32,
    stop: &AtomicBool,
) -> Lane {
    let handshake = HandshakeRequest {
        wanted_shard: shard,
        ..plain_handshake()
    };
    let (mut peer, welcome) = Peer::greeting(address, &handshake);
    assert_eq!(welcome.shard.0, shard, "the shard that was wanted");
    let mut lane = Lane {
        produced: Vec::new(),
        fetched: Vec::new(),
    };
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) || number < 10 {
        let records = topics::batch(&[&value(partition, number)]);
        let begun = Instant::now();
        let result = topics::produce(&mut peer, topic, partition, &records);
        lane.produced.push(begun.elapsed());
        assert_eq!(result.error, ErrorCode::None, "{result:?}");
        let offset = i64::try_from(number).expect("few records");
        assert_eq!(result.base_offset.0, offset, "offsets without a gap");
        let begun = Instant::now();
        let (result, records) = topics::fetch(&mut peer, topic, partition, offset);
        lane.fetched.push(begun.elapsed());
        assert_eq!(result.error, ErrorCode::None, "{result:?}");
        assert_eq!(values_of(&records), [value(partition, number)]);
        number += 1;
    }
    read_all_back(&mut peer, topic, partition, number);
    lane
}

fn read_all_back(peer: &mut Peer, topic: TopicId, partition: u32, count: u64) {
    let mut number = 0;
    while number < count {
        let offset = i64::try_from(number).expect("few records");
        let (result, records) = topics::fetch(peer, topic, partition, offset);
        assert_eq!(result.error, ErrorCode::None, "{result:?}");
        let values = values_of(&records);
        assert!(!values.is_empty(), "record {number} of {count} is there");
        for found in values {
            assert!(found == value(partition, number), "record {number}");
            number += 1;
        }
    }
}

fn values_of(records: &[u8]) -> Vec<Vec<u8>> {
    let mut values = Vec::new();
    for batch in Batches::checked(records) {
        let (_, bytes) = batch.expect("a sound batch");
        let batch = DecodedBatch::open(bytes).expect("a sound batch");
        for record in batch.records() {
            values.push(
                record
                    .expect("a sound record")
                    .value
                    .unwrap_or(&[])
                    .to_vec(),
            );
        }
    }
    values
}
