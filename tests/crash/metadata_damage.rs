//! Bits flip in the metadata log and in what names the data directory: found at the start and named, or
//! without effect; what was committed never changes and never goes without a word.

use std::{
    collections::BTreeMap,
    fs,
    panic::catch_unwind,
    path::{Path, PathBuf},
};

use millstream::{
    control::{DataDir, FEATURE_LEVEL, Identity, MetadataLog as _, RedbLog, Vote},
    controller::{Command, format::Entry},
    io::Random,
};
use millstream_protocol::{BrokerId, ClusterId, TopicId};
use uuid::Uuid;

/// Everything that a start reads.
#[derive(Clone, Debug, PartialEq)]
struct Known {
    identity: Identity,
    vote: Vote,
    snapshot: Option<Vec<u8>>,
    entries: Vec<Entry>,
    first_life: u64,
}

fn read(dir: &Path) -> Result<Known, String> {
    let dir = DataDir::open(dir).map_err(|error| error.to_string())?;
    let identity = Identity {
        cluster_id: ClusterId(Uuid::from_u128(1)),
        broker_id: BrokerId(1),
        directory_id: Uuid::from_u128(2),
        feature_level: FEATURE_LEVEL,
    };
    let log = RedbLog::open(&dir, identity);
    let stored = log.and_then(|mut log| log.load());
    let stored = stored.map_err(|error| error.to_string())?;
    Ok(Known {
        identity: stored.identity,
        vote: stored.vote,
        snapshot: stored.snapshot,
        entries: stored.entries,
        first_life: dir.first_life(),
    })
}

fn entry(index: u64) -> Entry {
    let command = Command::CreateTopic {
        id: TopicId(Uuid::from_u128(index.into())),
        name: format!("topic-{index}"),
        configs: vec![("retention.ms".to_owned(), "3600000".to_owned())],
        assignments: vec![vec![BrokerId(1)]; 3],
    };
    Entry {
        term: 3,
        index,
        command,
    }
}

/// Files of a data directory after a kill, and after a clean stop.
fn images(dir: &Path) -> [BTreeMap<&'static str, Vec<u8>>; 2] {
    let files = || {
        let names = ["FORMAT", "LOCK", "metadata.redb"];
        let read = |name| (name, fs::read(dir.join(name)).unwrap());
        names.map(read).into_iter().collect()
    };
    read(dir).unwrap();
    let data = DataDir::open(dir).unwrap();
    let identity = Identity {
        cluster_id: ClusterId(Uuid::from_u128(1)),
        broker_id: BrokerId(1),
        directory_id: Uuid::from_u128(2),
        feature_level: FEATURE_LEVEL,
    };
    let mut log = RedbLog::open(&data, identity).unwrap();
    let vote = Vote {
        term: 3,
        voted_for: BrokerId(1),
    };
    log.save_vote(vote).unwrap();
    for index in 1..=40 {
        log.append(&[entry(index)]).unwrap();
    }
    log.save_snapshot(20, &[7; 5_000]).unwrap();
    log.append(&[entry(41)]).unwrap();
    let killed = files();
    drop(log);
    drop(data);
    [killed, files()]
}

/// Bits worth flipping: redb's own header, all that is not zero here and there, and anywhere.
fn places(name: &str, bytes: &[u8], random: &mut Random) -> Vec<usize> {
    let mut places: Vec<usize> = (0..bytes.len().min(400)).collect();
    if name == "metadata.redb" {
        let used: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
        places.extend((0..500).map(|_| used[random.index(used.len())]));
        places.extend((0..100).map(|_| random.index(bytes.len())));
    }
    places
}

#[test]
fn flipped_bits_in_metadata_are_found_or_without_effect() {
    let scratch = tempfile::tempdir().unwrap();
    let origin = scratch.path().join("origin");
    let images = images(&origin);
    let known = read(&origin).unwrap();
    let mut random = Random::new(9);
    let mut cases: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
    let mut wrong = Vec::new();
    let dir: PathBuf = scratch.path().join("damaged");
    fs::create_dir(&dir).unwrap();
    for (image, state) in images.iter().zip(["killed", "stopped"]) {
        for (name, bytes) in image {
            for at in places(name, bytes, &mut random) {
                for (name, bytes) in image {
                    fs::write(dir.join(name), bytes).unwrap();
                }
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << random.index(8);
                fs::write(dir.join(name), damaged).unwrap();
                let (of_run, known) = (dir.clone(), known.clone());
                let found = catch_unwind(move || read(&of_run));
                let (told, harmless) = cases.entry(name).or_default();
                match found {
                    Ok(Err(error)) if error.contains(dir.to_str().unwrap()) => *told += 1,
                    Ok(Ok(found)) if found == known => *harmless += 1,
                    Ok(Ok(found)) => {
                        let (count, vote) = (found.entries.len(), found.vote);
                        wrong.push(format!(
                            "{name} at {at}, {state}: {count} entries, {vote:?}"
                        ));
                    }
                    Ok(Err(error)) => wrong.push(format!("{name} at {at}, {state}: {error}")),
                    Err(_) => wrong.push(format!("{name} at {at}, {state}: panicked")),
                }
            }
        }
    }
    println!("told and harmless: {cases:?}");
    assert!(
        wrong.is_empty(),
        "{} wrong: {:#?}",
        wrong.len(),
        &wrong[..wrong.len().min(5)]
    );
    assert!(
        cases["FORMAT"].0 > 80 && cases["FORMAT"].1 == 0,
        "{cases:?}"
    );
    assert!(cases["metadata.redb"].0 > 200, "{cases:?}");
    assert!(cases["LOCK"].0 == 0 && cases["LOCK"].1 > 0, "{cases:?}");
}
