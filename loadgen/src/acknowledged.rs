//! What producers were promised: for each (producer, partition) how far records were acknowledged.
//! Kept in memory by a run, and in a file (`--state`) for a later `consume --verify`.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    path::Path,
};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

const FORMAT: u32 = 2;

/// One producer's records for one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// Every sequence below this one was answered: acknowledged unless it is in `failed`.
    pub answered: u64,
    /// Ranges (from, until) that were given up: they may or may not be in the log.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<(u64, u64)>,
    /// Offset of the last record that was answered, or -1 if it failed or the broker did not say.
    pub last_offset: i64,
}

impl Default for Mark {
    fn default() -> Self {
        Self {
            answered: 0,
            failed: Vec::new(),
            last_offset: -1,
        }
    }
}

impl Mark {
    /// `count` more records were acknowledged, the last one at `last_offset`.
    pub fn acknowledge(&mut self, count: u64, last_offset: i64) {
        self.answered += count;
        self.last_offset = last_offset;
    }

    /// `count` more records failed in the end.
    pub fn fail(&mut self, count: u64) {
        let from = self.answered;
        self.answered += count;
        self.last_offset = -1;
        match self.failed.last_mut() {
            Some(last) if last.1 == from => last.1 = self.answered,
            _ => self.failed.push((from, self.answered)),
        }
    }

    /// The last answered record, if it is known where it is: (sequence, offset).
    #[must_use]
    pub fn anchor(&self) -> Option<(u64, i64)> {
        let known = self.answered > 0 && self.last_offset >= 0;
        known.then(|| (self.answered - 1, self.last_offset))
    }

    /// How many of `from..until` were acknowledged.
    #[must_use]
    pub fn acknowledged_within(&self, from: u64, until: u64) -> u64 {
        let until = until.min(self.answered);
        let failed: u64 = self
            .failed
            .iter()
            .map(|&(start, end)| end.min(until).saturating_sub(start.max(from)))
            .sum();
        until.saturating_sub(from) - failed
    }
}

/// Every mark of one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acknowledged {
    /// The run.
    pub run: u64,
    /// The topics it wrote to.
    pub topics: Vec<String>,
    /// By (producer, partition); partitions are numbered over all topics.
    pub marks: BTreeMap<(u32, u32), Mark>,
}

/// How a mark is written in the state file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    producer: u32,
    partition: u32,
    mark: Mark,
}

/// The state file: JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateFile {
    format: u32,
    run: u64,
    topics: Vec<String>,
    acknowledged: Vec<Line>,
}

impl Acknowledged {
    /// Writes the state file: whole or not at all, even if the generator is killed meanwhile.
    ///
    /// # Errors
    /// What the file system said.
    pub fn save(&self, path: &Path) -> Result<()> {
        let state = StateFile {
            format: FORMAT,
            run: self.run,
            topics: self.topics.clone(),
            acknowledged: self
                .marks
                .iter()
                .map(|(&(producer, partition), mark)| Line {
                    producer,
                    partition,
                    mark: mark.clone(),
                })
                .collect(),
        };
        let mut name = path.as_os_str().to_owned();
        name.push(".new");
        let written = File::create(&name).and_then(|mut file| {
            file.write_all(&serde_json::to_vec(&state)?)?;
            file.sync_all()?;
            fs::rename(&name, path)
        });
        written.with_context(|| format!("cannot write the state file {}", path.display()))
    }

    /// Reads a state file.
    ///
    /// # Errors
    /// What the file system said, or why it is no state file.
    pub fn load(path: &Path) -> Result<Self> {
        let name = path.display();
        let bytes = fs::read(path).with_context(|| format!("cannot read the state file {name}"))?;
        let state: StateFile =
            serde_json::from_slice(&bytes).with_context(|| format!("{name} is no state file"))?;
        ensure!(
            state.format == FORMAT,
            "{name} has state format {}, this build knows {FORMAT}",
            state.format
        );
        Ok(Self {
            run: state.run,
            topics: state.topics,
            marks: state
                .acknowledged
                .into_iter()
                .map(|line| ((line.producer, line.partition), line.mark))
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_ranges_are_not_acknowledged() {
        let mut mark = Mark::default();
        mark.acknowledge(10, 9);
        mark.fail(3);
        mark.fail(2);
        mark.acknowledge(5, 14);
        assert_eq!(mark.failed, [(10, 15)]);
        assert_eq!(mark.anchor(), Some((19, 14)));
        assert_eq!(mark.answered, 20);
        assert_eq!(mark.acknowledged_within(0, 20), 15);
        assert_eq!(mark.acknowledged_within(12, 17), 2);
        assert_eq!(mark.acknowledged_within(18, 99), 2);
        assert_eq!(mark.acknowledged_within(50, 99), 0);
    }

    #[test]
    fn a_state_file_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        let mut state = Acknowledged {
            run: u64::MAX,
            topics: vec!["t".into()],
            marks: BTreeMap::new(),
        };
        let mark = state.marks.entry((1, 2)).or_default();
        mark.acknowledge(7, 6);
        mark.fail(1);
        state.save(&path).unwrap();
        state.save(&path).unwrap();
        assert_eq!(Acknowledged::load(&path).unwrap(), state);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        fs::write(&path, "{\"format\":9").unwrap();
        assert!(Acknowledged::load(&path).is_err());
    }
}
