//! Error codes on the wire: append-only numbers, never given another meaning.

use std::fmt;

use crate::{
    codec::{DecodeError, Reader, Wire},
    schema::Entry,
};

macro_rules! error_codes {
    ($(
        $(#[doc = $doc:literal])* $name:ident = $number:literal, $retriable:literal;
    )*) => {
        /// What a reply says went wrong; [`ErrorCode::None`] is success.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum ErrorCode {
            $($(#[doc = $doc])* $name = $number,)*
        }

        impl ErrorCode {
            /// Every code, for documentation and tests.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// Name, number and meaning of every code.
            pub const ENTRIES: &'static [Entry] = &[$(Entry {
                name: stringify!($name),
                number: $number,
                doc: &[$($doc),*],
            }),*];

            /// Its name, as the documentation has it.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            /// The code of a number; a number from a newer peer is [`ErrorCode::Unknown`].
            #[must_use]
            pub fn from_number(number: u16) -> Self {
                match number {
                    $($number => Self::$name,)*
                    _ => Self::Unknown,
                }
            }

            /// Whether the same request may succeed later without the user changing anything.
            #[must_use]
            pub fn is_retriable(self) -> bool {
                match self {
                    $(Self::$name => $retriable,)*
                }
            }
        }
    };
}

error_codes! {
    /// Success.
    None = 0, false;
    /// Something this side does not know the name of.
    Unknown = 1, false;
    /// The broker failed in a way it has no better name for; its log has more.
    Internal = 2, false;
    /// The frame or body is not what it claims to be.
    MalformedRequest = 3, false;
    /// No such API.
    UnknownApi = 4, false;
    /// The API exists, not in this version; Handshake tells the versions.
    UnsupportedVersion = 5, false;
    /// A request came before the handshake.
    HandshakeRequired = 6, false;
    /// The request is well-formed and makes no sense.
    InvalidRequest = 7, false;
    /// The principal may not do this.
    NotAuthorized = 8, false;
    /// A queue or a memory budget is full: back off and try again.
    Overloaded = 9, true;
    /// The broker is on its way down.
    ShuttingDown = 10, true;
    /// The request took longer than its timeout; whether it took effect is unknown.
    Timeout = 11, true;
    /// No topic of that name or id.
    UnknownTopic = 20, false;
    /// The topic has no such partition.
    UnknownPartition = 21, false;
    /// A topic of that name is there already.
    TopicExists = 22, false;
    /// The name breaks the rules for topic names.
    InvalidTopicName = 23, false;
    /// A topic setting is unknown or its value is out of range.
    InvalidConfig = 24, false;
    /// The number of partitions is out of range, or less than there are.
    InvalidPartitions = 25, false;
    /// This broker cannot place that many replicas.
    InvalidReplicationFactor = 26, false;
    /// This broker does not lead the partition; the reply may name who does.
    NotLeader = 30, true;
    /// The partition's leader epoch is newer than the request's: refresh metadata.
    FencedLeaderEpoch = 31, true;
    /// The request's leader epoch is newer than the partition's.
    UnknownLeaderEpoch = 32, true;
    /// The partition is still being opened.
    PartitionLoading = 33, true;
    /// The partition's disk failed; the broker's log says how.
    PartitionOffline = 34, false;
    /// Data that was acknowledged is damaged; nothing new is taken until it is repaired.
    PartitionReadOnly = 35, false;
    /// The offset is below the log start or above the log end.
    OffsetOutOfRange = 36, false;
    /// A checksum does not match its bytes.
    CorruptBatch = 40, false;
    /// A record batch breaks a rule of its format.
    InvalidBatch = 41, false;
    /// A record batch is larger than the topic allows.
    BatchTooLarge = 42, false;
    /// A record's timestamp is further ahead than is allowed.
    InvalidTimestamp = 43, false;
    /// The sequence does not follow the last one of this producer.
    OutOfOrderSequence = 44, false;
    /// A newer incarnation of this producer id exists.
    ProducerFenced = 45, false;
    /// The batch repeats one that is older than what the broker remembers.
    DuplicateSequence = 46, false;
    /// A record has no key, and its topic is compacted; or a topic that holds such records should be.
    KeyRequired = 47, false;
    /// Too little disk space is free; reading and deleting go on.
    DiskFull = 50, true;
    /// The storage failed while the request was under way; whether it took effect is unknown.
    StorageError = 51, true;
    /// The group has no such member: it left, or was not heard of in time. Join anew.
    UnknownMemberId = 60, false;
    /// The member's epoch was never given to it, or it was removed for not letting go of partitions.
    FencedMemberEpoch = 61, false;
    /// The partition does not belong to the member in that epoch.
    StaleMemberEpoch = 62, false;
    /// Another member came with the same instance id.
    FencedInstanceId = 63, false;
    /// The group's coordinator is still loading, or wants to hear everything again.
    CoordinatorLoading = 64, true;
    /// This broker does not coordinate the group: refresh metadata.
    NotCoordinator = 65, true;
    /// The group has members: stop them first.
    GroupNotEmpty = 66, false;
    /// There is no such group.
    UnknownGroup = 67, false;
    /// The group has as many members, or the broker as many groups or offsets, as there may be.
    GroupLimitReached = 68, false;
    /// A delayed record does not say when it is due, or it is due beyond the topic's horizon.
    InvalidDelay = 78, false;
}

#[expect(
    clippy::derivable_impls,
    reason = "the macro has no place for the attribute"
)]
impl Default for ErrorCode {
    fn default() -> Self {
        Self::None
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Wire for ErrorCode {
    const MIN_SIZE: usize = 2;

    fn encode(&self, out: &mut Vec<u8>) {
        (*self as u16).encode(out);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self::from_number(u16::decode(reader)?))
    }
}
