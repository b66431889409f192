//! Prints every record of a topic from the beginning, then stops at its end.
//!
//! ```text
//! cargo run -p millstream-client --example consume -- events
//! ```
//! Start a broker first; `MILLSTREAM_SERVER` names another than 127.0.0.1:7400.

use std::time::Duration;

use millstream_client::{Client, StartAt};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let topic = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "events".to_owned());
    let server = std::env::var("MILLSTREAM_SERVER").unwrap_or("127.0.0.1:7400".to_owned());
    let client = Client::builder(server)
        .client_name("consume-example")
        .connect()
        .await?;

    let mut consumer = client.consumer().build();
    for partition in client.admin().topic(&topic).await?.partitions {
        consumer
            .assign(&topic, partition.partition, StartAt::Beginning)
            .await?;
    }
    loop {
        for record in consumer.poll(Duration::from_millis(100)).await? {
            let value = record.value.unwrap_or_default();
            let value = String::from_utf8_lossy(&value);
            println!(
                "{}/{} @ {}: {value}",
                record.topic, record.partition, record.offset
            );
        }
        if consumer.at_end() {
            return Ok(());
        }
    }
}
