//! Compacted topics: what they refuse, and how a topic becomes one.

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
