//! Sends lines to a topic and waits until each is durable.
//!
//! ```text
//! cargo run -p millstream-client --example produce -- events "first" "second"
//! ```
//! Start a broker first; `MILLSTREAM_SERVER` names another than 127.0.0.1:7400.

use millstream_client::{Client, ErrorCode, NewTopic, ProducerRecord};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let topic = arguments.next().unwrap_or_else(|| "events".to_owned());
    let mut lines: Vec<String> = arguments.collect();
    if lines.is_empty() {
        lines.push("hello".to_owned());
    }

    let server = std::env::var("MILLSTREAM_SERVER").unwrap_or("127.0.0.1:7400".to_owned());
    let client = Client::builder(server)
        .client_name("produce-example")
        .connect()
        .await?;
    match client.admin().create_topic(NewTopic::new(&topic)).await {
        Ok(_) => {}
        Err(error) if error.code() == Some(ErrorCode::TopicExists) => {}
        Err(error) => return Err(error.into()),
    }

    let producer = client.producer().build().await?;
    let mut deliveries = Vec::new();
    for line in lines {
        // Returns as soon as the record is in a batch; the delivery resolves when it is durable.
        deliveries.push(
            producer
                .send(ProducerRecord::to(topic.as_str()).value(line))
                .await?,
        );
    }
    for delivery in deliveries {
        let delivered = delivery.await?;
        println!("{topic}/{} @ {}", delivered.partition, delivered.offset);
    }
    producer.close().await?;
    Ok(())
}
