//! Producing: acknowledgements, order, faults of connection and broker, back-pressure, the end.

use std::time::Duration;

use millstream_client::{
    Client, Compression, Delivered, ErrorCode, Offset, PartitionIndex, ProduceError,
    ProducerRecord, RequestError, TrySendError,
};
use millstream_protocol::batch::{Batches, DecodedBatch};

use crate::{client, fake::Fake};

/// Every value in a partition, in order.
fn values(fake: &Fake, topic: &str, partition: usize) -> Vec<String> {
    let batches = fake.change(topic, partition, |it| it.batches.concat());
    let mut values = Vec::new();
    for batch in Batches::checked(&batches) {
        let batch = DecodedBatch::open(batch.expect("valid").1).expect("valid");
        for record in batch.records() {
            let value = record.expect("valid").value.expect("set").to_vec();
            values.push(String::from_utf8(value).expect("text"));
        }
    }
    values
}

fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|it| it.to_string()).collect()
}

/// Sends the numbers below `count` to partition 0 of `t`, then waits for each.
async fn send_numbers(client: &Client, count: usize) -> Vec<Delivered> {
    let producer = client
        .producer()
        .batch_size(200)
        .build()
        .await
        .expect("started");
    let mut deliveries = Vec::new();
    for value in numbers(count) {
        let record = ProducerRecord::to("t")
            .partition(PartitionIndex(0))
            .value(value);
        deliveries.push(producer.send(record).await.expect("taken"));
    }
    let mut delivered = Vec::new();
    for delivery in deliveries {
        delivered.push(delivery.await.expect("delivered"));
    }
    producer.close().await.expect("nothing is left");
    delivered
}

#[tokio::test]
async fn records_arrive_in_order_and_know_their_offsets() {
    let fake = Fake::start().await;
    fake.create("t", &[2]);
    let delivered = send_numbers(&client(&fake).await, 500).await;
    assert_eq!(values(&fake, "t", 0), numbers(500));
    let offsets: Vec<i64> = delivered.iter().map(|it| it.offset.0).collect();
    assert_eq!(offsets, (0..500).collect::<Vec<i64>>());
    assert!(
        fake.state().wanted_shards.contains(&2),
        "connected to the owning shard"
    );
}

#[tokio::test]
async fn answers_that_are_lost_do_not_repeat_or_reorder_records() {
    let fake = Fake::start().await;
    fake.create("t", &[0]);
    fake.state().break_after_produce = 3;
    send_numbers(&client(&fake).await, 500).await;
    assert_eq!(values(&fake, "t", 0), numbers(500));
    assert!(fake.state().produce_requests > 3);
}

#[tokio::test]
async fn a_partition_that_moves_is_followed() {
    let fake = Fake::start().await;
    fake.create("t", &[0]);
    let client = client(&fake).await;
    send_numbers(&client, 5).await;
    fake.change("t", 0, |it| (it.shard, it.epoch) = (3, 2));
    send_numbers(&client, 5).await;
    assert_eq!(values(&fake, "t", 0).len(), 10);
    assert!(fake.state().wanted_shards.contains(&3));
}

#[tokio::test]
async fn a_broker_that_restarts_gets_what_waited() {
    let fake = Fake::start().await;
    fake.create("t", &[0]);
    let client = client(&fake).await;
    send_numbers(&client, 5).await;
    let restarting = tokio::spawn(fake.clone().restart(Duration::from_millis(150)));
    let delivered = send_numbers(&client, 50).await;
    assert_eq!(delivered[49].offset, Offset(54));
    drop(restarting.await.expect("restarted"));
}

#[tokio::test]
async fn a_request_without_answer_times_out_and_is_repeated() {
    let fake = Fake::start().await;
    fake.create("t", &[0]);
    fake.state().ignore_produce = 1;
    let client = client(&fake).await;
    let producer = client.producer().request_timeout(Duration::from_millis(50));
    let producer = producer.build().await.expect("started");
    let delivery = producer
        .send(ProducerRecord::to("t").value("a"))
        .await
        .expect("taken");
    assert_eq!(delivery.await.expect("delivered").offset, Offset(0));
    assert_eq!(values(&fake, "t", 0), ["a"]);
}

#[tokio::test]
async fn what_takes_too_long_says_that_it_may_be_written() {
    let fake = Fake::start().await;
    fake.create("t", &[0]);
    fake.state().ignore_produce = usize::MAX;
    let client = client(&fake).await;
    let producer = client
        .producer()
        .request_timeout(Duration::from_millis(20))
        .delivery_timeout(Duration::from_millis(100));
    let producer = producer.build().await.expect("started");
    let delivery = producer
        .send(ProducerRecord::to("t").value("a"))
        .await
        .expect("taken");
    let error = delivery.await.expect_err("nobody answers");
    assert!(
        matches!(
            &error,
            ProduceError::TimedOut {
                maybe_written: true,
                ..
            }
        ),
        "{error}"
    );
    assert!(error.is_retriable());
    assert!(
        producer.flush().await.is_ok(),
        "it failed before this flush"
    );
}

#[tokio::test]
async fn flush_tells_of_failures_and_ends_lingering() {
    let fake = Fake::start().await;
    fake.create("t", &[0]);
    let client = client(&fake).await;
    let producer = client
        .producer()
        .linger(Duration::from_secs(3600))
        .build()
        .await
        .expect("started");
    let delivery = producer
        .send(ProducerRecord::to("t").value("a"))
        .await
        .expect("taken");
    producer.flush().await.expect("delivered");
    assert!(delivery.outcome().expect("flushed").is_ok());

    fake.state().topics.clear();
    let delivery = producer
        .send(ProducerRecord::to("t").value("b"))
        .await
        .expect("taken");
    let error = producer.close().await.expect_err("the topic is gone");
    assert_eq!(error.code(), Some(ErrorCode::UnknownTopic), "{error}");
    assert!(delivery.await.is_err());
    let error = producer
        .send(ProducerRecord::to("t").value("c"))
        .await
        .expect_err("closed");
    assert!(matches!(error, ProduceError::Closed), "{error}");
}

#[tokio::test]
async fn a_topic_created_again_under_its_name_is_found_again() {
    let fake = Fake::start().await;
    fake.create("t", &[0]);
    let client = client(&fake).await;
    let producer = client.producer().build().await.expect("started");
    let record = || ProducerRecord::to("t").value("a");
    producer
        .send(record())
        .await
        .expect("taken")
        .await
        .expect("delivered");
    fake.create("t", &[0]);
    assert!(producer.send(record()).await.expect("taken").await.is_err());
    let delivered = producer.send(record()).await.expect("taken").await;
    assert_eq!(delivered.expect("delivered").offset, Offset(0));
}

#[tokio::test]
async fn unknown_names_and_numbers_are_refused_by_name() {
    let fake = Fake::start().await;
    fake.create("t", &[0]);
    let client = client(&fake).await;
    let producer = client.producer().build().await.expect("started");
    let error = producer
        .send(ProducerRecord::to("nope"))
        .await
        .expect_err("no such topic");
    assert!(
        error.to_string().contains("millstream topic create nope"),
        "{error}"
    );
    let record = ProducerRecord::to("t").partition(PartitionIndex(7));
    let error = producer.send(record).await.expect_err("no such partition");
    assert!(matches!(
        error,
        ProduceError::Request(RequestError::UnknownPartition { count: 1, .. })
    ));
    let record = ProducerRecord::to("t").timestamp_ms(-5);
    assert!(producer.send(record).await.is_err());
}

#[tokio::test]
async fn a_full_buffer_makes_senders_wait_and_loses_nothing() {
    let fake = Fake::start().await;
    fake.create("t", &[0, 0]);
    let client = client(&fake).await;
    let producer = client
        .producer()
        .buffer_memory(2000)
        .batch_size(500)
        .build()
        .await
        .expect("started");
    let first = producer
        .send(ProducerRecord::to("t").value("first"))
        .await
        .expect("taken");
    first.await.expect("delivered");
    let mut refused = None;
    while refused.is_none() {
        match producer.try_send(ProducerRecord::to("t").value(vec![b'x'; 100])) {
            Ok(delivery) => drop(delivery),
            Err(error) => refused = Some(error),
        }
    }
    assert!(matches!(refused, Some(TrySendError::Full(_))));
    let senders: Vec<_> = (0..20)
        .map(|_| {
            let producer = producer.clone();
            tokio::spawn(async move {
                for _ in 0..20 {
                    let record = ProducerRecord::to("t").value("yyyy".repeat(20));
                    producer
                        .send(record)
                        .await
                        .expect("room comes")
                        .await
                        .expect("delivered");
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.expect("no panic");
    }
    producer.close().await.expect("delivered");
    let all = [values(&fake, "t", 0), values(&fake, "t", 1)].concat();
    assert_eq!(all.iter().filter(|it| it.starts_with('y')).count(), 400);
}

#[tokio::test]
async fn dropping_the_producer_fails_what_is_left() {
    let fake = Fake::start().await;
    fake.create("t", &[0]);
    let client = client(&fake).await;
    let producer = client
        .producer()
        .linger(Duration::from_secs(3600))
        .build()
        .await
        .expect("started");
    let delivery = producer
        .send(ProducerRecord::to("t").value("a"))
        .await
        .expect("taken");
    drop(producer);
    assert!(matches!(delivery.await, Err(ProduceError::Closed)));
}

#[tokio::test]
async fn every_codec_is_understood() {
    let fake = Fake::start().await;
    fake.create("t", &[0]);
    let client = client(&fake).await;
    for codec in Compression::ALL {
        let producer = client
            .producer()
            .compression(codec)
            .build()
            .await
            .expect("started");
        let value = codec.name().repeat(100);
        let delivery = producer
            .send(ProducerRecord::to("t").value(value))
            .await
            .expect("taken");
        delivery.await.expect("delivered");
    }
    let expected: Vec<String> = Compression::ALL
        .iter()
        .map(|it| it.name().repeat(100))
        .collect();
    assert_eq!(values(&fake, "t", 0), expected);
}

#[tokio::test]
async fn settings_that_make_no_sense_are_refused() {
    let fake = Fake::start().await;
    let client = client(&fake).await;
    for builder in [
        client.producer().batch_size(10),
        client.producer().buffer_memory(10),
        client.producer().max_in_flight(0),
        client.producer().max_in_flight(65),
        client.producer().request_timeout(Duration::ZERO),
    ] {
        let error = builder.build().await.expect_err("makes no sense");
        assert!(matches!(error, RequestError::Configuration(_)), "{error}");
    }
}

#[tokio::test]
async fn nobody_listening_is_an_error_at_once() {
    let fake = Fake::start().await;
    let address = fake.address.clone();
    let gone = fake.restart(Duration::ZERO).await;
    drop(gone);
    // The port of a listener that is closed again.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let closed = listener.local_addr().expect("bound").to_string();
    drop(listener);
    let error = Client::builder(&closed)
        .connect()
        .await
        .expect_err("nobody there");
    assert!(
        error.is_retriable() && error.to_string().contains(&closed),
        "{error}"
    );
    // With several, the first that answers will do.
    let servers = format!("{closed},{address}");
    Client::builder(servers)
        .connect()
        .await
        .expect("the second answers");
}

#[test]
fn futures_may_move_between_threads() {
    fn assert_send<T: Send>(_: &T) {}
    fn check(producer: &millstream_client::Producer, consumer: &mut millstream_client::Consumer) {
        assert_send(producer);
        assert_send(&producer.send(ProducerRecord::to("t")));
        assert_send(&producer.flush());
        assert_send(&consumer.poll(Duration::ZERO));
        assert_send(&Client::builder("a:1").connect());
    }
    let _ = check;
}
