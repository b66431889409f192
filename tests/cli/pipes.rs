//! Pipes: a reader that goes away, a writer that waits.

use std::{
    io::{BufRead, BufReader, Read, Write},
    process::Stdio,
};

use crate::broker::Broker;

#[test]
fn a_reader_that_goes_is_no_failure() {
    let Some(broker) = Broker::start() else {
        return;
    };
    broker.run(&["topic", "create", "t"]).ok();
    let text = "a line that fills the pipe soon enough\n".repeat(50_000);
    broker.run_with(&["produce", "t"], text.as_bytes()).ok();
    for args in [
        &["consume", "t"][..],
        &["consume", "t", "--format", "json", "--follow"],
    ] {
        let mut child = broker
            .command(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert!(line.contains("a line that fills"), "{line}");
        drop(stdout);
        let mut said = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut said)
            .unwrap();
        assert!(child.wait().unwrap().success(), "{said}");
        assert_eq!(said, "");
    }
}

#[test]
fn what_is_piped_in_slowly_arrives_at_once() {
    let Some(broker) = Broker::start() else {
        return;
    };
    broker.run(&["topic", "create", "t"]).ok();
    let mut reader = broker
        .command(&["consume", "t", "--follow", "-n", "3"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut writer = broker
        .command(&["produce", "t"])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = writer.stdin.take().unwrap();
    let mut output = BufReader::new(reader.stdout.take().unwrap());
    for word in ["one\n", "two\n", "three\n"] {
        input.write_all(word.as_bytes()).unwrap();
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line, word);
    }
    drop(input);
    assert!(writer.wait().unwrap().success());
    assert!(reader.wait().unwrap().success());
}

#[test]
fn a_full_disk_behind_standard_output_is_a_failure() {
    let Some(broker) = Broker::start() else {
        return;
    };
    broker.run(&["topic", "create", "t"]).ok();
    broker.run_with(&["produce", "t"], b"a\n").ok();
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let status = broker
        .command(&["consume", "t"])
        .stdout(full)
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(1));
}
