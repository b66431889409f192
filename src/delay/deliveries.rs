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

/// A batch of delivered records in the partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DeliveredBatch {
    pub base: Offset,
    pub next: Offset,
    /// Due times and delay ids of its records.
    pub records: Vec<(i64, Offset)>,
}

/// The deliveries from some offset of the partition on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deliveries {
    /// All at or above this are here.
    covered_from: Offset,
    batches: VecDeque<DeliveredBatch>,
    count: usize,
}

impl Deliveries {
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
    pub fn batch(&mut self, header: &BatchHeader, bytes: &[u8]) {
        if header.producer_id != ProducerId::BROKER {
            return;
        }
        let records = delivered_records(bytes);
        self.add(header.base_offset, header.next_offset(), records);
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
        VERSION.encode(&mut out);
        self.covered_from.encode(&mut out);
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
        if u16::decode(&mut reader)? != VERSION {
            return Err(DecodeError::OutOfRange(
                "a version this build does not know",
            ));
        }
        deliveries.covered_from = Offset::decode(&mut reader)?;
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
