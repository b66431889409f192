//! The bytes on disk, as pure functions: `docs/format/` is their text, golden tests keep it true.

pub mod checkpoint;
pub mod chunk;
pub mod envelope;
pub mod index;
pub mod journal;
pub mod names;
pub mod segment;

#[cfg(test)]
mod golden;

use millstream_protocol::batch::crc32c;

/// Takes `N` bytes at `at`; the caller has checked the size.
pub(super) fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}
