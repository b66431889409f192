//! Delayed records from the command line: invisible until due, once, taken back, counted.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::broker::Broker;

fn consumed(broker: &Broker, topic: &str) -> Vec<Value> {
    let text = broker.run(&["consume", topic, "--format", "json"]).text();
    let records = text.lines().map(|line| serde_json::from_str(line).unwrap());
    records.collect()
}

/// Waits until so many records can be read.
#[expect(
    clippy::disallowed_methods,
    reason = "a test waits for another process"
)]
fn await_records(broker: &Broker, topic: &str, count: usize) -> Vec<Value> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let records = consumed(broker, topic);
        if records.len() >= count {
            return records;
        }
        assert!(Instant::now() < deadline, "{records:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test waits for another process"
)]
fn pause() {
    std::thread::sleep(Duration::from_millis(300));
}

fn pending(broker: &Broker, topic: &str) -> u64 {
    let counts = broker.run(&["delay", "count", topic, "--json"]).json();
    let counts = counts.as_array().unwrap();
    counts
        .iter()
        .map(|it| it["pending"].as_u64().unwrap())
        .sum()
}

#[test]
fn a_delayed_record_comes_when_it_is_due() {
    let Some(broker) = Broker::start() else {
        return;
    };
    broker.run(&["topic", "create", "t", "-p", "3"]).ok();
    let delay = ["produce", "t", "--delay", "1500ms"];
    broker.run_with(&delay, b"later\n").ok();
    broker.run_with(&["produce", "t"], b"now\n").ok();
    assert_eq!(pending(&broker, "t"), 1);
    let records = consumed(&broker, "t");
    assert_eq!((records.len(), &records[0]["value"]), (1, &"now".into()));
    let records = await_records(&broker, "t", 2);
    let later = records.iter().find(|it| it["value"] == "later").unwrap();
    let headers = later["headers"].to_string();
    assert!(
        headers.contains("millstream.original-timestamp"),
        "{headers}"
    );
    assert!(headers.contains("millstream.deliver-at"), "{headers}");
    assert_eq!(pending(&broker, "t"), 0);
}

#[test]
fn what_waits_survives_a_kill_and_can_be_taken_back() {
    let Some(mut broker) = Broker::start() else {
        return;
    };
    broker.run(&["topic", "create", "t"]).ok();
    for id in ["a", "b", "c"] {
        let args = ["produce", "t", "--delay", "1h", "--delay-id", id];
        broker
            .run_with(&args, format!("first {id}\n").as_bytes())
            .ok();
    }
    // The same id again: it comes at once, and the other never.
    let past = ["produce", "t", "--at", "@0", "--delay-id", "b"];
    broker.run_with(&past, b"second b\n").ok();
    let records = await_records(&broker, "t", 1);
    assert_eq!(records[0]["value"], "second b");
    broker.crash();
    assert_eq!(pending(&broker, "t"), 2);
    let listed = broker.run(&["delay", "list", "t", "--json"]).json();
    let ids: Vec<&Value> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["id"])
        .collect();
    assert_eq!(ids, ["a", "c"]);
    let number = listed[0]["delay_id"].as_i64().unwrap();
    let name = format!("0:{number}");
    let cancel = |args: &[&str]| broker.run(&[&["delay", "cancel", "t"], args].concat());
    assert_eq!(cancel(&["--id", "a"]).text(), "a cancelled\n");
    assert_eq!(
        cancel(&[&name]).text(),
        format!("{name} cancelled\n"),
        "asked again"
    );
    let too_late = cancel(&["--id", "b", "--id", "x"]);
    assert_eq!(too_late.status.code(), Some(1));
    let printed = String::from_utf8(too_late.stdout).unwrap();
    assert_eq!(printed, "b delivered\nx unknown\n");
    let described = broker.run(&["topic", "describe", "t"]).text();
    assert!(
        described.contains("1 delayed record waiting"),
        "{described}"
    );
    let deleted = broker.run(&["topic", "delete", "t", "--yes"]).text();
    assert!(
        deleted.contains("1 delayed record that waited"),
        "{deleted}"
    );
}

#[test]
fn a_due_time_beyond_the_horizon_is_refused() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let create = ["topic", "create", "t", "-c", "delay.horizon.ms=1h"];
    broker.run(&create).ok();
    let refused = broker
        .run_with(&["produce", "t", "--delay", "2h"], b"x\n")
        .failed(1);
    assert!(refused.contains("delay.horizon.ms"), "{refused}");
    broker
        .run_with(&["produce", "t", "--delay", "59m"], b"x\n")
        .ok();
    broker
        .run(&["topic", "alter", "t", "-c", "delay.horizon.ms=3h"])
        .ok();
    broker
        .run_with(&["produce", "t", "--delay", "2h"], b"x\n")
        .ok();
    assert_eq!(pending(&broker, "t"), 2);
}

/// A delayed record competes where it is delivered, not where it was accepted.
#[test]
fn on_a_compacted_topic_the_later_delivery_wins() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let settings = [
        "-c",
        "cleanup.policy=compact",
        "-c",
        "segment.ms=1s",
        "-c",
        "min.cleanable.dirty.ratio=0",
    ];
    let create = ["topic", "create", "t"];
    broker.run(&[&create[..], &settings].concat()).ok();
    let keyless = ["produce", "t", "--delay", "1s"];
    assert!(
        broker
            .run_with(&keyless, b"x\n")
            .failed(1)
            .contains("no key")
    );
    let delayed = ["produce", "t", "--delay", "300ms", "--key-separator", ":"];
    broker.run_with(&delayed, b"k:accepted first\n").ok();
    let now = ["produce", "t", "--key-separator", ":"];
    broker.run_with(&now, b"k:between\n").ok();
    await_records(&broker, "t", 2);
    // Something behind it, so that its segment is closed and compacted.
    let records = loop {
        broker.run_with(&now, b"other:x\n").ok();
        let records = consumed(&broker, "t");
        if records.iter().all(|it| it["value"] != "between") {
            break records;
        }
        pause();
    };
    let mine = records.iter().filter(|it| it["key"] == "k");
    let mine: Vec<&Value> = mine.map(|it| &it["value"]).collect();
    assert_eq!(mine, ["accepted first"]);
}

#[test]
fn what_is_past_its_time_to_live_is_not_read() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let settings = ["-c", "cleanup.policy=compact", "-c", "ttl.ms=1h"];
    let refused = broker.run(&[&["topic", "create", "c"][..], &settings].concat());
    assert!(refused.failed(1).contains("ttl.ms"));
    broker
        .run(&["topic", "create", "t", "-c", "ttl.ms=1h"])
        .ok();
    broker.run(&["topic", "create", "all"]).ok();
    let record = |ago_ms: i64, value: &str| {
        let timestamp_ms = now_ms() - ago_ms;
        format!("{{\"timestamp_ms\":{timestamp_ms},\"value\":\"{value}\"}}\n")
    };
    let old = record(7_200_000, "old").repeat(3);
    let straddles = record(7_200_000, "old too") + &record(60_000, "fresh");
    for topic in ["t", "all"] {
        for lines in [&old, &straddles, &old] {
            let args = ["produce", topic, "--format", "json"];
            broker.run_with(&args, lines.as_bytes()).ok();
        }
    }
    assert_eq!(consumed(&broker, "all").len(), 8);
    let values: Vec<Value> = consumed(&broker, "t")
        .into_iter()
        .map(|it| it["value"].clone())
        .collect();
    assert_eq!(values, ["fresh"]);
    let alter = [
        "topic",
        "alter",
        "t",
        "-c",
        "cleanup.policy=compact",
        "--force",
    ];
    assert!(broker.run(&alter).failed(1).contains("ttl.ms"));
}

#[expect(clippy::disallowed_methods, reason = "records carry wall time")]
fn now_ms() -> i64 {
    let now = std::time::SystemTime::now();
    let since = now
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    i64::try_from(since.as_millis()).expect("some time to go")
}
