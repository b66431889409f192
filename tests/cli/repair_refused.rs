//! What `log repair` does not touch, and what `log verify` says of it: files of a newer broker, of other logs, and
//! a data directory that somebody uses.

use std::{fs, path::Path};

use serde_json::Value;

use crate::{
    broker::Broker,
    repair::{files, lines, partition_dir, repaired, segments, stopped},
};

/// Neither looking nor repairing changes anything, and all say what is in the way.
fn check_refused(broker: &Broker, why: &str) {
    let data = broker.data_dir().to_str().unwrap().to_owned();
    let before = files(&broker.data_dir());
    for how in ["--dry-run", "--yes"] {
        let said = broker.run(&["log", "repair", how, &data]).failed(1);
        assert!(said.contains(why), "{said}");
    }
    assert!(before == files(&broker.data_dir()), "nothing was changed");
}

fn verdicts(broker: &Broker) -> Vec<String> {
    let data = broker.data_dir().to_str().unwrap().to_owned();
    let found = broker.run(&["log", "verify", "--json", &data]);
    let found: Value = serde_json::from_slice(&found.stdout).unwrap();
    let found = found.as_array().unwrap().iter();
    found
        .map(|it| it["verdict"].as_str().unwrap().to_owned())
        .collect()
}

fn set_byte(path: &Path, at: usize, value: u8) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] = value;
    fs::write(path, bytes).unwrap();
}

/// Damage that would be repaired, were it not for what else is there.
fn damaged() -> Option<Broker> {
    let broker = stopped(&lines(3_000))?;
    fs::remove_file(&segments(&broker)[1]).unwrap();
    Some(broker)
}

#[test]
fn files_of_a_newer_broker_are_not_touched() {
    for file in ["checkpoint.0", "checkpoint.1"] {
        let Some(broker) = damaged() else { return };
        set_byte(&partition_dir(&broker).join(file), 4, 2);
        check_refused(&broker, "format version 2 of");
        assert_eq!(verdicts(&broker), ["newer format"]);
    }
    let Some(broker) = damaged() else { return };
    set_byte(&segments(&broker)[0], 4, 8);
    check_refused(&broker, "format version 8 of");
    assert_eq!(verdicts(&broker), ["newer format"]);
    let Some(broker) = damaged() else { return };
    // The version of a chunk whose checksum holds.
    set_byte(&segments(&broker)[0], 4_096 + 4, 2);
    check_refused(&broker, "format version 2 of");
    assert_eq!(verdicts(&broker), ["newer format"]);
}

#[test]
fn a_data_directory_of_another_format_is_not_touched() {
    for (text, why) in [
        (
            "millstream data format 2\n",
            "this version of millstream knows",
        ),
        ("gibberish", "does not name a data format"),
    ] {
        let Some(broker) = damaged() else { return };
        fs::write(broker.data_dir().join("FORMAT"), text).unwrap();
        check_refused(&broker, why);
        let data = broker.data_dir().to_str().unwrap().to_owned();
        let said = broker.run(&["log", "verify", &data]).failed(1);
        assert!(said.contains(why), "{said}");
        // What can be read is still shown.
        let shown = broker.run(&["log", "dump", "--records", &data]).text();
        let first = shown.lines().next().unwrap_or_default();
        assert!(first.contains("\"value\":\"line 0"), "{first}");
    }
}

#[test]
fn a_journal_of_a_newer_broker_is_not_touched() {
    let Some(mut broker) = Broker::start() else {
        return;
    };
    broker.run(&["topic", "create", "t"]).ok();
    for line in lines(10) {
        broker.run_with(&["produce", "t"], line.as_bytes()).ok();
    }
    broker.kill();
    let data = broker.data_dir().to_str().unwrap().to_owned();
    let journal = broker.data_dir().join("journal");
    for (path, bytes) in files(&journal) {
        // Without a frame nothing says that it is not a newer one's.
        if bytes[4_096..].starts_with(b"MSJR") {
            set_byte(&path, 4, 3);
        }
    }
    // What lies there by another name is nobody's.
    fs::write(
        journal.join("notes.txt"),
        [b"MSJF\x09\0".as_slice(), &[0; 8_192]].concat(),
    )
    .unwrap();
    // Frames can be read, so it is that field that is damaged: neither is the start refused.
    let said = broker.run(&["log", "verify", &data]).text();
    assert!(said.contains("10 batches"), "{said}");
    let said = broker.run(&["log", "repair", "--yes", &data]).text();
    assert_eq!(said, "nothing is damaged\n");
    // A newer broker's frames are of its version too.
    for (path, bytes) in files(&journal) {
        let mut bytes = bytes;
        for at in (4_096..bytes.len()).step_by(4_096) {
            if bytes[at..].starts_with(b"MSJR") {
                bytes[at + 4] = 3;
            }
        }
        fs::write(path, bytes).unwrap();
    }
    check_refused(&broker, "has format version 3");
    assert!(broker.start_refused().contains("format version 3"));
}

#[test]
fn a_checkpoint_of_another_log_does_not_count() {
    let lines = lines(1_000);
    let Some(mut broker) = stopped(&lines) else {
        return;
    };
    let before = partition_dir(&broker);
    broker.start_again();
    broker.run(&["topic", "create", "other"]).ok();
    broker.run_with(&["produce", "other"], b"x\n").ok();
    broker.stop();
    let topics = fs::read_dir(broker.data_dir().join("topics")).unwrap();
    let other = topics
        .map(|topic| topic.unwrap().path().join("0"))
        .find(|dir| *dir != before && dir.join("checkpoint.0").exists())
        .expect("the other topic's");
    for slot in ["checkpoint.0", "checkpoint.1"] {
        fs::copy(other.join(slot), before.join(slot)).unwrap();
    }
    let data = broker.data_dir().to_str().unwrap().to_owned();
    let said = broker.run(&["log", "verify", &data]);
    assert_eq!(said.status.code(), Some(1), "{said:?}");
    let done = repaired(&broker);
    let partitions = done["partitions"].as_array().unwrap();
    assert_eq!(partitions.len(), 1, "{done}");
    assert_eq!(partitions[0]["path"].as_str(), before.to_str());
    assert_eq!(partitions[0]["log_end_offset"], 1_000);
    assert_eq!(partitions[0]["lost"], Value::Array(Vec::new()));
    broker.start_again();
    assert!(broker.run(&["consume", "t"]).text() == lines.concat());
    assert_eq!(broker.run(&["consume", "other"]).text(), "x\n");
}

#[test]
fn what_a_command_reads_no_broker_starts_with() {
    let Some(mut broker) = stopped(&lines(10)) else {
        return;
    };
    let held = fs::File::open(broker.data_dir().join("LOCK")).unwrap();
    held.try_lock_shared().unwrap();
    let said = broker.start_refused();
    assert!(said.contains("is being read by a command"), "{said}");
    // Others may read too, but not repair.
    let data = broker.data_dir().to_str().unwrap().to_owned();
    broker.run(&["log", "verify", &data]).ok();
    let said = broker.run(&["log", "repair", "--yes", &data]).failed(1);
    assert!(said.contains("in use by"), "{said}");
}
