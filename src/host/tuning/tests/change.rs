//! Changes, done and taken back: what was there is there again, byte for byte.

use std::{fs, os::unix::fs::symlink, process::Command};

use super::{super::*, fake::Fake};

#[test]
fn what_was_applied_is_well_and_what_was_undone_is_as_before() {
    let fake = Fake::new();
    let before = fake.bytes();
    let plan = fake.plan();
    assert!(plan.len() >= 9, "{}", plan.len());
    for (item, changes) in &plan {
        assert!(
            changes.iter().all(|it| item.may_set(&it.path)),
            "{}",
            item.name
        );
    }
    assert!(apply(&fake, &plan, &fake.state()).unwrap().is_empty());
    for (item, _) in &plan {
        assert_eq!(
            fake.finding(item.name).outcome,
            Outcome::Ok,
            "{}",
            item.name
        );
    }
    assert_ne!(fake.bytes(), before);
    let Undone::Files(files) = undo(&fake, &fake.state(), false).unwrap() else {
        panic!("there was something to undo");
    };
    assert!(
        files.iter().all(|(_, outcome)| *outcome == Restored::Back),
        "{files:?}"
    );
    assert_eq!(fake.bytes(), before);
    assert!(!fake.state().exists());
    assert_eq!(undo(&fake, &fake.state(), false).unwrap(), Undone::Nothing);
}

#[test]
fn a_second_apply_keeps_what_was_there_before_the_first() {
    let fake = Fake::new();
    let before = fake.bytes();
    apply(&fake, &fake.plan(), &fake.state()).unwrap();
    fake.set("proc/sys/vm/swappiness", "30\n");
    apply(&fake, &fake.plan(), &fake.state()).unwrap();
    undo(&fake, &fake.state(), false).unwrap();
    assert_eq!(fake.bytes(), before);
}

#[test]
fn what_the_kernel_refuses_is_told_and_the_rest_is_done() {
    let fake = Fake::new();
    let before = fake.bytes();
    let irq = "/proc/irq/41/smp_affinity_list".to_owned();
    fake.refuses.borrow_mut().push(irq.clone());
    let refused = apply(&fake, &fake.plan(), &fake.state()).unwrap();
    let refused: Vec<_> = refused.into_iter().map(|it| it.path).collect();
    assert_eq!(refused, [irq]);
    assert_eq!(fake.read("/proc/irq/42/smp_affinity_list").unwrap(), "0\n");
    undo(&fake, &fake.state(), false).unwrap();
    assert_eq!(fake.bytes(), before);
}

#[test]
fn a_later_change_by_somebody_else_stays_unless_forced() {
    let fake = Fake::new();
    let before = fake.bytes();
    apply(&fake, &fake.plan(), &fake.state()).unwrap();
    fake.set("proc/sys/vm/swappiness", "7\n");
    // An apply that does not concern it leaves it somebody else's.
    apply(&fake, &fake.plan(), &fake.state()).unwrap();
    let Undone::Files(files) = undo(&fake, &fake.state(), false).unwrap() else {
        panic!("there was something to undo");
    };
    let left: Vec<_> = files
        .into_iter()
        .filter(|(_, it)| *it != Restored::Back)
        .collect();
    let changed = Restored::ChangedSince("7".to_owned());
    assert_eq!(left, [("/proc/sys/vm/swappiness".to_owned(), changed)]);
    assert!(fake.state().exists());
    undo(&fake, &fake.state(), true).unwrap();
    assert_eq!(fake.bytes(), before);
    assert!(!fake.state().exists());
}

#[test]
fn an_apply_that_was_cut_short_can_be_undone() {
    let fake = Fake::new();
    let before = fake.bytes();
    apply(&fake, &fake.plan(), &fake.state()).unwrap();
    // As if it had died after the writes, before it learnt how the kernel shows them.
    let mut record = Record::read(&fake.state()).unwrap().unwrap();
    for entry in &mut record.entries {
        entry.after = None;
    }
    record.write(&fake.state()).unwrap();
    undo(&fake, &fake.state(), false).unwrap();
    assert_eq!(fake.bytes(), before);
}

#[test]
fn after_a_restart_of_the_host_nothing_is_put_back() {
    let fake = Fake::new();
    apply(&fake, &fake.plan(), &fake.state()).unwrap();
    fake.set("proc/sys/kernel/random/boot_id", "second\n");
    fake.set("proc/sys/vm/swappiness", "60\n");
    let after = fake.bytes();
    assert_eq!(undo(&fake, &fake.state(), true).unwrap(), Undone::Restarted);
    assert_eq!(fake.bytes(), after);
    assert!(!fake.state().exists());
    // And an apply begins a new record.
    apply(&fake, &fake.plan(), &fake.state()).unwrap();
    fs::write(fake.state(), "{}").unwrap();
    assert!(matches!(
        undo(&fake, &fake.state(), false),
        Err(RecordError::Format(..))
    ));
    assert!(matches!(
        apply(&fake, &fake.plan(), &fake.state()),
        Err(RecordError::Format(..))
    ));
}

#[test]
fn a_record_that_names_other_files_is_not_believed() {
    let fake = Fake::new();
    fake.set("proc/sys/kernel/core_pattern", "core\n");
    apply(&fake, &fake.plan(), &fake.state()).unwrap();
    let text = fs::read_to_string(fake.state()).unwrap();
    for path in [
        "/proc/sys/kernel/core_pattern",
        "/proc/irq/../smp_affinity_list",
        "/proc/irq/a/b/smp_affinity_list",
    ] {
        let forged = text.replace("/proc/irq/41/smp_affinity_list", path);
        assert_ne!(forged, text);
        fs::write(fake.state(), forged).unwrap();
        let before = fake.bytes();
        let undone = undo(&fake, &fake.state(), true);
        assert!(matches!(undone, Err(RecordError::Foreign(_, named)) if named == path));
        assert_eq!(fake.bytes(), before);
    }
}

#[test]
fn a_link_in_the_place_of_the_record_is_not_followed() {
    let fake = Fake::new();
    let victim = fake.temp.path().join("victim");
    fs::write(&victim, "untouched").unwrap();
    fs::create_dir_all(fake.state().parent().unwrap()).unwrap();
    symlink(&victim, fake.state().with_extension("json.new")).unwrap();
    apply(&fake, &fake.plan(), &fake.state()).unwrap();
    assert_eq!(fs::read_to_string(victim).unwrap(), "untouched");
}

#[test]
fn nothing_is_changed_that_could_not_be_put_back() {
    let fake = Fake::new();
    let before = fake.bytes();
    let state = fake.temp.path().join("proc/swaps/undo.json");
    assert!(matches!(
        apply(&fake, &fake.plan(), &state),
        Err(RecordError::Read(..) | RecordError::Write(..))
    ));
    assert_eq!(fake.bytes(), before);
}

#[test]
fn the_script_says_what_apply_does() {
    let fake = Fake::new();
    let text = script(&fake, &fake.plan());
    assert!(text.starts_with("#!/bin/sh\n"));
    assert!(
        text.contains("echo 1 > /proc/sys/vm/swappiness  # was: 60\n"),
        "{text}"
    );
    let line = "echo none > /sys/block/nvme0n1/queue/scheduler  # was: none [mq-deadline] kyber\n";
    assert!(text.contains(line), "{text}");
    let commands = text
        .lines()
        .filter(|line| line.starts_with("echo "))
        .count();
    let plan = fake.plan();
    let changes: Vec<&Change> = plan.iter().flat_map(|(_, changes)| changes).collect();
    assert_eq!(commands, changes.len());
    // And it does it, here below the fake root.
    let below = format!(" > {}/", fake.temp.path().display());
    let mut shell = Command::new("sh");
    let ended = shell.arg("-c").arg(text.replace(" > /", &below)).status();
    assert!(ended.unwrap().success());
    for change in changes {
        assert_eq!(fake.read(&change.path).unwrap().trim(), change.value);
    }
}
