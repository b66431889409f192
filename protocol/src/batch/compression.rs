//! The five codecs of a records section. What a decoder may produce is bounded, since a few bytes
//! can claim to be gigabytes.

use std::io::{Read, Write};

use flate2::{Compression as GzipLevel, read::MultiGzDecoder, write::GzEncoder};
use zstd::bulk::{Compressor, Decompressor};

use crate::batch::{BatchError, Compression, lz4, snappy};

/// Largest zstd window that is taken, as a power of two: what the highest level uses.
const ZSTD_MAX_WINDOW_LOG: u32 = 27;
/// A zstd block of 128 KiB takes four bytes at least; a claim beyond that is not believed.
const ZSTD_MAX_GROWTH: usize = 32 << 10;
const ZSTD_LEVEL: i32 = 3;

const NO_FAILURE: &str = "memory takes every write";

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
        Compression::Lz4 => lz4::decompress(section, limit),
        Compression::Zstd => decompress_zstd(section, limit),
    }
}

fn decompress_zstd(section: &[u8], limit: usize) -> Result<Vec<u8>, BatchError> {
    // Where the frame tells its size, one call decodes straight into the output.
    let size = Decompressor::upper_bound(section)
        .filter(|size| *size <= limit && *size <= section.len().saturating_mul(ZSTD_MAX_GROWTH));
    if let Some(size) = size
        && let Ok(mut decompressor) = Decompressor::new()
    {
        let mut out = Vec::with_capacity(size);
        if decompressor.decompress_to_buffer(section, &mut out).is_ok() {
            return Ok(out);
        }
    }
    let malformed = |_| BatchError::Decompression(Compression::Zstd);
    let mut decoder = zstd::stream::read::Decoder::with_buffer(section).map_err(malformed)?;
    decoder
        .window_log_max(ZSTD_MAX_WINDOW_LOG)
        .map_err(malformed)?;
    read_bounded(Compression::Zstd, decoder, limit)
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

/// Compresses sections; keeps what is costly to make anew for each.
#[derive(Default)]
pub(super) struct SectionCompressor {
    zstd: Option<Compressor<'static>>,
}

impl SectionCompressor {
    /// Appends the compressed section to `out`.
    pub(super) fn compress(&mut self, codec: Compression, section: &[u8], out: &mut Vec<u8>) {
        match codec {
            Compression::None => out.extend_from_slice(section),
            Compression::Gzip => {
                let mut encoder = GzEncoder::new(out, GzipLevel::default());
                encoder.write_all(section).expect(NO_FAILURE);
                encoder.finish().expect(NO_FAILURE);
            }
            Compression::Snappy => snappy::compress(section, out),
            Compression::Lz4 => lz4::compress(section, out),
            Compression::Zstd => self.compress_zstd(section, out),
        }
    }

    fn compress_zstd(&mut self, section: &[u8], out: &mut Vec<u8>) {
        let compressor = self
            .zstd
            .get_or_insert_with(|| Compressor::new(ZSTD_LEVEL).expect("a level that exists"));
        let start = out.len();
        out.resize(start + zstd::zstd_safe::compress_bound(section.len()), 0);
        let size = compressor
            .compress_to_buffer(section, &mut out[start..])
            .expect("the buffer has the size that the codec asks for");
        out.truncate(start + size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODECS: [Compression; 4] = [
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];

    fn compress(codec: Compression, section: &[u8]) -> Vec<u8> {
        let mut out = b"before".to_vec();
        let mut compressor = SectionCompressor::default();
        compressor.compress(codec, section, &mut out);
        assert_eq!(out[..6], *b"before");
        out.split_off(6)
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let zeros = vec![0; 4 << 20];
        for codec in CODECS {
            let bomb = compress(codec, &zeros);
            let limit = zeros.len() - 1;
            assert_eq!(
                decompress(codec, &bomb, limit),
                Err(BatchError::UncompressedTooLarge { limit }),
                "{codec}"
            );
            assert_eq!(
                decompress(codec, &bomb, zeros.len()).map(|out| out.len()),
                Ok(4 << 20)
            );
        }
        let streamed = zstd::stream::encode_all(&zeros[..], 1).expect("memory");
        assert_eq!(
            decompress(Compression::Zstd, &streamed, 1 << 20),
            Err(BatchError::UncompressedTooLarge { limit: 1 << 20 })
        );
    }

    #[test]
    fn bytes_cut_short_are_refused() {
        let section: Vec<u8> = (0..1000u32).flat_map(|i| (i * i).to_le_bytes()).collect();
        for codec in CODECS {
            let bytes = compress(codec, &section);
            assert_eq!(decompress(codec, &bytes, 1 << 20).as_ref(), Ok(&section));
            for cut in 1..bytes.len() {
                let opened = decompress(codec, &bytes[..cut], 1 << 20);
                // Snappy's framing has no end of its own: a cut between blocks shows as less.
                let less = codec == Compression::Snappy && opened == Ok(Vec::new());
                let malformed = opened == Err(BatchError::Decompression(codec));
                assert!(less || malformed, "{codec} cut at {cut}");
            }
        }
    }

    #[test]
    fn a_snappy_block_that_claims_to_be_huge_is_refused() {
        let raw = [0xff, 0xff, 0xff, 0x3f, 0, b'x'];
        let framed = [&b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01\0\0\0\x06"[..], &raw].concat();
        for bomb in [&raw[..], &framed] {
            assert_eq!(
                decompress(Compression::Snappy, bomb, 128 << 20),
                Err(BatchError::Decompression(Compression::Snappy))
            );
        }
    }
}
