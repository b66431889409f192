//! `kill -9` of real brokers in the middle of real load. The page cache survives a kill, so this
//! proves recovery and what clients see of it; the simulated disk proves the flushes.
//!
//! `tests/crash/kill9.sh` is the long run, with twenty kills; `MILLSTREAM_KILLS` is three otherwise.
#![allow(
    clippy::disallowed_methods,
    reason = "how long a real process takes is told, not tested"
)]

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, ChildStdout, Stdio},
    time::Instant,
};

use crate::broker::Broker;

/// Shards of the broker after each kill, over and over.
const SHARDS: [&str; 3] = ["2", "4", "1"];

fn kills() -> usize {
    let text = std::env::var("MILLSTREAM_KILLS").ok();
    text.map_or(3, |text| text.parse().expect("a number of kills"))
}

/// A generator that writes and reads at full rate, and checks.
pub struct Load {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Load {
    fn begin(broker: &Broker, topic: &str, duration: &str) -> Self {
        Self::begin_with(broker, topic, duration, &[])
    }

    pub fn begin_with(broker: &Broker, topic: &str, duration: &str, flags: &[&str]) -> Self {
        let state = state_file(broker, topic);
        let args = [
            "bench", "both", "--verify", "--topic", topic, "--state", &state,
        ];
        let mut child = broker
            .command(&args)
            .args([
                "--partitions",
                "4",
                "--connections",
                "2",
                "--duration",
                duration,
            ])
            .args(flags)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let lines = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, lines }
    }

    /// Waits until it has printed so many lines of figures: it is at full rate then.
    pub fn await_figures(&mut self, count: usize) {
        let mut seen = 0;
        while seen < count {
            let mut line = String::new();
            let read = self.lines.read_line(&mut line).expect("text");
            assert_ne!(read, 0, "the generator ended early");
            seen += usize::from(line.contains(" MB/s "));
        }
    }

    /// Waits for its verdict, which must be good.
    pub fn finish(mut self) -> String {
        let mut said = String::new();
        self.lines.read_to_string(&mut said).expect("text");
        let status = self.child.wait().expect("the generator ends");
        assert!(status.success(), "{status}: {said}");
        assert!(said.contains("all is well"), "{said}");
        verdict(&said)
    }
}

fn state_file(broker: &Broker, topic: &str) -> String {
    let path = broker.scratch().join(format!("{topic}.state"));
    path.to_str().expect("a plain path").to_owned()
}

fn verdict(said: &str) -> String {
    let line = said
        .lines()
        .find(|line| line.contains("acknowledged: lost"));
    line.unwrap_or("no verdict").trim().to_owned()
}

/// Reads everything again and compares it with what was acknowledged.
pub fn verify(broker: &Broker, topic: &str) -> String {
    let state = state_file(broker, topic);
    let args = [
        "bench", "consume", "--verify", "--topic", topic, "--state", &state,
    ];
    let said = String::from_utf8(broker.run(&args)).expect("text");
    let clean = "lost 0, repeated 0, reordered 0, corrupt 0";
    assert!(said.contains(clean), "{said}");
    verdict(&said)
}

#[test]
fn kill_in_the_middle_of_full_load_loses_nothing() {
    let Some(mut broker) = Broker::start(&[]) else {
        return;
    };
    for round in 0..kills() {
        let topic = format!("round-{round}");
        let mut load = Load::begin(&broker, &topic, "3s");
        load.await_figures(1);
        broker.kill();
        let begun = Instant::now();
        broker.start_again(&["--shards", SHARDS[round % SHARDS.len()]]);
        let ready = begun.elapsed();
        let during = load.finish();
        // Once more with everything at rest, and all of it read from the files.
        broker.kill();
        broker.start_again(&["--shards", "2"]);
        let after = verify(&broker, &topic);
        println!("kill {round}: ready again after {ready:.1?}; {during}; read again: {after}");
        if round > 0 {
            let old = format!("round-{}", round - 1);
            verify(&broker, &old);
            broker.run(&["topic", "delete", &old, "--yes"]);
        }
    }
}

#[test]
fn kill_and_restart_with_other_shard_counts_loses_nothing() {
    let Some(mut broker) = Broker::start(&["--shards", "4"]) else {
        return;
    };
    let mut load = Load::begin(&broker, "moving", "3s");
    load.await_figures(1);
    broker.kill();
    broker.start_again(&["--shards", "2"]);
    load.finish();
    verify(&broker, "moving");
    broker.kill();
    broker.start_again(&["--shards", "4"]);
    verify(&broker, "moving");
    broker.stop();
    broker.start_again(&["--shards", "2"]);
    println!("4, 2, 4, 2 shards: {}", verify(&broker, "moving"));
}

#[test]
fn kill_after_a_topic_is_made_again_shows_nothing_of_the_old_one() {
    let Some(mut broker) = Broker::start(&[]) else {
        return;
    };
    for round in 0..3 {
        broker.run(&["topic", "create", "again", "--partitions", "3"]);
        let produce = ["bench", "produce", "--topic", "again", "--records", "3000"];
        broker.run(&produce);
        broker.run(&["topic", "delete", "again", "--yes"]);
        broker.run(&["topic", "create", "again", "--partitions", "3"]);
        broker.kill();
        broker.start_again(&["--shards", SHARDS[round % SHARDS.len()]]);
        let read = broker.run(&["consume", "again", "--from", "beginning"]);
        assert!(
            read.is_empty(),
            "round {round}: {} bytes of the old topic",
            read.len()
        );
        broker.run(&["topic", "delete", "again", "--yes"]);
    }
}
