//! What a partition remembers of delayed records that were delivered to it: enough that no recovery of its
//! delay log takes one for pending. Kept with the partition's checkpoints, and forgotten once a checkpoint
//! of the delay log knows as much.

use std::collections::VecDeque;

use millstream_protocol::{
    DecodeError, Offset, ProducerId, Reader, Wire,
    batch::{BatchHeader, DecodedBatch},
    headers,
};

use super::recent::Entry;

const VERSION: u16 = 1;
/// The version of a snapshot that names parts of which nothing is known.
const WITH_UNKNOWN: u16 = 2;
/// It is not known yet until when a part of which nothing is known was written.
const NOT_YET: i64 = i64::MAX;

/// A batch of delivered records in the partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DeliveredBatch {
    pub base: Offset,
    pub next: Offset,
    /// Due times and delay ids of its records.
    pub records: Vec<(i64, Offset)>,
}

/// A part of the partition's log of which nothing says what was delivered in it: a repair found nothing there,
/// or retention has taken it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Unknown {
    /// The offset behind it.
    next: Offset,
    /// It was written by then, in milliseconds since 1970.
    until_ms: i64,
}

/// The deliveries from some offset of the partition on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deliveries {
    /// All at or above this are here.
    covered_from: Offset,
    batches: VecDeque<DeliveredBatch>,
    count: usize,
    unknown: Vec<Unknown>,
    /// The log is read from its first segment on, since no checkpoint is left: what is missing in it, is; and
    /// whether something of it was read.
    whole: Option<bool>,
}

impl Deliveries {
    /// Of a log without a checkpoint, which is a new one, or was repaired.
    #[must_use]
    pub fn without_checkpoint() -> Self {
        Self {
            whole: Some(false),
            ..Self::default()
        }
    }

    /// Of a part of a log that is read once more. What lies before it, if anything does, is unknown.
    #[must_use]
    pub fn of_part(from: Offset, start: Offset) -> Self {
        let mut part = Self {
            covered_from: from,
            whole: Some(true),
            ..Self::default()
        };
        if start > from {
            part.lose(start);
        }
        part
    }

    fn lose(&mut self, next: Offset) {
        self.unknown.push(Unknown {
            next,
            until_ms: NOT_YET,
        });
    }

    /// What was unknown so far had been written by then.
    fn known_by(&mut self, until_ms: i64) {
        let open = self.unknown.iter_mut().rev();
        let open = open.take_while(|unknown| unknown.until_ms == NOT_YET);
        open.for_each(|unknown| unknown.until_ms = until_ms);
    }

    /// Everything there is was read, by now.
    pub fn all_read(&mut self, now_ms: i64) {
        self.known_by(now_ms);
        self.whole = None;
    }

    /// What was due by then may have been delivered at or above an offset of the partition without anybody
    /// knowing.
    #[must_use]
    pub fn unknown_until_ms(&self, below: Offset) -> Option<i64> {
        let unknown = self.unknown.iter().filter(|unknown| unknown.next > below);
        unknown.map(|unknown| unknown.until_ms).max()
    }

    /// All deliveries at or above this offset of the partition are known.
    #[must_use]
    pub fn covered_from(&self) -> Offset {
        self.covered_from
    }

    /// How many records are remembered.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Nothing is to be remembered: what a partition without delayed records says.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// A batch was appended to the partition, or found there at the start.
    pub fn batch(&mut self, header: &BatchHeader, bytes: &[u8], append_time_ms: i64) {
        if let Some(begun) = self.whole {
            self.whole = Some(true);
            self.look_for_holes(header, begun, append_time_ms);
        }
        if header.producer_id != ProducerId::BROKER {
            return;
        }
        let records = delivered_records(bytes);
        self.add(header.base_offset, header.next_offset(), records);
    }

    /// A repair covers what is lost by batches without records, and compaction what it took out.
    fn look_for_holes(&mut self, header: &BatchHeader, begun: bool, append_time_ms: i64) {
        if !begun && header.base_offset > Offset::ZERO {
            self.covered_from = header.base_offset;
            self.lose(header.base_offset);
        }
        let all = header.last_offset_delta.saturating_add(1);
        let delivered = header.producer_id == ProducerId::BROKER;
        if header.record_count == 0 || delivered && header.record_count < all {
            self.lose(header.next_offset());
        } else {
            self.known_by(append_time_ms);
        }
    }

    /// The records of a batch with these offsets came from there.
    pub(super) fn add(&mut self, base: Offset, next: Offset, records: Vec<(i64, Offset)>) {
        self.count += records.len();
        self.batches.push_back(DeliveredBatch {
            base,
            next,
            records,
        });
    }

    /// Records of the delay log were appended to the partition, as a batch with these offsets.
    pub fn handed_over(&mut self, base: Offset, next: Offset, entries: &[Entry]) {
        let records = entries.iter().map(|entry| (entry.due_ms, entry.offset));
        self.add(base, next, records.collect());
    }

    /// The partition's log ends here again.
    pub fn cut(&mut self, end: Offset) {
        while self.batches.back().is_some_and(|last| last.base >= end) {
            let batch = self.batches.pop_back().expect("just seen");
            self.count -= batch.records.len();
        }
    }

    /// The delay log knows of all below, durably.
    pub fn forget_below(&mut self, offset: Offset) {
        self.covered_from = self.covered_from.max(offset);
        self.unknown.retain(|unknown| unknown.next > offset);
        while self
            .batches
            .front()
            .is_some_and(|first| first.next <= offset)
        {
            let batch = self.batches.pop_front().expect("just seen");
            self.count -= batch.records.len();
        }
    }

    /// Those that lie at or above an offset of the partition.
    pub(super) fn since(&self, offset: Offset) -> impl Iterator<Item = &(i64, Offset)> {
        let batches = self.batches.iter().filter(move |it| it.base >= offset);
        batches.flat_map(|batch| &batch.records)
    }

    /// For a checkpoint of the partition.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16 + self.count * 16);
        match self.unknown.len() {
            0 => VERSION.encode(&mut out),
            _ => WITH_UNKNOWN.encode(&mut out),
        }
        self.covered_from.encode(&mut out);
        if !self.unknown.is_empty() {
            length(self.unknown.len()).encode(&mut out);
            for unknown in &self.unknown {
                unknown.next.encode(&mut out);
                unknown.until_ms.encode(&mut out);
            }
        }
        length(self.batches.len()).encode(&mut out);
        for batch in &self.batches {
            batch.base.encode(&mut out);
            batch.next.encode(&mut out);
            length(batch.records.len()).encode(&mut out);
            for (due_ms, id) in &batch.records {
                due_ms.encode(&mut out);
                id.encode(&mut out);
            }
        }
        out
    }

    /// From a checkpoint's bytes; none is nothing.
    ///
    /// # Errors
    /// [`DecodeError`] if they are not such a snapshot.
    pub fn restore(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut deliveries = Self::default();
        if bytes.is_empty() {
            return Ok(deliveries);
        }
        let mut reader = Reader::new(bytes);
        let version = u16::decode(&mut reader)?;
        if version != VERSION && version != WITH_UNKNOWN {
            return Err(DecodeError::OutOfRange(
                "a version this build does not know",
            ));
        }
        deliveries.covered_from = Offset::decode(&mut reader)?;
        if version == WITH_UNKNOWN {
            for _ in 0..u32::decode(&mut reader)? {
                deliveries.unknown.push(Unknown {
                    next: Offset::decode(&mut reader)?,
                    until_ms: i64::decode(&mut reader)?,
                });
            }
        }
        for _ in 0..u32::decode(&mut reader)? {
            let (base, next) = (Offset::decode(&mut reader)?, Offset::decode(&mut reader)?);
            let count = u32::decode(&mut reader)? as usize;
            let mut records = Vec::with_capacity(count.min(reader.remaining() / 16));
            for _ in 0..count {
                records.push((i64::decode(&mut reader)?, Offset::decode(&mut reader)?));
            }
            deliveries.add(base, next, records);
        }
        reader.finish()?;
        Ok(deliveries)
    }
}

/// Due times and delay ids that the records of a delivered batch name. Compaction may have left a few.
fn delivered_records(bytes: &[u8]) -> Vec<(i64, Offset)> {
    let Ok(batch) = DecodedBatch::open(bytes) else {
        return Vec::new();
    };
    let number = |headers: millstream_protocol::batch::Headers<'_>, wanted: &str| {
        let found = headers.filter(|(name, _)| *name == wanted.as_bytes());
        found.last().and_then(|(_, value)| headers::number(value))
    };
    let records = batch.records().filter_map(Result::ok);
    let named = records.filter_map(|record| {
        let due_ms = number(record.headers, headers::DELIVER_AT)?;
        let id = number(record.headers, headers::DELAY_OFFSET)?;
        Some((due_ms, Offset(id)))
    });
    named.collect()
}

fn length(count: usize) -> u32 {
    u32::try_from(count).expect("as many do not fit memory")
}

#[cfg(test)]
mod tests {
    use millstream_protocol::{
        LeaderEpoch,
        batch::{BatchBuilder, Compression, NO_HEADERS, gap, place_all},
    };

    use super::*;

    fn ordinary(base: i64) -> Vec<u8> {
        let mut builder = BatchBuilder::new();
        let pushed = builder.push(1, None, Some(b"x"), NO_HEADERS);
        pushed.expect("it fits");
        let mut batch = builder.finish(None, Compression::None);
        place_all(&mut batch, Offset(base), LeaderEpoch(0)).expect("a good batch");
        batch
    }

    fn read(deliveries: &mut Deliveries, batch: &[u8], append_time_ms: i64) {
        let header = BatchHeader::decode(batch).expect("a batch");
        deliveries.batch(&header, batch, append_time_ms);
    }

    #[test]
    fn a_hole_is_unknown_until_what_follows_it() {
        let mut deliveries = Deliveries::without_checkpoint();
        read(&mut deliveries, &ordinary(7), 100);
        read(
            &mut deliveries,
            &gap(Offset(8), Offset(20), LeaderEpoch(0)),
            100,
        );
        read(&mut deliveries, &ordinary(20), 300);
        read(
            &mut deliveries,
            &gap(Offset(21), Offset(30), LeaderEpoch(0)),
            300,
        );
        deliveries.all_read(900);
        assert_eq!(deliveries.covered_from(), Offset(7));
        let until = |below| deliveries.unknown_until_ms(Offset(below));
        assert_eq!((until(0), until(29)), (Some(900), Some(900)));
        assert_eq!(until(30), None);
        let again = Deliveries::restore(&deliveries.snapshot());
        assert_eq!(again.as_ref(), Ok(&deliveries));
        let mut again = again.expect("just seen");
        again.forget_below(Offset(30));
        assert_eq!(again.unknown_until_ms(Offset(0)), None);
    }

    #[test]
    fn a_log_with_a_checkpoint_has_no_holes() {
        let mut deliveries = Deliveries::default();
        read(
            &mut deliveries,
            &gap(Offset(8), Offset(20), LeaderEpoch(0)),
            100,
        );
        read(&mut deliveries, &ordinary(20), 300);
        deliveries.all_read(900);
        assert!(deliveries.is_empty());
        let mut new = Deliveries::without_checkpoint();
        read(&mut new, &ordinary(0), 100);
        new.all_read(900);
        assert!(new.is_empty());
    }
}
