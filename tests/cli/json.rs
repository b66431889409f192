//! Whatever a record holds, `consume --format json | produce --format json` carries it.

use std::cell::Cell;

use proptest::{collection::vec, option, prelude::*, test_runner::TestRunner};
use serde_json::{Value, json};

use crate::broker::Broker;

/// A field as the JSON has it: text, base64 of bytes that are no text, or null.
fn field(name: &'static str) -> impl Strategy<Value = (String, Value)> {
    let text = any::<String>().prop_map(move |text| (name.to_owned(), Value::from(text)));
    // "/w==" is 0xff, "gIGC" 0x80 0x81 0x82: no UTF-8 begins so.
    let bytes = prop_oneof![Just("/w=="), Just("gIGC"), Just("/gD/")]
        .prop_map(move |base64| (format!("{name}_base64"), Value::from(base64)));
    let null = Just((name.to_owned(), Value::Null));
    prop_oneof![3 => text, 1 => bytes, 1 => null]
}

fn header() -> impl Strategy<Value = Value> {
    (
        prop_oneof![Just("a".to_owned()), any::<String>()],
        field("value"),
    )
        .prop_map(|(name, (key, value))| {
            let mut header = json!({ "name": name });
            header[key] = value;
            header
        })
}

fn record() -> impl Strategy<Value = Value> {
    let time = 0_i64..1_700_000_000_000;
    (
        field("key"),
        field("value"),
        time,
        option::of(vec(header(), 1..4)),
        0_u32..2,
    )
        .prop_map(|(key, value, timestamp_ms, headers, partition)| {
            let mut record = json!({ "timestamp_ms": timestamp_ms, "partition": partition });
            record[key.0] = key.1;
            record[value.0] = value.1;
            if let Some(headers) = headers {
                record["headers"] = headers.into();
            }
            record
        })
}

fn lines(records: &[Value], ending: &str) -> Vec<u8> {
    let lines: Vec<String> = records.iter().map(ToString::to_string).collect();
    let mut text = lines.join("\n");
    text.push_str(ending);
    text.into_bytes()
}

/// What was read of one partition, without where it was read.
fn read(broker: &Broker, topic: &str, partition: u32) -> (Vec<u8>, Vec<Value>) {
    let partition = partition.to_string();
    let args = ["consume", topic, "--format", "json", "-p", &partition];
    let bytes = broker.run(&args).ok();
    let records = bytes
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| {
            let mut record: Value = serde_json::from_slice(line).expect("a JSON line");
            assert_eq!(record["topic"], topic);
            let fields = record.as_object_mut().unwrap();
            fields.remove("topic");
            assert!(fields.remove("offset").is_some());
            record
        });
    let records = records.collect();
    (bytes, records)
}

#[test]
fn generated_records_survive_the_pipe() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 8,
        ..ProptestConfig::default()
    });
    let cases = Cell::new(0);
    let outcome = runner.run(
        &(vec(record(), 0..40), prop_oneof![Just(""), Just("\n")]),
        |(records, ending)| {
            let case = cases.replace(cases.get() + 1);
            let (from, to) = (format!("from-{case}"), format!("to-{case}"));
            broker.run(&["topic", "create", &from, &to, "-p", "2"]).ok();
            broker
                .run_with(
                    &["produce", &from, "--format", "json"],
                    &lines(&records, ending),
                )
                .ok();
            for partition in [0, 1] {
                let (bytes, read_back) = read(&broker, &from, partition);
                let want: Vec<&Value> = records
                    .iter()
                    .filter(|record| record["partition"] == partition)
                    .collect();
                prop_assert_eq!(read_back.iter().collect::<Vec<_>>(), want);
                broker
                    .run_with(&["produce", &to, "--format", "json"], &bytes)
                    .ok();
                let (_, copied) = read(&broker, &to, partition);
                prop_assert_eq!(copied, read_back);
            }
            Ok(())
        },
    );
    outcome.unwrap();
}

#[test]
fn a_text_without_final_newline_survives_as_json_too() {
    let Some(broker) = Broker::start() else {
        return;
    };
    broker.run(&["topic", "create", "a", "b"]).ok();
    broker.run_with(&["produce", "a"], b"x\n\xff\ny").ok();
    let json = broker.run(&["consume", "a", "--format", "json"]).ok();
    broker
        .run_with(&["produce", "b", "--format", "json"], &json)
        .ok();
    assert_eq!(broker.run(&["consume", "b"]).ok(), b"x\n\xff\ny");
}

#[test]
fn lines_that_are_no_records_are_named() {
    let Some(broker) = Broker::start() else {
        return;
    };
    broker.run(&["topic", "create", "t"]).ok();
    for (line, word) in [
        ("{\"value\":\"a\",\"valeu\":1}", "valeu"),
        ("{\"key\":\"a\"}", "no value"),
        ("hello", "line 2"),
        ("{\"value\":\"a\",\"partition\":7}", "partition 7"),
    ] {
        let input = format!("{{\"value\":\"ok\"}}\n{line}\n");
        let said = broker
            .run_with(&["produce", "t", "--format", "json"], input.as_bytes())
            .failed(1);
        assert!(said.contains("line 2") && said.contains(word), "{said}");
    }
    let repaired = ["produce", "t", "--format", "json", "--ignore-partition"];
    broker
        .run_with(&repaired, b"{\"value\":\"a\",\"partition\":7}")
        .ok();
}
