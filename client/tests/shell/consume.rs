//! Consuming: order, positions, seeks, policies, faults of the connection.

use std::{pin::pin, time::Duration};

use futures_util::StreamExt;
use millstream_client::{
    Client, Compression, ConsumeError, Consumer, ConsumerRecord, Offset, OutOfRangePolicy,
    PartitionIndex, ProducerRecord, StartAt,
};

use crate::{LONG, client, fake::Fake};

const P0: PartitionIndex = PartitionIndex(0);

/// Sends records `from..to` to partition 0 of `t`, each with its number as value and time.
async fn produce(client: &Client, from: i64, to: i64) {
    let producer = client
        .producer()
        .batch_size(300)
        .compression(Compression::Lz4);
    let producer = producer.build().await.expect("started");
    for number in from..to {
        let record = ProducerRecord::to("t").partition(P0).timestamp_ms(number);
        let record = record.key("k").header("h", None).value(number.to_string());
        drop(producer.send(record).await.expect("taken"));
    }
    producer.close().await.expect("delivered");
}

async fn consumer(client: &Client, start: StartAt) -> Consumer {
    let mut consumer = client.consumer().build();
    consumer.assign("t", P0, start).await.expect("assigned");
    consumer
}

/// Polls until the end.
async fn rest(consumer: &mut Consumer) -> Vec<ConsumerRecord> {
    let mut records = Vec::new();
    while !consumer.at_end() {
        records.extend(consumer.poll(LONG).await.expect("no obstacle"));
    }
    records
}

fn offsets(records: &[ConsumerRecord]) -> Vec<i64> {
    records.iter().map(|it| it.offset.0).collect()
}

#[tokio::test]
async fn reads_from_anywhere_to_the_end() {
    let fake = Fake::start().await;
    fake.create("t", &[1]);
    let client = client(&fake).await;
    produce(&client, 0, 300).await;
    for (start, first) in [
        (StartAt::Beginning, 0),
        (StartAt::Offset(Offset(7)), 7),
        (StartAt::Timestamp(123), 123),
        (StartAt::Timestamp(1000), 300),
        (StartAt::End, 300),
    ] {
        let mut consumer = consumer(&client, start).await;
        let records = rest_or_nothing(&mut consumer, first).await;
        assert_eq!(
            offsets(&records),
            (first..300).collect::<Vec<i64>>(),
            "{start:?}"
        );
        for record in records {
            assert_eq!(
                record.value.as_deref(),
                Some(record.offset.to_string().as_bytes())
            );
            assert_eq!(
                (record.timestamp_ms, record.key.as_deref()),
                (record.offset.0, Some(&b"k"[..]))
            );
            assert_eq!(record.headers, [("h".to_owned(), None)]);
        }
        assert_eq!(consumer.position("t", P0), Some(Offset(300)));
        assert_eq!(consumer.high_watermark("t", P0), Some(Offset(300)));
    }
}

/// At the end there is nothing to poll for; the first reply tells where the end is.
async fn rest_or_nothing(consumer: &mut Consumer, first: i64) -> Vec<ConsumerRecord> {
    if first < 300 {
        return rest(consumer).await;
    }
    while !consumer.at_end() {
        let records = consumer
            .poll(Duration::from_millis(5))
            .await
            .expect("no obstacle");
        assert_eq!(offsets(&records), [0; 0]);
    }
    Vec::new()
}

#[tokio::test]
async fn a_waiting_poll_gets_what_arrives_and_a_dropped_one_loses_nothing() {
    let fake = Fake::start().await;
    fake.create("t", &[0]);
    let client = client(&fake).await;
    let mut consumer = consumer(&client, StartAt::Beginning).await;
    assert!(
        consumer
            .poll(Duration::from_millis(1))
            .await
            .expect("nothing yet")
            .is_empty()
    );
    {
        let poll = consumer.poll(LONG);
        let producing = produce(&client, 0, 3);
        // Whichever comes first, the other is dropped in the middle.
        tokio::select! { biased; () = producing => {}, _ = poll => {} }
    }
    produce(&client, 3, 6).await;
    let mut records = Vec::new();
    while records.len() < 3 {
        records.extend(consumer.poll(LONG).await.expect("no obstacle"));
    }
    let seen = offsets(&records);
    assert!(seen.is_sorted_by(|a, b| b - a == 1), "{seen:?}");
}

#[tokio::test]
async fn seeks_and_connections_that_break_do_not_disturb_the_order() {
    let fake = Fake::start().await;
    fake.create("t", &[0]);
    let client = client(&fake).await;
    produce(&client, 0, 200).await;
    let mut consumer = client
        .consumer()
        .max_poll_records(1)
        .fetch_bytes(300)
        .prefetch_bytes(1000)
        .build();
    consumer
        .assign("t", P0, StartAt::Beginning)
        .await
        .expect("assigned");
    let mut seen = Vec::new();
    for round in 0..10 {
        let records = consumer.poll(LONG).await.expect("no obstacle");
        seen.extend(offsets(&records));
        if round % 3 == 0 {
            fake.break_connections();
        }
    }
    assert_eq!(
        seen,
        (0..i64::try_from(seen.len()).expect("few")).collect::<Vec<i64>>()
    );
    consumer
        .seek("t", P0, StartAt::Offset(Offset(190)))
        .await
        .expect("assigned");
    assert_eq!(
        offsets(&rest(&mut consumer).await),
        (190..200).collect::<Vec<i64>>()
    );
    consumer.unassign("t", P0);
    assert!(consumer.assignment().is_empty());
    let error = consumer
        .seek("t", P0, StartAt::Beginning)
        .await
        .expect_err("gone");
    assert!(matches!(error, ConsumeError::NotAssigned { .. }));
}

#[tokio::test]
async fn a_partition_that_moves_is_followed() {
    let fake = Fake::start().await;
    fake.create("t", &[0]);
    let client = client(&fake).await;
    produce(&client, 0, 5).await;
    let mut consumer = consumer(&client, StartAt::Beginning).await;
    assert_eq!(offsets(&rest(&mut consumer).await), [0, 1, 2, 3, 4]);
    fake.change("t", 0, |it| (it.shard, it.epoch) = (4, 2));
    produce(&client, 5, 7).await;
    let mut more = Vec::new();
    while more.len() < 2 {
        more.extend(consumer.poll(LONG).await.expect("no obstacle"));
    }
    assert_eq!(offsets(&more), [5, 6]);
    assert!(fake.state().wanted_shards.contains(&4));
}

#[tokio::test]
async fn an_offset_that_is_gone_is_an_error_or_passed_over() {
    let fake = Fake::start().await;
    fake.create("t", &[0]);
    let client = client(&fake).await;
    produce(&client, 0, 50).await;
    fake.change("t", 0, |it| it.log_start = 40);
    let mut strict = consumer(&client, StartAt::Offset(Offset(3))).await;
    let error = strict.poll(LONG).await.expect_err("trimmed");
    assert!(
        matches!(
            error,
            ConsumeError::OffsetOutOfRange {
                log_start: Offset(40),
                ..
            }
        ),
        "{error}"
    );
    strict
        .seek("t", P0, StartAt::Beginning)
        .await
        .expect("assigned");
    assert_eq!(rest(&mut strict).await[0].offset, Offset(40));

    let mut lenient = client
        .consumer()
        .out_of_range(OutOfRangePolicy::Earliest)
        .build();
    lenient
        .assign("t", P0, StartAt::Offset(Offset(3)))
        .await
        .expect("assigned");
    assert_eq!(rest(&mut lenient).await[0].offset, Offset(40));
}

#[tokio::test]
async fn damage_is_reported_behind_what_is_good_and_can_be_skipped() {
    let fake = Fake::start().await;
    fake.create("t", &[0]);
    let client = client(&fake).await;
    for number in 0..3 {
        produce(&client, number, number + 1).await;
    }
    fake.change("t", 0, |it| *it.batches[1].last_mut().expect("bytes") ^= 1);
    let mut consumer = consumer(&client, StartAt::Beginning).await;
    assert_eq!(
        offsets(&consumer.poll(LONG).await.expect("the first is good")),
        [0]
    );
    let error = consumer
        .poll(LONG)
        .await
        .expect_err("the second is damaged");
    assert!(
        matches!(
            error,
            ConsumeError::Corrupt {
                offset: Offset(1),
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(consumer.position("t", P0), Some(Offset(1)));
    consumer
        .seek("t", P0, StartAt::Offset(Offset(2)))
        .await
        .expect("assigned");
    assert_eq!(
        offsets(&consumer.poll(LONG).await.expect("the third is good")),
        [2]
    );
}

#[tokio::test]
async fn batches_and_streams_carry_the_same_records() {
    let fake = Fake::start().await;
    fake.create("t", &[0]);
    let client = client(&fake).await;
    produce(&client, 0, 100).await;
    let mut by_batch = consumer(&client, StartAt::Offset(Offset(3))).await;
    let mut seen = Vec::new();
    let mut shown = Vec::new();
    while !by_batch.at_end() {
        for batch in by_batch.poll_batches(LONG).await.expect("no obstacle") {
            seen.extend(offsets(&batch.records().expect("valid")));
            batch.for_each(|it| shown.push(it.offset.0)).expect("valid");
        }
    }
    assert_eq!(seen, (3..100).collect::<Vec<i64>>());
    assert_eq!(shown, seen);
    let mut stream = pin!(
        consumer(&client, StartAt::Offset(Offset(3)))
            .await
            .into_stream()
    );
    for offset in 3..100 {
        let record = stream.next().await.expect("endless").expect("no obstacle");
        assert_eq!(record.offset.0, offset);
    }
}

#[tokio::test]
async fn a_topic_that_is_deleted_is_an_obstacle() {
    let fake = Fake::start().await;
    fake.create("t", &[0]);
    let client = client(&fake).await;
    let mut consumer = consumer(&client, StartAt::Beginning).await;
    fake.state().topics.clear();
    fake.break_connections();
    let error = consumer.poll(LONG).await.expect_err("gone");
    assert!(error.to_string().contains("no topic \"t\""), "{error}");
    let error = consumer
        .assign("t", P0, StartAt::End)
        .await
        .expect_err("gone");
    assert!(!error.is_retriable());
    fake.create("t", &[0]);
    produce(&client, 0, 2).await;
    consumer
        .assign("t", P0, StartAt::Beginning)
        .await
        .expect("it is back");
    assert_eq!(offsets(&rest(&mut consumer).await), [0, 1]);
    assert_eq!(consumer.assignment().len(), 1, "the old one made way");
}

#[tokio::test]
async fn pausing_one_partition_leaves_the_others_and_its_position() {
    let fake = Fake::start().await;
    fake.create("t", &[0, 1]);
    let client = client(&fake).await;
    produce(&client, 0, 50).await;
    let producer = client.producer().build().await.expect("started");
    let p1 = PartitionIndex(1);
    let record = ProducerRecord::to("t").partition(p1).value("other");
    drop(producer.send(record).await.expect("taken"));
    producer.close().await.expect("delivered");

    let mut consumer = consumer(&client, StartAt::Beginning).await;
    assert!(matches!(
        consumer.pause("t", p1),
        Err(ConsumeError::NotAssigned { .. })
    ));
    consumer.pause("t", P0).expect("assigned");
    let assigned = consumer.assign("t", p1, StartAt::Beginning).await;
    assigned.expect("there is such a partition");
    assert_eq!(consumer.paused(), [("t".into(), P0)]);
    let records = consumer.poll(LONG).await.expect("no obstacle");
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].partition, p1);
    assert_eq!(consumer.lag("t", p1), Some(0));
    assert_eq!(consumer.position("t", P0), Some(Offset(0)));
    consumer.resume("t", P0).expect("assigned");
    assert_eq!(offsets(&rest(&mut consumer).await), numbers(0, 50));
    assert_eq!(consumer.lag("t", P0), Some(0));
    produce(&client, 50, 60).await;
    while consumer.position("t", P0) != Some(Offset(60)) {
        consumer.poll(LONG).await.expect("no obstacle");
    }
}

fn numbers(from: i64, to: i64) -> Vec<i64> {
    (from..to).collect()
}
