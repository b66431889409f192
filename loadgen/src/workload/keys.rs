//! Which keys records have: none, all equally often, or a few very often (Zipf's law), as keys of
//! customers and devices are.

use std::{fmt, str::FromStr};

use rand::{RngExt, rngs::SmallRng};
use rand_distr::{Distribution, Zipf};

use crate::units::{parse_count, show_count};

/// Bytes of a key: its number in hexadecimal.
pub const KEY_SIZE: usize = 16;

/// The distribution of keys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Keys {
    /// Records have no key, and go to all partitions in turn.
    None,
    /// So many keys, equally often.
    Uniform(u64),
    /// So many keys, the n-th most frequent with a frequency of n to the power of -exponent.
    Zipf {
        /// How many keys.
        count: u64,
        /// How uneven: 0 is uniform, 1 is Zipf's law.
        exponent: f64,
    },
}

impl Keys {
    /// Bytes of each key.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Uniform(_) | Self::Zipf { .. } => KEY_SIZE,
        }
    }

    /// Draws from it.
    #[must_use]
    pub fn sampler(&self) -> KeySampler {
        match *self {
            Self::None => KeySampler::None,
            Self::Uniform(count) => KeySampler::Uniform(count),
            Self::Zipf { count, exponent } => {
                #[expect(clippy::cast_precision_loss, reason = "the shape is kept")]
                let zipf = Zipf::new(count as f64, exponent);
                KeySampler::Zipf(zipf.expect("count and exponent were checked"), count)
            }
        }
    }
}

/// Draws keys; what a draw needs has been computed.
#[derive(Clone, Copy, Debug)]
pub enum KeySampler {
    /// No keys.
    None,
    /// So many.
    Uniform(u64),
    /// And so many.
    Zipf(Zipf<f64>, u64),
}

impl KeySampler {
    /// The next key's number, from 0.
    #[must_use]
    pub fn sample(&self, random: &mut SmallRng) -> Option<u64> {
        match self {
            Self::None => None,
            Self::Uniform(count) => Some(random.random_range(0..*count)),
            Self::Zipf(zipf, count) => {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "an integer from 1 to the count"
                )]
                let rank = zipf.sample(random) as u64;
                Some(rank.clamp(1, *count) - 1)
            }
        }
    }
}

/// The key of a number. Neighbours look different, as real keys do.
#[must_use]
pub fn key(number: u64) -> [u8; KEY_SIZE] {
    let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^= mixed >> 32;
    let mut key = [0; KEY_SIZE];
    for (index, digit) in key.iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(mixed >> (60 - 4 * index) & 15) as usize];
    }
    key
}

impl FromStr for Keys {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} are no keys: write none, uniform:1M (how many) or zipf:1M,1.1 (how many, \
                 exponent)"
            )
        };
        match text.split_once(':') {
            None if text == "none" => Ok(Self::None),
            Some(("uniform", count)) => match parse_count(count)? {
                0 => Err(wrong()),
                count => Ok(Self::Uniform(count)),
            },
            Some(("zipf", shape)) => {
                let (count, exponent) = shape.split_once(',').ok_or_else(wrong)?;
                let count = parse_count(count)?;
                let exponent: f64 = exponent.trim().parse().map_err(|_| wrong())?;
                if count == 0 || !(0.0..=10.0).contains(&exponent) {
                    return Err(wrong());
                }
                Ok(Self::Zipf { count, exponent })
            }
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::None => f.write_str("none"),
            Self::Uniform(count) => write!(f, "{}, uniform", show_count(count)),
            Self::Zipf { count, exponent } => {
                write!(f, "{}, Zipf with exponent {exponent}", show_count(count))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::SeedableRng;

    use super::*;

    fn counted(text: &str, keys: usize) -> Vec<u32> {
        let distribution = text.parse::<Keys>().unwrap().sampler();
        let mut random = SmallRng::seed_from_u64(1);
        let mut counts = vec![0; keys];
        for _ in 0..100_000 {
            let number = distribution.sample(&mut random).unwrap();
            counts[usize::try_from(number).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn zipf_keys_follow_the_law() {
        let counts = counted("zipf:100,1", 100);
        let ratio = f64::from(counts[0]) / f64::from(counts[9]);
        assert!(
            (9.0..11.0).contains(&ratio),
            "the tenth is a tenth: {ratio}"
        );
        // 1 over the harmonic number of 100.
        assert!((18_700..19_800).contains(&counts[0]), "{}", counts[0]);
        assert!(counts[99] > 0);
    }

    #[test]
    fn uniform_keys_are_even() {
        let counts = counted("uniform:10", 10);
        assert!(
            counts.iter().all(|count| (9_600..10_400).contains(count)),
            "{counts:?}"
        );
    }

    #[test]
    fn keys_differ() {
        let keys: BTreeSet<_> = (0..10_000).map(key).collect();
        assert_eq!(keys.len(), 10_000);
        assert!(key(7).iter().all(u8::is_ascii_hexdigit));
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            "",
            "some",
            "uniform:0",
            "zipf:10",
            "zipf:0,1",
            "zipf:10,-1",
            "zipf:10,NaN",
        ] {
            assert!(bad.parse::<Keys>().is_err(), "{bad:?} was taken");
        }
    }
}
