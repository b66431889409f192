//! What stays of a batch: the rules of compaction, record by record. Pure.

use std::collections::BTreeSet;

use millstream_protocol::{
    Offset,
    batch::{BatchFilter, BatchHeader, DecodedBatch, Filtered, Record, emptied},
};

use super::keys::KeyMap;

/// What a pass knows.
pub(super) struct Rules<'a> {
    /// The newest offset of each key, of the part that is being compacted.
    pub keys: &'a KeyMap,
    /// Tombstones below have been kept for long enough.
    pub tombstones_below: Offset,
    /// Base offsets of batches that idempotent producers are remembered by.
    pub remembered: &'a BTreeSet<Offset>,
}

/// What stays of a batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// All of it.
    All,
    /// This.
    Part(Vec<u8>),
    /// Nothing.
    Nothing,
}

/// What was seen and done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Records that stay.
    pub kept_records: u64,
    /// Records that go.
    pub removed_records: u64,
    /// Tombstones among those that stay.
    pub tombstones: u64,
    /// Batches that cannot be read; they stay as they are.
    pub unreadable_batches: u64,
    /// Batches that go, or lose records.
    pub changed_batches: u64,
}

impl Rules<'_> {
    /// A record goes if a later one has its key, or if it is a tombstone whose time is over. One
    /// without a key is nobody's and stays.
    fn keeps(&self, record: &Record<'_>) -> bool {
        let Some(key) = record.key else {
            return true;
        };
        let superseded = self.keys.newest(key) > Some(record.offset);
        let expired = record.value.is_none() && record.offset < self.tombstones_below;
        !superseded && !expired
    }

    /// Decides about one batch.
    pub fn apply(
        &self,
        filter: &mut BatchFilter,
        header: &BatchHeader,
        bytes: &[u8],
        tally: &mut Tally,
    ) -> Kept {
        let is_remembered = self.remembered.contains(&header.base_offset);
        if header.attributes.is_control() || header.record_count == 0 && is_remembered {
            return Kept::All;
        }
        let mut seen = Tally::default();
        let left = filter.filter(bytes, |record| {
            let keeps = self.keeps(record);
            if keeps {
                seen.kept_records += 1;
                seen.tombstones += u64::from(record.key.is_some() && record.value.is_none());
            } else {
                seen.removed_records += 1;
            }
            keeps
        });
        let Ok(left) = left else {
            // Its producer wrote it so, before the topic was compacted: nobody can read it, and what
            // nobody can read is not ours to take away.
            tally.unreadable_batches += 1;
            return Kept::All;
        };
        tally.kept_records += seen.kept_records;
        tally.removed_records += seen.removed_records;
        tally.tombstones += seen.tombstones;
        // One that had no record when it came here is left of an earlier pass.
        let left = match left {
            Filtered::Unchanged if header.record_count == 0 => Filtered::Nothing,
            left => left,
        };
        match left {
            Filtered::Unchanged => Kept::All,
            Filtered::Changed(batch) => {
                tally.changed_batches += 1;
                Kept::Part(batch)
            }
            Filtered::Nothing => {
                tally.changed_batches += 1;
                if is_remembered {
                    Kept::Part(emptied(header))
                } else {
                    Kept::Nothing
                }
            }
        }
    }
}

/// Notes the keys of a batch's records from `from` on. Gives the offset of the first record whose key
/// has no room any more.
pub(super) fn note_keys(
    keys: &mut KeyMap,
    header: &BatchHeader,
    bytes: &[u8],
    from: Offset,
) -> Option<Offset> {
    if header.attributes.is_control() {
        return None;
    }
    let opened = DecodedBatch::open(bytes).ok()?;
    // Of a batch that is malformed further on, nothing is removed, and nothing removes others.
    if opened.records().any(|record| record.is_err()) {
        return None;
    }
    let mut records = opened.records().filter_map(Result::ok);
    let full = records.find(|record| {
        let key = record.key.filter(|_| record.offset >= from);
        key.is_some_and(|key| !keys.insert(key, record.offset))
    });
    full.map(|record| record.offset)
}

#[cfg(test)]
mod tests {
    use millstream_protocol::{
        LeaderEpoch, ProducerEpoch, ProducerId,
        batch::{BatchBuilder, Compression, NO_HEADERS, place},
    };

    use super::*;

    type Input<'a> = (Option<&'a str>, Option<&'a str>);

    fn batch(base: i64, records: &[Input<'_>]) -> (BatchHeader, Vec<u8>) {
        let mut builder = BatchBuilder::new();
        for (key, value) in records {
            let (key, value) = (key.map(str::as_bytes), value.map(str::as_bytes));
            builder.push(base, key, value, NO_HEADERS).unwrap();
        }
        let producer = (ProducerId(1), ProducerEpoch(0), 0);
        let mut bytes = builder.finish(Some(producer), Compression::Lz4);
        place(&mut bytes, Offset(base), LeaderEpoch(0));
        (BatchHeader::decode(&bytes).unwrap(), bytes)
    }

    fn offsets(bytes: &[u8]) -> Vec<i64> {
        let opened = DecodedBatch::open(bytes).unwrap();
        let records = opened.records().map(|record| record.unwrap().offset.0);
        records.collect()
    }

    fn keys(of: &[&(BatchHeader, Vec<u8>)]) -> KeyMap {
        let mut keys = KeyMap::new(1 << 20, (5, 6));
        for (header, bytes) in of {
            let full = note_keys(&mut keys, header, bytes, Offset::ZERO);
            assert_eq!(full, None);
        }
        keys
    }

    fn apply(
        keys: &KeyMap,
        tombstones_below: i64,
        remembered: &[i64],
        batch: &(BatchHeader, Vec<u8>),
    ) -> (Kept, Tally) {
        let remembered = remembered.iter().map(|base| Offset(*base)).collect();
        let rules = Rules {
            keys,
            tombstones_below: Offset(tombstones_below),
            remembered: &remembered,
        };
        let mut tally = Tally::default();
        let mut filter = BatchFilter::default();
        let kept = rules.apply(&mut filter, &batch.0, &batch.1, &mut tally);
        (kept, tally)
    }

    #[test]
    fn the_last_record_of_each_key_stays_and_so_does_one_without() {
        let first = batch(
            0,
            &[
                (Some("a"), Some("1")),
                (None, Some("2")),
                (Some("b"), Some("3")),
            ],
        );
        let second = batch(3, &[(Some("a"), Some("4")), (Some("a"), Some("5"))]);
        let keys = keys(&[&first, &second]);
        let (Kept::Part(left), tally) = apply(&keys, 0, &[], &first) else {
            panic!("a part stays");
        };
        assert_eq!(offsets(&left), [1, 2]);
        assert_eq!((tally.kept_records, tally.removed_records), (2, 1));
        let (Kept::Part(left), _) = apply(&keys, 0, &[], &second) else {
            panic!("a part stays");
        };
        assert_eq!(offsets(&left), [4]);
    }

    #[test]
    fn a_tombstone_stays_for_its_time() {
        let tombstone = batch(7, &[(Some("a"), None), (Some("b"), Some("x"))]);
        let keys = keys(&[&tombstone]);
        let (kept, tally) = apply(&keys, 7, &[], &tombstone);
        assert_eq!((kept, tally.tombstones), (Kept::All, 1));
        let (Kept::Part(left), tally) = apply(&keys, 8, &[], &tombstone) else {
            panic!("a part stays");
        };
        assert_eq!((offsets(&left), tally.tombstones), (vec![8], 0));
    }

    #[test]
    fn a_batch_that_a_producer_is_remembered_by_stays_if_only_empty() {
        let old = batch(0, &[(Some("a"), Some("1"))]);
        let new = batch(1, &[(Some("a"), Some("2"))]);
        let keys = keys(&[&old, &new]);
        assert_eq!(apply(&keys, 0, &[], &old).0, Kept::Nothing);
        let (Kept::Part(left), _) = apply(&keys, 0, &[0], &old) else {
            panic!("its header stays");
        };
        let header = BatchHeader::decode(&left).unwrap();
        assert_eq!(
            (header.record_count, header.producer_id),
            (0, ProducerId(1))
        );
        let left = (header, left);
        assert_eq!(apply(&keys, 0, &[0], &left).0, Kept::All);
        // Once nobody remembers the producer by it, it goes.
        assert_eq!(apply(&keys, 0, &[], &left).0, Kept::Nothing);
    }

    #[test]
    fn what_cannot_be_read_stays_as_it_is() {
        let good = batch(0, &[(Some("a"), Some("1")), (Some("a"), Some("2"))]);
        let mut bad = good.clone();
        for byte in &mut bad.1[61..] {
            *byte ^= 0x55;
        }
        let mut keys = keys(&[&good]);
        let (kept, tally) = apply(&keys, 99, &[], &bad);
        assert_eq!((kept, tally.unreadable_batches), (Kept::All, 1));
        assert_eq!(note_keys(&mut keys, &bad.0, &bad.1, Offset::ZERO), None);
    }

    #[test]
    fn where_the_keys_find_no_more_room_is_told() {
        let many: Vec<String> = (0..100).map(|n| n.to_string()).collect();
        let many: Vec<Input<'_>> = many.iter().map(|key| (Some(&**key), Some(""))).collect();
        let (header, bytes) = batch(50, &many);
        let mut keys = KeyMap::new(0, (1, 1));
        let full = note_keys(&mut keys, &header, &bytes, Offset(60));
        assert_eq!(full, Some(Offset(66)));
        assert_eq!(keys.newest(b"9"), None, "below where it began");
        assert_eq!(keys.newest(b"10"), Some(Offset(60)));
    }
}
