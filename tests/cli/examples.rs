//! The client's examples, run against a fresh broker, twice: the second time finds the topics there.

use millstream_client::{Client, PartitionIndex};

use crate::broker::Broker;

#[path = "../../client/examples/custom_partitioner.rs"]
#[allow(dead_code, reason = "its main is for `cargo run --example`")]
mod custom_partitioner;
#[path = "../../client/examples/delayed_reminders.rs"]
#[allow(dead_code, reason = "its main is for `cargo run --example`")]
mod delayed_reminders;
#[path = "../../client/examples/hello.rs"]
#[allow(dead_code, reason = "its main is for `cargo run --example`")]
mod hello;
#[path = "../../client/examples/keyed_orders.rs"]
#[allow(dead_code, reason = "its main is for `cargo run --example`")]
mod keyed_orders;
#[path = "../../client/examples/worker_group.rs"]
#[allow(dead_code, reason = "its main is for `cargo run --example`")]
mod worker_group;

async fn run(broker: &Broker) -> anyhow::Result<()> {
    let client = Client::builder(broker.server()).connect().await?;
    for _ in 0..2 {
        assert_eq!(hello::hello(&client).await?, "hello, world");

        let orders = keyed_orders::keyed_orders(&client).await?;
        assert_eq!(orders.len(), 20);
        let mut partitions = Vec::new();
        for (order, (partition, steps)) in orders {
            assert_eq!(steps, ["placed", "paid", "packed", "shipped"], "{order}");
            partitions.push(partition);
        }
        partitions.sort_unstable();
        partitions.dedup();
        assert_eq!(partitions.len(), 4, "every partition has a part in it");

        let mut jobs = worker_group::worker_group(&client).await?;
        jobs.sort();
        let expected: Vec<String> = (0..10).map(|number| format!("job {number}")).collect();
        assert_eq!(jobs, expected, "each is done once");

        let went = custom_partitioner::custom_partitioner(&client).await?;
        let urgent = went[1];
        assert_eq!(urgent, ("disk is full", PartitionIndex(0)));
        assert_eq!(went[0].1, went[2].1, "one key, one partition");
        assert_ne!(went[0].1, PartitionIndex(0));

        let came = delayed_reminders::delayed_reminders(&client).await?;
        assert_eq!(came, ["the tea is ready at last"]);
    }
    Ok(())
}

#[test]
fn the_clients_examples_do_what_they_say() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(run(&broker)).expect("they run");
}
