//! Through a port forward: a client that can reach one other port only, which passes bytes on.

use std::{
    io,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use millstream_client::{Client, PartitionIndex, ProducerRecord, StartAt};
use millstream_protocol::messages::DescribeClusterRequest;

use crate::{broker::Broker, peer::Peer};

/// Passes connections on for as long as the test's process lives. How many there were.
fn forward(to: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    thread::spawn(move || {
        for from in listener.incoming() {
            counted.fetch_add(1, Ordering::Relaxed);
            let from = from.expect("a connection");
            let Ok(to) = TcpStream::connect(to) else {
                continue;
            };
            pass_on(&from, &to);
            pass_on(&to, &from);
        }
    });
    (address, count)
}

fn pass_on(from: &TcpStream, to: &TcpStream) {
    let mut from = from.try_clone().expect("a descriptor");
    let mut to = to.try_clone().expect("a descriptor");
    thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
}

async fn produce_and_read_back(server: &str, partitions: u32, per_partition: usize) {
    let client = Client::builder(server).connect().await.expect("connects");
    let producer = client.producer().build().await.expect("a producer");
    let mut deliveries = Vec::new();
    for number in 0..per_partition {
        for partition in 0..partitions {
            let record = ProducerRecord::to("forwarded")
                .partition(PartitionIndex(partition))
                .value(format!("{partition}-{number}"));
            let delivery = producer.send(record).await.expect("accepted");
            deliveries.push(delivery);
        }
    }
    for delivery in deliveries {
        delivery.await.expect("acknowledged");
    }
    for partition in 0..partitions {
        let mut consumer = client.consumer().build();
        consumer
            .assign("forwarded", PartitionIndex(partition), StartAt::Beginning)
            .await
            .expect("assigned");
        let mut number = 0;
        while number < per_partition {
            let records = consumer
                .poll(Duration::from_secs(10))
                .await
                .expect("records");
            assert!(!records.is_empty(), "record {number} of {per_partition}");
            for record in records {
                let expected = format!("{partition}-{number}");
                assert_eq!(record.value.as_deref(), Some(expected.as_bytes()));
                number += 1;
            }
        }
    }
}

#[test]
fn every_shard_is_reached_through_one_forwarded_port() {
    let Some(broker) = Broker::start(&[]) else {
        return;
    };
    let info = crate::topics::create(broker.address(), "forwarded", 4);
    let shards: std::collections::BTreeSet<u32> =
        info.partitions.iter().map(|it| it.shard.0).collect();
    assert_eq!(shards.len(), 2, "partitions on both shards");
    let (through, connections) = forward(broker.address());
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(produce_and_read_back(&through.to_string(), 4, 500));
    let used = connections.load(Ordering::Relaxed);
    assert!(
        used >= 2,
        "a connection for each shard through the forward: {used}"
    );
    let status = Peer::ready(broker.address()).ask(&DescribeClusterRequest {});
    let status = status.expect("an answer").brokers.remove(0);
    assert_eq!(status.forwarded_requests, 0, "nothing crossed shards");
}
