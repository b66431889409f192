//! Exit statuses: 1 it failed, 2 the command line is wrong; and what is said.

use crate::broker::{Broker, Run, millstream};

/// A port of loopback that nothing listens on: bound, and never listening.
fn nobody(args: &[&str]) -> Run {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let server = holder.local_addr().unwrap().to_string();
    drop(holder);
    let mut command = millstream(args);
    command.env("MILLSTREAM_SERVER", server);
    Run::of(command, b"")
}

#[test]
fn no_broker() {
    for args in [
        &["status"][..],
        &["status", "--wait", "50ms"],
        &["topic", "list"],
        &["produce", "t"],
        &["produce", "t", "--timeout", "50ms"],
        &["consume", "t"],
        &["bench", "produce", "--records", "1"],
    ] {
        let said = nobody(args).failed(1);
        assert!(
            said.contains("cannot connect to 127.0.0.1:"),
            "{args:?}: {said}"
        );
        assert_eq!(said.lines().count(), 1, "{args:?}: {said}");
    }
}

/// Something that accepts and says nothing, as a broker that hangs.
#[test]
fn a_produce_that_gets_no_answer_gives_up_in_its_time() {
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = millstream(&["produce", "t", "--timeout", "300ms"]);
    command.env("MILLSTREAM_SERVER", mute.local_addr().unwrap().to_string());
    let said = Run::of(command, b"").failed(1);
    assert!(said.contains("no answer from 127.0.0.1:"), "{said}");
    assert!(said.contains("within 300ms"), "{said}");
}

#[test]
fn a_produce_waits_for_a_broker_that_is_away_at_first() {
    let Some(mut broker) = Broker::start() else {
        return;
    };
    broker.run(&["topic", "create", "t"]).ok();
    broker.stop();
    let patient = broker.command(&["produce", "t", "--timeout", "60s"]);
    let waiting = std::thread::spawn(move || Run::of(patient, b"late\n"));
    broker.start_again();
    waiting.join().expect("it ends").ok();
    assert_eq!(broker.run(&["consume", "t"]).ok(), b"late\n");
}

#[test]
fn wrong_command_lines() {
    for args in [
        &["frobnicate"][..],
        &["topic", "create"],
        &["topic", "create", "t", "--config", "novalue"],
        &["topic", "alter", "t"],
        &["topic", "delete", "t"],
        &["topic", "trim", "t", "--before", "yesterday"],
        &["consume"],
        &["consume", "t", "--from", "-5"],
        &["consume", "t", "--format", "json", "--key-separator", ":"],
        &["produce", "t", "--tombstone", "--key-separator", ":"],
        &["produce", "t", "--format", "json", "--tombstone"],
        &["produce", "t", "--header", "millstream.x=1"],
        &["status", "--wait", "10"],
        &["bench", "both", "--verify", "--record-size", "10"],
        &["bench", "produce", "--state", "x"],
    ] {
        nobody(args).failed(2);
    }
}

#[test]
fn topics_that_are_not_there() {
    let Some(broker) = Broker::start() else {
        return;
    };
    for args in [
        &["topic", "describe", "nope"][..],
        &["topic", "alter", "nope", "--config", "durability=buffered"],
        &["topic", "trim", "nope", "--before", "end"],
        &["topic", "add-partitions", "nope", "--total", "2"],
        &["produce", "nope"],
        &["consume", "nope"],
        &["bench", "consume", "--topic", "nope"],
    ] {
        let said = broker.run_with(args, b"x\n").failed(1);
        assert!(said.contains("nope"), "{args:?}: {said}");
    }
    for args in [
        &["topic", "alter", "nope", "--reset", "durability"][..],
        &["topic", "delete", "nope", "--yes"],
    ] {
        let said = broker.run(args).failed(1);
        assert!(said.contains("no such topic"), "{args:?}: {said}");
        assert!(!said.contains("create"), "{args:?}: {said}");
    }
    broker.run(&["topic", "create", "../etc"]).failed(1);
    broker
        .run(&["topic", "create", "t", "--config", "no.such=1"])
        .failed(1);
    broker.run(&["topic", "create", "t", "-p", "2"]).ok();
    broker
        .run(&["topic", "trim", "t", "--before", "0"])
        .failed(2);
    broker
        .run(&["topic", "add-partitions", "t", "--total", "1"])
        .failed(1);
}

#[test]
fn topics_that_cannot_be_created_do_not_keep_others_from_it() {
    let Some(broker) = Broker::start() else {
        return;
    };
    broker.run(&["topic", "create", "old"]).ok();
    let create = ["topic", "create", "new1", "old", "../etc", "new2"];
    let said = broker.run(&create).failed(1);
    assert!(
        said.contains("\"old\"") && said.contains("\"../etc\""),
        "{said}"
    );
    assert!(!said.contains("new"), "{said}");
    let listed = broker.run(&["topic", "list"]).text();
    assert!(
        listed.contains("new1") && listed.contains("new2"),
        "{listed}"
    );
}

#[test]
fn a_line_that_is_too_large_is_named() {
    let Some(broker) = Broker::start() else {
        return;
    };
    broker.run(&["topic", "create", "t"]).ok();
    let input = format!("a\n{}\nb\n", "x".repeat(5 << 20));
    let said = broker
        .run_with(&["produce", "t"], input.as_bytes())
        .failed(1);
    assert!(
        said.contains("line 2") && said.contains("BatchTooLarge"),
        "{said}"
    );
}

#[test]
fn status_is_true_as_soon_as_the_broker_is_ready() {
    let Some(mut broker) = Broker::start() else {
        return;
    };
    broker.run(&["topic", "create", "t", "-p", "3"]).ok();
    broker.restart();
    let status = broker.run(&["status", "--json"]).json();
    assert_eq!(status["brokers"][0]["partitions"], 3, "{status}");
}

#[test]
fn status_says_how_the_broker_fares() {
    let Some(broker) = Broker::start() else {
        return;
    };
    broker.run(&["topic", "create", "t", "-p", "3"]).ok();
    // Gauges are refreshed each second or so: ask until they are.
    let status = (0..1_000)
        .map(|_| broker.run(&["status", "--json"]).json())
        .find(|status| status["brokers"][0]["partitions"] == 3)
        .expect("the partitions are counted");
    assert_eq!(status["brokers"][0]["partitions_failed"], 0);
    assert_eq!(status["brokers"][0]["shards"], 2);
    let shown = broker.run(&["status", "--server", broker.server()]).text();
    assert!(shown.starts_with("broker 0 is up for "), "{shown}");
}

#[test]
fn errors_say_what_to_type() {
    let Some(mut broker) = Broker::start() else {
        return;
    };
    broker.run(&["topic", "create", "t"]).ok();
    let lines: Vec<u8> = (0..100)
        .flat_map(|n| format!("{n}\n").into_bytes())
        .collect();
    broker.run_with(&["produce", "t"], &lines).ok();
    broker.run(&["topic", "trim", "t", "--before", "40"]).ok();
    let said = broker.run(&["consume", "t", "--from", "10"]).failed(1);
    assert!(said.contains("it holds 40 to 100"), "{said}");
    assert!(said.contains("--from beginning"), "{said}");
    let large = vec![b'x'; 5_000_000];
    let said = broker.run_with(&["produce", "t"], &large).failed(1);
    let alter = "millstream topic alter t --config max.batch.bytes=";
    assert!(said.contains(alter), "{said}");
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let mut consume = broker.command(&["consume", "t"]);
    let output = consume.stdout(full).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("standard output"), "{said}");
    let json = ["produce", "t", "--format", "json"];
    let said = broker.run_with(&json, b"{\"value\":\"a\"}\n\n").failed(1);
    assert!(said.contains("line 2: the line is empty"), "{said}");

    // What was trimmed and is still in the files is not dumped unasked.
    broker.stop();
    let data = broker.data_dir();
    let data = data.to_str().unwrap();
    let dump = broker.run(&["log", "dump", data, "--records"]);
    assert!(
        dump.stderr.contains("skipped 40 records"),
        "{}",
        dump.stderr
    );
    assert_eq!(dump.text().lines().count(), 61);
    let all = ["log", "dump", data, "--records", "--trimmed"];
    assert_eq!(broker.run(&all).text().lines().count(), 101);
}

#[test]
fn files_are_no_directories_and_settings_have_bounds() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let said = nobody(&["log", "verify", path]).failed(1);
    assert!(said.contains("is a file"), "{said}");
    if !crate::broker::has_io_uring() {
        return;
    }
    let said = nobody(&["serve", "--data-dir", path]);
    let told = format!("{}{}", said.stderr, String::from_utf8_lossy(&said.stdout));
    assert_eq!(said.status.code(), Some(1), "{told}");
    assert!(told.contains("is a file"), "{told}");
    let said = nobody(&["serve", "--data-dir", path, "--memory", "15TiB"]).failed(1);
    assert!(said.contains("--memory 15 TiB is more than"), "{said}");
}

#[test]
fn a_misspelt_variable_is_told_with_the_nearest() {
    let mut command = millstream(&["topic", "list", "--server", "127.0.0.1:1"]);
    command.env("MILLSTREAM_SERVR", "x");
    let said = Run::of(command, b"").failed(1);
    assert!(said.contains("MILLSTREAM_SERVR"), "{said}");
    assert!(said.contains("did you mean MILLSTREAM_SERVER?"), "{said}");
}
