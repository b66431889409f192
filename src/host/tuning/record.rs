//! What was there before: kept on disk before anything is changed, so that it can be put back.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{HostFiles, ITEMS};

const VERSION: u32 = 1;
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Everything that was changed since the host started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    /// Which start of the host it belongs to: a restart puts everything back by itself.
    pub boot_id: String,
    /// In the order of the changes.
    pub entries: Vec<Entry>,
}

/// One file that was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The item that wanted it.
    pub item: String,
    /// The file.
    pub path: String,
    /// Its text before the first change.
    pub before: String,
    /// Its text after the last change; none if that was not learnt.
    pub after: Option<String>,
}

/// Why there is no record to work with.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Reading.
    #[error("cannot read {0}")]
    Read(PathBuf, #[source] io::Error),
    /// Writing.
    #[error(
        "cannot write {0}; nothing may be changed that could not be put back (--state FILE names another place)"
    )]
    Write(PathBuf, #[source] io::Error),
    /// It is something else.
    #[error("{0} is no record of changes: {1}")]
    Format(PathBuf, serde_json::Error),
    /// It wants something set that no item sets.
    #[error("{0} names {1:?}, which this command never sets: it was made by something else")]
    Foreign(PathBuf, String),
    /// Of a later version.
    #[error("{0} was written by a later version of millstream")]
    Version(PathBuf),
}

/// Names this start of the host; empty if the kernel does not.
pub(super) fn boot_id(files: &dyn HostFiles) -> String {
    files.read(BOOT_ID).unwrap_or_default().trim().to_owned()
}

impl Record {
    pub(super) fn new(boot_id: String) -> Self {
        Self {
            version: VERSION,
            boot_id,
            entries: Vec::new(),
        }
    }

    /// Reads a record; none if there is no such file.
    ///
    /// # Errors
    /// It cannot be read, or is something else.
    pub fn read(path: &Path) -> Result<Option<Self>, RecordError> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(RecordError::Read(path.to_owned(), error)),
        };
        let record: Self = serde_json::from_slice(&text)
            .map_err(|error| RecordError::Format(path.to_owned(), error))?;
        if record.version != VERSION {
            return Err(RecordError::Version(path.to_owned()));
        }
        // It may lie where others can write, and what it says is done by root.
        for entry in &record.entries {
            let item = ITEMS.iter().find(|item| item.name == entry.item);
            if !item.is_some_and(|item| item.may_set(&entry.path)) {
                return Err(RecordError::Foreign(path.to_owned(), entry.path.clone()));
            }
        }
        Ok(Some(record))
    }

    /// Writes it whole or not at all, durably.
    pub(super) fn write(&self, path: &Path) -> Result<(), RecordError> {
        self.try_write(path)
            .map_err(|error| RecordError::Write(path.to_owned(), error))
    }

    fn try_write(&self, path: &Path) -> io::Result<()> {
        let directory = match path.parent() {
            Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
            Some(parent) => parent,
            None => return Err(io::ErrorKind::InvalidInput.into()),
        };
        fs::create_dir_all(directory)?;
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let new = path.with_file_name(name);
        // A left-over, or a link that somebody laid there: it is not followed.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = fs::File::create_new(&new)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        fs::File::open(directory)?.sync_all()
    }

    /// Notes what a file holds now, unless an earlier change noted what it held before that.
    pub(super) fn note(&mut self, item: &str, path: &str, now: String) {
        match self.entries.iter_mut().find(|entry| entry.path == path) {
            Some(entry) => entry.after = None,
            None => self.entries.push(Entry {
                item: item.to_owned(),
                path: path.to_owned(),
                before: now,
                after: None,
            }),
        }
    }
}
