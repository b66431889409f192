//! LZ4 in its frame format (lz4.github.io, "LZ4 Frame Format").
//!
//! The decoder is written here, over the block codec of `lz4_flex`, because it decodes straight
//! into the output, and because what a hostile frame can cost stays plain: never more than
//! [`MAX_GROWTH`] bytes for a byte. Checksums inside the frame are passed over: the batch's
//! CRC covers them.

use std::io::Write;

use lz4_flex::{
    block::decompress_into_with_dict,
    frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo},
};

use crate::batch::{BatchError, Compression};

const MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];
/// A match of 255 bytes more takes one byte.
const MAX_GROWTH: usize = 256;
/// How far back a block may refer, where blocks are linked.
const WINDOW_SIZE: usize = 64 << 10;
const NOT_COMPRESSED: u32 = 1 << 31;

const MALFORMED: BatchError = BatchError::Decompression(Compression::Lz4);

/// What a frame's descriptor says.
struct Frame {
    linked_blocks: bool,
    block_checksums: bool,
    content_checksum: bool,
    max_block_size: usize,
}

pub(super) fn decompress(section: &[u8], limit: usize) -> Result<Vec<u8>, BatchError> {
    let mut left = section;
    let frame = read_descriptor(&mut left)?;
    let mut out = Vec::new();
    loop {
        let word = u32::from_le_bytes(*take(&mut left)?);
        if word == 0 {
            break;
        }
        let size = (word & !NOT_COMPRESSED) as usize;
        let (block, rest) = left.split_at_checked(size).ok_or(MALFORMED)?;
        left = rest;
        if size > frame.max_block_size {
            return Err(MALFORMED);
        }
        if word & NOT_COMPRESSED == 0 {
            append_block(block, &frame, limit, &mut out)?;
        } else if size > limit - out.len() {
            return Err(BatchError::UncompressedTooLarge { limit });
        } else {
            out.extend_from_slice(block);
        }
        if frame.block_checksums {
            take::<4>(&mut left)?;
        }
    }
    if frame.content_checksum {
        take::<4>(&mut left)?;
    }
    if left.is_empty() {
        Ok(out)
    } else {
        Err(MALFORMED)
    }
}

fn read_descriptor(left: &mut &[u8]) -> Result<Frame, BatchError> {
    let magic = take::<4>(left)?;
    let [flags, block_descriptor] = *take::<2>(left)?;
    let version = flags >> 6;
    let reserved = flags & 0b10;
    let has_dictionary = flags & 1 != 0;
    if *magic != MAGIC || version != 1 || reserved != 0 || has_dictionary {
        return Err(MALFORMED);
    }
    let has_content_size = flags & 1 << 3 != 0;
    if has_content_size {
        take::<8>(left)?;
    }
    let _header_checksum = take::<1>(left)?;
    let max_block_size = match block_descriptor {
        0x40 => 64 << 10,
        0x50 => 256 << 10,
        0x60 => 1 << 20,
        0x70 => 4 << 20,
        _ => return Err(MALFORMED),
    };
    Ok(Frame {
        linked_blocks: flags & 1 << 5 == 0,
        block_checksums: flags & 1 << 4 != 0,
        content_checksum: flags & 1 << 2 != 0,
        max_block_size,
    })
}

fn append_block(
    block: &[u8],
    frame: &Frame,
    limit: usize,
    out: &mut Vec<u8>,
) -> Result<(), BatchError> {
    let start = out.len();
    let room = limit - start;
    let largest = frame
        .max_block_size
        .min(block.len().saturating_mul(MAX_GROWTH));
    out.resize(start + largest.min(room), 0);
    let (before, free) = out.split_at_mut(start);
    let window = if frame.linked_blocks {
        &before[start.saturating_sub(WINDOW_SIZE)..]
    } else {
        &[]
    };
    match decompress_into_with_dict(block, free, window) {
        Ok(size) => {
            out.truncate(start + size);
            Ok(())
        }
        // Too small a buffer and a malformed block are told apart by who made it small.
        Err(_) if room < largest => Err(BatchError::UncompressedTooLarge { limit }),
        Err(_) => Err(MALFORMED),
    }
}

fn take<'a, const N: usize>(left: &mut &'a [u8]) -> Result<&'a [u8; N], BatchError> {
    let (bytes, rest) = left.split_first_chunk().ok_or(MALFORMED)?;
    *left = rest;
    Ok(bytes)
}

pub(super) fn compress(section: &[u8], out: &mut Vec<u8>) {
    const NO_FAILURE: &str = "memory takes every write";
    // Kafka's Java clients refuse linked blocks (KIP-57).
    let info = FrameInfo::new()
        .block_mode(BlockMode::Independent)
        .block_size(BlockSize::Max64KB);
    let mut encoder = FrameEncoder::with_frame_info(info, out);
    encoder.write_all(section).expect(NO_FAILURE);
    encoder.finish().expect(NO_FAILURE);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(mode: BlockMode, checksums: bool, content: &[u8]) -> Vec<u8> {
        let info = FrameInfo::new()
            .block_mode(mode)
            .block_size(BlockSize::Max64KB)
            .block_checksums(checksums)
            .content_checksum(checksums)
            .content_size(checksums.then_some(content.len() as u64));
        let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
        encoder.write_all(content).expect("memory");
        encoder.finish().expect("memory")
    }

    /// Text that repeats itself at distances below and above a block.
    fn content() -> Vec<u8> {
        (0..300_000u32)
            .map(|i| (i / 7 % 251).to_le_bytes()[0])
            .collect()
    }

    #[test]
    fn every_kind_of_frame_opens() {
        let content = content();
        for mode in [BlockMode::Independent, BlockMode::Linked] {
            for checksums in [false, true] {
                let bytes = frame(mode, checksums, &content);
                assert_eq!(decompress(&bytes, content.len()), Ok(content.clone()));
            }
        }
    }

    #[test]
    fn a_frame_cut_anywhere_is_malformed() {
        let bytes = frame(BlockMode::Linked, true, &content()[..2000]);
        for cut in 0..bytes.len() {
            assert_eq!(
                decompress(&bytes[..cut], 1 << 20),
                Err(MALFORMED),
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn the_limit_holds_to_the_byte() {
        let content = content();
        let bytes = frame(BlockMode::Independent, false, &content);
        let limit = content.len() - 1;
        assert_eq!(
            decompress(&bytes, limit),
            Err(BatchError::UncompressedTooLarge { limit })
        );
    }

    #[test]
    fn many_tiny_blocks_that_may_be_large_cost_little() {
        // 4 MiB blocks of one literal each: room is taken for what the block's bytes allow.
        let mut bytes = vec![0x04, 0x22, 0x4d, 0x18, 0x60, 0x70, 0];
        for _ in 0..100_000 {
            bytes.extend_from_slice(&[2, 0, 0, 0, 0x10, b'x']);
        }
        bytes.extend_from_slice(&[0; 4]);
        assert_eq!(
            decompress(&bytes, 1 << 20).map(|out| out.len()),
            Ok(100_000)
        );
    }
}
