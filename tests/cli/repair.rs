//! `log repair`: what can be read stays, what is gone is told first and leaves holes, and nothing is deleted.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::broker::Broker;

/// A broker that was stopped with these lines in a topic of small segments.
pub fn stopped(lines: &[String]) -> Option<Broker> {
    stopped_with(lines, "segment.bytes=64KiB")
}

fn stopped_with(lines: &[String], segments: &str) -> Option<Broker> {
    let mut broker = Broker::start()?;
    let small = ["topic", "create", "t", "--config", segments];
    broker.run(&small).ok();
    for part in lines.chunks(250) {
        let part = part.concat();
        broker.run_with(&["produce", "t"], part.as_bytes()).ok();
    }
    broker.stop();
    Some(broker)
}

pub fn lines(count: u32) -> Vec<String> {
    (0..count).map(|n| format!("line {n:060}\n")).collect()
}

pub fn partition_dir(broker: &Broker) -> PathBuf {
    let topics = fs::read_dir(broker.data_dir().join("topics")).unwrap();
    let mut dirs = topics.map(|topic| topic.unwrap().path().join("0"));
    dirs.next().expect("one topic")
}

pub fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            let bytes = fs::read(&path).unwrap();
            found.push((path, bytes));
        }
    }
    found.sort();
    found
}

pub fn segments(broker: &Broker) -> Vec<PathBuf> {
    let files = files(&partition_dir(broker)).into_iter();
    let paths = files.map(|(path, _)| path);
    paths
        .filter(|path| path.extension().is_some_and(|ext| ext == "log"))
        .collect()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 4;
    fs::write(path, bytes).unwrap();
}

/// Repairs, after looking, which changes nothing; gives what was said by both.
pub fn repaired(broker: &Broker) -> Value {
    let data = broker.data_dir().to_str().unwrap().to_owned();
    let before = files(&broker.data_dir());
    let looked = broker.run(&["log", "repair", "--dry-run", "--json", &data]);
    assert_eq!(looked.status.code(), Some(1), "{looked:?}");
    let refused = broker.run(&["log", "repair", &data]).failed(1);
    assert!(refused.contains("--yes"), "{refused}");
    assert!(before == files(&broker.data_dir()), "nothing was changed");
    let planned: Value = serde_json::from_slice(&looked.stdout).unwrap();
    let done = broker
        .run(&["log", "repair", "--yes", "--json", &data])
        .json();
    assert_eq!(done["repaired"], true);
    assert_eq!(planned["partitions"], done["partitions"]);
    for path in done["partitions"].as_array().unwrap() {
        for path in path["set_aside"].as_array().unwrap() {
            let aside = PathBuf::from(format!("{}.damaged", path.as_str().unwrap()));
            let old = before.iter().find(|(old, _)| old.to_str() == path.as_str());
            assert!(fs::read(aside).unwrap() == old.expect("it was there").1);
        }
    }
    let again = broker.run(&["log", "repair", "--dry-run", &data]).text();
    assert_eq!(again, "nothing is damaged\n");
    broker.run(&["log", "verify", &data]).ok();
    done
}

/// The lost offsets of the only partition.
fn lost(done: &Value) -> Vec<(usize, usize)> {
    let ranges = done["partitions"][0]["lost"].as_array().unwrap();
    let number = |value: &Value| usize::try_from(value.as_u64().unwrap()).unwrap();
    let ranges = ranges
        .iter()
        .map(|range| (number(&range["first_offset"]), number(&range["end_offset"])));
    ranges.collect()
}

/// The broker starts, serves all but what is lost, and goes on behind.
fn check_serves(broker: &mut Broker, lines: &[String], lost: &[(usize, usize)]) {
    broker.start_again();
    let kept = lines.iter().enumerate();
    let kept = kept.filter(|(n, _)| !lost.iter().any(|(first, end)| (first..end).contains(&n)));
    let kept: String = kept.map(|(_, line)| line.as_str()).collect();
    let consumed = broker.run(&["consume", "t"]).text();
    assert!(
        consumed == kept,
        "{} of {} bytes",
        consumed.len(),
        kept.len()
    );
    broker.run_with(&["produce", "t"], b"afterwards\n").ok();
    let from = lines.len().to_string();
    let args = ["consume", "t", "--format", "json", "--from", &from];
    let last = broker.run(&args).text();
    let last: Value = serde_json::from_str(last.trim()).unwrap();
    assert_eq!(last["value"], "afterwards");
    assert!(
        last["offset"].as_u64().unwrap() >= lines.len() as u64,
        "{last}"
    );
    // The same after a crash, and after a clean stop.
    broker.crash();
    broker.restart();
    let consumed = broker.run(&["consume", "t"]).text();
    assert!(consumed == kept + "afterwards\n");
}

#[test]
fn records_around_a_flipped_bit_stay() {
    let lines = lines(8_000);
    let Some(mut broker) = stopped_with(&lines, "segment.bytes=256KiB") else {
        return;
    };
    let all = segments(&broker);
    let bytes = fs::read(&all[0]).unwrap();
    let chunks = (4_096..bytes.len()).step_by(4_096);
    let chunks: Vec<usize> = chunks
        .filter(|at| bytes[*at..].starts_with(b"MSCK"))
        .collect();
    assert!(all.len() > 1 && chunks.len() > 2, "{all:?} {chunks:?}");
    flip(&all[0], chunks[1] + 500);
    // After a clean stop nothing is read at the start; a broker that comes upon it does not repair it.
    let done = repaired(&broker);
    let lost = lost(&done);
    assert_eq!(lost.len(), 1, "{done}");
    assert!(0 < lost[0].0 && lost[0].1 - lost[0].0 < 2_000, "{done}");
    assert!(done["partitions"][0]["set_aside"][0].as_str() == all[0].to_str());
    check_serves(&mut broker, &lines, &lost);
}

#[test]
fn a_segment_that_is_gone_leaves_a_hole() {
    let lines = lines(3_000);
    for number in [0, 1, 2] {
        let Some(mut broker) = stopped(&lines) else {
            return;
        };
        let all = segments(&broker);
        fs::remove_file(&all[number]).unwrap();
        let base = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
        let ends = all.get(number + 1).map_or(lines.len(), base);
        let done = repaired(&broker);
        assert_eq!(lost(&done), [(base(&all[number]), ends)], "{done}");
        let lost = lost(&done);
        check_serves(&mut broker, &lines, &lost);
    }
}

#[test]
fn a_bad_first_block_costs_no_record() {
    let lines = lines(3_000);
    for number in [0, 1, 2] {
        let Some(mut broker) = stopped(&lines) else {
            return;
        };
        let all = segments(&broker);
        flip(&all[number], 20);
        let done = repaired(&broker);
        assert_eq!(lost(&done), []);
        check_serves(&mut broker, &lines, &[]);
    }
}

#[test]
fn checkpoints_that_cannot_be_read_cost_no_record() {
    let lines = lines(1_000);
    let Some(mut broker) = stopped(&lines) else {
        return;
    };
    for slot in ["checkpoint.0", "checkpoint.1"] {
        flip(&partition_dir(&broker).join(slot), 40);
    }
    let done = repaired(&broker);
    assert_eq!(lost(&done), []);
    check_serves(&mut broker, &lines, &[]);
}

/// A broker that was killed with ten lines in its journal alone, and a bit flipped in the fourth frame.
fn killed_with_bad_frame(lines: &[String], at: usize) -> Option<(Broker, PathBuf)> {
    let mut broker = Broker::start()?;
    broker.run(&["topic", "create", "t"]).ok();
    for line in lines {
        broker.run_with(&["produce", "t"], line.as_bytes()).ok();
    }
    broker.kill();
    let path = flip_frame(&broker, at);
    Some((broker, path))
}

/// Flips a bit in the fourth frame of the journal that has six at least; where partitions are named, two.
fn flip_frame(broker: &Broker, at: usize) -> PathBuf {
    for (path, bytes) in files(&broker.data_dir().join("journal")) {
        let frames = |at: &usize| bytes[*at..].starts_with(b"MSJR") && bytes[at + 56] > 0;
        let frames: Vec<usize> = (4_096..bytes.len()).step_by(4_096).filter(frames).collect();
        if frames.len() > 5 {
            flip(&path, frames[3] + at);
            if at < 64 + 96 {
                // One alone is put right.
                flip(&path, frames[3] + at + 30);
            }
            return path;
        }
    }
    panic!("no journal has the records");
}

#[test]
fn what_a_journal_lost_is_a_hole_and_what_follows_stays() {
    let lines = lines(10);
    let Some((mut broker, journal)) = killed_with_bad_frame(&lines, 64 + 96 + 70) else {
        return;
    };
    let done = repaired(&broker);
    assert_eq!(lost(&done), [(3, 4)], "{done}");
    assert_eq!(done["partitions"][0]["log_end_offset"], 10);
    let aside = PathBuf::from(format!("{}.damaged", journal.display()));
    check_serves(&mut broker, &lines, &[(3, 4)]);
    assert!(aside.exists(), "set aside: {}", aside.display());
}

#[test]
fn a_frame_that_nobody_can_read_sets_the_journal_aside() {
    let lines = lines(10);
    let Some((mut broker, journal)) = killed_with_bad_frame(&lines, 64 + 20) else {
        return;
    };
    let said = broker.start_refused();
    assert!(said.contains("log repair --dry-run"), "{said}");
    let done = repaired(&broker);
    // Later records show the hole.
    assert_eq!(lost(&done), [(3, 4)], "{done}");
    let skipped = &done["partitions"][0]["skipped"];
    assert_eq!(skipped["first_offset"], 10);
    assert_eq!(skipped["end_offset"], 10_u64 + (1 << 31) - 1);
    let aside = PathBuf::from(format!("{}.damaged", journal.display()));
    assert!(aside.exists() && !journal.exists());
    check_serves(&mut broker, &lines, &[(3, 4)]);
}

#[test]
fn one_bad_bit_in_the_name_of_a_partition_costs_nothing() {
    let lines = lines(10);
    let Some((mut broker, journal)) = killed_with_bad_frame(&lines, 64 + 96 + 70) else {
        return;
    };
    let data = broker.data_dir().to_str().unwrap().to_owned();
    let found = broker.run(&["log", "verify", &data]);
    assert_eq!(found.status.code(), Some(1), "{found:?}");
    // The record is right again, and the header of its entry is not.
    let bytes = fs::read(&journal).unwrap();
    let frames = (4_096..bytes.len()).step_by(4_096);
    let mut frames = frames.filter(|at| bytes[*at..].starts_with(b"MSJR") && bytes[at + 56] > 0);
    let frame = frames.nth(3).unwrap();
    flip(&journal, frame + 64 + 96 + 70);
    flip(&journal, frame + 64 + 20);
    broker.run(&["log", "verify", &data]).ok();
    let said = broker.run(&["log", "repair", "--yes", &data]).text();
    assert_eq!(said, "nothing is damaged\n");
    check_serves(&mut broker, &lines, &[]);
}

#[test]
fn good_files_are_left_alone() {
    let Some(broker) = stopped(&lines(300)) else {
        return;
    };
    let before = files(&broker.data_dir());
    let data = broker.data_dir().to_str().unwrap().to_owned();
    for how in ["--dry-run", "--yes"] {
        let said = broker.run(&["log", "repair", how, &data]).text();
        assert_eq!(said, "nothing is damaged\n");
    }
    assert!(before == files(&broker.data_dir()));
    let nowhere = broker.scratch().to_str().unwrap();
    let said = broker
        .run(&["log", "repair", "--dry-run", nowhere])
        .failed(1);
    assert!(said.contains("is no data directory"), "{said}");
}

#[test]
fn a_running_broker_is_not_repaired() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let data = broker.data_dir().to_str().unwrap().to_owned();
    let said = broker.run(&["log", "repair", "--yes", &data]).failed(1);
    assert!(said.contains("in use by a broker"), "{said}");
}

/// A broker whose topic has five records that wait, in so many frames and the segment of a delay log.
fn with_delayed() -> Option<Broker> {
    let broker = Broker::start()?;
    broker.run(&["topic", "create", "t"]).ok();
    for n in 0..5 {
        let line = format!("delayed {n}\n");
        let later = ["produce", "t", "--delay", "1h"];
        broker.run_with(&later, line.as_bytes()).ok();
    }
    Some(broker)
}

fn pending(broker: &Broker) -> u64 {
    let counts = broker.run(&["delay", "count", "t", "--json"]).json();
    counts[0]["pending"].as_u64().unwrap()
}

#[test]
fn a_damaged_delay_log_is_found_and_made_whole() {
    let Some(mut broker) = with_delayed() else {
        return;
    };
    broker.stop();
    let data = broker.data_dir().to_str().unwrap().to_owned();
    let delay = partition_dir(&broker).join("delay");
    let mut segments = files(&delay).into_iter().map(|(path, _)| path);
    let segment = segments
        .rfind(|path| path.extension().is_some_and(|ext| ext == "log"))
        .expect("a delay log");
    let dumped = |dir| broker.run(&["log", "dump", "--records", dir]).text();
    // What is delayed is not among the records of the topic.
    assert_eq!(dumped(&data), "");
    assert!(dumped(delay.to_str().unwrap()).contains("delayed"));
    let bytes = fs::read(&segment).unwrap();
    let mut chunks = (4_096..bytes.len()).step_by(4_096);
    let chunk = chunks.find(|at| bytes[*at..].starts_with(b"MSCK"));
    flip(&segment, chunk.expect("a chunk") + 150);
    let of_topic = partition_dir(&broker);
    for dir in [&data, of_topic.to_str().unwrap(), delay.to_str().unwrap()] {
        let found = broker.run(&["log", "verify", "--json", dir]);
        assert_eq!(found.status.code(), Some(1), "{dir}: {found:?}");
        let found: Value = serde_json::from_slice(&found.stdout).unwrap();
        let damaged = found.as_array().unwrap().iter();
        let damaged: Vec<_> = damaged.filter(|it| it["verdict"] == "damaged").collect();
        assert_eq!(damaged.len(), 1, "{found}");
        assert_eq!(damaged[0]["delay_log"], true, "{found}");
        assert_eq!(damaged[0]["partition"], 0, "{found}");
    }
    let done = repaired(&broker);
    let partitions = done["partitions"].as_array().unwrap();
    assert_eq!(partitions.len(), 1, "{done}");
    assert_eq!(partitions[0]["path"].as_str(), delay.to_str());
    let lost = lost(&done);
    let lost: usize = lost.iter().map(|(first, end)| end - first).sum();
    assert!(lost > 0, "{done}");
    broker.start_again();
    assert_eq!(pending(&broker), 5 - lost as u64);
    broker
        .run_with(&["produce", "t", "--delay", "1h"], b"x\n")
        .ok();
    assert_eq!(pending(&broker), 6 - lost as u64);
}

#[test]
fn a_lost_frame_has_delay_logs_go_on_later_too() {
    let Some(mut broker) = with_delayed() else {
        return;
    };
    // So that the delay log has files, and the journal something of another log.
    broker.stop();
    broker.start_again();
    for n in 0..6 {
        broker
            .run_with(&["produce", "t"], format!("{n}\n").as_bytes())
            .ok();
    }
    broker.kill();
    flip_frame(&broker, 64 + 20);
    let done = repaired(&broker);
    let partitions = done["partitions"].as_array().unwrap();
    let delay = partition_dir(&broker).join("delay");
    let ours = |it: &&Value| it["path"].as_str() == delay.to_str();
    let ours = partitions.iter().find(ours).expect("the delay log");
    let first = ours["skipped"]["first_offset"].as_u64().unwrap();
    assert_eq!(
        ours["skipped"]["end_offset"],
        first + (1 << 31) - 1,
        "{done}"
    );
    broker.start_again();
    assert_eq!(pending(&broker), 5);
    broker
        .run_with(&["produce", "t", "--delay", "1h"], b"x\n")
        .ok();
    assert_eq!(pending(&broker), 6);
}
