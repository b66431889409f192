//! Consumer groups: read by members, listed, described, moved, deleted; across a kill of the broker.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, ChildStdout, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::broker::Broker;

/// `consume --group --follow` in the background.
struct Member {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Member {
    fn start(broker: &Broker, args: &[&str]) -> Self {
        let mut child = broker
            .command(&["consume", "--follow"])
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let lines = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, lines }
    }

    /// The next lines that it prints.
    fn read(&mut self, count: usize) -> Vec<String> {
        let line = |_| {
            let mut line = String::new();
            let read = self.lines.read_line(&mut line).expect("text");
            assert_ne!(read, 0, "the member ended early");
            line.trim().to_owned()
        };
        let mut lines: Vec<String> = (0..count).map(line).collect();
        lines.sort();
        lines
    }

    /// As Ctrl-C does: it commits and leaves.
    fn stop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process id"), Signal::INT).expect("our own process");
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "{status}");
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(from: usize, to: usize) -> String {
    (from..to).map(|n| format!("r{n:03}\n")).collect()
}

fn sorted(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn a_group_reads_once_and_its_offsets_are_moved() {
    let Some(broker) = Broker::start() else {
        return;
    };
    assert_eq!(broker.run(&["group", "list", "--json"]).text(), "[]\n");
    broker.run(&["topic", "create", "t", "-p", "4"]).ok();
    let records = lines(0, 20);
    broker.run_with(&["produce", "t"], records.as_bytes()).ok();
    let read = broker.run(&["consume", "t", "--group", "g"]).text();
    assert_eq!(sorted(&read), sorted(&records));
    assert_eq!(broker.run(&["consume", "t", "--group", "g"]).text(), "");

    let listed = broker.run(&["group", "list", "--json"]).json();
    assert_eq!(listed[0]["group"], "g");
    assert_eq!(listed[0]["state"], "empty");
    let described = broker.run(&["group", "describe", "g", "--json"]).json();
    let partitions = described["partitions"].as_array().unwrap();
    assert!(partitions.iter().all(|it| it["lag"] == 0), "{described}");
    let internal = broker.run(&["topic", "list", "--internal"]).text();
    assert!(internal.contains("__consumer_offsets"), "{internal}");

    let reset = ["group", "reset-offsets", "g", "--to", "beginning"];
    let dry = broker.run(&[&reset[..], &["--dry-run"]].concat()).text();
    assert!(dry.contains("nothing was changed"), "{dry}");
    assert_eq!(broker.run(&["consume", "t", "--group", "g"]).text(), "");
    broker.run(&reset).ok();
    let again = broker.run(&["consume", "t", "--group", "g"]).text();
    assert_eq!(sorted(&again), sorted(&records));
    let shifted = ["group", "reset-offsets", "g", "--shift", "-2", "--json"];
    let moved = broker.run(&shifted).json();
    let back: i64 = moved
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["from"].as_i64().unwrap() - it["to"].as_i64().unwrap())
        .sum();
    let few = broker.run(&["consume", "t", "--group", "g"]).text();
    assert_eq!(i64::try_from(few.lines().count()).unwrap(), back);
    assert!(back > 0);

    broker.run(&["group", "delete", "g", "--yes"]).ok();
    let gone = broker.run(&["group", "describe", "g"]).failed(1);
    assert!(gone.contains("no group g"), "{gone}");
    broker.run(&["group", "delete", "g", "--yes"]).failed(1);
    broker
        .run(&["group", "delete", "g", "--yes", "--if-exists"])
        .ok();
    let fresh = broker.run(&["consume", "t", "--group", "g"]).text();
    assert_eq!(sorted(&fresh), sorted(&records));
}

#[test]
fn members_share_and_a_live_group_names_whom_to_stop() {
    let Some(broker) = Broker::start() else {
        return;
    };
    broker.run(&["topic", "create", "t", "-p", "2"]).ok();
    let mut first = Member::start(&broker, &["t", "--group", "g"]);
    broker
        .run_with(&["produce", "t", "--partition", "0"], b"a\n")
        .ok();
    broker
        .run_with(&["produce", "t", "--partition", "1"], b"b\n")
        .ok();
    assert_eq!(first.read(2), ["a", "b"]);
    let refused = broker.run(&["group", "delete", "g", "--yes"]).failed(1);
    assert!(
        refused.contains("millstream-cli at 127.0.0.1:"),
        "{refused}"
    );
    let reset = ["group", "reset-offsets", "g", "--to", "end"];
    let refused = broker.run(&reset).failed(1);
    assert!(refused.contains("stop "), "{refused}");

    let mut second = Member::start(&broker, &["t", "--group", "g"]);
    let shared = || {
        let described = broker.run(&["group", "describe", "g", "--json"]).json();
        let members = described["members"].as_array().unwrap().clone();
        let each: Vec<i64> = members
            .iter()
            .map(|it| it["partitions"].as_i64().unwrap())
            .collect();
        (described["state"] == "stable" && each == [1, 1]).then_some(())
    };
    while shared().is_none() {}
    broker
        .run_with(&["produce", "t", "--partition", "0"], b"c\n")
        .ok();
    broker
        .run_with(&["produce", "t", "--partition", "1"], b"d\n")
        .ok();
    let read = [first.read(1), second.read(1)].concat();
    assert_eq!(sorted(&read.join("\n")), ["c", "d"]);

    // Who leaves commits, and the other goes on at once.
    first.stop();
    broker
        .run_with(&["produce", "t", "--partition", "0"], b"e\n")
        .ok();
    broker
        .run_with(&["produce", "t", "--partition", "1"], b"f\n")
        .ok();
    assert_eq!(second.read(2), ["e", "f"]);
    second.stop();
    assert_eq!(broker.run(&["consume", "t", "--group", "g"]).text(), "");
}

#[test]
fn after_a_kill_a_group_goes_on_at_its_last_commit() {
    let Some(mut broker) = Broker::start() else {
        return;
    };
    broker.run(&["topic", "create", "t"]).ok();
    let records = lines(0, 100);
    broker.run_with(&["produce", "t"], records.as_bytes()).ok();
    for at in 0..3 {
        let some = broker
            .run(&["consume", "t", "--group", "g", "-n", "20"])
            .text();
        assert_eq!(some, lines(20 * at, 20 * at + 20));
        broker.crash();
    }
    // Members live through a kill: nobody starts over.
    let mut member = Member::start(&broker, &["t", "--group", "g"]);
    assert_eq!(member.read(40), sorted(&lines(60, 100)));
    let committed = || {
        let described = broker.run(&["group", "describe", "g", "--json"]).json();
        (described["partitions"][0]["lag"] == 0).then_some(())
    };
    while committed().is_none() {}
    broker.crash();
    broker
        .run_with(&["produce", "t"], lines(100, 110).as_bytes())
        .ok();
    assert_eq!(member.read(10), sorted(&lines(100, 110)));
    member.stop();
    assert_eq!(broker.run(&["consume", "t", "--group", "g"]).text(), "");
}

#[test]
fn the_offsets_topic_belongs_to_the_broker() {
    let Some(broker) = Broker::start() else {
        return;
    };
    broker.run(&["topic", "create", "t"]).ok();
    broker.run_with(&["produce", "t"], b"a\n").ok();
    broker.run(&["consume", "t", "--group", "g"]).ok();
    let topic = "__consumer_offsets";
    let refused = broker.run_with(&["produce", topic, "--key-separator", ":"], b"k:v\n");
    let refused = refused.failed(1);
    assert!(refused.contains("internal"), "{refused}");
    broker.run(&["topic", "delete", topic, "--yes"]).failed(1);
    broker
        .run(&["topic", "trim", topic, "--before", "end"])
        .failed(1);
    let unknown = broker.run(&["consume", "nosuch", "--group", "g"]).failed(1);
    assert!(unknown.contains("nosuch"), "{unknown}");
    broker
        .run(&["consume", "t", "--group", "g", "--from", "5"])
        .failed(2);
    broker
        .run(&["consume", "t", "--group", "g", "-p", "0"])
        .failed(2);
}
