//! Reminders that come later: one is put off, one is taken back, one comes.
//!
//! ```text
//! cargo run -p millstream-client --example delayed_reminders
//! ```
//! Start a broker first; `MILLSTREAM_SERVER` names another than 127.0.0.1:7400.

use std::time::Duration;

use millstream_client::{
    CancelOutcome, Client, DelayRef, ErrorCode, NewTopic, PartitionIndex, ProducerRecord, StartAt,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let server = std::env::var("MILLSTREAM_SERVER").unwrap_or("127.0.0.1:7400".to_owned());
    let client = Client::builder(server).connect().await?;
    for reminder in delayed_reminders(&client).await? {
        println!("{reminder}");
    }
    Ok(())
}

/// Returns the reminders that came.
pub async fn delayed_reminders(client: &Client) -> anyhow::Result<Vec<String>> {
    let admin = client.admin();
    match admin.create_topic(NewTopic::new("reminders")).await {
        Ok(_) => {}
        Err(error) if error.code() == Some(ErrorCode::TopicExists) => {}
        Err(error) => return Err(error.into()),
    }
    let mut consumer = client.consumer().build();
    let partition = PartitionIndex(0);
    consumer
        .assign("reminders", partition, StartAt::End)
        .await?;

    let producer = client.producer().build().await?;
    let remind = |id: &str, text: &str| {
        let record = ProducerRecord::to("reminders").partition(partition);
        record.value(text.to_owned()).delay_id(id)
    };
    let hour = Duration::from_secs(60 * 60);
    let soon = Duration::from_millis(200);
    // Accepted durably when the delivery resolves; what it gives is a delay id, no offset yet.
    let tea = remind("tea", "the tea is ready").deliver_after(hour);
    producer.send(tea).await?.await?;
    let bread = remind("bread", "the bread is done").deliver_after(hour);
    producer.send(bread).await?.await?;
    // The same id again: only this one will come.
    let tea = remind("tea", "the tea is ready at last").deliver_after(soon);
    producer.send(tea).await?.await?;
    let taken_back = DelayRef::Id(Some(partition), "bread".to_owned());
    let outcome = admin.cancel_delayed("reminders", &taken_back).await?;
    anyhow::ensure!(outcome == CancelOutcome::Cancelled, "{outcome:?}");
    producer.close().await?;

    let records = consumer.poll(Duration::from_secs(10)).await?;
    let values = records.into_iter().map(|it| it.value.unwrap_or_default());
    let texts = values.map(|value| String::from_utf8(value.to_vec()));
    Ok(texts.collect::<Result<_, _>>()?)
}
