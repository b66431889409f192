//! Damage to acknowledged data: every way to meet it says what is damaged, and where.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::broker::Broker;

/// The one partition's directory.
fn partition_dir(broker: &Broker) -> PathBuf {
    let topics = broker.data_dir().join("topics");
    let topic = fs::read_dir(topics).unwrap().next().expect("one topic");
    topic.unwrap().path().join("0")
}

/// Every way to meet the damage says this.
fn check_told(broker: &Broker, file: &Path, position: &str, below: &str) {
    let told = |said: &str| {
        let file = file.to_str().unwrap();
        let place = format!("{file} at position {position}");
        assert!(said.contains(&place), "{place} is not in: {said}");
        let offset = format!("from offset {below} on");
        assert!(said.contains(&offset), "{offset} is not in: {said}");
    };
    let log = broker.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("ERROR")).collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert!(lines[0].contains("t/0"), "{log}");
    told(lines[0]);
    told(&broker.run(&["topic", "describe", "t"]).text());
    let described = broker.run(&["topic", "describe", "t", "--json"]).json();
    told(described[0]["partitions"][0]["error"].as_str().unwrap());
    told(&broker.run_with(&["produce", "t"], b"more\n").failed(1));
    // Asked of the partition itself: the shards publish their counts a few times a second.
    assert_eq!(broker.run(&["status"]).status.code(), Some(1));
    let fails = |_| broker.run(&["status"]).status.code() == Some(1);
    assert!((0..500).any(fails), "status tells of no failed partition");
    let status = broker.run(&["status", "--json"]);
    assert_eq!(status.status.code(), Some(1));
    let said: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(said["failed_partitions"][0]["topic"], "t");
    told(said["failed_partitions"][0]["error"].as_str().unwrap());
    let status = broker.run(&["status"]);
    told(&status.stderr);
    assert!(status.stderr.contains("error: t/0: "), "{status:?}");
    assert!(
        status.stderr.contains("millstream topic describe t"),
        "{status:?}"
    );
}

#[test]
fn a_segment_that_is_gone_after_a_clean_stop() {
    let Some(mut broker) = Broker::start() else {
        return;
    };
    broker.run(&["topic", "create", "t"]).ok();
    broker.run_with(&["produce", "t"], b"one\ntwo\n").ok();
    broker.stop();
    let segment = partition_dir(&broker).join("00000000000000000000.log");
    fs::remove_file(&segment).unwrap();
    broker.start_damaged();
    check_told(&broker, &segment, "0", "0");
    let said = broker.run(&["consume", "t"]).failed(1);
    assert!(said.contains(segment.to_str().unwrap()), "{said}");
}

#[test]
fn what_lies_below_the_damage_is_consumed_and_then_the_damage_is_told() {
    let Some(mut broker) = Broker::start() else {
        return;
    };
    let small = ["topic", "create", "t", "--config", "segment.bytes=64KiB"];
    broker.run(&small).ok();
    let lines: Vec<String> = (0..4_000).map(|n| format!("line {n:060}\n")).collect();
    for part in lines.chunks(500) {
        broker
            .run_with(&["produce", "t"], part.concat().as_bytes())
            .ok();
    }
    broker.stop();
    let files = fs::read_dir(partition_dir(&broker)).unwrap();
    let files = files.map(|entry| entry.unwrap().path());
    let segments = files.filter(|path| path.extension().is_some_and(|ext| ext == "log"));
    let segment = segments.max().expect("a segment");
    let below: usize = segment
        .file_stem()
        .unwrap()
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(0 < below && below < lines.len(), "{below}");
    fs::remove_file(&segment).unwrap();
    broker.start_damaged();
    check_told(&broker, &segment, "0", &below.to_string());
    let consumed = broker.run(&["consume", "t"]);
    assert!(consumed.stdout == lines[..below].concat().as_bytes());
    let said = consumed.failed(1);
    assert!(said.contains(segment.to_str().unwrap()), "{said}");
}

#[test]
fn damage_that_is_met_when_it_is_read_leaves_what_is_below() {
    let Some(mut broker) = Broker::start() else {
        return;
    };
    broker.run(&["topic", "create", "t"]).ok();
    let lines: Vec<String> = (0..4_000).map(|n| format!("line {n:060}\n")).collect();
    for part in lines.chunks(250) {
        let part = part.concat();
        broker.run_with(&["produce", "t"], part.as_bytes()).ok();
    }
    // After a clean stop nothing is read at the start.
    broker.stop();
    let segment = partition_dir(&broker).join("00000000000000000000.log");
    let mut bytes = fs::read(&segment).unwrap();
    let place = bytes.windows(7).rposition(|it| it == b"line 00");
    let place = place.unwrap() / 2;
    let line = bytes[place..].windows(7).position(|it| it == b"line 00");
    bytes[place + line.unwrap()] ^= 1;
    fs::write(&segment, bytes).unwrap();
    broker.start_again();
    let consumed = broker.run(&["consume", "t"]);
    let said = consumed.stderr.clone();
    let count = consumed.stdout.iter().filter(|it| **it == b'\n').count();
    assert!(500 < count && count < 3_500, "{count}: {said}");
    assert!(consumed.stdout == lines[..count].concat().as_bytes());
    let position = said.split("position ").nth(1).expect("a position");
    let position = position.split(':').next().unwrap();
    consumed.failed(1);
    check_told(&broker, &segment, position, &count.to_string());
}
