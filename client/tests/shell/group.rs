//! A member of a group: what it commits when, and how much it can hold.

use std::time::Duration;

use millstream_client::{
    AutoOffsetReset, Client, CommitOffset, ConsumeError, GroupConsumer, Offset, PartitionIndex,
    ProducerRecord,
};

use crate::{LONG, client, fake::Fake};

const P0: PartitionIndex = PartitionIndex(0);
const SOON: Duration = Duration::from_millis(20);

async fn produce(client: &Client, count: u32) {
    let producer = client.producer().build().await.expect("started");
    for _ in 0..count {
        let record = ProducerRecord::to("t").partition(P0).value("v");
        drop(producer.send(record).await.expect("taken"));
    }
    producer.close().await.expect("delivered");
}

fn member(client: &Client, auto_commit: Duration) -> GroupConsumer {
    let group = client.consumer().group_id("g").subscribe(["t"]);
    group.auto_commit(auto_commit).build()
}

async fn read(member: &mut GroupConsumer, count: usize) {
    let mut read = 0;
    while read < count {
        read += member.poll(LONG).await.expect("no obstacle").len();
    }
}

fn committed(fake: &Fake) -> Option<i64> {
    fake.state().group.committed.values().next().copied()
}

#[tokio::test]
async fn an_automatic_commit_that_failed_is_made_again() {
    let fake = Fake::start().await;
    fake.create("t", &[0]);
    let client = client(&fake).await;
    produce(&client, 10).await;
    fake.state().group.refuse_commits = 1;
    let mut member = member(&client, SOON);
    read(&mut member, 10).await;
    let read_all = async {
        while committed(&fake) != Some(10) {
            assert!(member.poll(SOON).await.expect("no obstacle").is_empty());
        }
    };
    let in_time = tokio::time::timeout(LONG, read_all).await;
    in_time.expect("it is tried again though nothing more was read");
    assert_eq!(fake.state().group.refused_commits, 1);
}

#[tokio::test]
async fn what_was_read_is_committed_while_a_poll_waits() {
    let fake = Fake::start().await;
    fake.create("t", &[0]);
    let client = client(&fake).await;
    produce(&client, 10).await;
    // Not due yet when the second poll begins.
    let mut member = member(&client, Duration::from_millis(500));
    read(&mut member, 10).await;
    let heard = fake.clone();
    let committed = async move {
        while committed(&heard) != Some(10) {
            heard.answered().await;
        }
    };
    tokio::select! {
        polled = member.poll(LONG) => panic!("there is nothing to read: {polled:?}"),
        () = committed => {}
    }
}

#[tokio::test]
async fn a_member_may_hold_more_than_one_request_names() {
    const COUNT: u32 = 10_500;
    let fake = Fake::start().await;
    fake.create("t", &vec![0; COUNT as usize]);
    let client = client(&fake).await;
    let group = client.consumer().group_id("g").subscribe(["t"]);
    // It is only held, not read.
    let group = group.auto_offset_reset(AutoOffsetReset::None);
    let mut member = group.auto_commit(None).build();
    while member.assignment().is_empty() {
        match member.poll(SOON).await {
            Ok(_) | Err(ConsumeError::NoCommittedOffset { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(member.assignment().len(), COUNT as usize);
    let offsets = (0..COUNT).map(|number| CommitOffset {
        topic: "t".into(),
        partition: PartitionIndex(number),
        offset: Offset(0),
        metadata: "m".repeat(200),
    });
    let offsets: Vec<CommitOffset> = offsets.collect();
    member.commit_offsets(&offsets).await.expect("committed");
    assert_eq!(fake.state().group.committed.len(), COUNT as usize);
}
