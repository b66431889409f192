//! The envelope of structured state: magic, versions, size and checksum around an archived value,
//! filled up with zeros to whole blocks. See `docs/format/checkpoint.md` and `index.md`.

use super::{crc32c, field};
use crate::io::align_up;

/// Size of an envelope's header in bytes.
pub const ENVELOPE_HEADER_SIZE: usize = 32;

const CRC_AT: usize = 8;
const CRC_COVERS_FROM: usize = 12;

/// Why bytes are not the envelope that was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAnEnvelope {
    /// Blank, torn, cut short or something else.
    #[error("blank or damaged")]
    Damaged,
    /// Written by a newer broker.
    #[error("format version {0} is not known")]
    Version(u16),
}

/// Wraps `payload`; `sequence` tells the newer of two copies.
#[must_use]
pub fn wrap(magic: [u8; 4], version: u16, sequence: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; ENVELOPE_HEADER_SIZE];
    bytes[0..4].copy_from_slice(&magic);
    bytes[4..6].copy_from_slice(&version.to_le_bytes());
    bytes[12..20].copy_from_slice(&(payload.len() as u64).to_le_bytes());
    bytes[20..28].copy_from_slice(&sequence.to_le_bytes());
    bytes.extend_from_slice(payload);
    let crc = crc32c(&bytes[CRC_COVERS_FROM..]);
    bytes[CRC_AT..CRC_COVERS_FROM].copy_from_slice(&crc.to_le_bytes());
    bytes.resize(align_up(bytes.len()), 0);
    bytes
}

/// Verifies an envelope, and gives its sequence and payload.
///
/// # Errors
/// [`NotAnEnvelope`].
pub fn unwrap(magic: [u8; 4], version: u16, bytes: &[u8]) -> Result<(u64, &[u8]), NotAnEnvelope> {
    if bytes.len() < ENVELOPE_HEADER_SIZE || bytes[0..4] != magic {
        return Err(NotAnEnvelope::Damaged);
    }
    let size = u64::from_le_bytes(field(bytes, 12));
    let payload = usize::try_from(size)
        .ok()
        .and_then(|size| bytes[ENVELOPE_HEADER_SIZE..].get(..size))
        .ok_or(NotAnEnvelope::Damaged)?;
    let covered = &bytes[CRC_COVERS_FROM..ENVELOPE_HEADER_SIZE + payload.len()];
    if crc32c(covered) != u32::from_le_bytes(field(bytes, CRC_AT)) {
        return Err(NotAnEnvelope::Damaged);
    }
    // The checksum holds, so a strange version is a newer broker's and not damage.
    let found = u16::from_le_bytes(field(bytes, 4));
    if found != version {
        return Err(NotAnEnvelope::Version(found));
    }
    Ok((u64::from_le_bytes(field(bytes, 20)), payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrapped_unwraps_and_damage_is_noticed() {
        let good = wrap(*b"TEST", 1, 9, b"payload");
        assert_eq!(good.len(), 4096);
        assert_eq!(unwrap(*b"TEST", 1, &good), Ok((9, &b"payload"[..])));
        assert_eq!(unwrap(*b"TEST", 2, &good), Err(NotAnEnvelope::Version(1)));
        for at in (0..4).chain(8..39) {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            assert_eq!(
                unwrap(*b"TEST", 1, &bad),
                Err(NotAnEnvelope::Damaged),
                "byte {at}"
            );
        }
        assert!(unwrap(*b"TEST", 1, &good[..30]).is_err());
        assert!(unwrap(*b"TEST", 1, &good[..35]).is_err());
    }
}
