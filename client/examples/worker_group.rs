//! A worker of a group: shares a topic with its peers, commits what it has done, leaves cleanly.
//!
//! ```text
//! cargo run -p millstream-client --example worker_group
//! ```
//! Start a broker first; `MILLSTREAM_SERVER` names another than 127.0.0.1:7400.

use std::time::Duration;

use millstream_client::{Client, ErrorCode, NewTopic, ProducerRecord};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let server = std::env::var("MILLSTREAM_SERVER").unwrap_or("127.0.0.1:7400".to_owned());
    let client = Client::builder(server).connect().await?;
    let done = worker_group(&client).await?;
    println!("{} jobs done", done.len());
    Ok(())
}

/// Ten jobs, done by a worker; returns what it did.
pub async fn worker_group(client: &Client) -> anyhow::Result<Vec<String>> {
    let topic = NewTopic::new("jobs").partitions(4);
    match client.admin().create_topic(topic).await {
        Ok(_) => {}
        Err(error) if error.code() == Some(ErrorCode::TopicExists) => {}
        Err(error) => return Err(error.into()),
    }
    let producer = client.producer().build().await?;
    for number in 0..10 {
        let job = ProducerRecord::to("jobs").value(format!("job {number}"));
        // `close` waits for all of them, and says if one did not arrive.
        drop(producer.send(job).await?);
    }
    producer.close().await?;

    let consumer = client.consumer().max_poll_records(100);
    let mut worker = consumer
        .group_id("workers")
        .subscribe(["jobs"])
        .auto_commit(None)
        .build();
    let mut done = Vec::new();
    while done.len() < 10 {
        for record in worker.poll(Duration::from_secs(10)).await? {
            let job = record.value.unwrap_or_default();
            done.push(String::from_utf8(job.to_vec())?);
        }
        // Only what was done is committed: a worker that dies in between has it done again.
        worker.commit().await?;
    }
    worker.close().await?;
    Ok(done)
}
