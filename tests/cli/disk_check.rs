//! `millstream disk-check` from outside: what it reports, what it refuses, what it leaves behind.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::Stdio,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::broker::{Run, has_io_uring, millstream};

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).unwrap().next().is_none()
}

/// A check that is short, in a directory on a disk: the target directory's.
fn short(directory: &Path, more: &[&str]) -> Run {
    let mut command = millstream(&["disk-check", "--size", "16MiB", "--time", "20ms"]);
    command.arg(directory).args(more);
    Run::of(command, b"")
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

#[test]
fn figures_for_people_and_scripts() {
    if !has_io_uring() {
        return;
    }
    let temp = directory();
    let run = short(temp.path(), &[]);
    assert!(run.stderr.contains("reading in order"), "{run:?}");
    let text = run.text();
    assert!(text.contains("What to expect of a broker"), "{text}");

    let report = short(temp.path(), &["--json"]).json();
    assert_eq!(report["file_bytes"], 16 << 20);
    let number = |value: &serde_json::Value| value.as_f64().unwrap();
    let flush = &report["write_and_flush"];
    assert!(number(&flush["count"]) > 0.0);
    assert!(number(&flush["latency_us"]["p99"]) >= number(&flush["latency_us"]["p50"]));
    assert!(number(&report["expect"]["produce_bytes_per_second"]) > 0.0);
    assert!(is_empty(temp.path()));
}

#[test]
fn an_interrupted_check_leaves_nothing() {
    if !has_io_uring() {
        return;
    }
    let temp = directory();
    let mut child = millstream(&["disk-check", "--size", "16MiB", "--time", "60s"])
        .arg(temp.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    while !said.next().unwrap().unwrap().contains("writing in order") {}
    assert!(is_empty(temp.path()), "the file has no name");
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    // Not INT, which a test that was started in the background inherits as ignored.
    kill_process(pid.unwrap(), Signal::TERM).unwrap();
    assert!(!child.wait().unwrap().success());
    assert!(is_empty(temp.path()));
}

#[test]
fn what_cannot_be_measured_is_refused() {
    if !has_io_uring() {
        return;
    }
    let temp = directory();
    let said = short(&temp.path().join("missing"), &[]).failed(1);
    assert!(said.contains("missing"), "{said}");
    let file = temp.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(short(&file, &[]).failed(1).contains("no directory"));
    for wrong in [["--time", "2m"], ["--time", "0"], ["--size", "1KiB"]] {
        let mut command = millstream(&["disk-check"]);
        command.args(wrong).arg(temp.path());
        Run::of(command, b"").failed(2);
    }
    let mut command = millstream(&["disk-check", "--size", "1000TiB"]);
    command.arg(temp.path());
    let said = Run::of(command, b"").failed(1);
    assert!(said.contains("--size takes less"), "{said}");
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        let said = short(memory, &[]).failed(1);
        assert!(said.contains("lies in memory"), "{said}");
    }
}
