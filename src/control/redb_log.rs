//! The metadata log in a redb file: copy-on-write pages with checksums, durable at each commit.

use std::{
    fs,
    ops::RangeToInclusive,
    path::{Path, PathBuf},
};

use millstream_protocol::{BrokerId, ClusterId};
use redb::{Builder, Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use uuid::Uuid;

use super::{
    data_dir::{DataDir, sync_dir},
    metadata_log::{FEATURE_LEVEL, Identity, MetadataLog, MetadataLogError, Stored, Vote},
};
use crate::controller::format::Entry;

/// Index of an entry to its envelope.
const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
/// Small facts by name.
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
/// The newest snapshot, under its index.
const SNAPSHOT: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("snapshot");

/// How often something was changed; nobody reads it.
const COMMITS: &str = "commits";

/// Pages kept in memory, in bytes; redb's own default is 1 GiB.
const CACHE_SIZE: usize = 4 << 20;

/// Below this much free space nothing is added: a write that runs out of space in the middle is a
/// failed write, after which nothing can be changed until a restart.
const RESERVE_BYTES: u64 = 64 << 20;
/// The same for what lets space go, or lets the broker start.
const LAST_RESERVE_BYTES: u64 = 1 << 20;

/// A [`MetadataLog`] in one file.
#[derive(Debug)]
pub struct RedbLog {
    path: PathBuf,
    database: Database,
}

impl RedbLog {
    /// Opens the log of a data directory; of a new one, makes it with `fresh` as identity.
    ///
    /// # Errors
    /// The file is damaged or the disk failed. A damaged file is never replaced.
    pub fn open(dir: &DataDir, fresh: Identity) -> Result<Self, MetadataLogError> {
        let path = dir.metadata();
        if !dir.has_metadata() {
            create(dir, &path, fresh)?;
        }
        let database = builder()
            .open(&path)
            .map_err(|error| damaged(&path, error))?;
        Ok(Self { path, database })
    }

    /// A log over a database that is open already, for tests of what disks do.
    #[must_use]
    pub fn over(database: Database) -> Self {
        Self {
            path: PathBuf::from("(memory)"),
            database,
        }
    }

    /// Makes the tables of an empty database, and writes the identity.
    ///
    /// # Errors
    /// The disk failed.
    pub fn write_identity(&mut self, identity: Identity) -> Result<(), MetadataLogError> {
        self.write(|transaction| {
            transaction.open_table(LOG)?;
            transaction.open_table(SNAPSHOT)?;
            let mut meta = transaction.open_table(META)?;
            meta.insert("cluster.id", identity.cluster_id.0.as_bytes().as_slice())?;
            meta.insert("broker.id", identity.broker_id.0.to_le_bytes().as_slice())?;
            meta.insert("directory.id", identity.directory_id.as_bytes().as_slice())?;
            meta.insert(
                "feature.level",
                identity.feature_level.to_le_bytes().as_slice(),
            )?;
            Ok(())
        })
    }

    /// Free space on the log's file system; in memory, or where nobody can tell, there is enough.
    fn free_bytes(&self) -> u64 {
        rustix::fs::statvfs(&self.path).map_or(u64::MAX, |space| {
            space.f_bavail.saturating_mul(space.f_frsize)
        })
    }

    fn write(
        &mut self,
        change: impl Fn(&redb::WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), MetadataLogError> {
        let commit = |change: &dyn Fn(&redb::WriteTransaction) -> Result<(), redb::Error>| {
            let mut transaction = self.database.begin_write()?;
            transaction.set_durability(Durability::Immediate)?;
            // With one phase, a newest commit that is damaged later looks as if it had been torn, and the one
            // before it is taken, without a word.
            transaction.set_two_phase_commit(true);
            change(&transaction)?;
            Ok(transaction.commit()?)
        };
        // One bit of the file, which no checksum covers, says which of the last two commits counts. So the last
        // two say the same.
        let again = |transaction: &redb::WriteTransaction| {
            let mut meta = transaction.open_table(META)?;
            let last = meta.get(COMMITS)?.map(|count| count.value().to_vec());
            let count = number(last).map_or(0, u64::from_le_bytes).wrapping_add(1);
            meta.insert(COMMITS, count.to_le_bytes().as_slice())?;
            Ok(())
        };
        commit(&change)
            .and_then(|()| commit(&again))
            .map_err(|error: redb::Error| MetadataLogError::Disk {
                path: self.path.clone(),
                reason: error.to_string(),
            })
    }

    fn read(&self) -> Result<Raw, redb::Error> {
        let transaction = self.database.begin_read()?;
        let meta = transaction.open_table(META)?;
        let fact = |name: &str| -> Result<Option<Vec<u8>>, redb::Error> {
            Ok(meta.get(name)?.map(|value| value.value().to_vec()))
        };
        let snapshot = newest(&transaction.open_table(SNAPSHOT)?)?;
        let entries = entries(&transaction.open_table(LOG)?)?;
        Ok(Raw {
            cluster_id: fact("cluster.id")?,
            broker_id: fact("broker.id")?,
            directory_id: fact("directory.id")?,
            feature_level: fact("feature.level")?,
            term: fact("vote.term")?,
            voted_for: fact("vote.for")?,
            snapshot,
            entries,
        })
    }
}

/// What the file holds, before it is believed.
struct Raw {
    cluster_id: Option<Vec<u8>>,
    broker_id: Option<Vec<u8>>,
    directory_id: Option<Vec<u8>>,
    feature_level: Option<Vec<u8>>,
    term: Option<Vec<u8>>,
    voted_for: Option<Vec<u8>>,
    snapshot: Option<(u64, Vec<u8>)>,
    entries: Vec<(u64, Vec<u8>)>,
}

type Bytes = &'static [u8];

fn newest(table: &impl ReadableTable<u64, Bytes>) -> Result<Option<(u64, Vec<u8>)>, redb::Error> {
    Ok(table
        .last()?
        .map(|(index, bytes)| (index.value(), bytes.value().to_vec())))
}

fn entries(table: &impl ReadableTable<u64, Bytes>) -> Result<Vec<(u64, Vec<u8>)>, redb::Error> {
    let mut entries = Vec::new();
    for row in table.iter()? {
        let (index, bytes) = row?;
        entries.push((index.value(), bytes.value().to_vec()));
    }
    Ok(entries)
}

impl MetadataLog for RedbLog {
    fn load(&mut self) -> Result<Stored, MetadataLogError> {
        let raw = self.read().map_err(|error| damaged(&self.path, error))?;
        let missing = |what: &str| damaged(&self.path, format!("no valid {what} in it"));
        let feature_level = number(raw.feature_level).ok_or_else(|| missing("feature level"))?;
        let feature_level = u16::from_le_bytes(feature_level);
        if feature_level > FEATURE_LEVEL {
            return Err(MetadataLogError::NewerFeatureLevel {
                found: feature_level,
            });
        }
        let identity = Identity {
            cluster_id: ClusterId(uuid(raw.cluster_id).ok_or_else(|| missing("cluster id"))?),
            broker_id: BrokerId(u32::from_le_bytes(
                number(raw.broker_id).ok_or_else(|| missing("broker id"))?,
            )),
            directory_id: uuid(raw.directory_id).ok_or_else(|| missing("directory id"))?,
            feature_level,
        };
        let vote = match (raw.term, raw.voted_for) {
            (None, None) => Vote::default(),
            (term, voted_for) => Vote {
                term: u64::from_le_bytes(number(term).ok_or_else(|| missing("term"))?),
                voted_for: BrokerId(u32::from_le_bytes(
                    number(voted_for).ok_or_else(|| missing("vote"))?,
                )),
            },
        };
        let first = raw.snapshot.as_ref().map_or(1, |(index, _)| index + 1);
        let mut entries = Vec::with_capacity(raw.entries.len());
        for (next, (index, bytes)) in (first..).zip(raw.entries) {
            let what = format!("entry {index}");
            let entry = Entry::decode(&bytes).map_err(|source| MetadataLogError::Unreadable {
                path: self.path.clone(),
                what,
                source,
            })?;
            if index != next || entry.index != index || entry.term > vote.term {
                return Err(damaged(
                    &self.path,
                    format!("entry {index} is out of place"),
                ));
            }
            entries.push(entry);
        }
        Ok(Stored {
            identity,
            vote,
            snapshot: raw.snapshot.map(|(_, bytes)| bytes),
            entries,
        })
    }

    fn save_vote(&mut self, vote: Vote) -> Result<(), MetadataLogError> {
        self.write(|transaction| {
            let mut meta = transaction.open_table(META)?;
            meta.insert("vote.term", vote.term.to_le_bytes().as_slice())?;
            meta.insert("vote.for", vote.voted_for.0.to_le_bytes().as_slice())?;
            Ok(())
        })
    }

    fn append(&mut self, entries: &[Entry]) -> Result<(), MetadataLogError> {
        if self.free_bytes() < reserve_for(entries) {
            return Err(MetadataLogError::Full {
                path: self.path.clone(),
            });
        }
        self.write(|transaction| {
            let mut log = transaction.open_table(LOG)?;
            for entry in entries {
                let replaced = log.insert(entry.index, entry.encode().as_slice())?;
                assert!(
                    replaced.is_none(),
                    "metadata entry {} written twice",
                    entry.index
                );
            }
            Ok(())
        })
    }

    fn save_snapshot(&mut self, index: u64, snapshot: &[u8]) -> Result<(), MetadataLogError> {
        self.write(|transaction| {
            let covered: RangeToInclusive<u64> = ..=index;
            transaction
                .open_table(LOG)?
                .retain_in(covered, |_, _| false)?;
            let mut table = transaction.open_table(SNAPSHOT)?;
            table.retain(|_, _| false)?;
            table.insert(index, snapshot)?;
            Ok(())
        })
    }
}

/// Makes a new log under another name and renames it when it is whole, so that a start that is cut
/// short leaves nothing that looks damaged.
fn create(dir: &DataDir, path: &Path, identity: Identity) -> Result<(), MetadataLogError> {
    let disk = |reason: String| MetadataLogError::Disk {
        path: path.to_owned(),
        reason,
    };
    let new = path.with_extension("redb.new");
    if let Err(error) = fs::remove_file(&new)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(disk(error.to_string()));
    }
    let database = builder()
        .create(&new)
        .map_err(|error| disk(error.to_string()))?;
    let mut log = RedbLog {
        path: new.clone(),
        database,
    };
    log.write_identity(identity)?;
    log.database
        .close()
        .map_err(|error| disk(error.to_string()))?;
    fs::rename(&new, path).map_err(|error| disk(error.to_string()))?;
    sync_dir(dir.path()).map_err(|error| disk(error.to_string()))
}

fn reserve_for(entries: &[Entry]) -> u64 {
    match entries.iter().all(|entry| entry.command.may_use_reserve()) {
        true => LAST_RESERVE_BYTES,
        false => RESERVE_BYTES,
    }
}

fn builder() -> Builder {
    let mut builder = Database::builder();
    builder
        .set_cache_size(CACHE_SIZE)
        .set_check_integrity_on_open(true);
    builder
}

fn damaged(path: &Path, reason: impl ToString) -> MetadataLogError {
    MetadataLogError::Damaged {
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

fn number<const N: usize>(bytes: Option<Vec<u8>>) -> Option<[u8; N]> {
    bytes?.try_into().ok()
}

fn uuid(bytes: Option<Vec<u8>>) -> Option<Uuid> {
    number(bytes).map(Uuid::from_bytes)
}
