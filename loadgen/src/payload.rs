//! What a generated record carries: a head that says which record it is, then filler made once.
//!
//! Layout of the head, little-endian:
//!
//! | bytes | field |
//! |---|---|
//! | 0..4 | magic: `MSv1` with a checksum, `MTim` without |
//! | 4..8 | CRC-32C of everything from byte 8 to the end of the value, or 0 |
//! | 8..16 | run: a random number, one for each run of the generator |
//! | 16..20 | producer, from 0 |
//! | 20..24 | partition it was sent to |
//! | 24..32 | sequence: from 0 and dense for each (run, producer, partition) |
//! | 32..40 | when it was *intended* to be sent, microseconds since 1970 |

use millstream_protocol::batch::crc32c;

/// Bytes of the head. A shorter record carries filler alone and cannot be verified.
pub const HEAD_SIZE: usize = 40;

const CHECKED: [u8; 4] = *b"MSv1";
const TIMED: [u8; 4] = *b"MTim";
const CHECKED_FROM: usize = 8;

/// Which record this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The run of the generator that made it.
    pub run: u64,
    /// The producer within the run.
    pub producer: u32,
    /// The partition it was sent to.
    pub partition: u32,
    /// Its place among this producer's records for this partition.
    pub sequence: u64,
    /// When it was intended to be sent, microseconds since 1970.
    pub intended_us: i64,
}

/// What a value turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Ours; its checksum, if it has one, is right.
    Whole(Head),
    /// Ours by its magic, and its checksum is wrong.
    Corrupt,
    /// Not made by this generator.
    Foreign,
}

/// Makes values: the filler is written once, each record only changes the head.
#[derive(Debug)]
pub struct Payload {
    value: Vec<u8>,
    checked: bool,
}

impl Payload {
    /// Values of `record_size` bytes. The filler is pseudo-random hexadecimal text, the same for
    /// every run: compressors halve it, as they do much real text.
    #[must_use]
    pub fn new(record_size: usize, checked: bool) -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let value = (0..record_size)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                b"0123456789abcdef"[(state >> 60) as usize]
            })
            .collect();
        Self { value, checked }
    }

    /// The value of one record.
    pub fn value(&mut self, head: &Head) -> &[u8] {
        if self.value.len() < HEAD_SIZE {
            return &self.value;
        }
        let out = &mut self.value;
        out[0..4].copy_from_slice(if self.checked { &CHECKED } else { &TIMED });
        out[8..16].copy_from_slice(&head.run.to_le_bytes());
        out[16..20].copy_from_slice(&head.producer.to_le_bytes());
        out[20..24].copy_from_slice(&head.partition.to_le_bytes());
        out[24..32].copy_from_slice(&head.sequence.to_le_bytes());
        out[32..40].copy_from_slice(&head.intended_us.to_le_bytes());
        let crc = if self.checked {
            crc32c(&out[CHECKED_FROM..])
        } else {
            0
        };
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        out
    }
}

/// Reads a value's head and checks its checksum.
#[must_use]
pub fn parse(value: &[u8]) -> Parsed {
    let Some(head) = value.first_chunk::<HEAD_SIZE>() else {
        return Parsed::Foreign;
    };
    if head[0..4] == CHECKED {
        let crc = u32::from_le_bytes(field(head, 4));
        if crc32c(&value[CHECKED_FROM..]) != crc {
            return Parsed::Corrupt;
        }
    } else if head[0..4] != TIMED {
        return Parsed::Foreign;
    }
    Parsed::Whole(Head {
        run: u64::from_le_bytes(field(head, 8)),
        producer: u32::from_le_bytes(field(head, 16)),
        partition: u32::from_le_bytes(field(head, 20)),
        sequence: u64::from_le_bytes(field(head, 24)),
        intended_us: i64::from_le_bytes(field(head, 32)),
    })
}

/// When a value of ours was intended to be sent; the checksum is not looked at.
#[must_use]
pub fn intended_us(value: &[u8]) -> Option<i64> {
    let head = value.first_chunk::<HEAD_SIZE>()?;
    let ours = head[0..4] == CHECKED || head[0..4] == TIMED;
    ours.then(|| i64::from_le_bytes(field(head, 32)))
}

fn field<const N: usize>(head: &[u8; HEAD_SIZE], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&head[at..at + N]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: Head = Head {
        run: 0xfeed,
        producer: 3,
        partition: 7,
        sequence: 1 << 40,
        intended_us: 1_700_000_000_000_001,
    };

    #[test]
    fn what_is_made_is_read() {
        for size in [HEAD_SIZE, 100, 5_000] {
            for checked in [false, true] {
                let mut payload = Payload::new(size, checked);
                let value = payload.value(&HEAD).to_vec();
                assert_eq!(value.len(), size);
                assert_eq!(parse(&value), Parsed::Whole(HEAD));
                assert_eq!(intended_us(&value), Some(HEAD.intended_us));
            }
        }
    }

    #[test]
    fn every_flipped_bit_of_a_checked_value_is_seen() {
        let value = Payload::new(64, true).value(&HEAD).to_vec();
        for bit in 0..value.len() * 8 {
            let mut bad = value.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let want = if bit < 32 {
                Parsed::Foreign
            } else {
                Parsed::Corrupt
            };
            assert_eq!(parse(&bad), want, "bit {bit}");
        }
    }

    #[test]
    fn short_or_strange_values_are_foreign() {
        assert_eq!(parse(b""), Parsed::Foreign);
        assert_eq!(parse(&[b'M'; HEAD_SIZE]), Parsed::Foreign);
        assert_eq!(
            parse(Payload::new(HEAD_SIZE - 1, true).value(&HEAD)),
            Parsed::Foreign
        );
    }
}
