//! From the delay log to the partition: the records that are due, as a batch of the partition's; and the
//! broker's own notes in the delay log.

use millstream_protocol::{
    Offset, ProducerEpoch, ProducerId,
    batch::{BatchBuilder, BatchError, Compression, DecodedBatch, NO_HEADERS, set_append_time},
    headers,
    limits::MAX_BATCH_SIZE,
};

use super::{found::FoundRecords, recent::Entry};

/// What the broker writes as the producer of its own batches.
const BROKER: (ProducerId, ProducerEpoch, i32) = (ProducerId::BROKER, ProducerEpoch(-1), -1);

/// A larger batch is not compressed: what a codec adds might not fit.
const LARGE_BATCH_SIZE: usize = MAX_BATCH_SIZE as usize / 2;

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
    found: &FoundRecords,
    now_ms: i64,
    max_size: usize,
    append_time: bool,
) -> Result<Option<Parcel>, BatchError> {
    let mut builder = BatchBuilder::new();
    let mut packed = Vec::with_capacity(entries.len());
    let mut compression = Compression::None;
    for entry in entries {
        let Some(record) = found.of(entry.offset) else {
            break;
        };
        let (original, offset) = (record.timestamp_ms.to_string(), entry.offset.to_string());
        let mut all: Vec<(&[u8], Option<&[u8]>)> = Vec::with_capacity(record.headers.len() + 2);
        let own = record.headers.iter();
        all.extend(own.map(|(name, value)| (&**name, value.as_deref())));
        let name = headers::ORIGINAL_TIMESTAMP.as_bytes();
        all.push((name, Some(original.as_bytes())));
        let name = headers::DELAY_OFFSET.as_bytes();
        all.push((name, Some(offset.as_bytes())));
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        let size = BatchBuilder::max_record_size(key, value, &all);
        if !builder.is_empty() && builder.size() + size > max_size {
            break;
        }
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
    if builder.size() > LARGE_BATCH_SIZE {
        // What cannot be compressed becomes larger.
        compression = Compression::None;
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
