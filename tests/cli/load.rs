//! The load generator: what it sends arrives, and what is amiss is found.

use std::{
    fs,
    process::{Child, Stdio},
};

use serde_json::Value;

use crate::broker::Broker;

fn results(path: &std::path::Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn everything_sent_is_read_and_verified() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let json = broker.scratch().join("both.json");
    let path = json.to_str().unwrap();
    let args = [
        "bench",
        "both",
        "--verify",
        "--records",
        "20k",
        "--partitions",
        "3",
        "--connections",
        "2",
        "--record-size",
        "100",
        "--json",
        path,
    ];
    let said = broker.run(&args).text();
    assert!(
        said.contains("created topic \"loadgen\": 3 partitions"),
        "{said}"
    );
    assert!(said.contains("all is well"), "{said}");
    let found = results(&json);
    assert_eq!(found["ok"], true);
    assert_eq!(found["verify"]["received"], 20_000);
    assert_eq!(found["verify"]["acknowledged"], 20_000);
    for direction in ["produce", "consume"] {
        let total = &found[direction]["total"];
        assert_eq!(total["records"], 20_000, "{direction}");
        assert_eq!(total["bytes"], 2_000_000, "{direction}");
        assert!(total["latency_us"]["p99"].as_u64() > Some(0), "{direction}");
    }
    let again = broker
        .run(&["bench", "consume", "--verify", "--json", "-"])
        .json();
    assert_eq!(again["verify"]["received"], 20_000);
}

#[test]
fn a_rate_is_kept() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let args = [
        "bench",
        "produce",
        "--rate",
        "500",
        "--duration",
        "2s",
        "--json",
        "-",
    ];
    let found = broker.run(&args).json();
    let total = &found["produce"]["total"];
    let (records, seconds) = (total["records"].as_f64(), total["seconds"].as_f64());
    let rate = records.unwrap() / seconds.unwrap();
    // A busy machine may leave the last few unsent.
    assert!((450.0..=525.0).contains(&rate), "{rate} records/s at 500/s");
}

#[test]
fn a_loss_is_found_by_the_state_file() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let state = broker.scratch().join("state.json");
    let state = state.to_str().unwrap();
    let produce = [
        "bench",
        "produce",
        "--verify",
        "--state",
        state,
        "--records",
        "1000",
    ];
    broker.run(&produce).ok();
    let check = ["bench", "consume", "--verify", "--state", state];
    let said = broker.run(&check).text();
    assert!(
        said.contains("received 1,000 of 1,000 acknowledged: lost 0"),
        "{said}"
    );

    // A broker that forgot everything: the same topic, empty.
    broker.run(&["topic", "delete", "loadgen", "--yes"]).ok();
    broker.run(&["topic", "create", "loadgen"]).ok();
    let lost = broker.run(&check);
    assert_eq!(lost.status.code(), Some(1));
    let said = String::from_utf8(lost.stdout).unwrap();
    assert!(said.contains("lost 1,000"), "{said}");
}

/// Waits until the generator has printed its first line of figures.
fn await_figures(child: &mut Child) -> std::io::BufReader<std::process::ChildStdout> {
    use std::io::{BufRead, BufReader};
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains(" MB/s ") {
        line.clear();
        assert_ne!(lines.read_line(&mut line).unwrap(), 0, "it ended early");
    }
    lines
}

#[test]
fn a_crash_of_the_broker_loses_nothing_that_was_acknowledged() {
    let Some(mut broker) = Broker::start() else {
        return;
    };
    let state = broker.scratch().join("state.json");
    let state = state.to_str().unwrap().to_owned();
    let args = [
        "bench",
        "both",
        "--verify",
        "--duration",
        "4s",
        "--rate",
        "5k",
        "--partitions",
        "4",
        "--record-size",
        "200",
        "--state",
        &state,
    ];
    let mut load = broker
        .command(&args)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = await_figures(&mut load);
    broker.crash();
    let mut said = String::new();
    std::io::Read::read_to_string(&mut lines, &mut said).unwrap();
    assert!(load.wait().unwrap().success(), "{said}");
    assert!(said.contains("all is well"), "{said}");
    broker.crash();
    let check = ["bench", "consume", "--verify", "--state", &state];
    let said = broker.run(&check).text();
    assert!(
        said.contains("lost 0, repeated 0, reordered 0, corrupt 0"),
        "{said}"
    );
}

#[test]
fn an_interrupt_gives_results_so_far() {
    use rustix::process::{Pid, Signal, kill_process};
    let Some(broker) = Broker::start() else {
        return;
    };
    let args = [
        "bench",
        "produce",
        "--duration",
        "1h",
        "--rate",
        "1k",
        "--json",
        "-",
    ];
    let mut load = broker
        .command(&args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // With --json - people's lines go to standard error.
    let mut lines = std::io::BufReader::new(load.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains(" MB/s ") {
        line.clear();
        assert_ne!(
            std::io::BufRead::read_line(&mut lines, &mut line).unwrap(),
            0
        );
    }
    let pid = i32::try_from(load.id())
        .ok()
        .and_then(Pid::from_raw)
        .unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let mut said = String::new();
    std::io::Read::read_to_string(&mut lines, &mut said).unwrap();
    let output = load.wait_with_output().unwrap();
    assert!(output.status.success(), "{said}");
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(found["produce"]["total"]["records"].as_u64() > Some(0));
    assert_eq!(found["unanswered"], 0);
}

#[test]
fn delayed_records_come_once_and_not_early() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let args = [
        "bench",
        "delay",
        "--records",
        "2k",
        "--partitions",
        "3",
        "--after",
        "2s",
        "--over",
        "1s",
        "--beside",
        "100",
    ];
    let said = broker.run(&args).text();
    let wanted = "delivered 2,000, 0 missing, 0 early, 0 repeated, 0 out of order, 0 of nobody";
    assert!(said.contains(wanted), "{said}");
    assert!(said.contains("pending   2,000"), "{said}");
    assert!(said.contains("while they fell due"), "{said}");
}
