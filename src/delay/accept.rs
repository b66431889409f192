//! What a producer sent, as its partition's delay log keeps it: each record with the time at which it is
//! due, on the clock of the broker that accepted it.

use millstream_protocol::{
    ErrorCode,
    batch::{BatchBuilder, BatchError, BatchHeader, Batches, BuildError, DecodedBatch},
    headers::{self, Delay, DelayError, Due},
    limits::{MAX_BATCH_SIZE, MAX_UNCOMPRESSED_BATCH_SIZE},
};

/// What is delivered must fit a batch, with the headers that come to it: a record decompressed, and all of a
/// request as it is stored.
const MAX_RECORD_SIZE: usize = MAX_BATCH_SIZE as usize - (64 << 10);
/// Bytes of a request, decompressed.
const MAX_REQUEST_SIZE: usize = MAX_UNCOMPRESSED_BATCH_SIZE;
/// Bytes, decompressed, after which others have their turn.
const TURN_SIZE: usize = 1 << 20;

/// What a batch is judged by.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// The delay clock.
    pub now_ms: i64,
    /// A record may be due so long after that.
    pub horizon_ms: i64,
    /// Largest batch, in bytes.
    pub max_batch_size: u32,
    /// Records must have keys.
    pub keys_required: bool,
}

/// Why nothing of a request is accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AcceptError {
    /// A batch is none, or may not be sent.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// A batch becomes too large with its due times.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A record would not fit the largest batch when it is delivered; or all together are too much.
    #[error(
        "{0} bytes are more than can be delayed at once: {MAX_RECORD_SIZE} of a record or a request, \
         {MAX_REQUEST_SIZE} of a request decompressed"
    )]
    TooLarge(usize),
    /// There is no batch.
    #[error("there is no record batch")]
    Empty,
    /// A record does not say when it is due.
    #[error("record {index}: {error}")]
    Delay {
        /// Which record of the request, from 0.
        index: usize,
        /// What is wrong.
        error: DelayError,
    },
    /// A record is due too late.
    #[error(
        "record {index} is due in {delay_ms} ms, beyond the horizon of {horizon_ms} ms; raise \
         delay.horizon.ms to allow that"
    )]
    BeyondHorizon {
        /// Which record of the request, from 0.
        index: usize,
        /// How long from now.
        delay_ms: i64,
        /// The most there may be.
        horizon_ms: i64,
    },
}

impl AcceptError {
    /// The wire's code.
    #[must_use]
    pub fn error_code(&self) -> ErrorCode {
        match self {
            Self::Batch(error) => error.error_code(),
            Self::Build(_) | Self::TooLarge(_) => ErrorCode::BatchTooLarge,
            Self::Empty => ErrorCode::InvalidBatch,
            Self::Delay { .. } | Self::BeyondHorizon { .. } => ErrorCode::InvalidDelay,
        }
    }
}

/// A request that is being taken in, a turn at a time.
#[derive(Debug)]
pub struct Accepting {
    terms: Terms,
    /// Bytes of the request that are done.
    done: usize,
    /// Records that are.
    index: usize,
    /// Bytes of those, decompressed.
    decoded: usize,
    out: Vec<u8>,
}

impl Accepting {
    /// Nothing yet.
    #[must_use]
    pub fn by(terms: Terms) -> Self {
        Self {
            terms,
            done: 0,
            index: 0,
            decoded: 0,
            out: Vec::new(),
        }
    }

    /// Takes in the next batches of the request, as many as may hold up others. The batches for the delay log
    /// in the end: same records, same producer and sequences, same compression.
    ///
    /// # Errors
    /// [`AcceptError`], and nothing is accepted.
    pub fn turn(&mut self, records: &[u8]) -> Result<Option<Vec<u8>>, AcceptError> {
        let before = self.decoded;
        for batch in Batches::produced(&records[self.done..], self.terms.max_batch_size) {
            let (header, bytes) = batch?;
            self.take_in(&header, bytes)?;
            self.done += header.size as usize;
            if self.decoded > MAX_REQUEST_SIZE {
                return Err(AcceptError::TooLarge(self.decoded));
            }
            if self.decoded - before >= TURN_SIZE && self.done < records.len() {
                return Ok(None);
            }
        }
        match self.out.len() {
            0 => Err(AcceptError::Empty),
            1..=MAX_RECORD_SIZE => Ok(Some(std::mem::take(&mut self.out))),
            size => Err(AcceptError::TooLarge(size)),
        }
    }

    fn take_in(&mut self, header: &BatchHeader, bytes: &[u8]) -> Result<(), AcceptError> {
        let (terms, out) = (&self.terms, &mut self.out);
        let mut builder = BatchBuilder::with_capacity(bytes.len());
        let batch = DecodedBatch::open(bytes)?;
        if terms.keys_required {
            batch.check_keys()?;
        }
        for record in batch.records() {
            let (record, index) = (record?, self.index);
            let delay = Delay::of(record.headers);
            let delay = delay.map_err(|error| AcceptError::Delay { index, error })?;
            let due = due_ms(index, delay.due, terms)?.to_string();
            let mut kept: Vec<(&[u8], Option<&[u8]>)> = Vec::with_capacity(record.headers.len());
            kept.extend(record.headers.filter(|(name, _)| !is_due_header(name)));
            kept.push((headers::DELIVER_AT.as_bytes(), Some(due.as_bytes())));
            let size = BatchBuilder::max_record_size(record.key, record.value, &kept);
            if size > MAX_RECORD_SIZE {
                return Err(AcceptError::TooLarge(size));
            }
            builder.push(record.timestamp_ms, record.key, record.value, &kept)?;
            self.index += 1;
        }
        self.decoded += builder.size();
        let producer = header.has_producer().then_some((
            header.producer_id,
            header.producer_epoch,
            header.base_sequence,
        ));
        out.extend(builder.finish(producer, header.attributes.compression()));
        Ok(())
    }
}

/// The same at once.
///
/// # Errors
/// [`AcceptError`], and nothing is accepted.
pub fn accept(records: &[u8], terms: &Terms) -> Result<Vec<u8>, AcceptError> {
    let mut accepting = Accepting::by(*terms);
    loop {
        if let Some(batches) = accepting.turn(records)? {
            return Ok(batches);
        }
    }
}

fn due_ms(index: usize, due: Due, terms: &Terms) -> Result<i64, AcceptError> {
    let delay_ms = match due {
        Due::At(at_ms) => at_ms.saturating_sub(terms.now_ms),
        Due::After(delay_ms) => delay_ms,
    };
    if delay_ms > terms.horizon_ms {
        return Err(AcceptError::BeyondHorizon {
            index,
            delay_ms,
            horizon_ms: terms.horizon_ms,
        });
    }
    Ok(match due {
        Due::At(at_ms) => at_ms,
        Due::After(delay_ms) => terms.now_ms.saturating_add(delay_ms),
    })
}

/// Headers that the broker writes anew: a producer's word for them does not count.
fn is_due_header(name: &[u8]) -> bool {
    let written = [
        headers::DELIVER_AT,
        headers::DELIVER_AFTER,
        headers::DELAY_OFFSET,
        headers::ORIGINAL_TIMESTAMP,
    ];
    written.iter().any(|header| header.as_bytes() == name)
}

#[cfg(test)]
mod tests {
    use millstream_protocol::batch::Compression;

    use super::*;

    const TERMS: Terms = Terms {
        now_ms: 1_000,
        horizon_ms: 1_000,
        max_batch_size: MAX_BATCH_SIZE,
        keys_required: false,
    };

    /// Records of this size each, as a batch that compresses to nearly nothing.
    fn batch(count: usize, value_size: usize, header_size: usize) -> Vec<u8> {
        let mut builder = BatchBuilder::new();
        let (value, note) = (vec![b'v'; value_size], vec![b'h'; header_size]);
        for _ in 0..count {
            let headers = [
                (headers::DELIVER_AT, Some(&b"1500"[..])),
                ("note", Some(&note[..])),
            ];
            let pushed = builder.push(7, None, Some(&value), &headers);
            pushed.expect("it fits");
        }
        builder.finish(None, Compression::Zstd)
    }

    #[test]
    fn headers_count_for_what_can_be_delivered() {
        let fits = MAX_RECORD_SIZE - 1_000;
        for (value, header) in [(fits, 0), (0, fits)] {
            assert!(accept(&batch(1, value, header), &TERMS).is_ok());
        }
        for (value, header) in [(MAX_RECORD_SIZE, 0), (0, MAX_RECORD_SIZE), (fits, 1_000)] {
            let refused = accept(&batch(1, value, header), &TERMS);
            assert!(
                matches!(refused, Err(AcceptError::TooLarge(_))),
                "{value} {header}"
            );
        }
    }

    #[test]
    fn a_request_is_taken_in_by_turns_and_bounded_decompressed() {
        let request = batch(1, 900_000, 0).repeat(8);
        let mut accepting = Accepting::by(TERMS);
        let mut turns = 1;
        let batches = loop {
            match accepting.turn(&request).expect("a good request") {
                Some(batches) => break batches,
                None => turns += 1,
            }
        };
        assert_eq!(turns, 4, "two batches each");
        assert_eq!(batches, accept(&request, &TERMS).expect("a good request"));
        let bomb = batch(30, 1 << 20, 0).repeat(5);
        assert!(bomb.len() < 1 << 20);
        assert!(matches!(
            accept(&bomb, &TERMS),
            Err(AcceptError::TooLarge(_))
        ));
    }
}
