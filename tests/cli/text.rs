//! Text goes in and comes back, byte for byte.

use crate::broker::Broker;

/// Lines that tempt a careless reader, without a line feed at the end.
fn awkward_text(lines: usize) -> Vec<u8> {
    let mut text = Vec::new();
    for number in 0..lines {
        match number % 7 {
            0 => text.extend_from_slice(format!("line {number}\r\n").as_bytes()),
            1 => text.push(b'\n'),
            2 => text.extend_from_slice(b"\xff\xfe broken \xc3\x28 UTF-8\n"),
            3 => text.extend_from_slice(b"\r\n"),
            4 => text.extend_from_slice("größer \u{2028} \u{85} 行\n".as_bytes()),
            5 => text.extend_from_slice(b"a\rb\x00c\x1b[0m\t\n"),
            _ => text.extend_from_slice(format!("{}\n", "x".repeat(number % 500)).as_bytes()),
        }
    }
    text.extend_from_slice(b"the end\r");
    text
}

#[test]
fn a_file_comes_back_before_and_after_a_restart() {
    let Some(mut broker) = Broker::start() else {
        return;
    };
    broker.run(&["topic", "create", "t"]).ok();
    let text = awkward_text(200_000);
    let produced = broker.run_with(&["produce", "t", "--partition", "0"], &text);
    assert_eq!(
        produced.stderr,
        "200,001 record(s) written to topic \"t\"\n"
    );
    assert!(produced.ok().is_empty(), "the count is no data");
    assert!(
        broker.run(&["consume", "t"]).ok() == text,
        "before the restart"
    );
    broker.restart();
    assert!(
        broker.run(&["consume", "t"]).ok() == text,
        "after the restart"
    );
    broker.crash();
    assert!(broker.run(&["consume", "t"]).ok() == text, "after a crash");
}

#[test]
fn small_texts_too() {
    let Some(broker) = Broker::start() else {
        return;
    };
    for (number, text) in ["", "\n", "a", "a\n", "\n\n", "\r", "a\n\nb"]
        .into_iter()
        .enumerate()
    {
        let topic = format!("t{number}");
        broker.run(&["topic", "create", &topic]).ok();
        broker.run_with(&["produce", &topic], text.as_bytes()).ok();
        assert_eq!(broker.run(&["consume", &topic]).text(), text);
    }
}

#[test]
fn keys_headers_tombstones_and_partitions() {
    let Some(broker) = Broker::start() else {
        return;
    };
    broker.run(&["topic", "create", "t", "-p", "2"]).ok();
    let keyed = [
        "produce",
        "t",
        "--key-separator",
        "::",
        "-p",
        "1",
        "--header",
        "h=1",
        "--header",
        "h=2",
    ];
    broker.run_with(&keyed, b"a::1\nb::\n::c::d\n").ok();
    broker
        .run_with(&["produce", "t", "--tombstone", "-p", "1"], b"a\n")
        .ok();
    let back = broker
        .run(&["consume", "t", "--key-separator", "::"])
        .text();
    assert_eq!(back, "a::1\nb::\n::c::d\na::\n");
    let json = broker.run(&["consume", "t", "--format", "json"]).text();
    let records: Vec<serde_json::Value> = json
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        records[0]["headers"][1],
        serde_json::json!({"name": "h", "value": "2"})
    );
    assert_eq!(records[3]["key"], "a");
    assert!(records[3]["value"].is_null());
    assert!(records.iter().all(|record| record["partition"] == 1));

    let bad = broker
        .run_with(&["produce", "t", "--key-separator", "::"], b"x::1\noops\n")
        .failed(1);
    assert!(bad.contains("line 2"), "{bad}");
    assert!(bad.contains("1 record(s) written"), "{bad}");
}

#[test]
fn places_to_begin_and_to_stop() {
    let Some(broker) = Broker::start() else {
        return;
    };
    broker.run(&["topic", "create", "t"]).ok();
    broker.run(&["topic", "create", "u"]).ok();
    let lines: String = (0..10)
        .map(|n| format!("{{\"value\":\"{n}\",\"timestamp_ms\":{n}}}\n"))
        .collect();
    broker
        .run_with(&["produce", "t", "--format", "json"], lines.as_bytes())
        .ok();
    broker.run_with(&["produce", "u"], b"x\n").ok();
    let consume = |args: &[&str]| {
        let args = [&["consume", "t"], args].concat();
        broker.run(&args).text().replace('\n', "")
    };
    assert_eq!(consume(&[]), "0123456789");
    assert_eq!(consume(&["--from", "7"]), "789");
    assert_eq!(consume(&["--from", "@4", "-n", "2"]), "45");
    assert_eq!(consume(&["--from", "1970-01-01T00:00:00.009Z"]), "9");
    assert_eq!(consume(&["--from", "-1h"]), "");
    assert_eq!(consume(&["--from", "end"]), "");
    assert_eq!(consume(&["--from", "beginning", "--max-records", "0"]), "");
    assert_eq!(consume(&["--follow", "-n", "3"]), "012");
    let both = broker.run(&["consume", "t", "u"]).text();
    assert_eq!(both.lines().count(), 11);
    broker.run(&["consume", "t", "--from", "11"]).failed(1);
    broker.run(&["consume", "t", "--partition", "1"]).failed(1);
}
