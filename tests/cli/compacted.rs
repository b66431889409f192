//! Compacted topics: what they refuse, and how a topic becomes one.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::broker::Broker;

const COMPACTED: [&str; 2] = ["-c", "cleanup.policy=compact"];

fn json(lines: &[(Option<&str>, &str)]) -> String {
    let line = |(key, value): &(Option<&str>, &str)| {
        let record = serde_json::json!({ "key": key, "value": value });
        format!("{record}\n")
    };
    lines.iter().map(line).collect()
}

#[test]
fn a_record_without_a_key_is_refused_by_name() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let create = ["topic", "create", "c"];
    broker.run(&[&create[..], &COMPACTED].concat()).ok();
    let produce = |compression: &str, lines: &[(Option<&str>, &str)]| {
        let args = ["produce", "c", "--format", "json", "--compression"];
        let args = [&args[..], &[compression]].concat();
        broker.run_with(&args, json(lines).as_bytes())
    };
    for compression in ["none", "gzip", "snappy", "lz4", "zstd"] {
        produce(compression, &[(Some("k"), "v"), (Some(""), "w")]).ok();
        let refused = produce(compression, &[(Some("k"), "v"), (None, "x")]).failed(1);
        assert!(refused.contains("no key"), "{compression}: {refused}");
    }
    let described = broker.run(&["topic", "describe", "c", "--json"]).json();
    assert_eq!(described[0]["partitions"][0]["high_watermark"], 10);
}

#[test]
fn a_topic_with_keyless_records_is_compacted_only_by_force() {
    let Some(broker) = Broker::start() else {
        return;
    };
    broker.run(&["topic", "create", "t", "-p", "3"]).ok();
    let produce = ["produce", "t", "--format", "json"];
    let records = json(&[(Some("a"), "1"), (None, "2"), (Some("b"), "3")]);
    broker.run_with(&produce, records.as_bytes()).ok();

    let alter = ["topic", "alter", "t", "-c", "cleanup.policy=compact,delete"];
    let refused = broker.run(&alter).failed(1);
    assert!(
        refused.contains("without a key") || refused.contains("no key"),
        "{refused}"
    );
    // What was refused left nothing behind.
    broker
        .run_with(&produce, json(&[(None, "4")]).as_bytes())
        .ok();
    broker.run(&[&alter[..], &["--force"]].concat()).ok();
    broker
        .run_with(&produce, json(&[(None, "5")]).as_bytes())
        .failed(1);

    let policy = || {
        let described = broker.run(&["topic", "describe", "t", "--json"]).json();
        let settings = described[0]["config"].as_array().unwrap().clone();
        let policy = settings
            .into_iter()
            .find(|it| it["name"] == "cleanup.policy");
        policy.unwrap()["value"].as_str().unwrap().to_owned()
    };
    assert_eq!(policy(), "compact,delete");
    let back = ["topic", "alter", "t", "--reset", "cleanup.policy"];
    broker.run(&back).ok();
    assert_eq!(policy(), "delete");
    broker
        .run_with(&produce, json(&[(None, "5")]).as_bytes())
        .ok();
}

#[test]
fn a_topic_whose_records_all_have_keys_is_compacted_without_force() {
    let Some(broker) = Broker::start() else {
        return;
    };
    broker.run(&["topic", "create", "t"]).ok();
    let produce = ["produce", "t", "--format", "json"];
    let records = json(&[(Some("a"), "1"), (Some("b"), "2")]);
    broker.run_with(&produce, records.as_bytes()).ok();
    broker
        .run(&["topic", "alter", "t", "-c", "cleanup.policy=compact"])
        .ok();
    let refused = broker.run_with(&produce, json(&[(None, "x")]).as_bytes());
    assert!(refused.failed(1).contains("no key"));
}

/// Every record of a topic: offset, key and value.
fn consumed(broker: &Broker, topic: &str) -> Vec<(i64, String, Option<String>)> {
    let args = ["consume", topic, "--format", "json"];
    let text = broker.run(&args).text();
    let records = text.lines().map(|line| {
        let record: Value = serde_json::from_str(line).unwrap();
        (
            record["offset"].as_i64().unwrap(),
            record["key"].as_str().unwrap().to_owned(),
            record["value"].as_str().map(str::to_owned),
        )
    });
    records.collect()
}

/// Waits until compaction has been through all that is closed.
#[expect(
    clippy::disallowed_methods,
    reason = "a test waits for another process"
)]
fn await_clean(broker: &Broker, topic: &str) -> Value {
    let start = Instant::now();
    loop {
        let described = broker.run(&["topic", "describe", topic, "--json"]).json();
        let partition = described[0]["partitions"][0].clone();
        let clean = partition["clean_bytes"].as_u64() > Some(0);
        if clean && partition["dirty_bytes"] == 0 {
            return partition;
        }
        let waited = start.elapsed();
        assert!(
            waited < Duration::from_secs(60),
            "still dirty: {partition}\n{}",
            broker.log()
        );
    }
}

#[test]
fn the_last_value_of_each_key_stays_across_a_crash() {
    let Some(mut broker) = Broker::start() else {
        return;
    };
    let settings = [
        "cleanup.policy=compact",
        "segment.bytes=64KiB",
        "min.cleanable.dirty.ratio=0.01",
        "delete.retention.ms=0",
    ];
    let create = ["topic", "create", "c"].into_iter();
    let create: Vec<&str> = create
        .chain(settings.iter().flat_map(|it| ["-c", it]))
        .collect();
    broker.run(&create).ok();
    let mut last = BTreeMap::new();
    let mut offset = 0;
    for round in 0..20 {
        let records: Vec<(String, Option<String>)> = (0..100)
            .map(|n| {
                let key = (round * 31 + n * 7) % 150;
                // Each seventh key is deleted for good.
                let value = (key % 7 != 3).then(|| format!("{round}-{n}-{}", "x".repeat(1000)));
                (format!("key {key}"), value)
            })
            .collect();
        let mut lines = String::new();
        for (key, value) in records {
            lines += &format!("{}\n", serde_json::json!({ "key": key, "value": value }));
            last.insert(key, (offset, value));
            offset += 1;
        }
        broker
            .run_with(&["produce", "c", "--format", "json"], lines.as_bytes())
            .ok();
    }
    let clean = await_clean(&broker, "c");
    assert_eq!(clean["dirty_ratio"], 0.0);
    assert!(clean["segments"].as_u64() > Some(3), "{clean}");

    let check = |broker: &Broker| {
        let records = consumed(broker, "c");
        assert!(records.is_sorted_by(|a, b| a.0 < b.0));
        let mut found = BTreeMap::new();
        for (at, key, value) in &records {
            found.insert(key.clone(), (*at, value.clone()));
        }
        for (key, (at, value)) in &last {
            let expected = Some((*at, value.clone()));
            let gone = value.is_none() && !found.contains_key(key);
            assert!(
                gone || found.get(key) == expected.as_ref(),
                "{key}: {:?}",
                found.get(key)
            );
        }
        assert!(
            found.keys().all(|key| last.contains_key(key)),
            "nothing is invented"
        );
        records.len()
    };
    let left = check(&broker);
    assert!(left < 800, "{left} of 2000 records are left");
    broker.crash();
    check(&broker);
    let again = await_clean(&broker, "c");
    assert_eq!(again["log_end_offset"], 2000);
    let data_dir = broker.data_dir();
    broker.stop();
    let verified = crate::broker::Run::of(
        crate::broker::millstream(&["log", "verify", data_dir.to_str().unwrap()]),
        b"",
    );
    verified.ok();
}
