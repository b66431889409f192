//! Where the metadata is kept: entries by index, the vote, the newest snapshot, who we are.
//!
//! A trait, so that the quorum's log and the tests' failing disks fit behind the same seam.

use std::path::PathBuf;

use millstream_protocol::{BrokerId, ClusterId};
use uuid::Uuid;

use crate::controller::format::{Entry, FormatError};

/// What a broker is, decided at its first start and kept for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// The broker within it.
    pub broker_id: BrokerId,
    /// This data directory: an empty disk in its place has another one.
    pub directory_id: Uuid,
    /// What all brokers of the cluster understand.
    pub feature_level: u16,
}

/// The feature level that this version writes, and the newest that it understands.
pub const FEATURE_LEVEL: u16 = 1;

/// The term this broker is in and whom it voted for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vote {
    /// The term.
    pub term: u64,
    /// The candidate, itself for a sole voter.
    pub voted_for: BrokerId,
}

/// Everything that a start needs.
#[derive(Debug)]
pub struct Stored {
    /// Who we are.
    pub identity: Identity,
    /// The last vote.
    pub vote: Vote,
    /// The newest snapshot's bytes, if there is one.
    pub snapshot: Option<Vec<u8>>,
    /// Every entry after the snapshot, in order.
    pub entries: Vec<Entry>,
}

/// Why the metadata log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MetadataLogError {
    /// The file is damaged.
    #[error("metadata log {path} is damaged ({reason}): restore it from a backup")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How.
        reason: String,
    },
    /// Something in it cannot be read.
    #[error("metadata log {path}, {what}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Which part.
        what: String,
        /// Why.
        source: FormatError,
    },
    /// The cluster uses what this version lacks.
    #[error(
        "the cluster has feature level {found}, this version of millstream understands \
         {FEATURE_LEVEL}: start the newer version"
    )]
    NewerFeatureLevel {
        /// The level stored.
        found: u16,
    },
    /// Too little space is free to begin; nothing was written, and it heals by itself.
    #[error("too little space is free for {path}: delete topics or add space")]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// The disk failed; whether the last write took effect is unknown.
    #[error("metadata log {path}: {reason}")]
    Disk {
        /// The file.
        path: PathBuf,
        /// What the store says.
        reason: String,
    },
}

/// A durable log of metadata. Each method returns when its effect would survive a power cut.
pub trait MetadataLog: Send + 'static {
    /// Reads everything, checked.
    ///
    /// # Errors
    /// Damage, a newer version's data, or the disk.
    fn load(&mut self) -> Result<Stored, MetadataLogError>;

    /// Records a vote; no entry of an older term follows.
    ///
    /// # Errors
    /// The disk failed.
    fn save_vote(&mut self, vote: Vote) -> Result<(), MetadataLogError>;

    /// Adds entries, all or none of them.
    ///
    /// # Errors
    /// [`MetadataLogError::Full`], after which it may be tried again, or the disk failed.
    fn append(&mut self, entries: &[Entry]) -> Result<(), MetadataLogError>;

    /// Keeps a snapshot of the state after entry `index`, and drops the entries that it covers.
    ///
    /// # Errors
    /// The disk failed.
    fn save_snapshot(&mut self, index: u64, snapshot: &[u8]) -> Result<(), MetadataLogError>;
}
