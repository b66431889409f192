//! Putting one wrong byte in the directory of a frame right, so that it does not take from all partitions what
//! concerns none. Pure.
//!
//! Two checksums cover the directory: its own, and the frame's. CRC-32C is linear: one wrong byte changes it by
//! an amount that tells its place and its value, but for chance. The frame's checksum is asked first, as it does not
//! depend on what the directory says of itself (the frame's size apart, of which there are few others to try); the
//! directory's own must then hold too, and chance is out. A frame with more wrong bytes stays as it is.

use millstream_protocol::batch::crc32c;
use uuid::Uuid;

use crate::storage::format::journal::{CRC_COVERS_FROM, FrameHeader};

/// CRC-32C with its bits reversed (RFC 3720, B.4).
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// What a checksum becomes by one byte.
const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0_u32;
    while byte < 256 {
        table[byte as usize] = of_byte(byte);
        byte += 1;
    }
    table
};

const fn of_byte(byte: u32) -> u32 {
    let mut value = byte;
    let mut bit = 0;
    while bit < 8 {
        let taken = if value & 1 == 1 { POLYNOMIAL } else { 0 };
        value = (value >> 1) ^ taken;
        bit += 1;
    }
    value
}

/// The frame of journal `journal` that begins there, with the one wrong byte of its directory put right, if that
/// is what is wrong with it.
pub(super) fn corrected(bytes: &[u8], journal: Uuid) -> Option<Vec<u8>> {
    let (size, crc) = FrameHeader::claims(bytes)?;
    by_checksum(bytes.get(..size as usize), crc, journal).or_else(|| by_size(bytes, size, journal))
}

fn by_checksum(frame: Option<&[u8]>, crc: u32, journal: Uuid) -> Option<Vec<u8>> {
    let mut frame = frame?.to_vec();
    let covered = frame.get(CRC_COVERS_FROM..)?;
    for (place, wrong) in single_bytes(crc32c(covered) ^ crc, covered.len()) {
        let place = CRC_COVERS_FROM + place;
        frame[place] ^= wrong;
        if FrameHeader::of_directory(&frame, journal).is_some() {
            return Some(frame);
        }
        frame[place] ^= wrong;
    }
    None
}

/// Each place and byte that alone would make a checksum over `size` bytes differ so.
fn single_bytes(difference: u32, size: usize) -> Vec<(usize, u8)> {
    let mut found = Vec::new();
    if difference == 0 {
        return found;
    }
    // The first byte of what a byte makes of a checksum tells which it was.
    let mut byte_by_first = [0_u8; 256];
    for byte in 0..=u8::MAX {
        byte_by_first[(TABLE[usize::from(byte)] >> 24) as usize] = byte;
    }
    // What the checksum differed by after each byte, from the last one back to where it began.
    let mut after = difference;
    for place in (0..size).rev() {
        let byte = byte_by_first[(after >> 24) as usize];
        let before = after ^ TABLE[usize::from(byte)];
        if before == 0 {
            found.push((place, byte));
        }
        after = before << 8 | u32::from(byte);
    }
    found
}

/// With a wrong size the frame's checksum is taken over other bytes.
fn by_size(bytes: &[u8], claimed: u32, journal: Uuid) -> Option<Vec<u8>> {
    let wrong = (0..4).flat_map(|at| (1..=255_u32).map(move |byte| byte << (8 * at)));
    let mut frame = bytes.to_vec();
    let mut sizes = wrong.map(|wrong| claimed ^ wrong);
    let size = sizes.find(|size| {
        FrameHeader::set_size(&mut frame, *size);
        FrameHeader::of_directory(&frame, journal).is_some()
            && FrameHeader::verified(&frame).is_some()
    })?;
    frame.truncate(size as usize);
    Some(frame)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{
        format::journal::FRAME_HEADER_SIZE,
        journal::frames::tests::{ENTRY_SIZE, frame},
    };

    /// Places in the directory of a frame with so many entries, and whether its checksum is among them.
    fn directory(entry_count: usize) -> impl Iterator<Item = usize> {
        let entries = (0..entry_count).flat_map(|number| {
            let at = FRAME_HEADER_SIZE + ENTRY_SIZE * number;
            at..at + 96
        });
        (CRC_COVERS_FROM..FRAME_HEADER_SIZE).chain(entries)
    }

    #[test]
    fn one_wrong_byte_is_put_right_wherever_it_is_in_the_directory() {
        let journal = Uuid::from_u128(7);
        let good = frame(journal, 3, 9);
        let (size, _) = FrameHeader::claims(&good).unwrap();
        let whole = &good[..size as usize];
        for at in directory(9) {
            for wrong in [1, 2, 0x40, 0x80, 0xff, u8::try_from(at % 255 + 1).unwrap()] {
                let mut bad = good.clone();
                bad[at] ^= wrong;
                let found = corrected(&bad, journal);
                assert!(
                    found.as_deref() == Some(whole),
                    "{wrong:#x} in byte {at}: {}",
                    found.is_some()
                );
            }
        }
    }

    #[test]
    fn more_than_one_wrong_byte_is_not_guessed_at() {
        let journal = Uuid::from_u128(7);
        let good = frame(journal, 3, 9);
        let places: Vec<usize> = directory(9).collect();
        for (number, at) in places.iter().enumerate() {
            let mut bad = good.clone();
            bad[*at] ^= 1;
            bad[places[(number * 7 + 31) % places.len()]] ^= 0x10;
            assert_eq!(corrected(&bad, journal), None, "byte {at}");
        }
        // One in the directory, one in a record.
        let mut bad = good.clone();
        bad[FRAME_HEADER_SIZE + 20] ^= 1;
        bad[FRAME_HEADER_SIZE + 200] ^= 1;
        assert_eq!(corrected(&bad, journal), None);
        let mut other = good;
        other[20] ^= 1;
        assert_eq!(corrected(&other, Uuid::from_u128(8)), None);
        assert_eq!(corrected(&other[..100], journal), None);
        assert_eq!(corrected(&[], journal), None);
    }
}
