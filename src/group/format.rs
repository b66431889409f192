//! The records of the offsets topic: `docs/format/offsets-topic.md`. A key says what of which group, a
//! value begins with its version, and no value means that it is no more.

use std::collections::BTreeMap;

use millstream_protocol::{DecodeError, Reader, TopicId, TopicPartition, Wire};

use super::offsets::Committed;

/// Version of every value.
pub const VALUE_VERSION: u16 = 0;

const OFFSET_KEY: u8 = 1;
const MEMBER_KEY: u8 = 2;
const GROUP_KEY: u8 = 3;

/// What a record is of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// The committed offset of a partition.
    Offset(String, TopicPartition),
    /// A member, by its id.
    Member(String, String),
    /// The group itself.
    Group(String),
}

impl Key {
    /// Its bytes; the same for the same key, always.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        match self {
            Self::Offset(group, partition) => {
                OFFSET_KEY.encode(&mut out);
                group.encode(&mut out);
                partition.encode(&mut out);
            }
            Self::Member(group, member) => {
                MEMBER_KEY.encode(&mut out);
                group.encode(&mut out);
                member.encode(&mut out);
            }
            Self::Group(group) => {
                GROUP_KEY.encode(&mut out);
                group.encode(&mut out);
            }
        }
        out
    }

    /// The key of these bytes; `None` for a kind that a newer broker wrote.
    ///
    /// # Errors
    /// They are no key.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, DecodeError> {
        let mut reader = Reader::new(bytes);
        let key = match u8::decode(&mut reader)? {
            OFFSET_KEY => Self::Offset(Wire::decode(&mut reader)?, Wire::decode(&mut reader)?),
            MEMBER_KEY => Self::Member(Wire::decode(&mut reader)?, Wire::decode(&mut reader)?),
            GROUP_KEY => Self::Group(Wire::decode(&mut reader)?),
            _ => return Ok(None),
        };
        reader.finish()?;
        Ok(Some(key))
    }

    /// The group it belongs to.
    #[must_use]
    pub fn group(&self) -> &str {
        match self {
            Self::Offset(group, _) | Self::Member(group, _) | Self::Group(group) => group,
        }
    }
}

/// What is kept of a member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberRecord {
    /// Its name for all its lives.
    pub instance_id: Option<String>,
    /// Unheard of for so long, it is given up.
    pub session_timeout_ms: u32,
}

/// What is kept of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupRecord {
    /// Since when it has no members, in milliseconds since 1970; none while it has some.
    pub empty_since_ms: Option<i64>,
    /// Partitions of each topic when the group first saw it.
    pub seen: BTreeMap<TopicId, u32>,
}

fn version(reader: &mut Reader<'_>) -> Result<(), DecodeError> {
    match u16::decode(reader)? {
        VALUE_VERSION => Ok(()),
        _ => Err(DecodeError::OutOfRange("a value of a newer version")),
    }
}

impl MemberRecord {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32);
        VALUE_VERSION.encode(&mut out);
        self.instance_id.encode(&mut out);
        self.session_timeout_ms.encode(&mut out);
        out
    }

    /// The record of these bytes.
    ///
    /// # Errors
    /// They are none.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        version(&mut reader)?;
        let record = Self {
            instance_id: Wire::decode(&mut reader)?,
            session_timeout_ms: Wire::decode(&mut reader)?,
        };
        reader.finish()?;
        Ok(record)
    }
}

impl GroupRecord {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32);
        VALUE_VERSION.encode(&mut out);
        self.empty_since_ms.encode(&mut out);
        let seen: Vec<(TopicId, u32)> = self.seen.iter().map(|(id, n)| (*id, *n)).collect();
        seen.encode(&mut out);
        out
    }

    /// The record of these bytes.
    ///
    /// # Errors
    /// They are none.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        version(&mut reader)?;
        let empty_since_ms = Wire::decode(&mut reader)?;
        let seen: Vec<(TopicId, u32)> = Wire::decode(&mut reader)?;
        reader.finish()?;
        Ok(Self {
            empty_since_ms,
            seen: seen.into_iter().collect(),
        })
    }
}

impl Committed {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32 + self.metadata.len());
        VALUE_VERSION.encode(&mut out);
        self.offset.encode(&mut out);
        self.leader_epoch.encode(&mut out);
        self.commit_ms.encode(&mut out);
        self.metadata.encode(&mut out);
        out
    }

    /// The committed offset of these bytes.
    ///
    /// # Errors
    /// They are none.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        version(&mut reader)?;
        let committed = Self {
            offset: Wire::decode(&mut reader)?,
            leader_epoch: Wire::decode(&mut reader)?,
            commit_ms: Wire::decode(&mut reader)?,
            metadata: Wire::decode(&mut reader)?,
        };
        reader.finish()?;
        Ok(committed)
    }
}

#[cfg(test)]
mod tests {
    use millstream_protocol::{LeaderEpoch, Offset, PartitionIndex};
    use uuid::Uuid;

    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// These bytes are on disks: they never change.
    #[test]
    fn golden_bytes() {
        let topic = TopicId(Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff));
        let partition = TopicPartition {
            topic,
            partition: PartitionIndex(2),
        };
        let key = Key::Offset("g".to_owned(), partition);
        assert_eq!(
            hex(&key.encode()),
            "0101006700112233445566778899aabbccddeeff02000000"
        );
        assert_eq!(Key::decode(&key.encode()), Ok(Some(key)));
        let key = Key::Member("g".to_owned(), "m".to_owned());
        assert_eq!(hex(&key.encode()), "0201006701006d");
        assert_eq!(Key::decode(&key.encode()), Ok(Some(key)));
        let key = Key::Group("g".to_owned());
        assert_eq!(hex(&key.encode()), "03010067");
        assert_eq!(Key::decode(&key.encode()), Ok(Some(key)));
        assert_eq!(Key::decode(&[9, 1]), Ok(None), "of a newer broker");

        let committed = Committed {
            offset: Offset(7),
            leader_epoch: LeaderEpoch(1),
            metadata: "x".to_owned(),
            commit_ms: 5,
        };
        let bytes = committed.encode();
        assert_eq!(
            hex(&bytes),
            "00000700000000000000010000000500000000000000010078"
        );
        assert_eq!(Committed::decode(&bytes), Ok(committed));
        let member = MemberRecord {
            instance_id: Some("i".to_owned()),
            session_timeout_ms: 15_000,
        };
        let bytes = member.encode();
        assert_eq!(hex(&bytes), "00000101006".to_owned() + "9983a0000");
        assert_eq!(MemberRecord::decode(&bytes), Ok(member));
        let group = GroupRecord {
            empty_since_ms: Some(9),
            seen: BTreeMap::from([(topic, 3)]),
        };
        let bytes = group.encode();
        let expected = "00000109000000000000000100000000112233445566778899aabbccddeeff03000000";
        assert_eq!(hex(&bytes), expected);
        assert_eq!(GroupRecord::decode(&bytes), Ok(group));
        let mut newer = bytes;
        newer[0] = 1;
        assert!(GroupRecord::decode(&newer).is_err());
    }
}
