//! The records of an uncompressed section, read in place.

use crate::{
    batch::{BatchError, BatchHeader, TimestampType, varint},
    ids::Offset,
};

/// The fewest bytes of a record: length, attributes, two deltas, three lengths.
pub const MIN_RECORD_SIZE: usize = 7;
/// The fewest bytes of a header: two lengths.
const MIN_HEADER_SIZE: usize = 2;

/// One record. Everything in it was checked; it borrows from the section.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Its position in the partition.
    pub offset: Offset,
    /// Milliseconds since 1970, or -1 for none.
    pub timestamp_ms: i64,
    /// What compaction and partitioning go by.
    pub key: Option<&'a [u8]>,
    /// The payload; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Key and value pairs in the producer's order, repeated keys included.
    pub headers: Headers<'a>,
}

/// Iterates over a record's headers: key (UTF-8 by convention) and value.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a> {
    left: &'a [u8],
    count: u32,
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.count == 0 {
            return None;
        }
        self.count -= 1;
        // Checked when the record was read, so it can't fail.
        read_header(&mut self.left)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.count as usize, Some(self.count as usize))
    }
}

impl ExactSizeIterator for Headers<'_> {}

/// Iterates over the records of a section. Ends after the first error.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    left: &'a [u8],
    /// Records read so far, and how many there are.
    index: u32,
    count: u32,
    base_offset: Offset,
    last_offset_delta: u32,
    /// Offsets must rise: the least that the next delta may be.
    next_delta: u32,
    base_timestamp_ms: i64,
    append_time_ms: Option<i64>,
}

impl<'a> Records<'a> {
    /// Reads `section`, the uncompressed records of the batch that `header` begins.
    ///
    /// # Errors
    /// [`BatchError::InvalidRecord`] if the section can't hold as many records as the header says,
    /// so that the count may be trusted for allocation.
    pub fn new(header: &BatchHeader, section: &'a [u8]) -> Result<Self, BatchError> {
        let needed = (header.record_count as usize).saturating_mul(MIN_RECORD_SIZE);
        if needed > section.len() {
            return Err(BatchError::InvalidRecord {
                index: 0,
                reason: "the section is too short for the number of records",
            });
        }
        let append_time_ms = match header.attributes.timestamp_type() {
            TimestampType::CreateTime => None,
            TimestampType::LogAppendTime => Some(header.max_timestamp_ms),
        };
        Ok(Self {
            left: section,
            index: 0,
            count: header.record_count,
            base_offset: header.base_offset,
            last_offset_delta: header.last_offset_delta,
            next_delta: 0,
            base_timestamp_ms: header.base_timestamp_ms,
            append_time_ms,
        })
    }

    /// Bytes of the section behind the last record that was read.
    pub(super) fn left_size(&self) -> usize {
        self.left.len()
    }

    fn read(&mut self) -> Result<Record<'a>, &'static str> {
        let size = varint::read_i32(&mut self.left).ok_or("its length is malformed")?;
        let size = usize::try_from(size).map_err(|_| "its length is negative")?;
        let (mut body, left) = self
            .left
            .split_at_checked(size)
            .ok_or("it is longer than the section")?;
        self.left = left;
        // One byte of attributes, in which nothing is defined.
        body = body.get(1..).ok_or("it has no attributes")?;
        let timestamp_delta = varint::read_i64(&mut body).ok_or("its timestamp is malformed")?;
        let offset_delta = varint::read_i32(&mut body).ok_or("its offset is malformed")?;
        let offset_delta = u32::try_from(offset_delta).map_err(|_| "its offset is negative")?;
        if offset_delta < self.next_delta || offset_delta > self.last_offset_delta {
            return Err("its offset does not follow the one before or passes the batch's last");
        }
        self.next_delta = offset_delta + 1;
        let timestamp_ms = match self.append_time_ms {
            Some(append_time_ms) => append_time_ms,
            None => self
                .base_timestamp_ms
                .checked_add(timestamp_delta)
                .ok_or("its timestamp overflows")?,
        };
        let key = read_bytes(&mut body).ok_or("its key does not fit")?;
        let value = read_bytes(&mut body).ok_or("its value does not fit")?;
        let headers = read_headers(body)?;
        Ok(Record {
            offset: Offset(self.base_offset.0 + i64::from(offset_delta)),
            timestamp_ms,
            key,
            value,
            headers,
        })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.index == self.count {
            if self.left.is_empty() {
                return None;
            }
            self.left = &[];
            return Some(Err(BatchError::InvalidRecord {
                index: self.index,
                reason: "bytes follow the last record",
            }));
        }
        let index = self.index;
        let record = self.read();
        match record {
            Ok(_) => self.index += 1,
            Err(_) => {
                self.left = &[];
                self.index = self.count;
            }
        }
        Some(record.map_err(|reason| BatchError::InvalidRecord { index, reason }))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.count - self.index) as usize;
        // One more for the error that bytes follow.
        (0, Some(left + 1))
    }
}

impl std::iter::FusedIterator for Records<'_> {}

/// Walks all headers once, so that [`Headers`] never fails.
fn read_headers(body: &[u8]) -> Result<Headers<'_>, &'static str> {
    let mut left = body;
    let count = varint::read_i32(&mut left).ok_or("its header count is malformed")?;
    let count = u32::try_from(count).map_err(|_| "its header count is negative")?;
    let headers = Headers { left, count };
    if (count as usize).saturating_mul(MIN_HEADER_SIZE) > left.len() {
        return Err("it is too short for its headers");
    }
    for _ in 0..count {
        read_header(&mut left).ok_or("a header does not fit")?;
    }
    if left.is_empty() {
        Ok(headers)
    } else {
        Err("bytes follow its last header")
    }
}

fn read_header<'a>(input: &mut &'a [u8]) -> Option<(&'a [u8], Option<&'a [u8]>)> {
    let key = read_bytes(input)??;
    let value = read_bytes(input)?;
    Some((key, value))
}

/// A length, -1 for null, and that many bytes. The outer `None` is malformed input.
#[allow(clippy::option_option)]
fn read_bytes<'a>(input: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let size = varint::read_i32(input)?;
    if size == -1 {
        return Some(None);
    }
    let (bytes, left) = input.split_at_checked(usize::try_from(size).ok()?)?;
    *input = left;
    Some(Some(bytes))
}
