//! The client oracle: what was sent, what was acknowledged, what was read, and whether all of it
//! can be true together.

use std::collections::BTreeMap;

use millstream_protocol::{Offset, TopicId, TopicPartition};

/// A record's number, in its value.
pub type RecordId = u64;

/// What its producer was told of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Nothing yet.
    Pending,
    /// It is durable; where, if the broker still knew.
    Acknowledged(Option<Offset>),
    /// It was given up; it may have been written.
    Uncertain,
    /// It was not written.
    Refused,
    /// It was never taken: its producer had no room.
    Withdrawn,
}

#[derive(Debug)]
struct Record {
    producer: u32,
    at: TopicPartition,
    size: usize,
    fate: Fate,
    /// The one offset at which anyone has seen it.
    offset: Option<Offset>,
}

/// What is known of one partition's log.
#[derive(Debug, Default)]
struct Known {
    names: BTreeMap<Offset, RecordId>,
    high_watermark: Offset,
    log_start: Offset,
}

/// Everything that clients were told.
#[derive(Debug, Default)]
pub struct Oracle {
    records: Vec<Record>,
    logs: BTreeMap<TopicPartition, Known>,
    /// Topics whose unflushed end may be lost.
    buffered: Vec<TopicId>,
    pub reads: u64,
}

impl Oracle {
    /// What this topic's log acknowledged and showed may be lost when the power goes.
    pub fn is_buffered(&mut self, topic: TopicId) {
        self.buffered.push(topic);
    }

    /// A producer is about to send a record: its number and its value.
    pub fn sending(
        &mut self,
        producer: u32,
        at: TopicPartition,
        size: usize,
    ) -> (RecordId, Vec<u8>) {
        let id = self.records.len() as RecordId;
        let size = size.max(8);
        self.records.push(Record {
            producer,
            at,
            size,
            fate: Fate::Pending,
            offset: None,
        });
        (id, value_of(id, size))
    }

    pub fn acknowledged(&mut self, id: RecordId, at: TopicPartition, offset: Option<Offset>) {
        let record = self.record_mut(id);
        assert_eq!(
            record.at, at,
            "record {id} was acknowledged for another partition"
        );
        assert_eq!(record.fate, Fate::Pending, "record {id} was settled twice");
        record.fate = Fate::Acknowledged(offset);
        if let Some(offset) = offset {
            self.name(at, offset, id);
        }
    }

    pub fn failed(&mut self, id: RecordId, maybe_written: bool) {
        let record = self.record_mut(id);
        assert_eq!(record.fate, Fate::Pending, "record {id} was settled twice");
        record.fate = if maybe_written {
            Fate::Uncertain
        } else {
            Fate::Refused
        };
        assert!(
            maybe_written || record.offset.is_none(),
            "record {id} is in the log, and its producer was told that it is not"
        );
    }

    /// The producer had no room for a record.
    pub fn withdrawn(&mut self, id: RecordId) {
        self.failed(id, false);
        self.record_mut(id).fate = Fate::Withdrawn;
    }

    /// A consumer got a record.
    pub fn read(&mut self, at: TopicPartition, offset: Offset, value: &[u8]) -> RecordId {
        let id = value
            .first_chunk()
            .map(|bytes| RecordId::from_le_bytes(*bytes));
        let id = id.unwrap_or_else(|| panic!("{at:?} {offset}: nobody sent {value:?}"));
        let record = usize::try_from(id).ok().and_then(|id| self.records.get(id));
        let record = record.unwrap_or_else(|| panic!("{at:?} {offset}: nobody sent record {id}"));
        assert_eq!(
            value,
            value_of(id, record.size),
            "record {id} is not what was sent"
        );
        assert_eq!(record.at, at, "record {id} came out of another partition");
        assert!(
            !matches!(record.fate, Fate::Refused | Fate::Withdrawn),
            "record {id}: its producer was told it is not there"
        );
        self.reads += 1;
        self.name(at, offset, id);
        id
    }

    /// A consumer was told how far it may read.
    pub fn high_watermark(&mut self, at: TopicPartition, offset: Offset) {
        let known = self.logs.entry(at).or_default();
        known.high_watermark = known.high_watermark.max(offset);
    }

    /// Someone asked for records below `offset` to be deleted.
    pub fn trimming(&mut self, at: TopicPartition, offset: Offset) {
        let known = self.logs.entry(at).or_default();
        known.log_start = known.log_start.max(offset);
    }

    /// The highest offset that anyone asked to delete up to.
    pub fn log_start(&self, at: TopicPartition) -> Offset {
        self.logs
            .get(&at)
            .map_or(Offset::ZERO, |known| known.log_start)
    }

    /// How far consumers were shown.
    pub fn shown(&self, at: TopicPartition) -> Offset {
        self.logs
            .get(&at)
            .map_or(Offset::ZERO, |known| known.high_watermark)
    }

    /// An offset names one record, and a record has one offset, for ever.
    fn name(&mut self, at: TopicPartition, offset: Offset, id: RecordId) {
        if self.buffered.contains(&at.topic) {
            return;
        }
        let known = self.logs.entry(at).or_default();
        if let Some(before) = known.names.insert(offset, id) {
            assert_eq!(
                before, id,
                "{at:?} {offset} was record {before}, and is record {id} now"
            );
        }
        let record = self.record_mut(id);
        if let Some(before) = record.offset.replace(offset) {
            assert_eq!(before, offset, "record {id} is in {at:?} twice");
        }
    }

    /// Judges a whole partition, read from its start to its end when all is quiet.
    pub fn complete(&mut self, at: TopicPartition, log: &[(Offset, RecordId)]) {
        let known = self.logs.entry(at).or_default();
        let first = log
            .first()
            .map_or(known.high_watermark, |(offset, _)| *offset);
        assert!(
            first <= known.log_start,
            "{at:?} starts at {first}: nobody deleted up to there"
        );
        for (place, (offset, _)) in log.iter().enumerate() {
            let expected = first.0 + i64::try_from(place).expect("few");
            assert_eq!(offset.0, expected, "{at:?}: offsets are dense");
        }
        self.check_order(at, log);
        if self.buffered.contains(&at.topic) {
            return;
        }
        let end = Offset(first.0 + i64::try_from(log.len()).expect("few"));
        let known = &self.logs[&at];
        assert!(
            end >= known.high_watermark,
            "{at:?} ends at {end}, and consumers were shown up to {}",
            known.high_watermark
        );
        let there: BTreeMap<Offset, RecordId> = log.iter().copied().collect();
        for (offset, id) in known.names.range(first..) {
            assert_eq!(
                there.get(offset),
                Some(id),
                "{at:?} {offset} was record {id}, and is lost"
            );
        }
        self.check_acknowledged(at, first, log);
    }

    fn check_acknowledged(&self, at: TopicPartition, first: Offset, log: &[(Offset, RecordId)]) {
        let there: BTreeMap<RecordId, Offset> = log.iter().map(|(at, id)| (*id, *at)).collect();
        for (id, record) in (0..)
            .zip(&self.records)
            .filter(|(_, record)| record.at == at)
        {
            match record.fate {
                // Where it was is not known; it may be below the start.
                Fate::Acknowledged(None) if first > Offset::ZERO => {}
                Fate::Acknowledged(None) => {
                    assert!(there.contains_key(&id), "{at:?}: record {id} is lost");
                }
                Fate::Acknowledged(Some(offset)) if offset < first => {}
                Fate::Acknowledged(Some(offset)) => {
                    assert_eq!(there.get(&id), Some(&offset), "{at:?}: record {id} is lost");
                }
                Fate::Refused | Fate::Withdrawn => {
                    assert!(!there.contains_key(&id), "record {id} was refused")
                }
                Fate::Pending | Fate::Uncertain => {}
            }
        }
    }

    /// Each producer's records are in the order in which it sent them, and none is there twice.
    fn check_order(&self, at: TopicPartition, log: &[(Offset, RecordId)]) {
        let mut last: BTreeMap<u32, RecordId> = BTreeMap::new();
        for (offset, id) in log {
            let producer = self.record(*id).producer;
            if let Some(before) = last.insert(producer, *id) {
                assert!(
                    before < *id,
                    "{at:?} {offset}: record {id} of a producer behind its {before}"
                );
            }
        }
    }

    /// How many records were sent, and how many of them acknowledged.
    pub fn counts(&self) -> (usize, usize) {
        let count = |wanted: fn(Fate) -> bool| {
            let records = self.records.iter();
            records.filter(|record| wanted(record.fate)).count()
        };
        let sent = count(|fate| fate != Fate::Withdrawn);
        (sent, count(|fate| matches!(fate, Fate::Acknowledged(_))))
    }

    fn record(&self, id: RecordId) -> &Record {
        &self.records[usize::try_from(id).expect("an index")]
    }

    fn record_mut(&mut self, id: RecordId) -> &mut Record {
        &mut self.records[usize::try_from(id).expect("an index")]
    }
}

/// A record's value: its number, then bytes that follow from it.
fn value_of(id: RecordId, size: usize) -> Vec<u8> {
    let mut value = id.to_le_bytes().to_vec();
    value.resize(size, 0x30 + u8::try_from(id % 64).expect("small"));
    value
}
