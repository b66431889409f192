//! What the metadata log stores: an envelope that names its version, around an rkyv archive.
//!
//! An archived type is never changed in place. A change of a command's form is another type beside
//! the old one, with the next version, and old entries stay readable. `docs/format/metadata.md` is
//! the page for it; the golden bytes in the tests keep both true.

use millstream_protocol::{BrokerId, TopicId};
use rkyv::{
    Archive, Deserialize, Serialize,
    api::high::{HighDeserializer, HighSerializer, HighValidator},
    bytecheck::CheckBytes,
    rancor::Error as ArchiveError,
    ser::allocator::ArenaHandle,
    util::AlignedVec,
};
use uuid::Uuid;

use super::{Command, Controller, Seat, snapshot::SnapshotV1};

/// First bytes of every envelope: "MSMD" as a little-endian number.
pub const MAGIC: u32 = u32::from_le_bytes(*b"MSMD");
/// Bytes before the archive.
pub const ENVELOPE_HEADER_SIZE: usize = 32;
/// Where the checksum is; it covers the header before it and the archive.
const CRC_POSITION: usize = ENVELOPE_HEADER_SIZE - 4;
/// The largest archive that is believed, in bytes.
const MAX_ARCHIVE_SIZE: usize = 1 << 30;

/// Why bytes of the metadata log are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Fewer bytes than there should be, or more.
    #[error("{present} bytes where the envelope says {expected}")]
    Size {
        /// How many there are.
        present: usize,
        /// How many there should be.
        expected: usize,
    },
    /// Not an envelope.
    #[error("no metadata envelope (its first bytes are {0:#010x})")]
    Magic(u32),
    /// Bits changed.
    #[error("the checksum does not match: stored {stored:#010x}, computed {computed:#010x}")]
    Checksum {
        /// What the envelope says.
        stored: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// A newer broker wrote it.
    #[error(
        "a {kind} of version {version}, which this version of millstream does not know: \
         start the newer one that wrote it"
    )]
    Newer {
        /// What it is, by name where that is known.
        kind: String,
        /// Its version.
        version: u16,
    },
    /// The archive is not valid although its checksum is.
    #[error("a {kind} cannot be read: {reason}")]
    Archive {
        /// What it is.
        kind: &'static str,
        /// What the validation says.
        reason: String,
    },
}

/// Numbers of what envelopes hold. Append-only.
mod kind {
    pub const BROKER_STARTED: u16 = 1;
    pub const CREATE_TOPIC: u16 = 2;
    pub const DELETE_TOPIC: u16 = 3;
    pub const ALTER_TOPIC: u16 = 4;
    pub const CREATE_PARTITIONS: u16 = 5;
    pub const ALLOCATE_PRODUCER_IDS: u16 = 6;
    pub const FORGET_TOPIC: u16 = 7;
    pub const SNAPSHOT: u16 = 100;
}

#[derive(Archive, Serialize, Deserialize)]
struct BrokerStartedV1 {
    broker: u32,
    incarnation: [u8; 16],
}

#[derive(Archive, Serialize, Deserialize)]
struct CreateTopicV1 {
    id: [u8; 16],
    name: String,
    configs: Vec<(String, String)>,
    assignments: Vec<Vec<u32>>,
}

#[derive(Archive, Serialize, Deserialize)]
struct DeleteTopicV1 {
    id: [u8; 16],
}

#[derive(Archive, Serialize, Deserialize)]
struct AlterTopicV1 {
    id: [u8; 16],
    changes: Vec<(String, Option<String>)>,
}

#[derive(Archive, Serialize, Deserialize)]
struct CreatePartitionsV1 {
    id: [u8; 16],
    present: u32,
    assignments: Vec<Vec<u32>>,
}

#[derive(Archive, Serialize, Deserialize)]
struct AllocateProducerIdsV1 {
    broker: u32,
    count: u32,
}

#[derive(Archive, Serialize, Deserialize)]
struct ForgetTopicV1 {
    id: [u8; 16],
}

/// One entry of the metadata log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Term of the leader that proposed it.
    pub term: u64,
    /// Its place in the log, from 1.
    pub index: u64,
    /// The change.
    pub command: Command,
}

impl Entry {
    /// The entry as the log stores it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (kind, archive) = archive_command(&self.command);
        seal(kind, 1, self.term, self.index, &archive)
    }

    /// Reads an entry back, believing nothing before it is checked.
    ///
    /// # Errors
    /// What is wrong with the bytes, or that a newer version wrote them.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let envelope = Envelope::open(bytes)?;
        let command = read_command(&envelope)?;
        Ok(Self {
            term: envelope.term,
            index: envelope.index,
            command,
        })
    }
}

/// A whole state of the controller, as the log stores it.
#[must_use]
pub fn encode_snapshot(controller: &Controller) -> Vec<u8> {
    let archive = archive(&SnapshotV1::of(controller));
    seal(
        kind::SNAPSHOT,
        1,
        controller.term(),
        controller.index(),
        &archive,
    )
}

/// Reads a state back.
///
/// # Errors
/// What is wrong with the bytes, or that a newer version wrote them.
pub fn decode_snapshot(bytes: &[u8], seat: Seat) -> Result<Controller, FormatError> {
    let envelope = Envelope::open(bytes)?;
    let unreadable = |reason: String| FormatError::Archive {
        kind: "snapshot",
        reason,
    };
    match (envelope.kind, envelope.version) {
        (kind::SNAPSHOT, 1) => {
            let snapshot: SnapshotV1 = read(envelope.archive).map_err(unreadable)?;
            snapshot
                .restore(envelope.index, envelope.term, seat)
                .map_err(unreadable)
        }
        (kind, version) => Err(newer(kind, version)),
    }
}

struct Envelope<'a> {
    kind: u16,
    version: u16,
    term: u64,
    index: u64,
    archive: &'a [u8],
}

impl<'a> Envelope<'a> {
    fn open(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let size_error = |expected| FormatError::Size {
            present: bytes.len(),
            expected,
        };
        let (header, archive) = bytes
            .split_first_chunk::<ENVELOPE_HEADER_SIZE>()
            .ok_or_else(|| size_error(ENVELOPE_HEADER_SIZE))?;
        let u16_at = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let u32_at = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| header[at + i]));
        let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| header[at + i]));
        if u32_at(0) != MAGIC {
            return Err(FormatError::Magic(u32_at(0)));
        }
        let size = u32_at(24) as usize;
        if size != archive.len() || size > MAX_ARCHIVE_SIZE {
            return Err(size_error(ENVELOPE_HEADER_SIZE + size));
        }
        let (stored, computed) = (
            u32_at(CRC_POSITION),
            checksum(&header[..CRC_POSITION], archive),
        );
        if stored != computed {
            return Err(FormatError::Checksum { stored, computed });
        }
        Ok(Self {
            kind: u16_at(4),
            version: u16_at(6),
            term: u64_at(8),
            index: u64_at(16),
            archive,
        })
    }
}

fn seal(kind: u16, version: u16, term: u64, index: u64, archive: &[u8]) -> Vec<u8> {
    assert!(
        archive.len() <= MAX_ARCHIVE_SIZE,
        "metadata of {} bytes",
        archive.len()
    );
    let mut bytes = Vec::with_capacity(ENVELOPE_HEADER_SIZE + archive.len());
    bytes.extend(MAGIC.to_le_bytes());
    bytes.extend(kind.to_le_bytes());
    bytes.extend(version.to_le_bytes());
    bytes.extend(term.to_le_bytes());
    bytes.extend(index.to_le_bytes());
    bytes.extend(
        u32::try_from(archive.len())
            .expect("bounded above")
            .to_le_bytes(),
    );
    let crc = checksum(&bytes, archive);
    bytes.extend(crc.to_le_bytes());
    bytes.extend(archive);
    bytes
}

fn checksum(header: &[u8], archive: &[u8]) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    digest.update(header);
    digest.update(archive);
    u32::try_from(digest.finalize()).expect("a CRC-32 has 32 bits")
}

fn archive<T>(value: &T) -> AlignedVec
where
    T: for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, ArchiveError>>,
{
    rkyv::to_bytes(value).expect("an archive in memory has no way to fail")
}

fn read<T>(bytes: &[u8]) -> Result<T, String>
where
    T: Archive,
    T::Archived: for<'a> CheckBytes<HighValidator<'a, ArchiveError>>
        + Deserialize<T, HighDeserializer<ArchiveError>>,
{
    rkyv::from_bytes(bytes).map_err(|error: ArchiveError| error.to_string())
}

fn archive_command(command: &Command) -> (u16, AlignedVec) {
    match command {
        Command::BrokerStarted {
            broker,
            incarnation,
        } => (
            kind::BROKER_STARTED,
            archive(&BrokerStartedV1 {
                broker: broker.0,
                incarnation: incarnation.into_bytes(),
            }),
        ),
        Command::CreateTopic {
            id,
            name,
            configs,
            assignments,
        } => (
            kind::CREATE_TOPIC,
            archive(&CreateTopicV1 {
                id: id.0.into_bytes(),
                name: name.clone(),
                configs: configs.clone(),
                assignments: numbers(assignments),
            }),
        ),
        Command::DeleteTopic { id } => (
            kind::DELETE_TOPIC,
            archive(&DeleteTopicV1 {
                id: id.0.into_bytes(),
            }),
        ),
        Command::AlterTopic { id, changes } => (
            kind::ALTER_TOPIC,
            archive(&AlterTopicV1 {
                id: id.0.into_bytes(),
                changes: changes.clone(),
            }),
        ),
        Command::CreatePartitions {
            id,
            present,
            assignments,
        } => (
            kind::CREATE_PARTITIONS,
            archive(&CreatePartitionsV1 {
                id: id.0.into_bytes(),
                present: *present,
                assignments: numbers(assignments),
            }),
        ),
        Command::AllocateProducerIds { broker, count } => (
            kind::ALLOCATE_PRODUCER_IDS,
            archive(&AllocateProducerIdsV1 {
                broker: broker.0,
                count: *count,
            }),
        ),
        Command::ForgetTopic { id } => (
            kind::FORGET_TOPIC,
            archive(&ForgetTopicV1 {
                id: id.0.into_bytes(),
            }),
        ),
    }
}

fn read_command(envelope: &Envelope<'_>) -> Result<Command, FormatError> {
    let bytes = envelope.archive;
    let command = match (envelope.kind, envelope.version) {
        (kind::BROKER_STARTED, 1) => read(bytes).map(|it: BrokerStartedV1| {
            let incarnation = Uuid::from_bytes(it.incarnation);
            Command::BrokerStarted {
                broker: BrokerId(it.broker),
                incarnation,
            }
        }),
        (kind::CREATE_TOPIC, 1) => read(bytes).map(|it: CreateTopicV1| Command::CreateTopic {
            id: topic_id(it.id),
            name: it.name,
            configs: it.configs,
            assignments: broker_ids(it.assignments),
        }),
        (kind::DELETE_TOPIC, 1) => read(bytes).map(|it: DeleteTopicV1| Command::DeleteTopic {
            id: topic_id(it.id),
        }),
        (kind::ALTER_TOPIC, 1) => read(bytes).map(|it: AlterTopicV1| Command::AlterTopic {
            id: topic_id(it.id),
            changes: it.changes,
        }),
        (kind::CREATE_PARTITIONS, 1) => {
            read(bytes).map(|it: CreatePartitionsV1| Command::CreatePartitions {
                id: topic_id(it.id),
                present: it.present,
                assignments: broker_ids(it.assignments),
            })
        }
        (kind::ALLOCATE_PRODUCER_IDS, 1) => {
            read(bytes).map(|it: AllocateProducerIdsV1| Command::AllocateProducerIds {
                broker: BrokerId(it.broker),
                count: it.count,
            })
        }
        (kind::FORGET_TOPIC, 1) => read(bytes).map(|it: ForgetTopicV1| Command::ForgetTopic {
            id: topic_id(it.id),
        }),
        (kind, version) => return Err(newer(kind, version)),
    };
    command.map_err(|reason| FormatError::Archive {
        kind: kind_name(envelope.kind),
        reason,
    })
}

fn kind_name(kind: u16) -> &'static str {
    match kind {
        kind::BROKER_STARTED => "BrokerStarted command",
        kind::CREATE_TOPIC => "CreateTopic command",
        kind::DELETE_TOPIC => "DeleteTopic command",
        kind::ALTER_TOPIC => "AlterTopic command",
        kind::CREATE_PARTITIONS => "CreatePartitions command",
        kind::ALLOCATE_PRODUCER_IDS => "AllocateProducerIds command",
        kind::FORGET_TOPIC => "ForgetTopic command",
        kind::SNAPSHOT => "snapshot",
        _ => "command",
    }
}

fn newer(kind: u16, version: u16) -> FormatError {
    FormatError::Newer {
        kind: format!("{} (kind {kind})", kind_name(kind)),
        version,
    }
}

fn topic_id(bytes: [u8; 16]) -> TopicId {
    TopicId(Uuid::from_bytes(bytes))
}

fn numbers(assignments: &[Vec<BrokerId>]) -> Vec<Vec<u32>> {
    let replicas = |brokers: &Vec<BrokerId>| brokers.iter().map(|broker| broker.0).collect();
    assignments.iter().map(replicas).collect()
}

fn broker_ids(assignments: Vec<Vec<u32>>) -> Vec<Vec<BrokerId>> {
    let replicas = |numbers: Vec<u32>| numbers.into_iter().map(BrokerId).collect();
    assignments.into_iter().map(replicas).collect()
}
