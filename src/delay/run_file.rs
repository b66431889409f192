//! A run on disk: blocks of entries, each with a header and a checksum. `docs/format/delay.md` has the layout.

use millstream_protocol::{Reader, Wire, batch::crc32c};

use super::recent::Entry;

/// Bytes of a block: what a disk writes at once.
pub const RUN_BLOCK_SIZE: usize = 4096;
/// Entries of a full block.
pub const BLOCK_ENTRIES: usize = (RUN_BLOCK_SIZE - HEADER_SIZE) / Entry::MIN_SIZE;

const HEADER_SIZE: usize = 32;
const MAGIC: [u8; 4] = *b"MSDU";
const VERSION: u16 = 1;

const _: () = assert!(BLOCK_ENTRIES == 127);

/// A block that is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a block of an index of due times is damaged")]
pub struct DamagedBlock;

/// Which block of a run holds an entry, and its place there.
#[must_use]
pub fn block_of(entry: u64) -> (u64, usize) {
    let entries = BLOCK_ENTRIES as u64;
    let place = usize::try_from(entry % entries).expect("below a block's entries");
    (entry / entries, place)
}

/// Writes block `index` of run `number` into `block`, which is one block long.
///
/// # Panics
/// If the entries do not fit.
pub fn encode_block(number: u64, index: u64, entries: &[Entry], block: &mut [u8]) {
    assert!(entries.len() <= BLOCK_ENTRIES && block.len() == RUN_BLOCK_SIZE);
    let mut out = Vec::with_capacity(RUN_BLOCK_SIZE);
    out.extend(MAGIC);
    0u32.encode(&mut out);
    VERSION.encode(&mut out);
    u16::try_from(entries.len()).expect("few").encode(&mut out);
    0u32.encode(&mut out);
    number.encode(&mut out);
    index.encode(&mut out);
    entries.iter().for_each(|entry| entry.encode(&mut out));
    out.resize(RUN_BLOCK_SIZE, 0);
    let crc = crc32c(&out[8..]);
    out[4..8].copy_from_slice(&crc.to_le_bytes());
    block.copy_from_slice(&out);
}

/// The entries of block `index` of run `number`.
///
/// # Errors
/// [`DamagedBlock`].
pub fn decode_block(number: u64, index: u64, block: &[u8]) -> Result<Vec<Entry>, DamagedBlock> {
    let read = || -> Option<Vec<Entry>> {
        let block = block.get(..RUN_BLOCK_SIZE)?;
        let mut reader = Reader::new(block);
        let magic = reader.take(4).ok()?;
        let crc = u32::decode(&mut reader).ok()?;
        if magic != MAGIC || crc != crc32c(&block[8..]) {
            return None;
        }
        let version = u16::decode(&mut reader).ok()?;
        let count = usize::from(u16::decode(&mut reader).ok()?);
        u32::decode(&mut reader).ok()?;
        let of = (
            u64::decode(&mut reader).ok()?,
            u64::decode(&mut reader).ok()?,
        );
        if version != VERSION || of != (number, index) || count > BLOCK_ENTRIES {
            return None;
        }
        let entries = (0..count).map(|_| Entry::decode(&mut reader).ok());
        entries.collect()
    };
    read().ok_or(DamagedBlock)
}

#[cfg(test)]
mod tests {
    use millstream_protocol::Offset;

    use super::{super::recent::IdHash, *};

    #[test]
    fn a_block_is_read_as_it_was_written_or_not_at_all() {
        let entry = |at: i64| Entry {
            due_ms: 1_000 + at,
            offset: Offset(at),
            id: IdHash(7, at.unsigned_abs()),
        };
        let entries: Vec<Entry> = (0..127).map(entry).collect();
        let mut block = vec![0; RUN_BLOCK_SIZE];
        encode_block(3, 9, &entries, &mut block);
        assert_eq!(decode_block(3, 9, &block), Ok(entries));
        assert_eq!(decode_block(3, 8, &block), Err(DamagedBlock));
        assert_eq!(decode_block(4, 9, &block), Err(DamagedBlock));
        for at in (0..RUN_BLOCK_SIZE).step_by(61) {
            block[at] ^= 1;
            assert_eq!(decode_block(3, 9, &block), Err(DamagedBlock), "{at}");
            block[at] ^= 1;
        }
    }
}
