//! Topics: made, listed, described, changed, trimmed, deleted.

use crate::broker::Broker;

#[test]
fn a_topic_lives_and_dies() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let created = broker.run(&[
        "topic",
        "create",
        "a",
        "-p",
        "3",
        "-c",
        "retention.ms=86400000",
    ]);
    assert_eq!(created.text(), "created topic \"a\" with 3 partitions\n");
    broker.run(&["topic", "create", "b"]).ok();
    let again = broker.run(&["topic", "create", "a"]).failed(1);
    assert!(again.contains("\"a\""), "{again}");
    let tolerated = broker
        .run(&["topic", "create", "a", "--if-not-exists"])
        .text();
    assert_eq!(tolerated, "topic \"a\" exists already\n");

    let listed = broker.run(&["topic", "list", "--json"]).json();
    assert_eq!(listed[0]["name"], "a");
    assert_eq!(listed[0]["partitions"], 3);
    assert_eq!(listed[0]["config"]["retention.ms"], "86400000");
    assert_eq!(listed[1]["name"], "b");
    let table = broker.run(&["topic", "list"]).text();
    assert!(
        table.starts_with("TOPIC  PARTITIONS  SETTINGS\na "),
        "{table}"
    );

    broker
        .run(&["topic", "alter", "a", "--config", "durability=buffered"])
        .ok();
    broker
        .run(&["topic", "alter", "a", "--reset", "retention.ms"])
        .ok();
    broker
        .run(&["topic", "add-partitions", "a", "--total", "4"])
        .ok();
    let described = broker.run(&["topic", "describe", "a", "--json"]).json();
    assert_eq!(described[0]["partitions"].as_array().map(Vec::len), Some(4));
    let setting = |name: &str| {
        let settings = described[0]["config"].as_array().unwrap();
        settings
            .iter()
            .find(|entry| entry["name"] == name)
            .unwrap()
            .clone()
    };
    assert_eq!(setting("durability")["value"], "buffered");
    assert_eq!(setting("durability")["is_set"], true);
    assert_eq!(setting("retention.ms")["is_set"], false);

    broker.run(&["topic", "delete", "a", "b", "--yes"]).ok();
    broker.run(&["topic", "delete", "a", "--yes"]).failed(1);
    broker
        .run(&["topic", "delete", "a", "--yes", "--if-exists"])
        .ok();
    assert_eq!(broker.run(&["topic", "list", "--json"]).text(), "[]\n");
}

#[test]
fn trimming_by_offset_time_and_to_the_end() {
    let Some(broker) = Broker::start() else {
        return;
    };
    broker.run(&["topic", "create", "t"]).ok();
    let lines = (0..10).map(|n| format!("{{\"value\":\"{n}\",\"timestamp_ms\":{}}}\n", 1_000 * n));
    let lines: String = lines.collect();
    broker
        .run_with(&["produce", "t", "--format", "json"], lines.as_bytes())
        .ok();

    let first = || broker.run(&["consume", "t", "-n", "1"]).text();
    assert_eq!(first(), "0\n");
    let trimmed = broker
        .run(&["topic", "trim", "t", "--before", "3", "--json"])
        .json();
    assert_eq!(trimmed[0]["log_start_offset"], 3);
    assert_eq!(first(), "3\n");
    let time = "1970-01-01T00:00:04.500Z";
    broker.run(&["topic", "trim", "t", "--before", time]).ok();
    assert_eq!(first(), "5\n");
    broker
        .run(&[
            "topic",
            "trim",
            "t",
            "--before",
            "@7000",
            "--partition",
            "0",
        ])
        .ok();
    assert_eq!(first(), "7\n");
    broker
        .run(&["topic", "trim", "t", "--before", "99"])
        .failed(1);
    broker.run(&["topic", "trim", "t", "--before", "end"]).ok();
    assert_eq!(first(), "");
    let described = broker.run(&["topic", "describe", "t", "--json"]).json();
    assert_eq!(described[0]["partitions"][0]["log_start_offset"], 10);
    assert_eq!(described[0]["partitions"][0]["high_watermark"], 10);
}

#[test]
fn describe_shows_offsets_and_sizes() {
    let Some(broker) = Broker::start() else {
        return;
    };
    broker.run(&["topic", "create", "t", "-p", "2"]).ok();
    broker
        .run_with(&["produce", "t", "-p", "1"], b"a\nb\nc\n")
        .ok();
    let described = broker.run(&["topic", "describe", "t", "--json"]).json();
    let partition = &described[0]["partitions"][1];
    assert_eq!(partition["partition"], 1);
    assert_eq!(partition["high_watermark"], 3);
    assert_eq!(partition["log_end_offset"], 3);
    assert!(partition["logical_bytes"].as_u64().unwrap() > 3);
    assert!(partition["oldest_append_ms"].as_i64() > Some(1_600_000_000_000));
    assert!(described[0]["partitions"][0]["oldest_append_ms"].is_null());
    assert!(partition["physical_bytes"].as_u64() >= partition["logical_bytes"].as_u64());
    let shown = broker.run(&["topic", "describe", "t"]).text();
    assert!(shown.contains("PARTITION  START  END"), "{shown}");
    assert!(shown.contains("durability=flushed (default)"), "{shown}");
}
