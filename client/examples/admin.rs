//! Creates a topic, shows what the cluster says about it, and deletes it.
//!
//! ```text
//! cargo run -p millstream-client --example admin
//! ```
//! Start a broker first; `MILLSTREAM_SERVER` names another than 127.0.0.1:7400.

use millstream_client::{Client, NewTopic, OffsetSpec};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let server = std::env::var("MILLSTREAM_SERVER").unwrap_or("127.0.0.1:7400".to_owned());
    let client = Client::builder(server)
        .client_name("admin-example")
        .connect()
        .await?;
    let admin = client.admin();

    let name = format!("admin-example-{}", std::process::id());
    let topic = NewTopic::new(&name)
        .partitions(3)
        .config("durability", "buffered");
    println!("created {name} as {}", admin.create_topic(topic).await?);

    let info = admin.topic(&name).await?;
    for config in info.configs.iter().filter(|config| config.is_set) {
        println!("  {} = {}", config.name, config.value);
    }
    for status in admin.describe_partitions(&info).await? {
        println!(
            "  partition {} on shard {}: offsets {} to {}",
            status.partition, status.shard, status.log_start_offset, status.high_watermark
        );
    }
    println!(
        "ends: {:?}",
        admin.list_offsets(&name, OffsetSpec::Latest).await?
    );

    admin.delete_topic(&name).await?;
    println!("deleted {name}");
    for broker in admin.describe_cluster().await?.brokers {
        println!(
            "broker {}: version {}, up {} ms",
            broker.id, broker.version, broker.uptime_ms
        );
    }
    Ok(())
}
