//! Help texts are part of the interface: a change shows in review.
//!
//! `MILLSTREAM_BLESS=1 cargo test --test cli help` writes them anew.

use std::{fs, path::PathBuf};

use crate::broker::{Run, millstream};

fn check(name: &str, args: &[&str]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/cli/help")
        .join(format!("{name}.txt"));
    let shown = Run::of(millstream(args), b"").text();
    if std::env::var_os("MILLSTREAM_BLESS").is_some() {
        fs::write(&path, &shown).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(shown, golden, "help of {args:?} is not {}", path.display());
}

#[test]
fn texts_are_as_recorded() {
    check("topic", &["topic", "--help"]);
    for command in [
        "create",
        "list",
        "describe",
        "alter",
        "delete",
        "trim",
        "add-partitions",
    ] {
        check(&format!("topic-{command}"), &["topic", command, "--help"]);
    }
    for command in [
        "produce",
        "consume",
        "status",
        "completions",
        "bench",
        "disk-check",
    ] {
        check(command, &[command, "--help"]);
    }
    check("delay", &["delay", "--help"]);
    for command in ["list", "count", "cancel"] {
        check(&format!("delay-{command}"), &["delay", command, "--help"]);
    }
    check("group", &["group", "--help"]);
    for command in ["list", "describe", "reset-offsets", "delete"] {
        check(&format!("group-{command}"), &["group", command, "--help"]);
    }
    check("tune", &["tune", "--help"]);
    for command in ["check", "apply", "undo"] {
        check(&format!("tune-{command}"), &["tune", command, "--help"]);
    }
    for command in ["dump", "verify", "repair"] {
        check(&format!("log-{command}"), &["log", command, "--help"]);
    }
    for mode in [
        "produce",
        "consume",
        "both",
        "end-to-end",
        "sweep",
        "saturate",
        "soak",
        "delay",
        "compare",
        "report",
    ] {
        check(&format!("bench-{mode}"), &["bench", mode, "--help"]);
    }
}

#[test]
fn every_shell_has_completions_that_know_the_commands() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = Run::of(millstream(&["completions", shell]), b"").text();
        assert!(script.contains("add-partitions"), "{shell}");
    }
}
