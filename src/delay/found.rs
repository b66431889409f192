//! Records as they are read from the delay log, within a budget of the memory that they take decompressed.

use std::collections::{BTreeMap, BTreeSet};

use millstream_protocol::{
    Offset,
    batch::{BatchError, Batches, Compression, DecodedBatch, Record},
    headers,
};

/// Besides its bytes, what a record and each of its headers take in memory, about.
const RECORD_MEMORY: usize = 256;
const HEADER_MEMORY: usize = 64;

/// A record as the delay log has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// When it is due.
    pub due_ms: Option<i64>,
    /// Its timestamp, in milliseconds.
    pub timestamp_ms: i64,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    pub(super) headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    pub(super) compression: Compression,
}

impl Found {
    fn of(record: &Record<'_>, compression: Compression) -> Self {
        let due = record.headers;
        let due = due.filter(|(name, _)| *name == headers::DELIVER_AT.as_bytes());
        let owned = record.headers;
        let owned = owned.map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec)));
        Self {
            due_ms: due.last().and_then(|(_, value)| headers::number(value)),
            timestamp_ms: record.timestamp_ms,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: owned.collect(),
            compression,
        }
    }

    /// The id its producer gave, or nothing.
    #[must_use]
    pub fn id(&self) -> String {
        let name = headers::DELAY_ID.as_bytes();
        let found = self.headers.iter().find(|(header, _)| header == name);
        let value = found.and_then(|(_, value)| value.clone());
        String::from_utf8(value.unwrap_or_default()).unwrap_or_default()
    }
}

/// Bytes of memory that a record takes, decompressed, with its headers.
fn memory_of(record: &Record<'_>) -> usize {
    let headers = record
        .headers
        .map(|(name, value)| HEADER_MEMORY + name.len() + value.map_or(0, <[u8]>::len));
    let bytes = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
    RECORD_MEMORY + bytes(record.key) + bytes(record.value) + headers.sum::<usize>()
}

/// Records that were found, and what they take.
#[derive(Debug, Default)]
pub struct FoundRecords {
    records: BTreeMap<Offset, (Found, usize)>,
    memory: usize,
}

impl FoundRecords {
    /// A record that was found.
    #[must_use]
    pub fn of(&self, offset: Offset) -> Option<&Found> {
        Some(&self.records.get(&offset)?.0)
    }

    /// Takes one out.
    pub fn take(&mut self, offset: Offset) -> Option<Found> {
        let (found, memory) = self.records.remove(&offset)?;
        self.memory -= memory;
        Some(found)
    }

    /// Bytes of memory that they take.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.memory
    }

    /// Copies the record at `offset` out of batches of the delay log, and others that are wanted as long as
    /// all are within the budget. False if no batch is there of that offset: if one is, and the record is
    /// not found, it is gone.
    ///
    /// # Errors
    /// [`BatchError`]: the bytes are no batches.
    pub fn collect(
        &mut self,
        batches: &[u8],
        offset: Offset,
        wanted: &BTreeSet<Offset>,
        budget: usize,
    ) -> Result<bool, BatchError> {
        let mut covered = false;
        for batch in Batches::trusted(batches) {
            let (header, bytes) = batch?;
            let offsets = header.base_offset..header.next_offset();
            let is_its = offsets.contains(&offset);
            covered |= is_its;
            if !is_its && self.memory >= budget {
                continue;
            }
            let here = wanted.range(offsets.clone());
            let here: BTreeSet<Offset> =
                here.copied().filter(|it| self.of(*it).is_none()).collect();
            let last = here.last().copied().max(Some(offset).filter(|_| is_its));
            let Some(last) = last else { continue };
            let compression = header.attributes.compression();
            for record in DecodedBatch::open(bytes)?.records() {
                let record = record?;
                let memory = memory_of(&record);
                let fits = self.memory + memory <= budget && here.contains(&record.offset);
                if (record.offset == offset || fits) && self.of(record.offset).is_none() {
                    self.memory += memory;
                    let found = Found::of(&record, compression);
                    self.records.insert(record.offset, (found, memory));
                }
                if record.offset >= last {
                    break;
                }
            }
        }
        Ok(covered)
    }
}

#[cfg(test)]
mod tests {
    use millstream_protocol::{
        LeaderEpoch,
        batch::{BatchBuilder, NO_HEADERS, gap, place_all},
    };

    use super::*;

    /// A batch of records that compress to nearly nothing, with a large value or a large header.
    fn batch(first: Offset, count: usize, size: usize) -> Vec<u8> {
        let mut builder = BatchBuilder::new();
        let large = vec![b'x'; size];
        for at in 0..count {
            if at.is_multiple_of(2) {
                let pushed = builder.push(1, None, Some(&large), NO_HEADERS);
                pushed.expect("it fits");
            } else {
                let header = [("note", Some(&large[..]))];
                builder.push(1, None, None, &header).expect("it fits");
            }
        }
        let mut batch = builder.finish(None, Compression::Zstd);
        place_all(&mut batch, first, LeaderEpoch(0)).expect("a good batch");
        batch
    }

    #[test]
    fn memory_is_that_of_what_is_decompressed_with_headers() {
        let (size, budget) = (100_000, 450_000);
        let batches = [batch(Offset(0), 50, size), batch(Offset(50), 50, size)].concat();
        assert!(batches.len() < 10_000, "{} bytes on disk", batches.len());
        let wanted: BTreeSet<Offset> = (0..100).map(Offset).collect();
        let mut found = FoundRecords::default();
        assert_eq!(
            found.collect(&batches, Offset(0), &wanted, budget),
            Ok(true)
        );
        assert_eq!(found.records.len(), 4);
        assert!(found.memory() > 4 * size && found.memory() <= budget);
        // What is asked for is given, whatever it takes.
        assert_eq!(
            found.collect(&batches, Offset(77), &wanted, budget),
            Ok(true)
        );
        assert!(found.of(Offset(77)).is_some());
        assert_eq!(found.records.len(), 5);
        assert!(found.take(Offset(77)).is_some());
        assert!(found.memory() <= budget);
        let _ = (0..4).map(|at| found.take(Offset(at))).collect::<Vec<_>>();
        assert_eq!((found.memory(), found.records.len()), (0, 0));
    }

    #[test]
    fn a_gap_says_that_a_record_is_gone() {
        let mut found = FoundRecords::default();
        let hole = gap(Offset(5), Offset(9), LeaderEpoch(0));
        let wanted = BTreeSet::from([Offset(7)]);
        assert_eq!(found.collect(&hole, Offset(7), &wanted, 100), Ok(true));
        assert!(found.of(Offset(7)).is_none());
        assert_eq!(found.collect(&hole, Offset(9), &wanted, 100), Ok(false));
    }
}
