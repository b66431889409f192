//! The data directory: made once, locked by one broker at a time, and refused when its format is
//! unknown.
//!
//! `LOCK` holds the pid of the broker that has it, `FORMAT` names the format of everything else and a
//! number that no client is told, `metadata.redb` is the metadata log, `topics/` holds the logs of partitions.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use millstream_protocol::batch::crc32c;

/// The format of data directories that this version writes, and the newest that it reads.
pub const DATA_FORMAT: u32 = 1;

const FORMAT_PREFIX: &str = "millstream data format ";
const FIRST_LIFE_PREFIX: &str = "first life of a log ";
const CHECKSUM_PREFIX: &str = "checksum ";
const METADATA: &str = "metadata.redb";
/// What may lie in a directory that is not in use yet: a mount point is seldom quite empty.
const IGNORED: [&str; 4] = ["LOCK", "lost+found", "FORMAT.new", ".disk-probe"];

/// Why a directory cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// The operating system refused.
    #[error("cannot {doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file has the name.
    #[error("{path} is a file, not a directory: give a directory with --data-dir")]
    NotADirectory {
        /// The file.
        path: PathBuf,
    },
    /// Two brokers on one directory would destroy it.
    #[error(
        "data directory {path} is in use by {holder}: stop that broker, or give this one another \
         directory with --data-dir"
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Who has it.
        holder: String,
    },
    /// Its files must not change while they are read.
    #[error(
        "data directory {path} is being read by a command (log verify, log dump, log repair): wait for its end"
    )]
    BeingRead {
        /// The directory.
        path: PathBuf,
    },
    /// Somebody else's files.
    #[error(
        "{path} is no Millstream data directory (it has {example:?} in it and no FORMAT file): give \
         an empty or new directory with --data-dir"
    )]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// One of the files in it.
        example: String,
    },
    /// A newer version made it.
    #[error(
        "data directory {path} has format {found}, this version of millstream knows format \
         {DATA_FORMAT}: start the newer version that wrote it"
    )]
    NewerFormat {
        /// The directory.
        path: PathBuf,
        /// The format it says it has.
        found: u32,
    },
    /// The format file says something else.
    #[error(
        "{path} is damaged or does not name a data format (it says {found:?}): restore the file"
    )]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: String,
    },
    /// Without metadata nobody knows whose the logs are.
    #[error(
        "data directory {path} has a topics directory but no {METADATA}: refusing to start over it; restore \
         {METADATA} from a backup, or move the directory away to begin anew"
    )]
    MetadataMissing {
        /// The directory.
        path: PathBuf,
    },
}

fn io_error<'a>(
    doing: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> DataDirError + 'a {
    move |source| DataDirError::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}

/// A data directory that this process holds until it is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    first_life: u64,
    _lock: File,
}

impl DataDir {
    /// Locks the directory, making what is missing of a new one.
    ///
    /// # Errors
    /// Each case of [`DataDirError`]; nothing of an existing directory has been changed then.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        if path.exists() && !path.is_dir() {
            let path = path.to_owned();
            return Err(DataDirError::NotADirectory { path });
        }
        fs::create_dir_all(path).map_err(io_error("create", path))?;
        let path = path.canonicalize().map_err(io_error("find", path))?;
        let lock = lock(&path)?;
        let mut dir = Self {
            path,
            first_life: 1,
            _lock: lock,
        };
        dir.first_life = dir.check_format()?;
        if !dir.has_metadata() && dir.topics().exists() {
            return Err(DataDirError::MetadataMissing { path: dir.path });
        }
        Ok(dir)
    }

    /// The directory, as an absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of the first life of every log here. A chunk names its log's life, and one that is found
    /// behind a torn place can prove that the place was good once: who does not know the number cannot write
    /// records that look like such a chunk.
    #[must_use]
    pub fn first_life(&self) -> u64 {
        self.first_life
    }

    /// Where the logs of partitions are.
    #[must_use]
    pub fn topics(&self) -> PathBuf {
        self.path.join("topics")
    }

    /// Makes the directory of topics, when the metadata log is there: so that one without a log can
    /// only mean that the log was lost, even while no topic has a record.
    pub(super) fn make_topics(&self) -> Result<(), DataDirError> {
        let topics = self.topics();
        fs::create_dir_all(&topics).map_err(io_error("create", &topics))?;
        sync_dir(&self.path)
    }

    /// Where the metadata log is.
    #[must_use]
    pub fn metadata(&self) -> PathBuf {
        self.path.join(METADATA)
    }

    /// Whether there is a metadata log; there is none before the first start.
    #[must_use]
    pub fn has_metadata(&self) -> bool {
        self.metadata().exists()
    }

    /// Gives the number of a log's first life.
    fn check_format(&self) -> Result<u64, DataDirError> {
        match check_format(&self.path) {
            Err(DataDirError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                self.write_format(&self.path.join("FORMAT"))
            }
            checked => checked,
        }
    }

    fn write_format(&self, path: &Path) -> Result<u64, DataDirError> {
        if let Some(example) = first_entry(&self.path, &IGNORED)? {
            return Err(DataDirError::NotOurs {
                path: self.path.clone(),
                example,
            });
        }
        let new = self.path.join("FORMAT.new");
        let life = new_life();
        let write = || {
            let mut file = File::create(&new)?;
            let text = format!("{FORMAT_PREFIX}{DATA_FORMAT}\n{FIRST_LIFE_PREFIX}{life}\n");
            let checksum = crc32c(text.as_bytes());
            writeln!(file, "{text}{CHECKSUM_PREFIX}{checksum:08x}")?;
            file.sync_all()?;
            fs::rename(&new, path)
        };
        write().map_err(io_error("write", path))?;
        sync_dir(&self.path)?;
        Ok(life)
    }
}

/// Checks that the format of a directory is known; gives the number of a log's first life. Changes nothing.
///
/// # Errors
/// [`DataDirError::NewerFormat`], [`DataDirError::UnknownFormat`], or the system's.
pub fn check_format(dir: &Path) -> Result<u64, DataDirError> {
    let path = dir.join("FORMAT");
    // What a damaged byte makes of it is no line that is known.
    let bytes = fs::read(&path).map_err(io_error("read", &path))?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let unknown = || {
        let found = text.chars().take(128).collect();
        DataDirError::UnknownFormat {
            path: path.clone(),
            found,
        }
    };
    let mut lines = text.lines();
    let number = lines.next().and_then(|it| it.strip_prefix(FORMAT_PREFIX));
    let number = number.ok_or_else(unknown)?;
    match number.trim_end().parse::<u32>().map_err(|_| unknown())? {
        DATA_FORMAT if is_whole(&text) => first_life(lines.next()).ok_or_else(unknown),
        found if found > DATA_FORMAT => Err(DataDirError::NewerFormat {
            path: dir.to_owned(),
            found,
        }),
        _ => Err(unknown()),
    }
}

/// The last line is the checksum of those before it. In directories made before there was one, the number of
/// the first life comes last.
fn is_whole(text: &str) -> bool {
    match text.find(CHECKSUM_PREFIX) {
        Some(at) => {
            text[at..] == format!("{CHECKSUM_PREFIX}{:08x}\n", crc32c(&text.as_bytes()[..at]))
        }
        None => text.ends_with('\n') && text.lines().count() <= 2,
    }
}

/// A number that nobody guesses, with room for every life to come.
fn new_life() -> u64 {
    let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
    (high ^ low.rotate_left(32)) >> 2 | 1
}

/// From the second line of `FORMAT`; directories made before it was written began with 1.
fn first_life(line: Option<&str>) -> Option<u64> {
    let Some(line) = line else {
        return Some(1);
    };
    let number = line.strip_prefix(FIRST_LIFE_PREFIX)?.parse().ok()?;
    (1..=u64::MAX / 4).contains(&number).then_some(number)
}

fn lock(dir: &Path) -> Result<File, DataDirError> {
    let path = dir.join("LOCK");
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let mut file = options.open(&path).map_err(io_error("open", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) if file.try_lock_shared().is_ok() => {
            let path = dir.to_owned();
            return Err(DataDirError::BeingRead { path });
        }
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = file.take(32).read_to_string(&mut pid);
            let holder = match pid.trim().parse::<u32>() {
                Ok(pid) => format!("the process with pid {pid}"),
                Err(_) => "another process".to_owned(),
            };
            return Err(DataDirError::InUse {
                path: dir.to_owned(),
                holder,
            });
        }
        Err(TryLockError::Error(error)) => return Err(io_error("lock", &path)(error)),
    }
    let mut write = || {
        file.set_len(0)?;
        writeln!(file, "{}", std::process::id())
    };
    write().map_err(io_error("write", &path))?;
    Ok(file)
}

/// Makes names that were created or renamed in a directory durable.
pub(super) fn sync_dir(path: &Path) -> Result<(), DataDirError> {
    let sync = || File::open(path)?.sync_all();
    sync().map_err(io_error("flush", path))
}

fn first_entry(dir: &Path, ignored: &[&str]) -> Result<Option<String>, DataDirError> {
    for entry in fs::read_dir(dir).map_err(io_error("read", dir))? {
        let name = entry.map_err(io_error("read", dir))?.file_name();
        let name = name.to_string_lossy().into_owned();
        if !ignored.contains(&name.as_str()) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_directory_is_made_and_opens_again() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("deep/data");
        let dir = DataDir::open(&path).unwrap();
        assert!(!dir.has_metadata());
        dir.make_topics().unwrap();
        fs::write(dir.metadata(), "x").unwrap();
        let life = dir.first_life();
        drop(dir);
        assert_eq!(DataDir::open(&path).unwrap().first_life(), life);
        let another = DataDir::open(&temp.path().join("another")).unwrap();
        assert_ne!(another.first_life(), life);
        fs::write(path.join("FORMAT"), "millstream data format 1\n").unwrap();
        assert_eq!(DataDir::open(&path).unwrap().first_life(), 1);
    }

    #[test]
    fn one_broker_at_a_time_and_the_message_names_it() {
        let temp = tempfile::tempdir().unwrap();
        let _held = DataDir::open(temp.path()).unwrap();
        let error = DataDir::open(temp.path()).unwrap_err().to_string();
        assert!(
            error.contains(&format!("pid {}", std::process::id())),
            "{error}"
        );
        assert!(error.contains("--data-dir"), "{error}");
    }

    #[test]
    fn what_is_being_read_is_not_opened() {
        let temp = tempfile::tempdir().unwrap();
        drop(DataDir::open(temp.path()).unwrap());
        let held = File::open(temp.path().join("LOCK")).unwrap();
        held.try_lock_shared().unwrap();
        let error = DataDir::open(temp.path()).unwrap_err();
        assert!(matches!(error, DataDirError::BeingRead { .. }), "{error}");
        drop(held);
        drop(DataDir::open(temp.path()).unwrap());
    }

    #[test]
    fn somebody_elses_files_are_left_alone() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("thesis.tex"), "x").unwrap();
        let error = DataDir::open(temp.path()).unwrap_err();
        assert!(matches!(&error, DataDirError::NotOurs { example, .. } if example == "thesis.tex"));
        assert!(!temp.path().join("topics").exists());
    }

    #[test]
    fn unknown_formats_are_refused_by_name() {
        let temp = tempfile::tempdir().unwrap();
        drop(DataDir::open(temp.path()).unwrap());
        let format = temp.path().join("FORMAT");
        fs::write(&format, "millstream data format 2\n").unwrap();
        let error = DataDir::open(temp.path()).unwrap_err();
        assert!(
            matches!(error, DataDirError::NewerFormat { found: 2, .. }),
            "{error}"
        );
        assert!(error.to_string().contains("has format 2"), "{error}");
        let no_number = "millstream data format 1\nfirst life of a log zero";
        for odd in ["", "millstream data format 0", "gibberish", no_number] {
            fs::write(&format, odd).unwrap();
            let error = DataDir::open(temp.path()).unwrap_err();
            assert!(
                matches!(error, DataDirError::UnknownFormat { .. }),
                "{error}"
            );
        }
    }

    #[test]
    fn topics_without_metadata_are_refused() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temp.path()).unwrap();
        dir.make_topics().unwrap();
        drop(dir);
        let error = DataDir::open(temp.path()).unwrap_err();
        assert!(
            matches!(error, DataDirError::MetadataMissing { .. }),
            "{error}"
        );
    }
}
