//! Changes, done and taken back.
//!
//! What is there is on disk before the first file is touched. A file that somebody else has changed since is
//! left alone when changes are taken back: theirs is the later decision.

use std::{fs, io, path::Path};

use super::{
    Change, HostFiles, Item,
    files::chosen,
    record::{Record, RecordError, boot_id},
};

/// A change that the kernel refused, and why.
#[derive(Debug)]
pub struct Refused {
    /// The file.
    pub path: String,
    /// What the kernel said.
    pub error: io::Error,
}

/// Sets every value, and returns those that were refused. What was there goes to the file `state` first.
///
/// # Errors
/// The record of what was there cannot be written or read: then nothing was changed.
pub fn apply(
    files: &dyn HostFiles,
    plan: &[(&Item, Vec<Change>)],
    state: &Path,
) -> Result<Vec<Refused>, RecordError> {
    let boot_id = boot_id(files);
    let earlier = Record::read(state)?.filter(|record| record.boot_id == boot_id);
    let mut record = earlier.unwrap_or_else(|| Record::new(boot_id));
    let mut refused = Vec::new();
    let mut changes = Vec::new();
    for (item, change) in plan
        .iter()
        .flat_map(|(item, changes)| changes.iter().map(move |change| (item, change)))
    {
        match files.read(&change.path) {
            Ok(now) => {
                record.note(item.name, &change.path, now);
                changes.push(change);
            }
            Err(error) => refused.push(Refused {
                path: change.path.clone(),
                error,
            }),
        }
    }
    record.write(state)?;
    for change in changes {
        if let Err(error) = files.write(&change.path, &change.value) {
            refused.push(Refused {
                path: change.path.clone(),
                error,
            });
        }
    }
    // The kernel writes some values in its own way; what it says now is how they are known again.
    for entry in record
        .entries
        .iter_mut()
        .filter(|entry| entry.after.is_none())
    {
        entry.after = files.read(&entry.path).ok();
    }
    record.write(state)?;
    Ok(refused)
}

/// What became of the attempt to take changes back.
#[derive(Debug, PartialEq, Eq)]
pub enum Undone {
    /// There was nothing to take back.
    Nothing,
    /// The host was started anew since, which took everything back.
    Restarted,
    /// For each file, in the order they were looked at.
    Files(Vec<(String, Restored)>),
}

/// What became of one file.
#[derive(Debug, PartialEq, Eq)]
pub enum Restored {
    /// It holds what it held before.
    Back,
    /// It held that already.
    Already,
    /// Somebody has changed it since: it was left as it is.
    ChangedSince(String),
    /// The kernel refused, or it is no longer there.
    Refused(String),
}

/// Puts back what the file `state` says was there, the last change first. The record is removed once
/// everything is back; what was not stays in it. With `force`, also what somebody else has changed since.
///
/// # Errors
/// The record cannot be read or rewritten.
pub fn undo(files: &dyn HostFiles, state: &Path, force: bool) -> Result<Undone, RecordError> {
    let Some(mut record) = Record::read(state)? else {
        return Ok(Undone::Nothing);
    };
    let remove =
        || fs::remove_file(state).map_err(|error| RecordError::Write(state.to_owned(), error));
    if record.boot_id != boot_id(files) {
        remove()?;
        return Ok(Undone::Restarted);
    }
    let mut outcomes = Vec::new();
    let mut left = Vec::new();
    while let Some(entry) = record.entries.pop() {
        let restored = restore(
            files,
            &entry.path,
            &entry.before,
            entry.after.as_deref(),
            force,
        );
        let path = entry.path.clone();
        if matches!(restored, Restored::ChangedSince(_) | Restored::Refused(_)) {
            left.push(entry);
        }
        outcomes.push((path, restored));
    }
    if left.is_empty() {
        remove()?;
    } else {
        left.reverse();
        record.entries = left;
        record.write(state)?;
    }
    Ok(Undone::Files(outcomes))
}

fn restore(
    files: &dyn HostFiles,
    path: &str,
    before: &str,
    after: Option<&str>,
    force: bool,
) -> Restored {
    let now = match files.read(path) {
        Ok(now) => now,
        Err(error) => return Restored::Refused(error.to_string()),
    };
    if now == before {
        return Restored::Already;
    }
    if !force && after.is_some_and(|after| after != now) {
        return Restored::ChangedSince(chosen(&now).to_owned());
    }
    match files.write(path, chosen(before)) {
        Ok(()) => Restored::Back,
        Err(error) => Restored::Refused(error.to_string()),
    }
}
