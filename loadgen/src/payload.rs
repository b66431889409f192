//! What a generated record carries: a head that says which record it is, then filler.
//!
//! Layout of the head, little-endian:
//!
//! | bytes | field |
//! |---|---|
//! | 0..4 | magic: `MSv1` with a checksum, `MTim` without |
//! | 4..8 | CRC-32C of everything from byte 8 to the end of the value, or 0 |
//! | 8..16 | run: a random number, one for each run of the generator |
//! | 16..20 | producer, from 0 |
//! | 20..24 | partition it was sent to, numbered over all topics of the run |
//! | 24..32 | sequence: from 0 and dense for each (run, producer, partition) |
//! | 32..40 | when it was *intended* to be sent, microseconds since 1970 |

use bytes::BytesMut;
use millstream_protocol::batch::crc32c;
use rand::{RngExt, SeedableRng, rngs::SmallRng};

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
    /// The partition it was sent to, numbered over all topics of the run.
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

/// Bytes of filler that values are cut from. Longer than what compressors look back upon in a batch,
/// so that one value does not make another compressible.
const FILLER_SIZE: usize = 1 << 20;
/// Filler alternates between chance and zeros within so many bytes.
const CELL_SIZE: usize = 128;

/// Makes values: a head, then filler, of which a compressor can save a given part.
#[derive(Debug)]
pub struct Payload {
    filler: Vec<u8>,
    /// Where the next value's filler begins.
    position: usize,
    checked: bool,
}

impl Payload {
    /// Values of at most `largest` bytes, `compressible` between 0 and 1; the same for every run with
    /// this seed.
    #[must_use]
    pub fn new(largest: usize, checked: bool, compressible: f64, seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut filler = vec![0; FILLER_SIZE + largest];
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a part of a small number"
        )]
        let of_chance = ((1.0 - compressible) * CELL_SIZE as f64).round() as usize;
        for cell in filler.chunks_mut(CELL_SIZE) {
            let end = of_chance.min(cell.len());
            random.fill(&mut cell[..end]);
        }
        Self {
            filler,
            position: 0,
            checked,
        }
    }

    /// Writes the value of one record behind what is in `out`.
    pub fn write(&mut self, out: &mut BytesMut, head: &Head, size: usize) {
        let begin = out.len();
        out.extend_from_slice(&self.filler[self.position..self.position + size]);
        self.position = (self.position + size) % FILLER_SIZE;
        if let Some(value) = out.get_mut(begin..).filter(|it| it.len() >= HEAD_SIZE) {
            self.put_head(value, head);
        }
    }

    fn put_head(&self, out: &mut [u8], head: &Head) {
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

    fn made(size: usize, checked: bool) -> Vec<u8> {
        let mut out = BytesMut::from(&b"before"[..]);
        Payload::new(size, checked, 0.5, 1).write(&mut out, &HEAD, size);
        assert_eq!(&out[..6], b"before");
        out[6..].to_vec()
    }

    #[test]
    fn a_part_of_the_filler_is_zeros_and_the_rest_is_chance() {
        let mut payload = Payload::new(1_000, false, 0.75, 1);
        let mut out = BytesMut::new();
        for _ in 0..3_000 {
            payload.write(&mut out, &HEAD, 1_000);
        }
        let mut counts = [0_u32; 256];
        for byte in &out {
            counts[usize::from(*byte)] += 1;
        }
        // Heads and chance have zeros too.
        assert!((2_160_000..2_300_000).contains(&counts[0]), "{}", counts[0]);
        let rarest = counts.iter().min();
        assert!(rarest > Some(&2_000), "each byte comes up: {rarest:?}");
        assert_ne!(out[500..1_000], out[1_500..2_000], "values differ");
    }

    #[test]
    fn what_is_made_is_read() {
        for size in [HEAD_SIZE, 100, 5_000] {
            for checked in [false, true] {
                let value = made(size, checked);
                assert_eq!(value.len(), size);
                assert_eq!(parse(&value), Parsed::Whole(HEAD));
                assert_eq!(intended_us(&value), Some(HEAD.intended_us));
            }
        }
    }

    #[test]
    fn every_flipped_bit_of_a_checked_value_is_seen() {
        let value = made(64, true);
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
        assert_eq!(parse(&made(HEAD_SIZE - 1, true)), Parsed::Foreign);
    }
}
