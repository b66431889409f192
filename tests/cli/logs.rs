//! `log dump` and `log verify` on the files of a stopped broker.

use std::{fs, path::PathBuf};

use serde_json::Value;

use crate::broker::Broker;

fn stopped_broker() -> Option<(Broker, String)> {
    let mut broker = Broker::start()?;
    broker.run(&["topic", "create", "t"]).ok();
    let text: String = (0..1_000).map(|n| format!("line {n}\n")).collect();
    broker.run_with(&["produce", "t"], text.as_bytes()).ok();
    broker.run_with(&["produce", "t"], b"the last\n").ok();
    broker.stop();
    let data = broker.data_dir().to_str().unwrap().to_owned();
    Some((broker, data))
}

fn verify(broker: &Broker, data: &str) -> (i32, Value) {
    let run = broker.run(&["log", "verify", data, "--json"]);
    let code = run.status.code().unwrap();
    (code, serde_json::from_slice(&run.stdout).unwrap())
}

#[test]
fn good_files() {
    let Some((mut broker, data)) = stopped_broker() else {
        return;
    };
    let (code, verified) = verify(&broker, &data);
    assert_eq!(code, 0, "{verified}");
    assert_eq!(verified[0]["verdict"], "good");
    assert_eq!(verified[0]["log_end_offset"], 1_001);
    let dump = broker.run(&["log", "dump", &data, "--batches"]).text();
    assert!(dump.contains(" chunk 0.."), "{dump}");
    assert!(dump.contains("batch 1000..1001, "), "{dump}");
    assert!(dump.contains("offsets 0 to 1001 in "), "{dump}");

    let records = broker.run(&["log", "dump", &data, "--records"]).ok();
    broker.start_again();
    broker.run(&["topic", "create", "rescued"]).ok();
    broker
        .run_with(&["produce", "rescued", "--format", "json"], &records)
        .ok();
    let original = broker.run(&["consume", "t"]).ok();
    assert!(broker.run(&["consume", "rescued"]).ok() == original);
}

#[test]
fn a_running_broker_is_left_alone() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let data = broker.data_dir();
    let data = data.to_str().unwrap();
    for command in ["dump", "verify"] {
        let said = broker.run(&["log", command, data]).failed(1);
        assert!(said.contains("in use by a broker"), "{said}");
    }
    let nothing = broker.scratch().join("empty");
    fs::create_dir(&nothing).unwrap();
    let said = broker
        .run(&["log", "verify", nothing.to_str().unwrap()])
        .failed(1);
    assert!(said.contains("is no data directory"), "{said}");
}

#[test]
fn a_flipped_bit_in_acknowledged_data_is_found() {
    let Some((broker, data)) = stopped_broker() else {
        return;
    };
    let (_, verified) = verify(&broker, &data);
    let dir = PathBuf::from(verified[0]["path"].as_str().unwrap());
    let segment = dir.join("00000000000000000000.log");
    let mut bytes = fs::read(&segment).unwrap();
    // The first chunk follows the segment's first block of 4 KiB.
    bytes[4_096 + 500] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let (code, verified) = verify(&broker, &data);
    assert_eq!(code, 1, "{verified}");
    assert_eq!(verified[0]["verdict"], "damaged");
    assert_eq!(verified[0]["damage"]["below"], 0);
    assert_eq!(verified[0]["damage"]["position"], 4_096);
}

/// A broker that was killed: its last records are in the journal alone.
fn killed_broker() -> Option<(Broker, String)> {
    let mut broker = Broker::start()?;
    broker.run(&["topic", "create", "t"]).ok();
    for line in ["one\n", "two\n", "three\n"] {
        broker.run_with(&["produce", "t"], line.as_bytes()).ok();
    }
    broker.kill();
    let data = broker.data_dir().to_str().unwrap().to_owned();
    Some((broker, data))
}

#[test]
fn what_the_journal_alone_holds_is_counted_and_shown() {
    let Some((mut broker, data)) = killed_broker() else {
        return;
    };
    let (code, verified) = verify(&broker, &data);
    assert_eq!(code, 0, "{verified}");
    assert_eq!(verified[0]["verdict"], "good");
    assert_eq!(verified[0]["log_end_offset"], 3);
    assert_eq!(verified[0]["journal_batches"], 3);
    assert_eq!(verified.as_array().unwrap().len(), 1);
    let dump = broker.run(&["log", "dump", &data, "--batches"]).text();
    assert!(dump.contains("in journal 0.."), "{dump}");
    assert!(dump.contains("batch 1..2, "), "{dump}");
    assert!(
        dump.contains("and 3 batches of the journal: good"),
        "{dump}"
    );
    // A topic's directory may not be there yet; its records are found all the same, from it as well.
    let partition = PathBuf::from(verified[0]["path"].as_str().unwrap());
    if partition.exists() {
        let (_, alone) = verify(&broker, partition.to_str().unwrap());
        assert_eq!(alone[0]["log_end_offset"], 3);
    }
    let records = broker.run(&["log", "dump", &data, "--records"]).text();
    broker.start_again();
    let consumed = broker.run(&["consume", "t"]).text();
    assert_eq!(consumed, "one\ntwo\nthree\n");
    assert_eq!(records.lines().count(), 3, "{records}");
}

/// Flips a bit at `at` of a frame with records, of the journal that has at least three of them; gives its file and
/// where the frame begins.
fn spoil_frame(broker: &Broker, number: usize, at: usize) -> (PathBuf, usize) {
    let journals = broker.data_dir().join("journal");
    for entry in fs::read_dir(journals).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        let frames = |at: &usize| bytes[*at..].starts_with(b"MSJR") && bytes[at + 56] > 0;
        let frames: Vec<usize> = (4_096..bytes.len()).step_by(4_096).filter(frames).collect();
        // A later one says that it was durable.
        if frames.len() > 2 {
            // One wrong byte of a directory would be put right.
            for wrong in [at, at + 2] {
                bytes[frames[number] + wrong] ^= 1;
            }
            fs::write(&path, bytes).unwrap();
            return (path, frames[number]);
        }
    }
    panic!("no journal has three frames");
}

#[test]
fn a_damaged_record_of_a_journal_is_its_partitions() {
    let Some((mut broker, data)) = killed_broker() else {
        return;
    };
    // In the second record, which is the first one of its entry.
    let (damaged, frame) = spoil_frame(&broker, 1, 64 + 96 + 65);
    let (code, verified) = verify(&broker, &data);
    assert_eq!(code, 1, "{verified}");
    let verified = verified.as_array().unwrap();
    let bad = |one: &&serde_json::Value| one["verdict"] == "damaged";
    let bad: Vec<_> = verified.iter().filter(bad).collect();
    assert_eq!(bad.len(), 1, "{verified:?}");
    assert_eq!(bad[0]["damage"]["below"], 1);
    assert_eq!(bad[0]["damage"]["position"], frame + 64);
    let path = PathBuf::from(bad[0]["damage"]["path"].as_str().unwrap());
    assert_eq!(path.file_name(), damaged.file_name());
    broker.start_damaged();
    let consumed = broker.run(&["consume", "t"]);
    assert_eq!(consumed.stdout, b"one\n");
    let said = consumed.failed(1);
    assert!(said.contains("from offset 1 on is damaged"), "{said}");
    let said = broker.run_with(&["produce", "t"], b"more\n").failed(1);
    assert!(said.contains(damaged.to_str().unwrap()), "{said}");
    broker.run(&["topic", "create", "other"]).ok();
    broker.run_with(&["produce", "other"], b"more\n").ok();
    assert_eq!(broker.run(&["consume", "other"]).text(), "more\n");
}

#[test]
fn a_frame_that_does_not_say_whose_it_is_refuses_the_start() {
    let Some((mut broker, data)) = killed_broker() else {
        return;
    };
    // In the topic that the first record's entry names.
    let (damaged, _) = spoil_frame(&broker, 0, 64 + 20);
    let (code, verified) = verify(&broker, &data);
    assert_eq!(code, 1, "{verified}");
    let last = verified.as_array().unwrap().last().unwrap();
    let path = PathBuf::from(last["path"].as_str().unwrap());
    assert_eq!(path.file_name(), damaged.file_name());
    assert_eq!(last["damage"]["position"], 4_096);
    let said = broker.run(&["log", "verify", &data]);
    assert_eq!(said.status.code(), Some(1));
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(
        said.contains("damaged: at 4096: frame 1 of journal"),
        "{said}"
    );
    let dump = broker.run(&["log", "dump", &data]).text();
    assert!(dump.contains("frame 1 of journal"), "{dump}");
    let said = broker.start_refused();
    assert!(said.contains(damaged.to_str().unwrap()), "{said}");
    let command = format!("millstream log repair --dry-run {data}");
    assert!(said.contains(&command), "{said}");
}

/// Garbles the only frame of a broker that was killed at once, at `at`; gives its file.
fn torn_journal(broker: &mut Broker, at: usize) -> PathBuf {
    broker.run(&["topic", "create", "j"]).ok();
    broker.run_with(&["produce", "j"], b"one\ntwo\n").ok();
    broker.kill();
    let mut journals: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(broker.data_dir().join("journal")).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        let frames = |at: &usize| bytes[*at..].starts_with(b"MSJR");
        let frames: Vec<usize> = (4_096..bytes.len()).step_by(4_096).filter(frames).collect();
        let Some(&first) = frames.first() else {
            continue;
        };
        // The next one may have come already, and would say that this one was durable.
        for frame in &frames[1..] {
            bytes[*frame..frame + 4_096].fill(0);
        }
        // One wrong byte of a directory would be put right.
        for wrong in [at, at + 2] {
            bytes[first + wrong] ^= 0x55;
        }
        fs::write(&path, bytes).unwrap();
        journals.push(path);
    }
    assert_eq!(journals.len(), 1, "{journals:?}");
    journals.remove(0)
}

#[test]
fn a_torn_journal_is_cut_with_a_word() {
    // In a record, in the directory, in the header.
    for (at, whose) in [
        (64 + 96 + 70, Some("j/0")),
        (64 + 40, None),
        (33, Some("j/0")),
    ] {
        let Some(mut broker) = Broker::start() else {
            return;
        };
        let path = torn_journal(&mut broker, at);
        let data = broker.data_dir().to_str().unwrap().to_owned();
        let (code, verified) = verify(&broker, &data);
        assert_eq!(code, 0, "{at}: {verified}");
        let torn: Vec<_> = verified.as_array().unwrap().iter().collect();
        let torn: Vec<_> = torn.iter().filter(|one| !one["torn"].is_null()).collect();
        assert_eq!(torn.len(), 1, "{at}: {verified}");
        assert_eq!(torn[0]["torn"]["position"], 4_096);
        assert_eq!(torn[0]["verdict"], "torn tail");
        let said = broker.run(&["log", "verify", &data]).text();
        assert!(said.contains("torn tail: at 4096"), "{at}: {said}");
        assert!(!said.contains("no partitions"), "{at}: {said}");

        let before = broker.log().len();
        broker.start_again();
        let log = broker.log()[before..].to_owned();
        let lines: Vec<&str> = log.lines().filter(|it| it.contains("torn")).collect();
        assert_eq!(lines.len(), 1, "{at}: {log}");
        assert!(lines[0].contains("WARN"), "{at}: {log}");
        assert!(lines[0].contains(path.to_str().unwrap()), "{at}: {log}");
        assert!(lines[0].contains("at position 4096 of"), "{at}: {log}");
        match whose {
            Some(whose) => assert!(lines[0].contains(whose), "{at}: {log}"),
            None => assert!(lines[0].contains("nobody can tell"), "{at}: {log}"),
        }
        // Once is enough.
        broker.kill();
        let before = broker.log().len();
        broker.start_again();
        assert!(!broker.log()[before..].contains("torn"), "{}", broker.log());
    }
}

#[test]
fn a_last_frame_whose_entries_are_whole_is_kept() {
    let Some(mut broker) = Broker::start() else {
        return;
    };
    // In the frame's magic number.
    torn_journal(&mut broker, 1);
    let data = broker.data_dir().to_str().unwrap().to_owned();
    let (code, verified) = verify(&broker, &data);
    assert_eq!(code, 0, "{verified}");
    broker.start_again();
    assert_eq!(broker.run(&["consume", "j"]).text(), "one\ntwo\n");
}
