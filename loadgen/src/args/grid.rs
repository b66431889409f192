//! Flags of the modes that run many loads: the grid of a sweep, the bound of a search.

use std::time::Duration;

use clap::Args;

use super::WriteArgs;
use crate::linger::LingerTime;
use crate::units::{parse_count, parse_duration, parse_percent, parse_size};

/// A rate on one axis of a sweep.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RatePoint {
    /// As fast as possible.
    Max,
    /// So many records a second.
    Records(u64),
    /// This part of what was reached as fast as possible, with the same batches.
    OfMax(f64),
}

/// A sweep.
#[derive(Clone, Debug, Args)]
pub struct SweepArgs {
    /// How long batches wait, one value or several, auto among them [default: --linger, or else
    /// 0,2ms]
    #[arg(long, value_name = "TIME,...", value_delimiter = ',')]
    pub lingers: Vec<LingerTime>,
    /// Bytes at which batches are full [default: --batch-size, or else 16KiB,256KiB]
    #[arg(long, value_name = "SIZE,...", value_delimiter = ',', value_parser = parse_size)]
    pub batch_sizes: Vec<u64>,
    /// Rates: records a second, max, or parts of what max reaches with the same batches
    #[arg(
        long,
        value_name = "RATE,...",
        value_delimiter = ',',
        value_parser = parse_rate,
        default_value = "10%,30%,50%,70%,85%,max"
    )]
    pub rates: Vec<RatePoint>,
    /// Which records, and for how long at each point [default: 1s of warm-up, then 3s].
    #[command(flatten)]
    pub write: WriteArgs,
}

/// A search.
#[derive(Clone, Debug, Args)]
pub struct SaturateArgs {
    /// The bound that 99 of 100 records have to keep
    #[arg(long, value_name = "TIME", default_value = "10ms", value_parser = parse_duration)]
    pub p99: Duration,
    /// How exactly to find the rate
    #[arg(long, value_name = "PERCENT", default_value = "5%", value_parser = parse_precision)]
    pub precision: f64,
    /// Which records, and for how long at each rate [default: 1s of warm-up, then 4s].
    #[command(flatten)]
    pub write: WriteArgs,
}

fn parse_rate(text: &str) -> Result<RatePoint, String> {
    let text = text.trim();
    if text == "max" {
        return Ok(RatePoint::Max);
    }
    if text.ends_with('%') {
        return match parse_percent(text)? {
            0.0 => Err("a rate of 0% sends nothing".to_owned()),
            part => Ok(RatePoint::OfMax(part)),
        };
    }
    match parse_count(text)? {
        0 => Ok(RatePoint::Max),
        rate => Ok(RatePoint::Records(rate)),
    }
}

fn parse_precision(text: &str) -> Result<f64, String> {
    let part = parse_percent(text)?;
    match (0.005..=0.5).contains(&part) {
        true => Ok(part),
        false => Err(format!(
            "{text:?} is no precision: write 5%, from 0.5% to 50%"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_in_every_form() {
        assert_eq!(parse_rate("max"), Ok(RatePoint::Max));
        assert_eq!(parse_rate("0"), Ok(RatePoint::Max));
        assert_eq!(parse_rate("50k"), Ok(RatePoint::Records(50_000)));
        assert_eq!(parse_rate("25%"), Ok(RatePoint::OfMax(0.25)));
        for bad in ["", "0%", "101%", "fast"] {
            assert!(parse_rate(bad).is_err(), "{bad:?} was taken");
        }
        assert!(parse_precision("0.1%").is_err());
        assert_eq!(parse_precision("5%"), Ok(0.05));
    }
}
