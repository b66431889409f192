//! The README's quickstart, run as it is written.

use std::{fs, os::unix::fs::symlink, path::Path, process::Command};

use crate::broker::{Broker, Run};

/// The commands of the first `console` block, each with the lines it is said to print.
fn quickstart() -> Vec<(String, Vec<String>)> {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = fs::read_to_string(readme).expect("README.md");
    let block = text.split("```console\n").nth(1).expect("a console block");
    let block = block.split("```").next().expect("its end");
    let mut commands: Vec<(String, Vec<String>)> = Vec::new();
    for line in block.lines() {
        match (line.strip_prefix("$ "), commands.last_mut()) {
            (Some(command), _) => commands.push((command.to_owned(), Vec::new())),
            (None, Some((_, output))) => output.push(line.to_owned()),
            (None, None) => panic!("the block begins with a command, not {line:?}"),
        }
    }
    commands
}

/// Whether a line is as the README says; `…` stands for anything, and on a line of its own for
/// any lines.
fn is_as_said(said: &[String], printed: &[&str]) -> bool {
    match said.split_first() {
        None => printed.is_empty(),
        Some((any, rest)) if any == "…" => {
            (0..=printed.len()).any(|skipped| is_as_said(rest, &printed[skipped..]))
        }
        Some((line, rest)) => printed
            .split_first()
            .is_some_and(|(first, others)| matches(line, first) && is_as_said(rest, others)),
    }
}

fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('…') {
        None => pattern == text,
        Some((before, after)) => {
            text.starts_with(before)
                && text.ends_with(after)
                && text.len() >= before.len() + after.len()
        }
    }
}

#[test]
fn the_quickstart_does_what_it_says() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let bin = broker.scratch().join("bin");
    fs::create_dir(&bin).expect("a directory");
    symlink(env!("CARGO_BIN_EXE_millstream"), bin.join("millstream")).expect("a link");
    let path = std::env::var("PATH").unwrap_or_default();
    let commands = quickstart();
    assert!(
        commands.len() >= 4,
        "create, produce, consume, load: {commands:?}"
    );
    for (command, said) in commands {
        let mut shell = Command::new("sh");
        // Both streams, as a terminal shows them.
        shell
            .args(["-c", &format!("{{ {command}; }} 2>&1")])
            .env("PATH", format!("{}:{path}", bin.display()))
            .env("MILLSTREAM_SERVER", broker.server());
        let printed = Run::of(shell, b"").text();
        let printed: Vec<&str> = printed.lines().collect();
        assert!(
            is_as_said(&said, &printed),
            "{command}\nsaid {said:#?}\nprinted {printed:#?}"
        );
    }
}

#[test]
fn the_comparison_can_fail() {
    let said = |lines: &[&str]| {
        lines
            .iter()
            .map(|line| (*line).to_owned())
            .collect::<Vec<_>>()
    };
    assert!(is_as_said(&said(&["a", "…", "z"]), &["a", "b", "c", "z"]));
    assert!(is_as_said(&said(&["time …, done"]), &["time 12, done"]));
    assert!(!is_as_said(&said(&["a"]), &["a", "b"]));
    assert!(!is_as_said(&said(&["…", "z"]), &["a", "b"]));
    assert!(!is_as_said(&said(&["time …, done"]), &["time 12, lost"]));
}
