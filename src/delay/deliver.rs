//! From the delay log to the partition: the records that are due, as a batch of the partition's; and the
//! broker's own notes in the delay log.

use std::collections::{BTreeMap, BTreeSet};

use millstream_protocol::{
    Offset, ProducerEpoch, ProducerId,
    batch::{
        BatchBuilder, BatchError, Batches, Compression, DecodedBatch, NO_HEADERS, set_append_time,
    },
    headers,
};

use super::recent::Entry;

/// What the broker writes as the producer of its own batches.
const BROKER: (ProducerId, ProducerEpoch, i32) = (ProducerId::BROKER, ProducerEpoch(-1), -1);

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
    headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    compression: Compression,
}

impl Found {
    /// The id its producer gave, or nothing.
    #[must_use]
    pub fn id(&self) -> String {
        let name = headers::DELAY_ID.as_bytes();
        let found = self.headers.iter().find(|(header, _)| header == name);
        let value = found.and_then(|(_, value)| value.clone());
        String::from_utf8(value.unwrap_or_default()).unwrap_or_default()
    }

    fn size(&self) -> usize {
        let headers = self.headers.iter();
        let headers = headers.map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len));
        let bytes = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        bytes(&self.key) + bytes(&self.value) + headers.sum::<usize>()
    }

    /// Copies out of batches of the delay log the records that are wanted and not there yet.
    ///
    /// # Errors
    /// [`BatchError`]: the bytes are no batches.
    pub fn collect(
        batches: &[u8],
        wanted: &BTreeSet<Offset>,
        found: &mut BTreeMap<Offset, Self>,
    ) -> Result<(), BatchError> {
        for batch in Batches::trusted(batches) {
            let (header, bytes) = batch?;
            let mut here = wanted.range(header.base_offset..header.next_offset());
            if here.all(|offset| found.contains_key(offset)) {
                continue;
            }
            let compression = header.attributes.compression();
            for record in DecodedBatch::open(bytes)?.records() {
                let record = record?;
                if !wanted.contains(&record.offset) {
                    continue;
                }
                let due = record.headers;
                let due = due.filter(|(name, _)| *name == headers::DELIVER_AT.as_bytes());
                let owned = record
                    .headers
                    .map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec)));
                let record = (
                    record.offset,
                    Self {
                        due_ms: due.last().and_then(|(_, value)| headers::number(value)),
                        timestamp_ms: record.timestamp_ms,
                        key: record.key.map(<[u8]>::to_vec),
                        value: record.value.map(<[u8]>::to_vec),
                        headers: owned.collect(),
                        compression,
                    },
                );
                found.entry(record.0).or_insert(record.1);
            }
        }
        Ok(())
    }
}

/// A batch for the partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel {
    /// Its bytes.
    pub batch: Vec<u8>,
    /// The records in it, in order.
    pub entries: Vec<Entry>,
}

/// Packs records that are due into a batch of about so many bytes at most, in order; those that it has no
/// room for are left out. `None` if there is none.
///
/// # Errors
/// [`BatchError`] if there is no making a batch of them.
pub fn pack(
    entries: &[Entry],
    found: &BTreeMap<Offset, Found>,
    now_ms: i64,
    max_size: usize,
    append_time: bool,
) -> Result<Option<Parcel>, BatchError> {
    let mut builder = BatchBuilder::new();
    let mut packed = Vec::with_capacity(entries.len());
    let mut compression = Compression::None;
    for entry in entries {
        let Some(record) = found.get(&entry.offset) else {
            break;
        };
        if !builder.is_empty() && builder.size() + record.size() > max_size {
            break;
        }
        let (original, offset) = (record.timestamp_ms.to_string(), entry.offset.to_string());
        let mut all: Vec<(&[u8], Option<&[u8]>)> = Vec::with_capacity(record.headers.len() + 2);
        let own = record.headers.iter();
        all.extend(own.map(|(name, value)| (&**name, value.as_deref())));
        let name = headers::ORIGINAL_TIMESTAMP.as_bytes();
        all.push((name, Some(original.as_bytes())));
        let name = headers::DELAY_OFFSET.as_bytes();
        all.push((name, Some(offset.as_bytes())));
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        if builder.push(now_ms, key, value, &all).is_err() {
            break;
        }
        if packed.is_empty() {
            compression = record.compression;
        }
        packed.push(*entry);
    }
    if builder.is_empty() {
        return Ok(None);
    }
    let mut batch = builder.finish(Some(BROKER), compression);
    if append_time {
        set_append_time(&mut batch, now_ms)?;
    }
    Ok(Some(Parcel {
        batch,
        entries: packed,
    }))
}

/// A note for the delay log: this record is not to be delivered. With the id it was asked for by.
#[must_use]
pub fn note(cancelled: Offset, id: Option<&str>, now_ms: i64) -> Vec<u8> {
    let mut builder = BatchBuilder::new();
    let value = cancelled.0.to_le_bytes();
    let pushed = builder.push(now_ms, id.map(str::as_bytes), Some(&value), NO_HEADERS);
    pushed.expect("a few bytes fit");
    builder.finish(Some(BROKER), Compression::None)
}

/// A note in the delay log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    /// Its own offset.
    pub offset: Offset,
    /// The record that is not to be delivered.
    pub cancelled: Offset,
    /// The id it was asked for by.
    pub id: Option<String>,
}

/// The notes in a batch of the broker's.
pub(super) fn noted(bytes: &[u8]) -> Result<Vec<Note>, BatchError> {
    let batch = DecodedBatch::open(bytes)?;
    let mut notes = Vec::with_capacity(1);
    for record in batch.records() {
        let record = record?;
        if let Some(Ok(value)) = record.value.map(<[u8; 8]>::try_from) {
            let id = record
                .key
                .map(|id| String::from_utf8_lossy(id).into_owned());
            notes.push(Note {
                offset: record.offset,
                cancelled: Offset(i64::from_le_bytes(value)),
                id,
            });
        }
    }
    Ok(notes)
}
