//! What a producer sent, as its partition's delay log keeps it: each record with the time at which it is
//! due, on the clock of the broker that accepted it.

use millstream_protocol::{
    ErrorCode,
    batch::{BatchBuilder, BatchError, Batches, BuildError, DecodedBatch},
    headers::{self, Delay, DelayError, Due},
    limits::MAX_BATCH_SIZE,
};

/// What is delivered must fit a batch, with the headers that come to it.
const MAX_RECORD_SIZE: usize = MAX_BATCH_SIZE as usize - (64 << 10);

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
    /// A record, or all together, would not fit the largest batch when they are delivered.
    #[error("{0} bytes are more than the {MAX_RECORD_SIZE} that can be delayed at once")]
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

/// The batches for the delay log: same records, same producer and sequences, same compression.
///
/// # Errors
/// [`AcceptError`], and nothing is accepted.
pub fn accept(records: &[u8], terms: &Terms) -> Result<Vec<u8>, AcceptError> {
    let mut out = Vec::with_capacity(records.len() + records.len() / 8);
    let mut builder = BatchBuilder::with_capacity(records.len());
    let mut index = 0;
    for batch in Batches::produced(records, terms.max_batch_size) {
        let (header, bytes) = batch?;
        let batch = DecodedBatch::open(bytes)?;
        if terms.keys_required {
            batch.check_keys()?;
        }
        for record in batch.records() {
            let record = record?;
            let delay = Delay::of(record.headers);
            let delay = delay.map_err(|error| AcceptError::Delay { index, error })?;
            let due = due_ms(index, delay.due, terms)?.to_string();
            let mut kept: Vec<(&[u8], Option<&[u8]>)> = Vec::with_capacity(record.headers.len());
            kept.extend(record.headers.filter(|(name, _)| !is_due_header(name)));
            kept.push((headers::DELIVER_AT.as_bytes(), Some(due.as_bytes())));
            let size = record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
            if size > MAX_RECORD_SIZE {
                return Err(AcceptError::TooLarge(size));
            }
            builder.push(record.timestamp_ms, record.key, record.value, &kept)?;
            index += 1;
        }
        let producer = header.has_producer().then_some((
            header.producer_id,
            header.producer_epoch,
            header.base_sequence,
        ));
        out.extend(builder.finish(producer, header.attributes.compression()));
    }
    if out.is_empty() {
        return Err(AcceptError::Empty);
    }
    if out.len() > MAX_RECORD_SIZE {
        return Err(AcceptError::TooLarge(out.len()));
    }
    Ok(out)
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
