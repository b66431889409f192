//! What the two slots of a log's checkpoint say: judged in one way by a start, by `log verify` and by `log
//! repair`. Pure.

use std::path::{Path, PathBuf};

use millstream_protocol::TopicPartition;

use super::{
    checkpoints::NO_CHECKPOINT,
    format::{
        checkpoint::{CheckpointV1, SegmentV1},
        envelope::NotAnEnvelope,
        names,
    },
    incarnations::Incarnations,
    limits::{MAX_NUMBER, MAX_OFFSET},
};
use crate::io::BLOCK_SIZE;

/// Why a slot does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotASlot {
    /// Blank, torn or something else.
    #[error("blank or damaged")]
    Damaged,
    /// Its checksum holds, and it says what no broker writes.
    #[error("it contradicts itself")]
    Nonsense,
    /// It was copied here.
    #[error("it belongs to another log")]
    Foreign,
    /// Written by a newer broker.
    #[error("format version {0} is not known")]
    Version(u16),
}

/// Reads a slot of log `id`; of no log in particular where nobody knows whose directory it is.
pub(super) fn decode(
    bytes: &[u8],
    id: Option<TopicPartition>,
) -> Result<(u64, CheckpointV1), NotASlot> {
    let (sequence, checkpoint) = CheckpointV1::decode(bytes).map_err(|error| match error {
        NotAnEnvelope::Damaged => NotASlot::Damaged,
        NotAnEnvelope::Version(version) => NotASlot::Version(version),
    })?;
    let ours = |id: TopicPartition| {
        checkpoint.topic == *id.topic.0.as_bytes() && checkpoint.partition == id.partition.0
    };
    if !id.is_none_or(ours) {
        Err(NotASlot::Foreign)
    } else if is_sound(sequence, &checkpoint) {
        Ok((sequence, checkpoint))
    } else {
        Err(NotASlot::Nonsense)
    }
}

/// Whoever counts on from it overflows nothing.
fn is_sound(sequence: u64, checkpoint: &CheckpointV1) -> bool {
    let offset = |offset: i64| (0..=MAX_OFFSET).contains(&offset);
    let position =
        |position: u64| position <= MAX_NUMBER && position.is_multiple_of(BLOCK_SIZE as u64);
    let segment = |segment: &SegmentV1| {
        offset(segment.base) && segment.base <= segment.next && offset(segment.next)
    };
    let from = &checkpoint.position;
    sequence > NO_CHECKPOINT
        && sequence <= MAX_NUMBER
        && offset(checkpoint.log_start)
        && offset(checkpoint.flushed)
        && offset(from.segment)
        && offset(from.next)
        && position(from.position)
        && checkpoint.rolled.iter().all(segment)
        && Incarnations::from_entries(&checkpoint.incarnations).is_some()
}

/// Both slots of a log, as they come.
#[derive(Debug, Default)]
pub(super) struct Slots {
    /// The newest that counts, with its sequence.
    pub newest: Option<(u64, CheckpointV1)>,
    /// Those that do not.
    pub bad: Vec<PathBuf>,
    has_second: bool,
}

impl Slots {
    /// Takes what was found in a slot.
    pub fn add(&mut self, dir: &Path, slot: usize, found: Result<(u64, CheckpointV1), NotASlot>) {
        self.has_second |= slot == 1;
        match found {
            Err(_) => self.bad.push(names::checkpoint_path(dir, slot)),
            Ok((sequence, _)) if self.newest.as_ref().is_some_and(|it| it.0 >= sequence) => {}
            Ok(newer) => self.newest = Some(newer),
        }
    }

    /// There was a checkpoint, and none can be read: the second slot is begun when the first is durable, so no
    /// crash spoils both.
    pub fn lost(&self) -> bool {
        self.newest.is_none() && self.has_second
    }
}

#[cfg(test)]
mod tests {
    use millstream_protocol::{PartitionIndex, TopicId};
    use uuid::Uuid;

    use super::*;
    use crate::storage::format::checkpoint::PositionV1;

    fn id(topic: u128) -> TopicPartition {
        TopicPartition {
            topic: TopicId(Uuid::from_u128(topic)),
            partition: PartitionIndex(3),
        }
    }

    fn good() -> CheckpointV1 {
        CheckpointV1 {
            topic: *id(7).topic.0.as_bytes(),
            partition: 3,
            log_start: 1,
            flushed: 9,
            position: PositionV1 {
                segment: 0,
                position: 8_192,
                next: 9,
            },
            incarnations: vec![(0, 4)],
            ..CheckpointV1::default()
        }
    }

    #[test]
    fn a_slot_counts_for_its_log_alone() {
        let bytes = good().encode(5);
        assert_eq!(decode(&bytes, Some(id(7))), Ok((5, good())));
        assert_eq!(decode(&bytes, None), Ok((5, good())));
        assert_eq!(decode(&bytes, Some(id(8))), Err(NotASlot::Foreign));
        let mut newer = bytes;
        newer[4] = 2;
        assert_eq!(decode(&newer, Some(id(7))), Err(NotASlot::Version(2)));
        assert_eq!(decode(&[0; 4_096], Some(id(7))), Err(NotASlot::Damaged));
    }

    #[test]
    fn what_no_broker_writes_is_not_believed() {
        let edits: [fn(&mut CheckpointV1); 9] = [
            |it| it.log_start = -1,
            |it| it.flushed = i64::MAX,
            |it| it.position.next = i64::MIN,
            |it| it.position.segment = -5,
            |it| it.position.position = 4_097,
            |it| it.position.position = !4_095,
            |it| it.incarnations = vec![(0, u64::MAX)],
            |it| it.incarnations = vec![(-3, 1)],
            |it| {
                it.rolled.push(SegmentV1 {
                    base: 9,
                    next: 2,
                    ..SegmentV1::default()
                });
            },
        ];
        for (number, edit) in edits.iter().enumerate() {
            let mut bad = good();
            edit(&mut bad);
            let found = decode(&bad.encode(5), Some(id(7)));
            assert_eq!(found, Err(NotASlot::Nonsense), "edit {number}");
        }
        for sequence in [0, NO_CHECKPOINT, u64::MAX] {
            let found = decode(&good().encode(sequence), Some(id(7)));
            assert_eq!(found, Err(NotASlot::Nonsense), "sequence {sequence}");
        }
    }

    #[test]
    fn the_newer_slot_counts_and_a_second_one_alone_is_a_loss() {
        let dir = Path::new("d");
        let mut slots = Slots::default();
        slots.add(dir, 0, Ok((6, good())));
        slots.add(dir, 1, Ok((5, CheckpointV1::default())));
        assert_eq!(slots.newest, Some((6, good())));
        assert!(!slots.lost() && slots.bad.is_empty());
        let mut slots = Slots::default();
        slots.add(dir, 0, Err(NotASlot::Damaged));
        assert!(!slots.lost());
        slots.add(dir, 1, Err(NotASlot::Foreign));
        assert!(slots.lost());
        let paths = [0, 1].map(|slot| names::checkpoint_path(dir, slot));
        assert_eq!(slots.bad, paths);
    }
}
