//! A partitioner of one's own: urgent records have a partition to themselves, so that they never wait
//! behind the others.
//!
//! ```text
//! cargo run -p millstream-client --example custom_partitioner
//! ```
//! Start a broker first; `MILLSTREAM_SERVER` names another than 127.0.0.1:7400.

use millstream_client::{
    Client, ErrorCode, Murmur2, NewTopic, PartitionChoice, PartitionIndex, Partitioner,
    ProducerRecord, RecordView, TopicPartitions,
};

/// Records with the header `urgent` go to partition 0, all others to the rest, by key.
#[derive(Clone, Debug)]
struct UrgentFirst;

impl Partitioner for UrgentFirst {
    fn partition(
        &mut self,
        record: &RecordView<'_>,
        partitions: &TopicPartitions<'_>,
    ) -> PartitionChoice {
        let is_urgent = record.headers.iter().any(|(name, _)| name == "urgent");
        let others = partitions.count() - 1;
        if is_urgent || others == 0 {
            return PartitionChoice::Partition(PartitionIndex(0));
        }
        // No `Sticky` here: it knows nothing of the partition that is set apart.
        let PartitionIndex(index) = Murmur2::partition_of(record.key.unwrap_or_default(), others);
        PartitionChoice::Partition(PartitionIndex(index + 1))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let server = std::env::var("MILLSTREAM_SERVER").unwrap_or("127.0.0.1:7400".to_owned());
    let client = Client::builder(server).connect().await?;
    for (what, partition) in custom_partitioner(&client).await? {
        println!("{what} went to partition {partition}");
    }
    Ok(())
}

/// Returns where each record went.
pub async fn custom_partitioner(
    client: &Client,
) -> anyhow::Result<Vec<(&'static str, PartitionIndex)>> {
    let topic = NewTopic::new("alerts").partitions(4);
    match client.admin().create_topic(topic).await {
        Ok(_) => {}
        Err(error) if error.code() == Some(ErrorCode::TopicExists) => {}
        Err(error) => return Err(error.into()),
    }
    let producer = client.producer().partitioner(UrgentFirst).build().await?;
    let mut went = Vec::new();
    for (value, is_urgent) in [
        ("disk is slow", false),
        ("disk is full", true),
        ("fan is loud", false),
    ] {
        let mut record = ProducerRecord::to("alerts").key("host-7").value(value);
        if is_urgent {
            record = record.header("urgent", None);
        }
        let delivered = producer.send(record).await?.await?;
        went.push((value, delivered.partition));
    }
    producer.close().await?;
    Ok(went)
}
