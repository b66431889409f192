//! The frame at which a journal ends early, for people to know of.
//!
//! A frame that was being written at a crash is cut as torn, and so is the last one if it is damaged: nothing
//! says that it was durable. What is cut is told, with whose records they were as far as anything intact says it.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use millstream_protocol::TopicPartition;
use uuid::Uuid;

use super::frames::FoundFile;

/// The first frame of a journal that was cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornFrame {
    /// The file.
    pub path: PathBuf,
    /// Where the frame begins there.
    pub position: u64,
    /// The journal.
    pub journal: Uuid,
    /// Its number, if anything says it.
    pub frame: Option<u64>,
    /// Whose records are lost with it; empty if nobody can tell.
    pub logs: Vec<TopicPartition>,
}

impl TornFrame {
    /// A frame of which nothing is there, in front of one that is.
    pub(super) fn missing(journal: Uuid, frame: u64, (path, position): (PathBuf, u64)) -> Self {
        Self {
            path,
            position,
            journal,
            frame: Some(frame),
            logs: Vec::new(),
        }
    }

    /// The sentence for people, with a name for each partition.
    pub fn told(&self, name_of: impl Fn(TopicPartition) -> String) -> String {
        let Self {
            path,
            position,
            journal,
            frame,
            logs,
        } = self;
        let frame = frame.map_or_else(String::new, |frame| format!(" {frame}"));
        let path = path.display();
        let names: Vec<String> = logs.iter().map(|id| name_of(*id)).collect();
        let whose = match names.is_empty() {
            true => "nobody can tell whose records were in it".to_owned(),
            false => format!("it held records of {}", names.join(", ")),
        };
        format!(
            "the last frame{frame} of journal {journal}, at position {position} of {path}, is damaged or was not \
             written in full; nothing says that it was durable, so it is cut as torn: {whose}"
        )
    }
}

impl fmt::Display for TornFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.told(|id| id.to_string()))
    }
}

/// A place that looks like a frame's beginning, with no whole frame there.
#[derive(Clone, Debug)]
pub(super) struct Doubtful {
    /// As its header says, which cannot be believed.
    pub frame: Option<u64>,
    pub position: u64,
    /// Whose entries it loses, as far as anything intact says it.
    pub logs: Vec<TopicPartition>,
}

/// All such places of a journal.
pub(super) struct DoubtfulFrames {
    journal: Uuid,
    found: Vec<(PathBuf, Doubtful)>,
}

impl DoubtfulFrames {
    pub fn of(journal: Uuid, files: &[FoundFile]) -> Self {
        let mut found = Vec::new();
        for file in files {
            let spoiled = file.frames.iter().filter(|frame| frame.spoiled);
            let spoiled = spoiled.map(|frame| Doubtful {
                frame: Some(frame.header.sequence),
                position: frame.position,
                logs: frame.damaged_entries().map(|(entry, _)| entry.id).collect(),
            });
            let all = spoiled.chain(file.doubtful.iter().cloned());
            found.extend(all.map(|doubtful| (file.path.clone(), doubtful)));
        }
        Self { journal, found }
    }

    /// Where frame `expected` begins, which should follow at `place`.
    pub fn find(&self, expected: u64, place: (&Path, u64)) -> Option<TornFrame> {
        let numbered = |(_, it): &&(PathBuf, Doubtful)| it.frame == Some(expected);
        let follows = |(path, it): &&(PathBuf, Doubtful)| {
            it.frame.is_none() && (path.as_path(), it.position) == place
        };
        let mut found = self.found.iter();
        let found = found.find(|it| numbered(it) || follows(it))?;
        Some(self.torn(found))
    }

    /// The first one, where there is nothing else.
    pub fn first(&self) -> Option<TornFrame> {
        let first = self.found.iter().min_by_key(|(_, it)| it.frame);
        first.map(|found| self.torn(found))
    }

    fn torn(&self, (path, doubtful): &(PathBuf, Doubtful)) -> TornFrame {
        let mut logs = doubtful.logs.clone();
        logs.sort_unstable();
        logs.dedup();
        TornFrame {
            path: path.clone(),
            position: doubtful.position,
            journal: self.journal,
            frame: doubtful.frame,
            logs,
        }
    }
}
