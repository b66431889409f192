//! Zigzag varints: seven bits a byte, the lowest first, as in Protocol Buffers.

/// Reads a 32-bit varint off the front; `None` if it is cut short or does not fit.
pub(super) fn read_i32(input: &mut &[u8]) -> Option<i32> {
    // Nearly every length and delta takes one byte.
    if let [byte @ 0..=0x7f, rest @ ..] = *input {
        *input = rest;
        return Some(unzigzag_32(u32::from(*byte)));
    }
    let raw = read_u64(input, 5)?;
    Some(unzigzag_32(u32::try_from(raw).ok()?))
}

/// Reads a 64-bit varint off the front; `None` if it is cut short or does not fit.
pub(super) fn read_i64(input: &mut &[u8]) -> Option<i64> {
    let raw = read_u64(input, 10)?;
    let half = (raw >> 1).cast_signed();
    Some(half ^ -(raw & 1).cast_signed())
}

fn unzigzag_32(raw: u32) -> i32 {
    (raw >> 1).cast_signed() ^ -(raw & 1).cast_signed()
}

fn read_u64(input: &mut &[u8], max_bytes: usize) -> Option<u64> {
    let mut value = 0u64;
    for (index, byte) in input.iter().take(max_bytes).enumerate() {
        let bits = u64::from(byte & 0x7f);
        // The tenth byte of 64 bits has room for one bit.
        if index == 9 && bits > 1 {
            return None;
        }
        value |= bits << (7 * index);
        if byte & 0x80 == 0 {
            *input = &input[index + 1..];
            return Some(value);
        }
    }
    None
}

/// Appends a 64-bit value; a 32-bit one has the same bytes.
pub(super) fn write(out: &mut Vec<u8>, value: i64) {
    let mut raw = zigzag(value);
    // One byte is by far the commonest; the rest goes out in one piece.
    if raw < 0x80 {
        out.push(raw.to_le_bytes()[0]);
        return;
    }
    let mut bytes = [0; 10];
    let mut size = 0;
    while raw >= 0x80 {
        bytes[size] = raw.to_le_bytes()[0] | 0x80;
        raw >>= 7;
        size += 1;
    }
    bytes[size] = raw.to_le_bytes()[0];
    out.extend_from_slice(&bytes[..=size]);
}

/// Bytes that [`write`] appends.
pub(super) fn size(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EDGES: [i64; 13] = [
        0,
        -1,
        1,
        63,
        -64,
        64,
        -65,
        8191,
        8192,
        i32::MAX as i64,
        i32::MIN as i64,
        i64::MAX,
        i64::MIN,
    ];

    #[test]
    fn edges_round_trip_at_the_size_foretold() {
        for value in EDGES {
            let mut bytes = Vec::new();
            write(&mut bytes, value);
            assert_eq!(bytes.len(), size(value), "{value}");
            assert_eq!(read_i64(&mut bytes.as_slice()), Some(value));
            let narrow = i32::try_from(value).ok();
            assert_eq!(read_i32(&mut bytes.as_slice()), narrow, "{value}");
        }
    }

    #[test]
    fn cut_short_or_too_long_is_none() {
        assert_eq!(read_i32(&mut [0x80].as_slice()), None);
        assert_eq!(read_i32(&mut [0xff; 5].as_slice()), None);
        assert_eq!(
            read_i32(&mut [0xff, 0xff, 0xff, 0xff, 0x1f].as_slice()),
            None
        );
        assert_eq!(read_i64(&mut [0xff; 11].as_slice()), None);
        let ten = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        assert_eq!(read_i64(&mut ten.as_slice()), None);
    }
}
