//! `bench --spawn`: one command shows a result, and leaves nothing behind.

use std::{fs, path::Path, process::Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::broker::{Run, millstream};

/// A directory on a disk: the one for temporary files may be in memory.
fn scratch() -> Option<tempfile::TempDir> {
    if let Err(reason) = millstream::host::check_kernel() {
        eprintln!("SKIPPED: {reason}");
        return None;
    }
    Some(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory"))
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("a directory");
    let names = entries.map(|it| it.expect("an entry").file_name().to_string_lossy().into());
    names.collect()
}

const BROKER: [&str; 4] = [
    "--spawn",
    "--broker-flag=--shards=1",
    "--broker-flag=--pin=false",
    "--broker-flag=--memory=128MiB",
];

#[test]
fn one_command_shows_a_result_and_leaves_nothing() {
    let Some(dir) = scratch() else { return };
    let mut command = millstream(&["bench", "both", "--verify", "--records", "5k"]);
    command.args(BROKER).args(["--hlog", "run.hlog"]);
    command.args(["--json", "run.json", "--percentiles", "latency.txt"]);
    command.current_dir(dir.path());
    let said = Run::of(command, b"").text();
    assert!(said.contains("all is well"), "{said}");
    assert!(said.contains(" flushes ("), "{said}");
    assert!(!said.contains("NOT DURABLE"), "{said}");
    let mut left = names(dir.path());
    left.sort();
    let expected = [
        "latency.consume.txt",
        "latency.produce.txt",
        "run.hlog",
        "run.json",
    ];
    assert_eq!(left, expected, "the broker's data is gone");
    let json = fs::read(dir.path().join("run.json")).expect("results");
    let found: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
    assert_eq!(found["ok"], true);
    assert_eq!(found["broker"]["spawned"], true);
    assert_eq!(found["durability"]["durable"], true);
    assert!(found["broker_figures"]["flushes"].as_f64() > Some(0.0));
    assert_eq!(found["produce"]["total"]["records"], 5_000);
}

#[test]
fn a_sweep_can_be_drawn_and_compared() {
    let Some(dir) = scratch() else { return };
    let mut sweep = millstream(&["bench", "sweep", "--lingers", "0", "--rates", "50%,max"]);
    sweep.args([
        "--batch-sizes",
        "64KiB",
        "--duration",
        "300ms",
        "--warm-up",
        "0",
    ]);
    sweep.args(BROKER).args(["--json", "sweep.json"]);
    sweep.current_dir(dir.path());
    Run::of(sweep, b"").ok();
    let mut report = millstream(&["bench", "report", "sweep.json", "sweep.html"]);
    report.current_dir(dir.path());
    Run::of(report, b"").ok();
    let page = fs::read_to_string(dir.path().join("sweep.html")).expect("a page");
    assert!(page.contains("Latency against throughput"), "{page}");
    let mut compare = millstream(&["bench", "compare", "sweep.json", "sweep.json"]);
    compare.current_dir(dir.path());
    let said = Run::of(compare, b"").text();
    assert!(said.contains("0, 64 KiB, max: produce MB/s"), "{said}");
    assert!(said.contains("+0.0 %  noise unknown"), "{said}");
}

#[test]
fn a_run_that_is_not_durable_is_marked() {
    let Some(dir) = scratch() else { return };
    let mut command = millstream(&["bench", "produce", "--records", "1k"]);
    command.args(BROKER).args(["--durability", "buffered"]);
    let said = Run::of(
        {
            command.current_dir(dir.path());
            command
        },
        b"",
    )
    .text();
    assert!(said.contains("NOT DURABLE: the topic"), "{said}");
}

#[test]
fn an_interrupt_stops_the_broker_too() {
    let Some(dir) = scratch() else { return };
    let mut command = millstream(&["bench", "produce", "--duration", "1h", "--rate", "1k"]);
    command.args(BROKER).current_dir(dir.path());
    let mut load = command
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut lines = std::io::BufReader::new(load.stdout.take().expect("piped"));
    let mut line = String::new();
    while !line.contains(" MB/s ") {
        line.clear();
        let read = std::io::BufRead::read_line(&mut lines, &mut line).expect("text");
        assert_ne!(read, 0, "it ended early");
    }
    let pid = i32::try_from(load.id()).ok().and_then(Pid::from_raw);
    kill_process(pid.expect("a process"), Signal::INT).expect("our own process");
    let mut said = String::new();
    std::io::Read::read_to_string(&mut lines, &mut said).expect("text");
    assert!(load.wait().expect("it ends").success(), "{said}");
    assert!(said.contains("total  produce"), "{said}");
    assert_eq!(names(dir.path()), [""; 0], "nothing is left");
}
