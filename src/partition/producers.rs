//! What a partition remembers of its idempotent producers: enough to tell the next batch from a
//! repeat, a gap or a fenced one (KIP-98), across restarts.
//!
//! For each producer id the last [`REMEMBERED_BATCHES`] batches are kept with their offsets, so a
//! retry of any request that can be in flight is answered with the offset of its original.

use std::collections::{BTreeMap, VecDeque};

use millstream_protocol::{
    Offset, ProducerEpoch, ProducerId, Reader, Wire, batch::BatchHeader, limits,
};

/// Batches remembered for each producer: as many as it may have in flight.
pub const REMEMBERED_BATCHES: usize = limits::MAX_BATCHES_IN_FLIGHT;

/// Producers remembered in a partition; beyond, the one silent for longest is forgotten.
pub const MAX_PRODUCERS: usize = 10_000;

/// A producer silent for this long is forgotten, in milliseconds (a day, as KIP-854).
pub const PRODUCER_EXPIRATION_MS: i64 = 24 * 60 * 60 * 1000;

const SNAPSHOT_VERSION: u16 = 1;

/// A batch that was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Appended {
    first_sequence: i32,
    last_sequence: i32,
    base_offset: Offset,
    next_offset: Offset,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Producer {
    epoch: ProducerEpoch,
    /// Oldest first.
    batches: VecDeque<Appended>,
    /// Where to begin again, if all of its batches were cut away.
    begins_at: Option<i32>,
    last_append_ms: i64,
}

/// The verdict on a batch's sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SequenceCheck {
    /// It is next: append it.
    Next,
    /// It was appended before, at these offsets: answer as the original is answered.
    Repeat {
        /// Offset of the original's first record.
        base_offset: Offset,
        /// Offset after the original's last record.
        next_offset: Offset,
    },
    /// It was appended so long ago that its offset is forgotten.
    OldRepeat,
    /// Something before it is missing.
    OutOfOrder {
        /// The sequence that would be next.
        expected: i32,
    },
    /// A newer incarnation of the producer has written.
    Fenced {
        /// The newer incarnation's epoch.
        current: ProducerEpoch,
    },
}

/// A snapshot of producers that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("producer snapshot: {0}")]
pub struct SnapshotError(&'static str);

/// Every producer a partition remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Producers {
    by_id: BTreeMap<ProducerId, Producer>,
}

impl Producers {
    /// Judges a batch that is about to be appended. Batches without a producer are always next.
    #[must_use]
    pub fn check(&self, batch: &BatchHeader) -> SequenceCheck {
        if !batch.has_producer() {
            return SequenceCheck::Next;
        }
        // One of which nothing is known may begin anywhere: it may be known elsewhere, or have been
        // forgotten here (KIP-360). What it sends from before there is no repeat; see `check_sequence`.
        let Some(producer) = self.by_id.get(&batch.producer_id) else {
            return SequenceCheck::Next;
        };
        if batch.producer_epoch < producer.epoch {
            return SequenceCheck::Fenced {
                current: producer.epoch,
            };
        }
        if batch.producer_epoch > producer.epoch {
            return check_first(batch.base_sequence, 0);
        }
        producer.check_sequence(batch.base_sequence, batch.last_sequence())
    }

    /// Notes a batch that was appended: live, or found again in the log at start-up. What is not
    /// below `durable` may still be cut, so it pushes nothing out that would then be missed.
    pub fn appended(&mut self, batch: &BatchHeader, append_time_ms: i64, durable: Offset) {
        if !batch.has_producer() {
            return;
        }
        if !self.by_id.contains_key(&batch.producer_id) && self.by_id.len() >= MAX_PRODUCERS {
            self.forget_oldest();
        }
        let producer = self
            .by_id
            .entry(batch.producer_id)
            .or_insert_with(|| Producer {
                epoch: batch.producer_epoch,
                batches: VecDeque::with_capacity(1),
                begins_at: None,
                last_append_ms: append_time_ms,
            });
        producer.begins_at = None;
        if batch.producer_epoch != producer.epoch {
            producer.epoch = batch.producer_epoch;
            producer.batches.clear();
        }
        producer.batches.push_back(Appended {
            first_sequence: batch.base_sequence,
            last_sequence: batch.last_sequence(),
            base_offset: batch.base_offset,
            next_offset: batch.next_offset(),
        });
        producer.last_append_ms = append_time_ms;
        let is_durable = |batch: &Appended| batch.next_offset <= durable;
        while producer
            .batches
            .get(REMEMBERED_BATCHES)
            .is_some_and(is_durable)
        {
            producer.batches.pop_front();
        }
    }

    /// Forgets batches at and above `end`: they were cut away before anyone was told of them.
    pub fn cut(&mut self, end: Offset) {
        for producer in self.by_id.values_mut() {
            let first = producer.batches.front().map(|batch| batch.first_sequence);
            producer.batches.retain(|batch| batch.next_offset <= end);
            if producer.batches.is_empty() {
                producer.begins_at = producer.begins_at.or(first);
            }
        }
    }

    /// The clock was set: everyone has been silent for as long as before.
    pub fn clock_set(&mut self, by_ms: i64) {
        for producer in self.by_id.values_mut() {
            producer.last_append_ms = producer.last_append_ms.saturating_add(by_ms);
        }
    }

    /// Forgets producers that have been silent for [`PRODUCER_EXPIRATION_MS`].
    pub fn expire(&mut self, now_ms: i64) {
        let horizon = now_ms.saturating_sub(PRODUCER_EXPIRATION_MS);
        self.by_id
            .retain(|_, producer| producer.last_append_ms >= horizon);
    }

    /// Base offsets of the batches that producers are remembered by: what compaction must leave of a
    /// log, so that a recovery from the log alone remembers as much.
    pub fn remembered_batches(&self) -> impl Iterator<Item = Offset> {
        let batches = self.by_id.values().flat_map(|producer| &producer.batches);
        batches.map(|batch| batch.base_offset)
    }

    /// How many producers are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether none is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    fn forget_oldest(&mut self) {
        let oldest = self
            .by_id
            .iter()
            .min_by_key(|(_, producer)| producer.last_append_ms);
        if let Some(id) = oldest.map(|(id, _)| *id) {
            self.by_id.remove(&id);
        }
    }

    /// The state as bytes, for a checkpoint that is written once all of it is durable; see
    /// `docs/format/producers.md`.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(6 + self.by_id.len() * 64);
        SNAPSHOT_VERSION.encode(&mut out);
        let count = u32::try_from(self.by_id.len()).expect("bounded by MAX_PRODUCERS");
        count.encode(&mut out);
        for (id, producer) in &self.by_id {
            id.encode(&mut out);
            producer.epoch.encode(&mut out);
            producer.last_append_ms.encode(&mut out);
            let forgotten = producer.batches.len().saturating_sub(REMEMBERED_BATCHES);
            let count = u8::try_from(producer.batches.len() - forgotten).expect("few");
            count.encode(&mut out);
            for batch in producer.batches.iter().skip(forgotten) {
                batch.first_sequence.encode(&mut out);
                batch.last_sequence.encode(&mut out);
                batch.base_offset.encode(&mut out);
                batch.next_offset.encode(&mut out);
            }
        }
        out
    }

    /// The state from a checkpoint's bytes.
    ///
    /// # Errors
    /// [`SnapshotError`] if they are not such a state.
    pub fn restore(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let mut reader = Reader::new(bytes);
        let producers = Self::read(&mut reader).map_err(|_| SnapshotError("cut short"))?;
        if reader.remaining() != 0 {
            return Err(SnapshotError("bytes behind its end"));
        }
        producers.ok_or(SnapshotError(
            "a version or a count this build does not know",
        ))
    }

    fn read(reader: &mut Reader<'_>) -> Result<Option<Self>, millstream_protocol::DecodeError> {
        let mut producers = Self::default();
        if u16::decode(reader)? != SNAPSHOT_VERSION {
            return Ok(None);
        }
        for _ in 0..u32::decode(reader)? {
            let id = ProducerId::decode(reader)?;
            let epoch = ProducerEpoch::decode(reader)?;
            let last_append_ms = i64::decode(reader)?;
            let count = usize::from(u8::decode(reader)?);
            if count > REMEMBERED_BATCHES {
                return Ok(None);
            }
            let mut batches = VecDeque::with_capacity(count);
            for _ in 0..count {
                batches.push_back(Appended {
                    first_sequence: i32::decode(reader)?,
                    last_sequence: i32::decode(reader)?,
                    base_offset: Offset::decode(reader)?,
                    next_offset: Offset::decode(reader)?,
                });
            }
            producers.by_id.insert(
                id,
                Producer {
                    epoch,
                    batches,
                    begins_at: None,
                    last_append_ms,
                },
            );
        }
        Ok(Some(producers))
    }
}

impl Producer {
    fn check_sequence(&self, first: i32, last: i32) -> SequenceCheck {
        let Some(newest) = self.batches.back() else {
            return self.begins_at.map_or(SequenceCheck::Next, |begins_at| {
                check_first(first, begins_at)
            });
        };
        let expected = next_sequence(newest.last_sequence);
        if first == expected {
            return SequenceCheck::Next;
        }
        let original = self
            .batches
            .iter()
            .find(|batch| batch.first_sequence == first && batch.last_sequence == last);
        if let Some(batch) = original {
            return SequenceCheck::Repeat {
                base_offset: batch.base_offset,
                next_offset: batch.next_offset,
            };
        }
        // Only a batch that lies wholly before all that is remembered is an old repeat; one that
        // overlaps in part was never sent by a producer that keeps its batches.
        // And as long as nothing has been forgotten, nothing was written before: what comes from
        // before was refused when it first came, and its producer has to hear that it is missing.
        let oldest = self.batches.front().unwrap_or(newest);
        let forgot = self.batches.len() >= REMEMBERED_BATCHES;
        if forgot && is_before(last, oldest.first_sequence) {
            SequenceCheck::OldRepeat
        } else {
            SequenceCheck::OutOfOrder { expected }
        }
    }
}

/// A new epoch begins with sequence 0; what was cut away, with what was cut first.
fn check_first(sequence: i32, expected: i32) -> SequenceCheck {
    match sequence == expected {
        true => SequenceCheck::Next,
        false => SequenceCheck::OutOfOrder { expected },
    }
}

/// The sequence after `sequence`; after the largest comes 0.
#[must_use]
pub fn next_sequence(sequence: i32) -> i32 {
    if sequence == i32::MAX {
        0
    } else {
        sequence + 1
    }
}

/// Whether `sequence` is behind `other`, on a circle of 2^31 numbers: by less than half of it.
fn is_before(sequence: i32, other: i32) -> bool {
    let behind = other.wrapping_sub(sequence) & i32::MAX;
    behind != 0 && behind < i32::MAX / 2
}
