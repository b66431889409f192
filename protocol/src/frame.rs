//! The frame: a fixed 24-byte little-endian header, a body, then (produce and fetch) raw record
//! batches.
//!
//! | at | size | field |
//! |---|---|---|
//! | 0 | 4 | frame length: the bytes after this field (20 + body + records) |
//! | 4 | 2 | api |
//! | 6 | 2 | api version |
//! | 8 | 2 | flags |
//! | 10 | 2 | reserved, 0 |
//! | 12 | 4 | body length |
//! | 16 | 8 | correlation id |

/// Bytes of a frame header.
pub const FRAME_HEADER_SIZE: usize = 24;

/// Bits of a header's flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameFlags(pub u16);

impl FrameFlags {
    /// The frame is a reply.
    pub const RESPONSE: Self = Self(1);
    /// The reply's body is an [`ErrorReply`](crate::messages::ErrorReply), not the API's own.
    pub const ERROR: Self = Self(2);

    /// Whether every bit of `other` is set.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets of bits.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A frame's header. `api` stays a number here: an unknown one must be answered, not dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameHeader {
    /// Number of the API; see [`Api`](crate::messages::Api).
    pub api: u16,
    /// Version of the body's layout.
    pub version: u16,
    /// What kind of frame this is.
    pub flags: FrameFlags,
    /// Bytes of the body.
    pub body_size: u32,
    /// Bytes of record batches behind the body.
    pub records_size: u32,
    /// Chosen by the client, returned in the reply.
    pub correlation_id: u64,
}

/// Why a header can't be believed. The stream has lost its frame boundaries, so the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length does not cover the header and the body.
    #[error("frame length {length} is less than its header and its body of {body_size} bytes")]
    LengthTooSmall {
        /// The length field.
        length: u32,
        /// The body length field.
        body_size: u32,
    },
    /// The frame is larger than the receiver takes.
    #[error("frame of {size} bytes is larger than the limit of {limit}")]
    TooLarge {
        /// Bytes of the whole frame.
        size: u64,
        /// The most that is taken.
        limit: u32,
    },
    /// Reserved bits are set.
    #[error("reserved field of the frame header is {0:#06x}, not 0")]
    ReservedNotZero(u16),
}

const AFTER_LENGTH: u32 = 20;

impl FrameHeader {
    /// Reads a header and checks it against `max_frame_size` (bytes of the whole frame).
    ///
    /// # Errors
    /// [`FrameError`] if the lengths contradict each other or pass the limit.
    pub fn decode(
        bytes: &[u8; FRAME_HEADER_SIZE],
        max_frame_size: u32,
    ) -> Result<Self, FrameError> {
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let length = u32_at(0);
        let body_size = u32_at(12);
        let size = u64::from(length) + 4;
        if size > u64::from(max_frame_size) {
            return Err(FrameError::TooLarge {
                size,
                limit: max_frame_size,
            });
        }
        let records_size = length
            .checked_sub(AFTER_LENGTH)
            .and_then(|left| left.checked_sub(body_size))
            .ok_or(FrameError::LengthTooSmall { length, body_size })?;
        if u16_at(10) != 0 {
            return Err(FrameError::ReservedNotZero(u16_at(10)));
        }
        let correlation_id = u64::from(u32_at(16)) | u64::from(u32_at(20)) << 32;
        Ok(Self {
            api: u16_at(4),
            version: u16_at(6),
            flags: FrameFlags(u16_at(8)),
            body_size,
            records_size,
            correlation_id,
        })
    }

    /// The header's bytes.
    ///
    /// # Panics
    /// If body and records together pass 4 GiB; limits keep every frame far below.
    #[must_use]
    pub fn encode(&self) -> [u8; FRAME_HEADER_SIZE] {
        let length = AFTER_LENGTH
            .checked_add(self.body_size)
            .and_then(|size| size.checked_add(self.records_size))
            .expect("a frame below 4 GiB");
        let mut bytes = [0; FRAME_HEADER_SIZE];
        bytes[0..4].copy_from_slice(&length.to_le_bytes());
        bytes[4..6].copy_from_slice(&self.api.to_le_bytes());
        bytes[6..8].copy_from_slice(&self.version.to_le_bytes());
        bytes[8..10].copy_from_slice(&self.flags.0.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.body_size.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.correlation_id.to_le_bytes());
        bytes
    }

    /// Bytes behind the header: body and records.
    #[must_use]
    pub fn rest_size(&self) -> usize {
        self.body_size as usize + self.records_size as usize
    }
}
