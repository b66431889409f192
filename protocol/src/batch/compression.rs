//! The five codecs of a records section. What a decoder may produce is bounded, since a few bytes
//! can claim to be gigabytes.

use std::io::{Read, Write};

use flate2::{Compression as GzipLevel, read::MultiGzDecoder, write::GzEncoder};
use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

use crate::batch::{BatchError, Compression, snappy};

/// Largest zstd window that is taken, as a power of two: what the highest level uses.
const ZSTD_MAX_WINDOW_LOG: u32 = 27;
const ZSTD_LEVEL: i32 = 3;
/// First bytes of an LZ4 frame. The legacy frame, which Kafka's clients refuse, has others.
const LZ4_MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];

/// Decompresses a records section to at most `limit` bytes.
pub(super) fn decompress(
    codec: Compression,
    section: &[u8],
    limit: usize,
) -> Result<Vec<u8>, BatchError> {
    match codec {
        Compression::None => Ok(section.to_vec()),
        Compression::Gzip => read_bounded(codec, MultiGzDecoder::new(section), limit),
        Compression::Snappy => snappy::decompress(section, limit),
        Compression::Lz4 => decompress_lz4(section, limit),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(section)
                .map_err(|_| BatchError::Decompression(codec))?;
            decoder
                .window_log_max(ZSTD_MAX_WINDOW_LOG)
                .map_err(|_| BatchError::Decompression(codec))?;
            read_bounded(codec, decoder, limit)
        }
    }
}

fn decompress_lz4(section: &[u8], limit: usize) -> Result<Vec<u8>, BatchError> {
    let codec = Compression::Lz4;
    if !section.starts_with(&LZ4_MAGIC) {
        return Err(BatchError::Decompression(codec));
    }
    let mut left = section;
    let out = read_bounded(codec, FrameDecoder::new(&mut left), limit)?;
    if left.is_empty() {
        Ok(out)
    } else {
        Err(BatchError::Decompression(codec))
    }
}

/// Reads to the end, growing as bytes come, and stops one byte past the limit.
fn read_bounded(
    codec: Compression,
    decoder: impl Read,
    limit: usize,
) -> Result<Vec<u8>, BatchError> {
    let mut out = Vec::new();
    decoder
        .take(limit as u64 + 1)
        .read_to_end(&mut out)
        .map_err(|_| BatchError::Decompression(codec))?;
    if out.len() > limit {
        return Err(BatchError::UncompressedTooLarge { limit });
    }
    Ok(out)
}

/// Appends the compressed section to `out`.
pub(super) fn compress(codec: Compression, section: &[u8], out: &mut Vec<u8>) {
    const NO_FAILURE: &str = "memory takes every write";
    match codec {
        Compression::None => out.extend_from_slice(section),
        Compression::Gzip => {
            let mut encoder = GzEncoder::new(out, GzipLevel::default());
            encoder.write_all(section).expect(NO_FAILURE);
            encoder.finish().expect(NO_FAILURE);
        }
        Compression::Snappy => snappy::compress(section, out),
        Compression::Lz4 => {
            // Kafka's Java clients refuse linked blocks (KIP-57).
            let info = FrameInfo::new()
                .block_mode(BlockMode::Independent)
                .block_size(BlockSize::Max64KB);
            let mut encoder = FrameEncoder::with_frame_info(info, out);
            encoder.write_all(section).expect(NO_FAILURE);
            encoder.finish().expect(NO_FAILURE);
        }
        Compression::Zstd => {
            zstd::stream::copy_encode(section, out, ZSTD_LEVEL).expect(NO_FAILURE);
        }
    }
}
