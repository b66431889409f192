//! Where the files of a partition lie and what they are called.

use std::path::{Path, PathBuf};

use millstream_protocol::{
    Offset, PartitionIndex, TopicId, TopicPartition, limits::MAX_PARTITIONS_PER_TOPIC,
};

/// `topics/` below the data directory.
#[must_use]
pub fn topics_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("topics")
}

/// `journal/` below the data directory.
#[must_use]
pub fn journal_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("journal")
}

/// `prepared/` below the data directory.
#[must_use]
pub fn prepared_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("prepared")
}

/// A file of a journal's ring.
#[must_use]
pub fn journal_path(data_dir: &Path, journal: uuid::Uuid, number: u32) -> PathBuf {
    let name = format!("{}-{number:02}.journal", journal.simple());
    journal_dir(data_dir).join(name)
}

/// Says that a journal is being removed: nothing in it is needed any more.
#[must_use]
pub fn removal_path(data_dir: &Path, journal: uuid::Uuid) -> PathBuf {
    journal_dir(data_dir).join(format!("{}.removed", journal.simple()))
}

/// What a file in the directory of journals is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalFileKind {
    /// A file of a journal's ring.
    Ring(uuid::Uuid),
    /// The mark of its removal.
    Removal(uuid::Uuid),
}

/// Tells by its name what a file is; `None` for what no journal put there.
#[must_use]
pub fn journal_file_kind(path: &Path) -> Option<JournalFileKind> {
    let (stem, extension) = path.file_name()?.to_str()?.rsplit_once('.')?;
    let (journal, number) = stem.split_once('-').unwrap_or((stem, ""));
    let journal = uuid::Uuid::try_parse(journal).ok()?;
    match extension {
        "journal" if number.parse::<u32>().is_ok() => Some(JournalFileKind::Ring(journal)),
        "removed" if number.is_empty() => Some(JournalFileKind::Removal(journal)),
        _ => None,
    }
}

/// The directory of a partition's delay log, within the partition's.
pub const DELAY_DIR: &str = "delay";

/// Marks the number of a partition as that of its delay log.
const DELAY_BIT: u32 = 1 << 31;
const _: () = assert!(MAX_PARTITIONS_PER_TOPIC < DELAY_BIT);

/// Under which name the delay log of a partition stands in chunks, segments and journals: a log of its
/// own, which no partition's number can meet.
#[must_use]
pub fn delay_log_of(id: TopicPartition) -> TopicPartition {
    TopicPartition {
        topic: id.topic,
        partition: PartitionIndex(id.partition.0 | DELAY_BIT),
    }
}

/// It is the name of a delay log.
#[must_use]
pub fn is_delay_log(id: TopicPartition) -> bool {
    id.partition.0 & DELAY_BIT != 0
}

/// The partition that a log belongs to: its own, or the one whose delay log it is.
#[must_use]
pub fn partition_of_log(id: TopicPartition) -> TopicPartition {
    TopicPartition {
        topic: id.topic,
        partition: PartitionIndex(id.partition.0 & !DELAY_BIT),
    }
}

/// A log's directory.
#[must_use]
pub fn partition_dir(data_dir: &Path, id: TopicPartition) -> PathBuf {
    let mut path = topics_dir(data_dir);
    path.push(id.topic.to_string());
    path.push(partition_of_log(id).partition.to_string());
    if is_delay_log(id) {
        path.push(DELAY_DIR);
    }
    path
}

/// Whose log lies in a directory.
#[must_use]
pub fn log_of_dir(dir: &Path) -> Option<TopicPartition> {
    let name = |path: &Path| Some(path.file_name()?.to_str()?.to_owned());
    let is_delay = name(dir)? == DELAY_DIR;
    let dir = if is_delay { dir.parent()? } else { dir };
    let id = TopicPartition {
        topic: TopicId(name(dir.parent()?)?.parse().ok()?),
        partition: PartitionIndex(name(dir)?.parse().ok()?),
    };
    Some(if is_delay { delay_log_of(id) } else { id })
}

/// A segment's file.
#[must_use]
pub fn segment_path(dir: &Path, base: Offset) -> PathBuf {
    dir.join(format!("{base:020}.log", base = base.0))
}

/// The index beside a rolled segment.
#[must_use]
pub fn index_path(dir: &Path, base: Offset) -> PathBuf {
    dir.join(format!("{base:020}.index", base = base.0))
}

/// What compaction writes, before it takes a segment's place.
#[must_use]
pub fn compacting_path(dir: &Path, base: Offset) -> PathBuf {
    dir.join(format!("{base:020}.compacting", base = base.0))
}

/// What is to become the next segment, before its base offset is known.
#[must_use]
pub fn spare_path(dir: &Path) -> PathBuf {
    dir.join("next.spare")
}

/// One of the two checkpoint slots.
#[must_use]
pub fn checkpoint_path(dir: &Path, slot: usize) -> PathBuf {
    dir.join(format!("checkpoint.{slot}"))
}

/// What a file in a partition's directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A segment and its base offset.
    Segment(Offset),
    /// An index and its segment's base offset.
    Index(Offset),
    /// What compaction had written of a segment, by its base offset.
    Compacting(Offset),
    /// A checkpoint slot.
    Checkpoint(usize),
    /// What was to become the next segment.
    Spare,
}

/// Tells by its name what a file is; `None` for what the log did not put there.
#[must_use]
pub fn file_kind(path: &Path) -> Option<FileKind> {
    let name = path.file_name()?.to_str()?;
    let (stem, extension) = name.split_once('.')?;
    if name == "next.spare" {
        return Some(FileKind::Spare);
    }
    if stem == "checkpoint" {
        return match extension {
            "0" => Some(FileKind::Checkpoint(0)),
            "1" => Some(FileKind::Checkpoint(1)),
            _ => None,
        };
    }
    if stem.len() != 20 || !stem.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let base = Offset(stem.parse().ok()?);
    match extension {
        "log" => Some(FileKind::Segment(base)),
        "index" => Some(FileKind::Index(base)),
        "compacting" => Some(FileKind::Compacting(base)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_whose_journal_a_file_is_of() {
        let (dir, journal) = (Path::new("d"), uuid::Uuid::from_u128(7));
        let ring = journal_path(dir, journal, 12);
        assert_eq!(
            journal_file_kind(&ring),
            Some(JournalFileKind::Ring(journal))
        );
        assert_eq!(
            journal_file_kind(&removal_path(dir, journal)),
            Some(JournalFileKind::Removal(journal))
        );
        let aside = format!("{}.damaged", ring.display());
        for other in [aside.as_str(), "d/x.journal", "d/.journal", "d/x"] {
            assert_eq!(journal_file_kind(Path::new(other)), None, "{other}");
        }
    }

    #[test]
    fn names_tell_what_a_file_is() {
        let dir = Path::new("d");
        let kind = |path: PathBuf| file_kind(&path);
        assert_eq!(
            kind(segment_path(dir, Offset(42))),
            Some(FileKind::Segment(Offset(42)))
        );
        assert_eq!(
            segment_path(dir, Offset(42)),
            Path::new("d/00000000000000000042.log")
        );
        assert_eq!(
            kind(index_path(dir, Offset(42))),
            Some(FileKind::Index(Offset(42)))
        );
        assert_eq!(
            kind(compacting_path(dir, Offset(42))),
            Some(FileKind::Compacting(Offset(42)))
        );
        assert_eq!(kind(checkpoint_path(dir, 1)), Some(FileKind::Checkpoint(1)));
        assert_eq!(kind(spare_path(dir)), Some(FileKind::Spare));
        for other in ["x", "checkpoint.2", "42.log", "00000000000000000042.tmp"] {
            assert_eq!(kind(dir.join(other)), None, "{other}");
        }
    }
}
