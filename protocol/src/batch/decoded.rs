//! One batch with its records section decompressed.

use std::borrow::Cow;

use crate::{
    batch::{BATCH_HEADER_SIZE, BatchError, BatchHeader, Compression, Records, compression},
    limits::MAX_UNCOMPRESSED_BATCH_SIZE,
};

/// A batch that is ready to give its records. Borrows the section if it was not compressed, owns
/// it otherwise.
#[derive(Clone, Debug)]
pub struct DecodedBatch<'a> {
    header: BatchHeader,
    section: Cow<'a, [u8]>,
}

impl<'a> DecodedBatch<'a> {
    /// Opens the batch at the start of `bytes`. Does not check the CRC: the bytes come from
    /// [`Batches::checked`](crate::batch::Batches::checked).
    ///
    /// # Errors
    /// [`BatchError`] if the bytes are no batch, or the section can't be decompressed, becomes
    /// larger than [`MAX_UNCOMPRESSED_BATCH_SIZE`], or can't hold the records it should.
    pub fn open(bytes: &'a [u8]) -> Result<Self, BatchError> {
        let header = BatchHeader::decode(bytes)?;
        let section =
            bytes
                .get(BATCH_HEADER_SIZE..header.size as usize)
                .ok_or(BatchError::Truncated {
                    needed: header.size as usize,
                    left: bytes.len(),
                })?;
        let section = match header.attributes.compression() {
            Compression::None => Cow::Borrowed(section),
            codec => Cow::Owned(compression::decompress(
                codec,
                section,
                MAX_UNCOMPRESSED_BATCH_SIZE,
            )?),
        };
        Records::new(&header, &section)?;
        Ok(Self { header, section })
    }

    /// The batch's header.
    #[must_use]
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The records, in order of offset.
    #[must_use]
    pub fn records(&self) -> Records<'_> {
        Records::new(&self.header, &self.section).expect("checked when the batch was opened")
    }

    /// Checks that every record is well-formed and has a key: what a compacted topic asks for.
    ///
    /// # Errors
    /// [`BatchError::NoKey`] for the first record without one, or what else is wrong with a record.
    pub fn check_keys(&self) -> Result<(), BatchError> {
        for (index, record) in (0..).zip(self.records()) {
            if record?.key.is_none() {
                return Err(BatchError::NoKey { index });
            }
        }
        Ok(())
    }

    /// Header and section apart, for a reader that keeps the section in a shared buffer of its own
    /// and reads it with [`Records::new`].
    #[must_use]
    pub fn into_parts(self) -> (BatchHeader, Cow<'a, [u8]>) {
        (self.header, self.section)
    }
}
