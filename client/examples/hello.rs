//! Writes one record and reads it back.
//!
//! ```text
//! cargo run -p millstream-client --example hello
//! ```
//! Start a broker first; `MILLSTREAM_SERVER` names another than 127.0.0.1:7400.

use std::time::Duration;

use millstream_client::{Client, ErrorCode, NewTopic, ProducerRecord, StartAt};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let server = std::env::var("MILLSTREAM_SERVER").unwrap_or("127.0.0.1:7400".to_owned());
    let client = Client::builder(server).connect().await?;
    println!("{}", hello(&client).await?);
    Ok(())
}

/// Returns what it read.
pub async fn hello(client: &Client) -> anyhow::Result<String> {
    match client.admin().create_topic(NewTopic::new("hello")).await {
        Ok(_) => {}
        Err(error) if error.code() == Some(ErrorCode::TopicExists) => {}
        Err(error) => return Err(error.into()),
    }

    let producer = client.producer().build().await?;
    let record = ProducerRecord::to("hello").value("hello, world");
    // `send` returns once the record is in a batch; its delivery, once it is on stable storage.
    let delivered = producer.send(record).await?.await?;
    producer.close().await?;

    let mut consumer = client.consumer().build();
    let here = StartAt::Offset(delivered.offset);
    consumer.assign("hello", delivered.partition, here).await?;
    let records = consumer.poll(Duration::from_secs(10)).await?;
    let first = records.into_iter().next();
    let first = first.ok_or_else(|| anyhow::anyhow!("what was delivered can be read"))?;
    let value = first.value.unwrap_or_default();
    Ok(String::from_utf8(value.to_vec())?)
}
