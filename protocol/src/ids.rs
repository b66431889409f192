//! Newtypes for everything that is counted, named or numbered, so that none can stand for another.

use std::fmt;

use uuid::Uuid;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }
    };
}

number!(
    /// Position of a record in a partition, counted in records from 0.
    Offset(i64)
);
number!(
    /// Number of a partition within its topic, from 0.
    PartitionIndex(u32)
);
number!(
    /// Term of a partition's leader. Rises at every start of a leader; -1 means unknown.
    LeaderEpoch(i32)
);
number!(
    /// Identity handed to an idempotent producer; -1 means none.
    ProducerId(i64)
);
number!(
    /// Fences older incarnations of one producer id; -1 means none.
    ProducerEpoch(i16)
);
number!(
    /// Number of a broker in its cluster, from 0.
    BrokerId(u32)
);
number!(
    /// Number of a shard (one executor, one core) within its broker, from 0.
    ShardId(u32)
);

impl Offset {
    /// The first offset of every new partition.
    pub const ZERO: Self = Self(0);

    /// The offset `count` records further.
    ///
    /// # Panics
    /// On overflow, which takes 2^63 records.
    #[must_use]
    pub fn plus(self, count: u32) -> Self {
        Self(
            self.0
                .checked_add(i64::from(count))
                .expect("offset overflow"),
        )
    }
}

impl LeaderEpoch {
    /// "The caller does not know": accepted wherever an epoch is only a check.
    pub const UNKNOWN: Self = Self(-1);
}

impl ProducerId {
    /// No idempotence: the batch carries no sequence.
    pub const NONE: Self = Self(-1);

    /// The broker wrote the batch itself: delayed records that it delivers, and notes in a delay log. No
    /// producer may say so, and to a consumer it is as none.
    pub const BROKER: Self = Self(-2);
}

macro_rules! identity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

identity!(
    /// Identity of a topic. A topic deleted and created again under its name has another one.
    TopicId
);
identity!(
    /// Identity of a cluster, made once at its first start.
    ClusterId
);

/// One partition of one topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic.
    pub topic: TopicId,
    /// The partition within it.
    pub partition: PartitionIndex,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}
