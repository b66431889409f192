//! Events of orders, by key: those of one order stay in order, however many partitions share the work.
//!
//! ```text
//! cargo run -p millstream-client --example keyed_orders
//! ```
//! Start a broker first; `MILLSTREAM_SERVER` names another than 127.0.0.1:7400.

use std::{collections::BTreeMap, time::Duration};

use millstream_client::{
    Client, ConsumerRecord, ErrorCode, Linger, NewTopic, PartitionIndex, ProducerRecord, StartAt,
};

const PARTITIONS: u32 = 4;
const ORDERS: u32 = 20;
const STEPS: [&str; 4] = ["placed", "paid", "packed", "shipped"];

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let server = std::env::var("MILLSTREAM_SERVER").unwrap_or("127.0.0.1:7400".to_owned());
    let client = Client::builder(server).connect().await?;
    for (order, (partition, steps)) in keyed_orders(&client).await? {
        println!("{order} in partition {partition}: {}", steps.join(", "));
    }
    Ok(())
}

/// Where each order is, and what happened to it.
pub type Orders = BTreeMap<String, (PartitionIndex, Vec<String>)>;

/// Returns the orders as they were read.
pub async fn keyed_orders(client: &Client) -> anyhow::Result<Orders> {
    let topic = NewTopic::new("orders").partitions(PARTITIONS);
    match client.admin().create_topic(topic).await {
        Ok(_) => {}
        Err(error) if error.code() == Some(ErrorCode::TopicExists) => {}
        Err(error) => return Err(error.into()),
    }
    let ends = ends(client).await?;
    produce(client).await?;

    let mut consumer = client.consumer().build();
    for (partition, end) in ends {
        consumer.assign("orders", partition, end).await?;
    }
    let mut orders = Orders::new();
    let mut left = ORDERS as usize * STEPS.len();
    while left > 0 {
        let records = consumer.poll(Duration::from_secs(10)).await?;
        anyhow::ensure!(!records.is_empty(), "{left} records are missing");
        left -= records.len();
        for record in records {
            let (order, step) = text_of(&record)?;
            let (_, steps) = orders
                .entry(order)
                .or_insert_with(|| (record.partition, Vec::new()));
            steps.push(step);
        }
    }
    Ok(orders)
}

async fn produce(client: &Client) -> anyhow::Result<()> {
    // Many small records: let the traffic decide how long they wait for each other.
    let producer = client.producer().linger(Linger::Auto).build().await?;
    let mut deliveries = Vec::new();
    for step in STEPS {
        for order in 0..ORDERS {
            let record = ProducerRecord::to("orders")
                .key(format!("order-{order}"))
                .value(step);
            deliveries.push(producer.send(record).await?);
        }
    }
    for delivery in deliveries {
        delivery.await?;
    }
    producer.close().await?;
    Ok(())
}

/// Where each partition ends now: an earlier run may have left orders there.
async fn ends(client: &Client) -> anyhow::Result<Vec<(PartitionIndex, StartAt)>> {
    let mut consumer = client.consumer().build();
    let mut ends = Vec::new();
    for partition in client.admin().topic("orders").await?.partitions {
        let partition = partition.partition;
        consumer.assign("orders", partition, StartAt::End).await?;
        let end = consumer.position("orders", partition);
        ends.extend(end.map(|end| (partition, StartAt::Offset(end))));
    }
    Ok(ends)
}

fn text_of(record: &ConsumerRecord) -> anyhow::Result<(String, String)> {
    let text = |bytes: &Option<_>| {
        let bytes: &[u8] = bytes.as_deref().unwrap_or_default();
        String::from_utf8(bytes.to_vec())
    };
    Ok((text(&record.key)?, text(&record.value)?))
}
