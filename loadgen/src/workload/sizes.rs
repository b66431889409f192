//! How large records are: always the same, anything between two bounds, or mostly small and now and
//! then very large, as real records are.

use std::{fmt, str::FromStr};

use rand::{RngExt, rngs::SmallRng};
use rand_distr::{Distribution, LogNormal};

use crate::{
    payload::HEAD_SIZE,
    units::{parse_size, show_count},
};

/// No record is larger: the protocol's batches end at 64 MiB.
const MAX_SIZE: u64 = 16 << 20;
/// A log-normal tail has no end: it is cut at so many times the median.
const LONGEST_TAIL: u64 = 100;

/// The distribution of record sizes, in bytes of the value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sizes {
    /// All the same.
    Fixed(u64),
    /// Any size from the first to the second, equally often.
    Uniform(u64, u64),
    /// The logarithm of the size is normal: half are smaller than the median, and sigma says how
    /// far the others spread. Cut where a value would not hold what verification needs.
    LogNormal {
        /// Half are smaller.
        median: u64,
        /// Standard deviation of the natural logarithm.
        sigma: f64,
    },
}

impl Sizes {
    /// The next size.
    #[must_use]
    pub fn sample(&self, random: &mut SmallRng) -> u64 {
        match *self {
            Self::Fixed(size) => size,
            Self::Uniform(from, until) => random.random_range(from..=until),
            Self::LogNormal { median, sigma } => {
                let normal = LogNormal::new(as_f64(median).ln(), sigma);
                let size = normal.expect("sigma was checked").sample(random);
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "positive, and cut at a size that fits"
                )]
                (size.round().min(as_f64(self.largest())) as u64)
            }
        }
        .max(self.smallest())
    }

    /// The largest there is.
    #[must_use]
    pub fn largest(&self) -> u64 {
        match *self {
            Self::Fixed(size) => size,
            Self::Uniform(_, until) => until,
            Self::LogNormal { median, .. } => (median * LONGEST_TAIL).min(MAX_SIZE),
        }
    }

    /// The smallest there may be.
    #[must_use]
    pub fn smallest(&self) -> u64 {
        match *self {
            Self::Fixed(size) => size,
            Self::Uniform(from, _) => from,
            Self::LogNormal { .. } => HEAD_SIZE as u64,
        }
    }

    /// About the mean.
    #[must_use]
    pub fn mean(&self) -> u64 {
        match *self {
            Self::Fixed(size) => size,
            Self::Uniform(from, until) => from.midpoint(until),
            Self::LogNormal { median, sigma } => {
                let mean = as_f64(median) * (sigma * sigma / 2.0).exp();
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "positive, and cut at a size that fits"
                )]
                (mean.min(as_f64(self.largest())) as u64)
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^53")]
fn as_f64(number: u64) -> f64 {
    number as f64
}

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is no record size: write 1000, 64KiB, uniform:100-2000 (bounds) or \
                 log-normal:1000,0.5 (median, sigma)"
            )
        };
        let sizes = match text.split_once(':') {
            None => Self::Fixed(parse_size(text)?),
            Some(("uniform", bounds)) => {
                let (from, until) = bounds.split_once('-').ok_or_else(wrong)?;
                Self::Uniform(parse_size(from)?, parse_size(until)?)
            }
            Some(("log-normal", shape)) => {
                let (median, sigma) = shape.split_once(',').ok_or_else(wrong)?;
                let median = parse_size(median)?;
                let sigma: f64 = sigma.trim().parse().map_err(|_| wrong())?;
                if median < HEAD_SIZE as u64 || !(0.0..=4.0).contains(&sigma) {
                    return Err(wrong());
                }
                Self::LogNormal { median, sigma }
            }
            Some(_) => return Err(wrong()),
        };
        if sizes.largest() > MAX_SIZE || sizes.smallest() > sizes.largest() {
            return Err(wrong());
        }
        Ok(sizes)
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Fixed(size) => write!(f, "{} bytes", show_count(size)),
            Self::Uniform(from, until) => {
                write!(f, "{} to {} bytes", show_count(from), show_count(until))
            }
            Self::LogNormal { median, sigma } => {
                let median = show_count(median);
                write!(f, "about {median} bytes (log-normal, sigma {sigma})")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn sampled(text: &str) -> (Sizes, Vec<u64>) {
        let sizes: Sizes = text.parse().unwrap();
        let mut random = SmallRng::seed_from_u64(1);
        let mut found: Vec<u64> = (0..10_000).map(|_| sizes.sample(&mut random)).collect();
        found.sort_unstable();
        (sizes, found)
    }

    #[test]
    fn a_fixed_size_is_always_the_same() {
        let (_, found) = sampled("1KiB");
        assert_eq!((found[0], found[9_999]), (1024, 1024));
    }

    #[test]
    fn uniform_sizes_reach_both_bounds_and_no_further() {
        let (sizes, found) = sampled("uniform:100-200");
        assert_eq!((found[0], found[9_999]), (100, 200));
        assert!((145..=155).contains(&found[5_000]), "{}", found[5_000]);
        assert_eq!(sizes.mean(), 150);
    }

    #[test]
    fn log_normal_sizes_have_their_median_and_spread() {
        let (sizes, found) = sampled("log-normal:1000,0.5");
        assert!((970..=1030).contains(&found[5_000]), "{}", found[5_000]);
        // 84.13 % lie below one sigma: 1,000 * e^0.5.
        assert!((1_590..=1_710).contains(&found[8_413]), "{}", found[8_413]);
        let mean = found.iter().sum::<u64>() / 10_000;
        assert!(mean.abs_diff(sizes.mean()) < 30, "{mean}");
        assert!(found[9_999] <= sizes.largest());
        let (_, wide) = sampled("log-normal:100,2");
        assert_eq!((wide[0], wide[9_999]), (HEAD_SIZE as u64, 10_000));
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            "x",
            "uniform:5",
            "uniform:9-5",
            "log-normal:1000",
            "log-normal:39,1",
            "log-normal:99,-1",
            "log-normal:99,NaN",
            "zipf:3",
            "17MiB",
            "uniform:1-1GiB",
        ] {
            assert!(bad.parse::<Sizes>().is_err(), "{bad:?} was taken");
        }
    }
}
