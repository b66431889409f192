//! Snappy in its two forms: one raw block (other clients), and the framing of the Java client:
//! `0x82 "SNAPPY" 0x00`, two big-endian 32-bit versions, then blocks, each behind its 32-bit
//! big-endian size.

use snap::raw::{Decoder, Encoder, decompress_len, max_compress_len};

use crate::batch::{BatchError, Compression};

const MAGIC: [u8; 8] = *b"\x82SNAPPY\0";
const VERSION: u32 = 1;
const FRAMING_HEADER_SIZE: usize = 16;
/// Uncompressed bytes of the blocks written here: the Java client's.
const BLOCK_SIZE: usize = 32 << 10;
/// A copy of 64 bytes takes three: no valid block grows more than this, so a claim beyond it is
/// refused before anything is allocated.
const MAX_GROWTH: usize = 22;

const MALFORMED: BatchError = BatchError::Decompression(Compression::Snappy);

pub(super) fn decompress(section: &[u8], limit: usize) -> Result<Vec<u8>, BatchError> {
    let mut out = Vec::new();
    let mut decoder = Decoder::new();
    if !section.starts_with(&MAGIC) {
        append_block(&mut decoder, section, limit, &mut out)?;
        return Ok(out);
    }
    let mut left = section.get(FRAMING_HEADER_SIZE..).ok_or(MALFORMED)?;
    while !left.is_empty() {
        let (size, rest) = left.split_first_chunk().ok_or(MALFORMED)?;
        let size = u32::from_be_bytes(*size) as usize;
        let (block, rest) = rest.split_at_checked(size).ok_or(MALFORMED)?;
        append_block(&mut decoder, block, limit, &mut out)?;
        left = rest;
    }
    Ok(out)
}

fn append_block(
    decoder: &mut Decoder,
    block: &[u8],
    limit: usize,
    out: &mut Vec<u8>,
) -> Result<(), BatchError> {
    let size = decompress_len(block).map_err(|_| MALFORMED)?;
    if size > block.len().saturating_mul(MAX_GROWTH) {
        return Err(MALFORMED);
    }
    let start = out.len();
    if size > limit - start {
        return Err(BatchError::UncompressedTooLarge { limit });
    }
    out.resize(start + size, 0);
    let written = decoder
        .decompress(block, &mut out[start..])
        .map_err(|_| MALFORMED)?;
    if written == size {
        Ok(())
    } else {
        Err(MALFORMED)
    }
}

pub(super) fn compress(section: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_be_bytes());
    out.extend_from_slice(&VERSION.to_be_bytes());
    let mut encoder = Encoder::new();
    for block in section.chunks(BLOCK_SIZE) {
        let size_at = out.len();
        let start = size_at + 4;
        out.resize(start + max_compress_len(block.len()), 0);
        let size = encoder
            .compress(block, &mut out[start..])
            .expect("the buffer has the size that the codec asks for");
        out.truncate(start + size);
        let size = u32::try_from(size).expect("a block of 32 KiB");
        out[size_at..start].copy_from_slice(&size.to_be_bytes());
    }
}
