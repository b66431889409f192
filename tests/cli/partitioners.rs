//! `produce --partitioner`: keys go where the other clients' would.

use serde_json::Value;

use crate::broker::Broker;

/// The partition of each record of a topic, by its value.
fn partitions(broker: &Broker, topic: &str) -> Vec<(String, u64)> {
    let consumed = broker.run(&["consume", topic, "--format", "json"]).text();
    let mut found: Vec<(String, u64)> = consumed
        .lines()
        .map(|line| {
            let record: Value = serde_json::from_str(line).expect("JSON");
            let value = record["value"].as_str().expect("text").to_owned();
            (value, record["partition"].as_u64().expect("a number"))
        })
        .collect();
    found.sort();
    found
}

#[test]
fn keys_go_where_the_partitioner_says() {
    let Some(broker) = Broker::start() else {
        return;
    };
    // CRC-32 of the key modulo 3, as librdkafka has it; murmur2 modulo 3, as the Java client has it.
    let lines = b"23456:a\nhejsan:b\n:c\n";
    let murmur2 = [0x058d_780f_u64, 0x5ec1_9395, 0x106e_08d9];
    let crc = [0xb1b4_51d7_u64, 0xd077_037e, 0];
    for (partitioner, hashes) in [("murmur2", murmur2), ("consistent", crc)] {
        broker
            .run(&["topic", "create", partitioner, "-p", "3"])
            .ok();
        let args = ["produce", partitioner, "--key-separator", ":"];
        let args = [&args[..], &["--partitioner", partitioner]].concat();
        broker.run_with(&args, lines).ok();
        let expected = [("a", 0), ("b", 1), ("c", 2)]
            .map(|(value, index)| (value.to_owned(), hashes[index] % 3));
        assert_eq!(partitions(&broker, partitioner), expected);
    }
    broker.run(&["topic", "create", "turns", "-p", "3"]).ok();
    let args = ["produce", "turns", "--partitioner", "round-robin"];
    broker.run_with(&args, b"a\nb\nc\nd\n").ok();
    let turns: Vec<u64> = partitions(&broker, "turns")
        .into_iter()
        .map(|(_, partition)| partition)
        .collect();
    assert_eq!(turns, [0, 1, 2, 0]);
}
