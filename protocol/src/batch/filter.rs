//! A batch with fewer records: what compaction leaves of it. Offsets, timestamps, sequences and order
//! of what is left do not change, and neither does what the batch says of its first and last offset.

use crate::{
    batch::{
        Attributes, BATCH_HEADER_SIZE, BatchError, BatchHeader, Compression, DecodedBatch, Record,
        TimestampType, compression::SectionCompressor, place,
    },
    ids::{LeaderEpoch, Offset, ProducerEpoch, ProducerId},
};

/// What is left of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filtered {
    /// All of it.
    Unchanged,
    /// Some records: the batch anew.
    Changed(Vec<u8>),
    /// No record.
    Nothing,
}

/// Drops records from batches; keeps what is costly to make anew for each.
#[derive(Default)]
pub struct BatchFilter {
    compressor: SectionCompressor,
    /// Uncompressed records that stay.
    section: Vec<u8>,
}

impl std::fmt::Debug for BatchFilter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BatchFilter").finish_non_exhaustive()
    }
}

impl BatchFilter {
    /// What is left of the batch at the start of `bytes` without the records that `keep` refuses. It is
    /// compressed again as it was.
    ///
    /// # Errors
    /// [`BatchError`] if the batch or one of its records cannot be read.
    pub fn filter(
        &mut self,
        bytes: &[u8],
        mut keep: impl FnMut(&Record<'_>) -> bool,
    ) -> Result<Filtered, BatchError> {
        let (header, section) = DecodedBatch::open(bytes)?.into_parts();
        let mut records = crate::batch::Records::new(&header, &section)?;
        self.section.clear();
        let (mut kept, mut newest_ms) = (0, i64::MIN);
        let mut at = 0;
        while let Some(record) = records.next() {
            let record = record?;
            let end = section.len() - records.left_size();
            if keep(&record) {
                self.section.extend_from_slice(&section[at..end]);
                newest_ms = newest_ms.max(record.timestamp_ms);
                kept += 1;
            }
            at = end;
        }
        if kept == header.record_count {
            return Ok(Filtered::Unchanged);
        }
        if kept == 0 {
            return Ok(Filtered::Nothing);
        }
        let mut batch = vec![0; BATCH_HEADER_SIZE];
        let codec = header.attributes.compression();
        self.compressor.compress(codec, &self.section, &mut batch);
        let max_timestamp_ms = match header.attributes.timestamp_type() {
            TimestampType::CreateTime => newest_ms,
            TimestampType::LogAppendTime => header.max_timestamp_ms,
        };
        seal(
            &mut batch,
            BatchHeader {
                record_count: kept,
                max_timestamp_ms,
                ..header
            },
        );
        Ok(Filtered::Changed(batch))
    }
}

/// The batch that `header` begins, with no record left in it: it still tells its producer's sequence and
/// up to where its offsets go.
#[must_use]
pub fn emptied(header: &BatchHeader) -> Vec<u8> {
    let attributes =
        Attributes::new(Compression::None).with_timestamp_type(header.attributes.timestamp_type());
    let mut batch = vec![0; BATCH_HEADER_SIZE];
    let header = BatchHeader {
        record_count: 0,
        attributes,
        ..*header
    };
    seal(&mut batch, header);
    batch
}

/// A batch of nobody's with no record in it: it says that there is nothing from `first` up to `next`, or
/// as far as one batch can say.
///
/// # Panics
/// If `next` is not above `first`.
#[must_use]
pub fn gap(first: Offset, next: Offset, leader_epoch: LeaderEpoch) -> Vec<u8> {
    assert!(first < next, "a gap has a length");
    let largest = i64::from(i32::MAX);
    let last_offset_delta = u32::try_from((next.0 - first.0 - 1).min(largest));
    emptied(&BatchHeader {
        base_offset: first,
        size: 0,
        leader_epoch,
        crc: 0,
        attributes: Attributes::default(),
        last_offset_delta: last_offset_delta.expect("within 31 bits"),
        base_timestamp_ms: -1,
        max_timestamp_ms: -1,
        producer_id: ProducerId::NONE,
        producer_epoch: ProducerEpoch(-1),
        base_sequence: -1,
        record_count: 0,
    })
}

/// Writes header and CRC of a batch whose records are in place.
fn seal(batch: &mut [u8], header: BatchHeader) {
    let header = BatchHeader {
        size: u32::try_from(batch.len()).expect("a batch is far below 4 GiB"),
        ..header
    };
    batch[..BATCH_HEADER_SIZE].copy_from_slice(&header.encode());
    place::write_crc(batch);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchBuilder, Batches, NO_HEADERS, set_append_time};

    fn batch(compression: Compression) -> Vec<u8> {
        let mut builder = BatchBuilder::new();
        for n in 0..10_i64 {
            let key = n.to_be_bytes();
            let header = [("h", Some("x"))];
            let pushed = if n % 2 == 0 {
                builder.push(100 - n, Some(&key), Some(b"value"), &header)
            } else {
                builder.push(100 - n, Some(&key), None, NO_HEADERS)
            };
            pushed.unwrap();
        }
        let producer = (ProducerId(7), ProducerEpoch(2), 40);
        let mut batch = builder.finish(Some(producer), compression);
        place::place(&mut batch, Offset(500), LeaderEpoch(3));
        batch
    }

    /// Offset, timestamp, key, value and number of headers.
    type Seen = (i64, i64, Vec<u8>, Option<Vec<u8>>, usize);

    fn seen(batch: &[u8]) -> Vec<Seen> {
        let (_, bytes) = Batches::checked(batch).next().unwrap().unwrap();
        let opened = DecodedBatch::open(bytes).unwrap();
        let records = opened.records().map(|record| {
            let record = record.unwrap();
            let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
            (
                record.offset.0,
                record.timestamp_ms,
                owned(record.key).unwrap(),
                owned(record.value),
                record.headers.count(),
            )
        });
        records.collect()
    }

    #[test]
    fn what_is_left_is_as_it_was_in_every_codec() {
        let mut filter = BatchFilter::default();
        for codec in Compression::ALL {
            let whole = batch(codec);
            let before = seen(&whole);
            let kept = |offset: Offset| offset.0 % 3 == 0;
            let left = filter.filter(&whole, |record| kept(record.offset)).unwrap();
            let Filtered::Changed(left) = left else {
                panic!("{codec}: {left:?}");
            };
            let expected = before.into_iter().filter(|it| kept(Offset(it.0)));
            let expected: Vec<Seen> = expected.collect();
            assert_eq!(seen(&left), expected, "{codec}");
            let (old, new) = (
                BatchHeader::decode(&whole).unwrap(),
                BatchHeader::decode(&left).unwrap(),
            );
            let same = BatchHeader {
                size: new.size,
                crc: new.crc,
                record_count: 3,
                max_timestamp_ms: 99,
                ..old
            };
            assert_eq!(new, same, "{codec}");
            assert_eq!(filter.filter(&left, |_| true), Ok(Filtered::Unchanged));
            assert_eq!(filter.filter(&left, |_| false), Ok(Filtered::Nothing));
        }
    }

    #[test]
    fn the_time_of_the_append_stays() {
        let mut whole = batch(Compression::Lz4);
        set_append_time(&mut whole, 12_345).unwrap();
        let left = BatchFilter::default().filter(&whole, |record| record.offset == Offset(504));
        let Ok(Filtered::Changed(left)) = left else {
            panic!("{left:?}");
        };
        assert_eq!(seen(&left)[0].1, 12_345);
    }

    #[test]
    fn an_emptied_batch_keeps_offsets_and_sequences() {
        let whole = batch(Compression::Zstd);
        let old = BatchHeader::decode(&whole).unwrap();
        let left = emptied(&old);
        assert_eq!(seen(&left), vec![]);
        let new = BatchHeader::decode(&left).unwrap();
        assert_eq!(new.next_offset(), old.next_offset());
        assert_eq!(
            (new.producer_id, new.producer_epoch, new.base_sequence),
            (old.producer_id, old.producer_epoch, old.base_sequence)
        );
        assert_eq!(new.last_sequence(), old.last_sequence());
        assert_eq!(new.leader_epoch, old.leader_epoch);
    }

    #[test]
    fn a_gap_goes_as_far_as_a_batch_can() {
        let header = |first, next| {
            let gap = gap(Offset(first), Offset(next), LeaderEpoch(1));
            BatchHeader::decode(&gap).unwrap()
        };
        assert_eq!(header(5, 6).next_offset(), Offset(6));
        assert_eq!(header(5, 90).next_offset(), Offset(90));
        let far = header(5, 1 << 40);
        assert_eq!(far.next_offset(), Offset(5 + (1 << 31)));
        assert!(!far.has_producer());
    }

    #[test]
    fn a_batch_that_cannot_be_read_is_an_error() {
        let mut whole = batch(Compression::Gzip);
        let last = whole.len() - 1;
        whole.truncate(last);
        assert!(BatchFilter::default().filter(&whole, |_| true).is_err());
    }
}
