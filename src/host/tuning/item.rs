//! What an item is, and what looking at it finds.

use std::path::Path;

use super::{super::mounts::Mount, HostFiles, files::cpu_list};

/// The host as items see it.
pub struct Host<'a> {
    /// Its files.
    pub files: &'a dyn HostFiles,
    /// CPUs that shards run on; none if nobody said and shards would take them all.
    pub shard_cpus: Option<&'a [usize]>,
    /// Where data is kept: absolute, without links. It need not exist yet.
    pub data_dir: &'a Path,
    /// Why the kernel gives no ring, if it was asked.
    pub ring_refused: Option<String>,
}

impl Host<'_> {
    pub(super) fn read(&self, path: &str) -> Option<String> {
        self.files.read(path).ok()
    }

    /// CPUs that are there and on, sorted; none if the host does not say.
    pub(super) fn online_cpus(&self) -> Option<Vec<usize>> {
        let online = cpu_list(&self.read("/sys/devices/system/cpu/online")?)?;
        (!online.is_empty()).then_some(online)
    }

    /// How many shards a broker has here.
    pub(super) fn shard_count(&self) -> usize {
        let given = self.shard_cpus.map(<[usize]>::len);
        given.unwrap_or_else(|| self.online_cpus().map_or(1, |cpus| cpus.len()))
    }

    /// What holds the data.
    pub(super) fn mount(&self) -> Option<Mount> {
        Mount::holding(&self.read("/proc/self/mountinfo")?, self.data_dir)
    }
}

/// How much an item matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Importance {
    /// Hard to see in a measurement.
    Low,
    /// Shows in latency percentiles or CPU time.
    Medium,
    /// Safety, or a multiple of the speed.
    High,
}

/// One thing about a host that can be right or wrong.
pub struct Item {
    /// Short and stable, for `--only` and `--skip`.
    pub name: &'static str,
    /// How much it matters.
    pub importance: Importance,
    /// Why it matters, in a sentence or two.
    pub why: &'static str,
    /// Files that it may set, with `*` for any one name. A record that names others is not believed.
    pub sets: &'static [&'static str],
    /// Looks.
    pub check: fn(&Host<'_>) -> Finding,
}

impl Item {
    /// Whether a file is one that this item sets.
    pub(super) fn may_set(&self, path: &str) -> bool {
        self.sets.iter().any(|pattern| {
            let (mut names, mut wanted) = (path.split('/'), pattern.split('/'));
            loop {
                match (names.next(), wanted.next()) {
                    (None, None) => return true,
                    (Some("." | ".."), _) => return false,
                    (Some(name), Some(wanted)) if wanted == name => {}
                    (Some(name), Some("*")) if !name.is_empty() => {}
                    _ => return false,
                }
            }
        })
    }
}

/// How an item stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// Not as it should be.
    NotOk,
    /// The host does not say, or the question does not arise here.
    CannotTell,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How it stands.
    pub outcome: Outcome,
    /// The value found, or why there is none.
    pub found: String,
    /// What people have to do themselves, where `apply` cannot or should not.
    pub remedy: Option<String>,
    /// What `apply` would set.
    pub changes: Vec<Change>,
}

/// One value to set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The file that takes it.
    pub path: String,
    /// What is written.
    pub value: String,
}

impl Finding {
    pub(super) fn ok(found: impl Into<String>) -> Self {
        Self::new(Outcome::Ok, found)
    }

    pub(super) fn not_ok(found: impl Into<String>) -> Self {
        Self::new(Outcome::NotOk, found)
    }

    pub(super) fn cannot_tell(found: impl Into<String>) -> Self {
        Self::new(Outcome::CannotTell, found)
    }

    fn new(outcome: Outcome, found: impl Into<String>) -> Self {
        Self {
            outcome,
            found: found.into(),
            remedy: None,
            changes: Vec::new(),
        }
    }

    pub(super) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    pub(super) fn change(mut self, path: impl Into<String>, value: impl Into<String>) -> Self {
        self.changes.push(Change {
            path: path.into(),
            value: value.into(),
        });
        self
    }
}
